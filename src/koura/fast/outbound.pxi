# A burst on its way out. Everything about a packet is decided before its sequence number is taken; nothing can fail after that.


cdef inline bint can_number(const Sa *sa) noexcept nogil:
    """A number and, where the cipher counts, an IV are left. RFC 4303 §3.3.3."""
    cdef uint64_t last = sa.hot[SEQUENCE_LAST]
    return last < sa.last_sequence and last < sa.hot[SEQUENCE_END] and (not sa.has_counter_iv or sa.hot[IV_LEFT] != 0)


cdef inline uint8_t ingress(const Sa *sa, uint8_t tos) noexcept nogil:
    """The outer TOS. xform.tunnel.ecn_ingress."""
    if sa.ecn_ingress == 0:
        return tos & 0xFC
    if sa.ecn_ingress == 1 and tos & 3 == 3:
        return tos & 0xFC | 2
    return tos


cdef inline bint is_ours(Engine *e, View v, const Head *head, Flow *flow, uint64_t at_ns) noexcept nogil:
    """Whether the flow's verdict can be carried out here."""
    if not is_current(e, flow, at_ns) or flow.kind == PUNTED:
        return False
    if flow.kind != PROTECTED:
        return True
    if v.octets > flow.room_octets:
        return False
    return not is_clamped(e, v, head)


cdef uint32_t outer_header(Engine *e, Sa *sa, View v, const Head *head, bint wraps, uint8_t *to, uint32_t octets) noexcept nogil:
    """Write the IP header of the result, `octets` in all, and the UDP header behind it; how many octets that took.

    A tunnel's is new (xform.tunnel.wrap), transport mode's the packet's own with another protocol.
    """
    cdef uint32_t length = sa.outer_octets if wraps else head.octets
    cdef uint8_t protocol = 17 if sa.has_encapsulation else sa.protocol
    cdef uint8_t tos
    cdef bint is_ipv4 = length == IPV4_OCTETS
    cdef bint is_df
    if wraps:
        memcpy(to, sa.outer, length)
        tos = ingress(sa, head.tos)
        if is_ipv4:
            is_df = sa.df == 1 or (sa.df == 2 and head.is_df)
            to[1], to[8] = tos, e.ttl
            if is_df:
                to[6] = 0x40
            else:
                memcpy(to + 4, e.pool + e.pool_cursor[0], 2)
                e.pool_cursor[0] += 2
                if to[4] == 0 and to[5] == 0:
                    to[4] = to[5] = 0xFF  # xform.tunnel.identification
        else:
            to[0], to[1], to[7] = 0x60 | tos >> 4, <uint8_t> (tos << 4), e.hop_limit
    else:
        copy_from(v, 0, to, length)
    if is_ipv4:
        put16(to + 2, <uint16_t> octets)
        to[9] = protocol
        finish_ipv4(to)
    else:
        put16(to + 4, <uint16_t> (octets - IPV6_OCTETS))
        to[6] = protocol
    if sa.has_encapsulation:
        put16(to + length, sa.sport)
        put16(to + length + 2, sa.dport)
        put16(to + length + 4, <uint16_t> (octets - length))
        put16(to + length + 6, 0)
        length += UDP_OCTETS
    return length


cdef bint protect(Engine *e, Packet *packet, const Head *head, Flow *flow, int number, uint64_t at_ns) noexcept nogil:
    """Number a packet and make its job. False, with nothing touched: not here."""
    cdef View v
    v.data, v.octets = packet.data, packet.octets
    cdef Sa *sa = live_sa(e, flow.sa, flow.serial)
    if sa == NULL or sa.choice != flow.choice or not can_number(sa) or (flow.is_tunnel and sa.outer_octets == 0):
        return False
    if not (e.is_esp_on if sa.protocol == 50 else e.is_ah_on):
        return False
    cdef bint is_esp = sa.protocol == 50
    cdef uint32_t skipped = 0 if flow.is_tunnel else head.octets
    cdef uint32_t front = (sa.outer_octets if flow.is_tunnel else head.octets) + (UDP_OCTETS if sa.has_encapsulation else 0)
    cdef uint32_t clear = v.octets - skipped
    cdef uint32_t align = 16 if sa.has_counter_iv and not sa.is_aead and e.ctr_compatibility else sa.align_octets
    cdef uint32_t padding = (0 - (clear + 2)) & (align - 1)
    cdef uint32_t total = front + (8 + sa.iv_octets + clear + padding + 2 + sa.icv_octets if is_esp else sa.ah_octets + clear)
    cdef uint32_t accounted = total - (UDP_OCTETS if sa.has_encapsulation else 0)
    cdef uint64_t seq64 = sa.hot[SEQUENCE_LAST] + 1
    cdef uint64_t counter
    cdef uint8_t next_header = (4 if head.version == 4 else 41) if flow.is_tunnel else head.protocol
    cdef uint8_t *out
    cdef uint8_t *trailer
    cdef Job *job
    cdef uint32_t i
    if total > 65535 or e.pool_octets - e.pool_cursor[0] < 18 or would_cross(sa, accounted, seq64, at_ns):
        return False
    out = arena_take(e, total + TAILROOM)
    if out == NULL:
        return False
    packet.result, packet.result_octets, packet.kind = out, total, PROTECTED
    out += outer_header(e, sa, v, head, flow.is_tunnel, out, total)
    sa.hot[SEQUENCE_LAST] = seq64
    job = job_for(e, sa, number)
    job.src = packet.data + skipped
    e.head_octets[number] = 0
    use(sa, accounted, at_ns)
    sa.sealed_packets += 1
    sa.sealed_octets += clear
    e.tap_out_packets += 1
    e.tap_out_octets += v.octets
    take_note_of_sa(e, sa, flow.sa)
    if not is_esp:
        put_ah(e, sa, job, packet, front, seq64, next_header, number)
        return True
    put32(out, sa.spi)
    put32(out + 4, <uint32_t> seq64)
    if sa.has_counter_iv:
        counter = swap64(sa.hot[IV_NEXT])
        memcpy(out + 8, &counter, 8)
        sa.hot[IV_NEXT] += 1
        sa.hot[IV_LEFT] -= 1
    elif sa.iv_octets:
        memcpy(out + 8, e.pool + e.pool_cursor[0], sa.iv_octets)
        e.pool_cursor[0] += sa.iv_octets
    trailer = packet.data + packet.octets
    for i in range(padding):
        trailer[i] = <uint8_t> (i + 1)
    trailer[padding] = <uint8_t> padding
    trailer[padding + 1] = next_header
    job.dst, job.octets = out + 8 + sa.iv_octets, clear + padding + 2
    number_job(sa, job, seq64, out + 8)
    return True


cdef int scan_out(Engine *e, Packet *packets, int count, uint64_t tag) noexcept nogil:
    """Read the headers of some packets, and fetch what they will need; how many could be read."""
    cdef Scan *scan
    cdef View v
    cdef int i, seen = 0
    cdef bint fetches = is_scattered(e, &e.outbound)
    for i in range(count):
        scan = &e.scans[i]
        v.data, v.octets = packets[i].data, packets[i].octets
        if not parse(v, &scan.head):
            break
        key_of(&scan.key, &scan.head, tag)
        scan.hash = hash_of(&e.outbound, &scan.key)
        if fetches:
            table_touch(&e.outbound, scan.hash)
        seen += 1
    if fetches:
        for i in range(seen):
            e.scans[i].flow = table_peek(&e.outbound, e.scans[i].hash)
        for i in range(seen):
            if e.scans[i].flow != NULL:
                fetch_sa(e, e.scans[i].flow.sa, True)
        for i in range(seen):
            if e.scans[i].flow != NULL:
                fetch_behind(e, e.scans[i].flow.sa, 0)
    return seen


cdef inline bint send(Engine *e, Packet *packet, const Scan *scan, int number, uint64_t at_ns) noexcept nogil:
    """One packet on its way; False, with nothing touched: not here."""
    cdef View v
    cdef Flow *flow = table_find_at(&e.outbound, &scan.key, scan.hash)
    packet.flow = flow
    v.data, v.octets = packet.data, packet.octets
    if flow == NULL or not is_ours(e, v, &scan.head, flow, at_ns):
        return False
    if flow.kind == PROTECTED:
        if not protect(e, packet, &scan.head, flow, number, at_ns):
            return False
    else:
        packet.kind = flow.kind
        packet.result, packet.result_octets = packet.data, packet.octets
    take_note(e, flow, packet.octets, at_ns)
    return True


cdef int seal_burst(Engine *e, Packet *packets, int count, uint64_t tag, uint64_t at_ns) noexcept nogil:
    """Answer packets in order until one is not ours; how many were. Results are in the arena, or the packet itself where it stays."""
    cdef int i, seen, wanted, done = 0
    cdef bint goes_on = True
    e.arena_used = 0
    e.queued[0] = e.queued[1] = 0
    while goes_on and done < count:
        wanted = min(<int> GROUP, count - done)
        seen = scan_out(e, packets + done, wanted, tag)
        goes_on = seen == wanted
        for i in range(seen):
            if not send(e, &packets[done], &e.scans[i], done, at_ns):
                goes_on = False
                break
            done += 1
    for i in range(DRIVERS):
        if e.queued[i]:
            e.drivers[i].seal(e.queue[i], e.queued[i])
    for i in range(done):
        if packets[i].kind != PROTECTED:
            continue
        if e.head_octets[i]:
            finish_ah(e, &packets[i], i)
        elif packets[i].result[0] >> 4 == 6 and packets[i].result[6] == 17:
            udp_checksum_ipv6(packets[i].result, packets[i].result_octets)
    return done
