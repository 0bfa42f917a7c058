# A burst on its way in: recognise, check, open, look inside; then, one by one and in order: check again, judge, commit, account.
# Nothing is committed for a packet before everything about it is known, so that "not mine" is always possible.


cdef bint refuse(Engine *e, Packet *packet, const Arrived *a, int end) noexcept nogil:
    """End a packet as the reference would; False where it is not known here that the destination is ours."""
    cdef Sa *sa = &e.sas[a.sa]
    packet.flow, packet.kind, packet.result_octets = NULL, DISCARDED, 0
    packet.end = <uint8_t> (end + 16 if a.protocol == 51 else end)
    if end == NO_SA:
        if a.protocol == 51:
            e.absent_ah += 1
        elif a.head.protocol == 17:
            e.absent_udp += 1
        else:
            e.absent_esp += 1
        return True
    if sa.receives_in != e.generation:
        return False
    sa.failed[end] += 1
    sa.has_failed = True
    sa.came += end != WRONG_PORT
    if end == WRONG_ICV or end == DUMMY:
        sa.opened_packets += 1
        sa.opened_octets += a.sealed
        sa.hot[FAILED_ICV] += end == WRONG_ICV
    elif REPLAYED <= end <= OVER:
        sa.hot[FAILED_REPLAY] += 1
    take_note_of_sa(e, sa, a.sa)
    return True


cdef inline Flow *judge(Engine *e, const Arrived *a, uint64_t at_ns) noexcept nogil:
    """What policy says of a packet in clear at last; NULL: ask the reference."""
    cdef Flow *flow
    if a.inside != PACKET:
        return NULL
    flow = table_find_at(&e.inbound, &a.key, a.hash)
    return flow if flow != NULL and is_current(e, flow, at_ns) else NULL


cdef bint accept(Engine *e, Packet *packet, const Arrived *a, uint64_t at_ns) noexcept nogil:
    """All of one protected packet, in order; False with nothing touched: the reference opens it again."""
    cdef Sa *sa = &e.sas[a.sa]
    cdef Flow *flow
    cdef int end
    if a.end == NO_SA or a.end == WRONG_PORT or a.end == WRONG_LENGTH:
        return refuse(e, packet, a, a.end)
    if infer(sa, a.seq32) != a.seq64:
        return False
    end = stale(sa, a.seq64)
    if end or a.end:  # What was stale before the burst is so now, perhaps for another reason.
        return end and refuse(e, packet, a, end)
    if not packet.job.is_right:
        return refuse(e, packet, a, WRONG_ICV)
    if a.head.protocol == 17 and (is_elsewhere(sa, &a.head) or (sa.has_src and memcmp(sa.src, a.head.src, 16) != 0)):
        return False  # It authenticated, so the peer has moved: key management is told.
    if a.inside == DUMMY_PACKET:
        if sa.receives_in != e.generation:
            return False
        commit(sa, a.seq64)
        return refuse(e, packet, a, DUMMY)
    flow = judge(e, a, at_ns)
    if flow == NULL or flow.kind != DELIVERED or would_cross(sa, packet.result_octets, a.seq64, at_ns):
        return False
    commit(sa, a.seq64)
    use(sa, packet.result_octets, at_ns)
    sa.came += 1
    sa.opened_packets += 1
    sa.opened_octets += a.sealed
    e.tap_in_packets += 1
    e.tap_in_octets += a.shown
    take_note_of_sa(e, sa, a.sa)
    take_note(e, flow, packet.result_octets, at_ns)
    packet.flow, packet.kind, packet.end = flow, flow.kind, NO_END
    return True


cdef bint pass_on(Engine *e, Packet *packet, const Arrived *a, uint64_t at_ns) noexcept nogil:
    """The same for one that came in clear."""
    cdef Flow *flow = judge(e, a, at_ns)
    if flow == NULL:
        return False
    take_note(e, flow, packet.octets, at_ns)
    packet.flow, packet.kind = flow, flow.kind
    return True


cdef int scan_in(Engine *e, const Packet *packets, const Head *heads, int count, Arrived *arrived) noexcept nogil:
    """See how some packets came; how many could be read."""
    cdef View v
    cdef bint is_fine
    cdef int i
    for i in range(count):
        v.data, v.octets = packets[i].data, packets[i].octets
        if heads != NULL:
            arrived[i].head, arrived[i].has_header = heads[i], False
            is_fine = recognise_esp(e, v, 0, &arrived[i])
        else:
            is_fine = recognise(e, v, &arrived[i])
        if not is_fine:
            return i
    return count


cdef void fetch_in(Engine *e, Arrived *arrived, int count) noexcept nogil:
    """SAs, and what these point to."""
    cdef Arrived *a
    cdef const Sa *sa
    cdef int i
    for i in range(count):
        if arrived[i].is_protected:
            table_touch(&e.spis, arrived[i].hash)
    for i in range(count):
        arrived[i].named = table_peek(&e.spis, arrived[i].hash, False) if arrived[i].is_protected else NULL
    for i in range(count):
        if arrived[i].named != NULL:
            fetch_sa(e, arrived[i].named.sa, False)
    for i in range(count):
        if arrived[i].named != NULL:
            fetch_behind(e, arrived[i].named.sa)
    for i in range(count):
        a = &arrived[i]
        if a.named != NULL and a.named.sa < e.sa_count and e.sas[a.named.sa].key != NULL:
            sa = &e.sas[a.named.sa]
            fetch_ring(sa, a.seq32)
            fetch_key(sa, False)


cdef int find_in(Engine *e, Packet *packets, Arrived *arrived, int count) noexcept nogil:
    """The SA of each, and whether its number may come; how many are the engine's."""
    cdef View v
    cdef int i
    for i in range(count):
        packets[i].flow = NULL
        v.data, v.octets = packets[i].data, packets[i].octets
        if arrived[i].is_protected and not identify(e, v, &arrived[i]):
            return i
    return count


cdef int start_in(Engine *e, Packet *packets, Arrived *arrived, int count) noexcept nogil:
    """The jobs of opening them; how many there was room for."""
    cdef int i
    for i in range(count):
        if not arrived[i].is_protected:
            packets[i].job, packets[i].result, packets[i].result_octets = NULL, packets[i].data, packets[i].octets
        elif not start_opening(e, &packets[i], &arrived[i]):
            return i
    return count


cdef int finish_in(Engine *e, Packet *packets, Arrived *arrived, int count, bint fetches, uint64_t at_ns) noexcept nogil:
    """Open what was started, look inside, and settle it in order; how many were the engine's to the end."""
    cdef Arrived *a
    cdef int i
    run_jobs(e, False)
    begin_jobs(e)
    stamp(e, CRYPT)
    for i in range(count):
        a = &arrived[i]
        a.inside = NOT_OURS
        if not a.is_protected:
            a.inside = name_flow(e, &packets[i], a, 0)
        elif packets[i].job != NULL and packets[i].job.is_right:
            a.inside = look_inside(e, &packets[i], a)
    if fetches:
        for i in range(count):
            if arrived[i].inside == PACKET:
                table_touch(&e.inbound, arrived[i].hash)
        for i in range(count):
            if arrived[i].inside == PACKET:
                table_peek(&e.inbound, arrived[i].hash, True)
    stamp(e, FINISH)
    for i in range(count):
        a = &arrived[i]
        if not (accept(e, &packets[i], a, at_ns) if a.is_protected else pass_on(e, &packets[i], a, at_ns)):
            count = i
            break
    stamp(e, COUNT)
    return count


cdef int open_burst(Engine *e, Packet *packets, const Head *heads, int count, uint64_t at_ns) noexcept nogil:
    """Answer packets in order until one is not ours; how many were. Results are in the arena, or the packet itself if it came in clear.

    heads: how each came, where that is known beside it (a UDP socket): then a packet is what was in the datagram. NULL: whole packets.
    They go through in groups, whose SAs and jobs stay in the nearest cache. What is opened fastest in company waits for all.
    """
    cdef Arrived arrived[BURST]
    cdef Arrived *group
    cdef bint goes_on = True
    cdef bint fetches = is_scattered(e, &e.inbound) or is_scattered(e, &e.spis)
    cdef int wanted, found, seen = 0, opened = 0
    e.arena_used = 0
    begin_jobs(e)
    while goes_on and seen < count:
        wanted = min(<int> GROUP, count - seen)
        group = &arrived[seen - opened]
        found = scan_in(e, packets + seen, heads + seen if heads != NULL else NULL, wanted, group)
        stamp(e, PARSE)
        if fetches:
            fetch_in(e, group, found)
            stamp(e, FETCH)
        found = find_in(e, packets + seen, group, found)
        stamp(e, FIND)
        found = start_in(e, packets + seen, group, found)
        stamp(e, WRITE)
        seen += found
        goes_on = found == wanted
        if not e.in_company or not goes_on or seen == count:
            found = finish_in(e, packets + opened, arrived, seen - opened, fetches, at_ns)
            if opened + found < seen:
                return opened + found
            opened = seen
    return opened
