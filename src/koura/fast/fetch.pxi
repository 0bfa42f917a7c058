# What a group of packets will need is brought near while its headers are read, so that the cache misses overlap. Nothing is decided here.


cdef inline bint is_scattered(const Engine *e, const Table *table) noexcept nogil:
    """Whether there is more than fits the nearest caches, so that fetching ahead pays."""
    return e.sa_count > 16 or table.used > 64


cdef inline void fetch_sa(const Engine *e, uint32_t number, bint is_outbound) noexcept nogil:
    """The lines of an SA that a packet needs."""
    cdef uint8_t *start
    if number < e.sa_count:
        start = <uint8_t *> &e.sas[number]
        bring(start)
        bring(start + 64)
        bring(start + (128 if is_outbound else 192))


cdef inline void fetch_behind(const Engine *e, uint32_t number) noexcept nogil:
    """And what it points to: hot words, and the key's first line, which tells the others."""
    cdef const Sa *sa
    if number < e.sa_count:
        sa = &e.sas[number]
        if sa.key != NULL:
            bring(sa.hot)
            bring(sa.hot + 8)
            bring(sa.key)


cdef inline void fetch_key(const Sa *sa, bint is_outbound) noexcept nogil:
    """What the cipher will read of the key."""
    cdef const uint8_t *start = <const uint8_t *> sa.key
    cdef int part
    cdef uint32_t line
    for part in range(4):
        if part != (2 if is_outbound else 1):
            for line in range(sa.key.touched[part][1]):
                bring(start + 64 * (sa.key.touched[part][0] + line))


cdef inline void fetch_ring(const Sa *sa, uint32_t seq32) noexcept nogil:
    if sa.ring != NULL:
        bring(&sa.ring[(seq32 >> 6) & sa.ring_mask])
