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


cdef inline bint is_within(const Engine *e, View v, const Head *head, const Flow *flow) noexcept nogil:
    """Whether a packet is none that has to be cut, or whose segment size has to be clamped."""
    return v.octets <= flow.room_octets and not is_clamped(e, v, head)


cdef inline uint32_t outer_header(
    Engine *e, const Sa *sa, View v, const Head *head, bint wraps, uint8_t *to, uint32_t octets
) noexcept nogil:
    """Write the IP header of the result, `octets` in all, and the UDP header behind it; how many octets that took.

    A tunnel's is new (xform.tunnel.wrap), transport mode's the packet's own with another protocol.
    """
    cdef uint32_t length = sa.outer_octets if wraps else head.octets
    cdef uint8_t protocol = 17 if sa.has_encapsulation else sa.protocol
    cdef const uint8_t *shown = &sa.outer[0] if wraps else v.data
    cdef uint8_t tos
    cdef uint16_t identification = 0
    cdef uint32_t first, second, third
    if length == IPV4_OCTETS:
        if wraps:
            tos, third, second = ingress(sa, head.tos), e.ttl, 0
            if sa.df == 1 or (sa.df == 2 and head.is_df):
                second = 0x40 << 16
            else:
                memcpy(&identification, e.pool + e.pool_cursor[0], 2)
                second = identification if identification else 0xFFFF  # xform.tunnel.identification
                e.pool_cursor[0] += 2
        else:
            tos, third = shown[1], shown[8]
            memcpy(&second, shown + 4, 4)
        first = 0x45 | <uint32_t> tos << 8 | <uint32_t> swap16(<uint16_t> octets) << 16
        put_ipv4(to, shown, first, second, third | <uint32_t> protocol << 8)
    else:
        memcpy(to, shown, IPV6_OCTETS)
        if wraps:
            tos = ingress(sa, head.tos)
            to[0], to[1], to[7] = 0x60 | tos >> 4, <uint8_t> (tos << 4), e.hop_limit
        put16(to + 4, <uint16_t> (octets - IPV6_OCTETS))
        to[6] = protocol
    if sa.has_encapsulation:
        put16(to + length, sa.sport)
        put16(to + length + 2, sa.dport)
        put16(to + length + 4, <uint16_t> (octets - length))
        put16(to + length + 6, 0)
        length += UDP_OCTETS
    return length


cdef inline void put_esp(
    Engine *e, Sa *sa, Packet *packet, uint8_t *out, uint64_t seq64, uint32_t clear, uint32_t padding, uint8_t next_header
) noexcept nogil:
    """Header and IV at `out`, padding and trailer behind the clear octets, and the job of sealing them."""
    cdef uint8_t *trailer = packet.data + packet.octets
    cdef uint64_t counter
    cdef Job *job = packet.job
    put32(out, sa.spi)
    put32(out + 4, <uint32_t> seq64)
    if sa.has_counter_iv:
        counter = swap64(sa.hot[IV_NEXT])
        memcpy(out + 8, &counter, 8)
        sa.hot[IV_NEXT] += 1
        sa.hot[IV_LEFT] -= 1
    elif sa.iv_octets == 16:
        memcpy(out + 8, e.pool + e.pool_cursor[0], 16)
        e.pool_cursor[0] += 16
    memcpy(trailer, PADDING, 16)
    trailer[padding] = <uint8_t> padding
    trailer[padding + 1] = next_header
    job.dst, job.octets = out + 8 + sa.iv_octets, clear + padding + 2
    number_job(sa, job, seq64, out + 8)


cdef inline uint32_t dice_of(const Sa *sa, const Head *head, bint wraps) noexcept nogil:
    """How many octets of the pool a packet takes. Where they are not left, the reference draws them, which fills the pool again."""
    cdef bint is_numbered = wraps and sa.outer_octets == IPV4_OCTETS and sa.df != 1 and not (sa.df == 2 and head.is_df)
    return (2 if is_numbered else 0) + (sa.iv_octets if sa.protocol == 50 and not sa.has_counter_iv and sa.iv_octets == 16 else 0)


cdef inline bint protect(Engine *e, Packet *packet, const Scan *scan, uint64_t at_ns) noexcept nogil:
    """Number a packet and make its job. False, with nothing touched: not here."""
    cdef const Head *head = &scan.head
    cdef Flow *flow = scan.flow
    cdef Sa *sa = scan.sa
    cdef View v
    cdef bint is_esp = sa.protocol == 50
    cdef uint32_t skipped = 0 if flow.is_tunnel else head.octets
    cdef uint32_t front = (sa.outer_octets if flow.is_tunnel else head.octets) + (UDP_OCTETS if sa.has_encapsulation else 0)
    cdef uint32_t clear = packet.octets - skipped
    cdef uint32_t align = 16 if sa.has_counter_iv and not sa.is_aead and e.ctr_compatibility else sa.align_octets
    cdef uint32_t padding = (0 - (clear + 2)) & (align - 1)
    cdef uint32_t total = front + (8 + sa.iv_octets + clear + padding + 2 + sa.icv_octets if is_esp else sa.ah_octets + clear)
    cdef uint32_t accounted = total - (UDP_OCTETS if sa.has_encapsulation else 0)
    cdef uint64_t seq64 = sa.hot[SEQUENCE_LAST] + 1
    cdef uint8_t next_header = (4 if head.version == 4 else 41) if flow.is_tunnel else head.protocol
    cdef uint32_t dice = dice_of(sa, head, flow.is_tunnel)
    cdef uint8_t *out
    cdef uint32_t length
    if not can_number(sa) or total > 65535 or e.pool_octets - e.pool_cursor[0] < dice or would_cross(sa, accounted, seq64, at_ns):
        return False
    out = arena_take(e, total + TAILROOM)
    if out == NULL:
        return False
    v.data, v.octets = packet.data, packet.octets
    packet.result, packet.result_octets, packet.kind = out, total, PROTECTED
    length = outer_header(e, sa, v, head, flow.is_tunnel, out, total)
    sa.hot[SEQUENCE_LAST] = seq64
    e.head_octets[e.job_count] = 0
    packet.job = job_for(e, sa)
    packet.job.src = packet.data + skipped
    use(sa, accounted, at_ns)
    sa.sealed_packets += 1
    sa.sealed_octets += clear
    take_note_of_sa(e, sa, flow.sa)
    if is_esp:
        put_esp(e, sa, packet, out + length, seq64, clear, padding, next_header)
    else:
        put_ah(e, sa, packet, front, seq64, next_header)
    return True


cdef int scan_out(Engine *e, const Packet *packets, int count, uint64_t tag) noexcept nogil:
    """Read the headers of some packets; how many could be read."""
    cdef Scan *scan
    cdef View v
    cdef int i
    for i in range(count):
        scan = &e.scans[i]
        v.data, v.octets = packets[i].data, packets[i].octets
        if not parse(v, &scan.head):
            return i
        key_of(&scan.key, &scan.head, tag)
        scan.hash = hash_of(&e.outbound, &scan.key)
    return count


cdef void fetch_out(Engine *e, int count) noexcept nogil:
    """Flows, SAs, and what these point to."""
    cdef Flow *flow
    cdef int i
    for i in range(count):
        table_touch(&e.outbound, e.scans[i].hash)
    for i in range(count):
        e.scans[i].flow = table_peek(&e.outbound, e.scans[i].hash, True)
    for i in range(count):
        if e.scans[i].flow != NULL:
            fetch_sa(e, e.scans[i].flow.sa, True)
    for i in range(count):
        if e.scans[i].flow != NULL:
            fetch_behind(e, e.scans[i].flow.sa)
    for i in range(count):
        flow = e.scans[i].flow
        if flow != NULL and flow.sa < e.sa_count and e.sas[flow.sa].key != NULL:
            fetch_key(&e.sas[flow.sa], True)


cdef int find_out(Engine *e, Packet *packets, int count, uint64_t at_ns) noexcept nogil:
    """The flow of each, and its SA; how many have what can be carried out here."""
    cdef Scan *scan
    cdef Flow *flow
    cdef Sa *sa
    cdef View v
    cdef int i
    for i in range(count):
        scan = &e.scans[i]
        flow = table_find_at(&e.outbound, &scan.key, scan.hash)
        packets[i].flow = scan.flow = flow
        if flow == NULL or not is_current(e, flow, at_ns):
            return i
        if flow.kind != PROTECTED:
            continue
        v.data, v.octets = packets[i].data, packets[i].octets
        scan.sa = sa = live_sa(e, flow.sa, flow.serial)
        if sa == NULL or sa.choice != flow.choice or not is_within(e, v, &scan.head, flow):
            return i
        if (flow.is_tunnel and sa.outer_octets == 0) or not (e.is_esp_on if sa.protocol == 50 else e.is_ah_on):
            return i
    return count


cdef int write_out(Engine *e, Packet *packets, int count, uint64_t at_ns) noexcept nogil:
    """Number and write them, in order; how many could be."""
    cdef Packet *packet
    cdef int i
    for i in range(count):
        packet = &packets[i]
        packet.job = NULL
        if packet.flow.kind != PROTECTED:
            packet.kind = packet.flow.kind
            packet.result, packet.result_octets = packet.data, packet.octets
        elif not protect(e, packet, &e.scans[i], at_ns):
            return i
    return count


cdef inline void count_out(Engine *e, const Packet *packets, int count, uint64_t at_ns) noexcept nogil:
    cdef int i
    for i in range(count):
        take_note(e, packets[i].flow, packets[i].octets, at_ns)
        if packets[i].kind == PROTECTED:
            e.tap_out_packets += 1
            e.tap_out_octets += packets[i].octets


cdef void finish_out(Engine *e, Packet *packets, int count) noexcept nogil:
    """Seal what was written, and what only then can be done."""
    cdef Packet *packet
    cdef int i
    run_jobs(e, True)
    stamp(e, CRYPT)
    for i in range(count):
        packet = &packets[i]
        if packet.job == NULL:
            continue
        if e.head_octets[packet.job - e.jobs]:
            finish_ah(e, packet)
        elif packet.result[0] >> 4 == 6 and packet.result[6] == 17:
            udp_checksum_ipv6(packet.result, packet.result_octets)
    begin_jobs(e)
    stamp(e, FINISH)


cdef int seal_burst(Engine *e, Packet *packets, int count, uint64_t tag, uint64_t at_ns) noexcept nogil:
    """Answer packets in order until one is not ours; how many were. Results are in the arena, or the packet itself where it stays.

    They go through in groups, whose headers, SAs and jobs stay in the nearest cache. What is sealed fastest in company waits for all.
    """
    cdef int wanted, found, done = 0, sealed = 0
    cdef bint goes_on = True
    cdef bint fetches = is_scattered(e, &e.outbound)
    e.arena_used = 0
    begin_jobs(e)
    while goes_on and done < count:
        wanted = min(<int> GROUP, count - done)
        found = scan_out(e, packets + done, wanted, tag)
        stamp(e, PARSE)
        if fetches:
            fetch_out(e, found)
            stamp(e, FETCH)
        found = find_out(e, packets + done, found, at_ns)
        stamp(e, FIND)
        found = write_out(e, packets + done, found, at_ns)
        stamp(e, WRITE)
        count_out(e, packets + done, found, at_ns)
        stamp(e, COUNT)
        goes_on = found == wanted
        done += found
        if not e.in_company:
            finish_out(e, packets + sealed, done - sealed)
            sealed = done
    if sealed < done:
        finish_out(e, packets + sealed, done - sealed)
    return done
