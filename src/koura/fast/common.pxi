# What both directions need: is the SA alive, would this packet cross a limit, accounting.


cdef inline void take_note(Engine *e, Flow *flow, uint32_t octets, uint64_t at_ns) noexcept nogil:
    """One packet of this flow; Python's counters get it when they are settled."""
    flow.packets += 1
    flow.octets += octets
    flow.last_ns = at_ns
    if not flow.is_dirty:
        flow.is_dirty = 1
        e.dirty[e.dirty_count] = flow
        e.dirty_count += 1


cdef inline void take_note_of_sa(Engine *e, Sa *sa, uint32_t index) noexcept nogil:
    if not sa.is_dirty:
        sa.is_dirty = True
        e.dirty_sas[e.dirty_sa_count] = index
        e.dirty_sa_count += 1


cdef inline bint is_current(Engine *e, Flow *flow, uint64_t at_ns) noexcept nogil:
    """Whether what the flow remembers still holds; and there is room to note it."""
    return flow.generation == e.generation and at_ns < flow.deadline_ns and e.dirty_count < e.dirty_room


cdef inline bint is_clamped(const Engine *e, View v, const Head *head) noexcept nogil:
    """A SYN whose MSS the reference lowers."""
    return e.clamps_mss and head.protocol == 6 and octet_at(v, head.octets + 13) & 2 != 0


cdef inline Sa *live_sa(Engine *e, uint32_t index, uint32_t serial) noexcept nogil:
    """The SA behind a handle, if it is the same one, and usable."""
    cdef Sa *sa
    if index >= e.sa_count:
        return NULL
    sa = &e.sas[index]
    if not sa.is_taken or sa.serial != serial or sa.hot[EPOCH] != sa.epoch:
        return NULL
    return sa if sa.hot[STATE] == 1 or sa.hot[STATE] == 2 else NULL  # mature, dying


cdef inline uint64_t spi_word(uint8_t version, uint8_t protocol) noexcept nogil:
    """The last word of a key in the table of SPIs. Protocol 0: an address of ours."""
    return <uint64_t> protocol << 8 | version


cdef inline uint32_t spi_bucket(const Engine *e, uint32_t spi) noexcept nogil:
    """Where SAs with this SPI are counted; nobody outside can tell."""
    return <uint32_t> (((spi ^ e.spi_seed) * <uint64_t> 0x9E3779B97F4A7C15) >> 44)


cdef inline void fetch_sa(const Engine *e, uint32_t number, bint is_outbound) noexcept nogil:
    """The lines of an SA that a packet needs."""
    cdef uint8_t *start
    if number < e.sa_count:
        start = <uint8_t *> &e.sas[number]
        prefetch(start)
        prefetch(start + 64)
        prefetch(start + 128)
        prefetch(start + (192 if is_outbound else 256))


cdef inline void fetch_behind(const Engine *e, uint32_t number, uint32_t seq32) noexcept nogil:
    """And what it points to: hot words, window, key."""
    cdef const Sa *sa
    cdef const uint8_t *key
    cdef int part
    cdef uint32_t line
    if number >= e.sa_count:
        return
    sa = &e.sas[number]
    if sa.key == NULL:
        return
    prefetch(sa.hot)
    prefetch(<uint8_t *> sa.hot + 64)
    prefetch(<uint8_t *> sa.hot + 112)
    if seq32 and sa.ring != NULL:
        prefetch(&sa.ring[(seq32 >> 6) & sa.ring_mask])
    key = <const uint8_t *> sa.key
    for part in range(3):
        for line in range(sa.key.touched[part][1]):
            prefetch(key + 64 * (sa.key.touched[part][0] + line))


cdef inline bint is_scattered(const Engine *e, const Table *table) noexcept nogil:
    """Whether there is more than fits the nearest caches, so that fetching ahead pays."""
    return e.sa_count > 16 or table.used > 64


cdef inline bint would_cross(const Sa *sa, uint32_t octets, uint64_t number, uint64_t at_ns) noexcept nogil:
    """Whether this packet is its SA's first, or reaches a limit: the reference then tells key management. sadb.lifetime."""
    cdef uint64_t packets = sa.hot[PACKETS] + 1
    cdef uint64_t total = sa.hot[OCTETS] + octets
    if sa.hot[USED_FIRST_NS] == 0 or packets >= sa.hard_packets or total >= sa.hard_octets or at_ns >= sa.hard_ns:
        return True
    if sa.hot[SOFT_TOLD]:
        return False
    if number > sa.nearly_spent or sa.hot[SEQUENCE_LAST] > sa.nearly_spent or sa.hot[WINDOW_TOP] > sa.nearly_spent:
        return True
    return packets >= sa.soft_packets or total >= sa.soft_octets or at_ns >= sa.soft_ns


cdef inline void use(Sa *sa, uint32_t octets, uint64_t at_ns) noexcept nogil:
    sa.hot[PACKETS] += 1
    sa.hot[OCTETS] += octets
    sa.hot[USED_LAST_NS] = at_ns


cdef inline uint8_t *arena_take(Engine *e, uint64_t octets) noexcept nogil:
    """Room for one result, 64 octets aligned; NULL: the burst ends here and goes on in the next."""
    cdef uint64_t start = (e.arena_used + 63) & ~<uint64_t> 63
    if start + octets > e.arena_octets:
        return NULL
    e.arena_used = start + octets
    return e.arena + start


cdef inline Job *job_for(Engine *e, Sa *sa, int number) noexcept nogil:
    """The next job, in its driver's queue. `number`: of the packet."""
    cdef Job *job = &e.jobs[number]
    job.key = sa.key
    e.queue[sa.driver][e.queued[sa.driver]] = job
    e.queued[sa.driver] += 1
    return job


cdef inline void number_job(const Sa *sa, Job *job, uint64_t seq64, const uint8_t *iv) noexcept nogil:
    """Nonce, AAD and tail. ESN's high half: in an AEAD's AAD (RFC 4106 §5), behind all for the others (RFC 4303 §2.2.1)."""
    memcpy(job.nonce, sa.nonce, 16)
    if sa.has_counter_iv:
        memcpy(job.nonce + sa.salt_octets, iv, 8)
    else:
        memcpy(job.nonce, iv, sa.iv_octets)
    job.tail_octets = 0
    job.head_octets = 8 + sa.iv_octets
    put32(job.aad, sa.spi)
    if sa.has_esn:
        put32(job.aad + 4, <uint32_t> (seq64 >> 32))
        put32(job.aad + 8, <uint32_t> seq64)
        job.aad_octets = 12
        if not sa.is_aead and sa.icv_octets:
            memcpy(job.tail, job.aad + 4, 4)
            job.tail_octets = 4
    else:
        put32(job.aad + 4, <uint32_t> seq64)
        job.aad_octets = 8


cdef inline void udp_checksum_ipv6(uint8_t *packet, uint32_t octets) noexcept nogil:
    """RFC 8200 §8.1: UDP over IPv6 has a checksum."""
    cdef uint32_t length = octets - IPV6_OCTETS
    cdef uint16_t sum16
    cdef uint64_t total = sum_of(packet + 8, 32) + swap16(<uint16_t> length) + swap16(17)
    packet[46] = packet[47] = 0
    sum16 = folded(total + wide_sum(packet + IPV6_OCTETS, length))
    if sum16 == 0:
        sum16 = 0xFFFF
    memcpy(packet + 46, &sum16, 2)


cdef inline bint is_udp_right(View v, uint32_t start, uint8_t version) noexcept nogil:
    """UDP from `start` to the end has its right checksum, or says with 0 that it has none. RFC 1122 §4.1.3.4."""
    cdef uint32_t length = v.octets - start
    cdef uint64_t total = sum_of(v.data + 12, 8) if version == 4 else sum_of(v.data + 8, 32)
    if word_at(v, start + 6) == 0:
        return True
    return folded(total + swap16(<uint16_t> length) + swap16(17) + wide_sum(v.data + start, length)) == 0
