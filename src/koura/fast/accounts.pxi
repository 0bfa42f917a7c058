# What both directions ask of an SA and write into it: is it alive, would this packet cross a limit, accounting; and the ledger of time.


cdef inline void stamp(Engine *e, Stage stage) noexcept nogil:
    """What has passed since the last stamp was this stage's."""
    cdef uint64_t now
    if e.ledger != NULL:
        now = ticks()
        e.ledger[<int> stage] += now - e.stamped
        e.stamped = now


cdef inline void take_note(Engine *e, Flow *flow, uint32_t octets, uint64_t at_ns) noexcept nogil:
    """One packet of this flow; Python's counters get it when they are settled. There is room to note every flow there can be."""
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


cdef inline bint is_current(const Engine *e, const Flow *flow, uint64_t at_ns) noexcept nogil:
    """Whether what the flow remembers still holds, and can be carried out here."""
    return flow.generation == e.generation and at_ns < flow.deadline_ns and flow.kind != PUNTED


cdef inline bint is_clamped(const Engine *e, View v, const Head *head) noexcept nogil:
    """A SYN whose MSS the reference lowers."""
    return e.clamps_mss and head.protocol == 6 and octet_at(v, head.octets + 13) & 2 != 0


cdef inline Sa *live_sa(Engine *e, uint32_t index, uint32_t serial) noexcept nogil:
    """The SA behind a handle, if it is the same one, and usable."""
    cdef Sa *sa
    if index >= e.sa_count:
        return NULL
    sa = &e.sas[index]
    if sa.key == NULL or sa.serial != serial or sa.hot[EPOCH] != sa.epoch:
        return NULL
    return sa if sa.hot[STATE] == 1 or sa.hot[STATE] == 2 else NULL  # mature, dying


cdef bint crosses(const Sa *sa, uint64_t packets, uint64_t total, uint64_t number, uint64_t at_ns) noexcept nogil:
    """Whether so many packets or octets, this number or time reach a limit that was not told yet. sadb.lifetime."""
    if packets >= sa.hard_packets or total >= sa.hard_octets or at_ns >= sa.hard_ns:
        return True
    if sa.hot[SOFT_TOLD]:
        return False
    if number > sa.nearly_spent or sa.hot[SEQUENCE_LAST] > sa.nearly_spent or sa.hot[WINDOW_TOP] > sa.nearly_spent:
        return True
    return packets >= sa.soft_packets or total >= sa.soft_octets or at_ns >= sa.soft_ns


cdef inline bint would_cross(const Sa *sa, uint32_t octets, uint64_t number, uint64_t at_ns) noexcept nogil:
    """Whether this packet is its SA's first, or reaches a limit: the reference then tells key management."""
    cdef uint64_t packets = sa.hot[PACKETS] + 1
    cdef uint64_t total = sa.hot[OCTETS] + octets
    cdef uint64_t highest = max(number, max(sa.hot[SEQUENCE_LAST], sa.hot[WINDOW_TOP]))
    if sa.hot[USED_FIRST_NS] == 0:
        return True
    if packets < sa.near_packets and total < sa.near_octets and at_ns < sa.near_ns and highest <= sa.nearly_spent:
        return False
    return crosses(sa, packets, total, number, at_ns)


cdef inline void use(Sa *sa, uint32_t octets, uint64_t at_ns) noexcept nogil:
    sa.hot[PACKETS] += 1
    sa.hot[OCTETS] += octets
    sa.hot[USED_LAST_NS] = at_ns
