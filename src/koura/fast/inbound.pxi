# A burst on its way in: recognise, check, open; then, one by one and in order: check again, look inside, judge, commit, account.
# Nothing is committed for a packet before everything about it is known, so that "not mine" is always possible.


cdef inline uint64_t infer(const Sa *sa, uint32_t seq32) noexcept nogil:
    """The 64-bit number that 32 bits on the wire stand for. sadb.replay.Window.infer; RFC 4303 A2."""
    cdef uint64_t top, high, low, reach
    if not sa.has_esn:
        return seq32
    top = sa.hot[WINDOW_TOP]
    high, low = top >> 32, top & <uint64_t> 0xFFFFFFFF
    reach = sa.window if sa.window else <uint64_t> 0x80000000
    if low >= reach - 1:
        if seq32 < low - reach + 1:
            if high == <uint64_t> 0xFFFFFFFF:
                return 0  # Beyond the number space: the reference says so.
            high += 1
    elif seq32 >= ((low - reach + 1) & <uint64_t> 0xFFFFFFFF) and high:
        high -= 1
    return high << 32 | seq32


cdef inline bint is_fresh(const Sa *sa, uint64_t seq64) noexcept nogil:
    """Whether the window takes the number. sadb.replay.Window.check."""
    cdef uint64_t top
    if sa.window == 0:
        return seq64 != 0 or not sa.has_esn
    if seq64 == 0:
        return False
    top = sa.hot[WINDOW_TOP]
    if seq64 > top or not sa.hot[WINDOW_SEEN]:
        return True
    if top - seq64 >= sa.window:
        return False
    return not (sa.ring[(seq64 >> 6) & sa.ring_mask] >> (seq64 & 63) & 1)


cdef inline void commit(Sa *sa, uint64_t seq64) noexcept nogil:
    """Mark the number that authenticated. sadb.replay.Window.commit."""
    cdef uint64_t top = sa.hot[WINDOW_TOP]
    cdef uint64_t first, last, word
    sa.hot[ACCEPTED] += 1
    sa.hot[WINDOW_SEEN] = 1
    if sa.window:
        first, last = (top >> 6) + 1, seq64 >> 6
        if last >= first:
            if last - first >= sa.ring_mask:
                first = last - sa.ring_mask
            for word in range(first, last + 1):
                sa.ring[word & sa.ring_mask] = 0
        sa.ring[(seq64 >> 6) & sa.ring_mask] |= <uint64_t> 1 << (seq64 & 63)
    if seq64 > top:
        sa.hot[WINDOW_TOP] = seq64


cdef inline bint is_port(const Engine *e, uint16_t port) noexcept nogil:
    cdef int i
    for i in range(e.port_count):
        if e.ports[i] == port:
            return True
    return False


ctypedef struct Arrived:
    Head head                 # the outer one
    uint32_t sa
    uint32_t serial
    uint32_t seq32
    uint64_t seq64
    bint is_esp               # else it came in clear
    uint32_t esp              # offset of the ESP header
    uint32_t sealed           # octets of ciphertext


cdef bint recognise(Engine *e, View v, Arrived *a) noexcept nogil:
    """A packet that is whole and right: in clear, or ESP of an SA that is known here and whose window takes it."""
    cdef Head *head = &a.head
    cdef uint32_t esp
    if not parse(v, head) or (head.version == 4 and not is_ipv4_right(v)):
        return False
    a.is_esp = False
    esp = head.octets
    if head.protocol == 17 and head.has_ports and is_port(e, head.dport):
        if v.octets < esp + UDP_OCTETS + 8 or word_at(v, esp + 4) != v.octets - esp or not is_udp_right(v, esp, head.version):
            return False
        esp += UDP_OCTETS
    elif head.protocol != 50:
        return head.protocol == 6 or head.protocol == 17
    return recognise_esp(e, v, esp, a)


cdef bint recognise_esp(Engine *e, View v, uint32_t esp, Arrived *a) noexcept nogil:
    """ESP at this offset, of an SA that is known here and whose window takes it. a.head says how it came."""
    cdef FlowKey key
    cdef Flow *found
    cdef Sa *sa
    cdef Head *head = &a.head
    if not e.is_esp_on or v.octets < esp + 8:
        return False
    memset(&key, 0, sizeof(FlowKey))
    memcpy(&key.words[2], head.dst, 16)
    key.words[4], key.words[5] = long_at(v, esp), head.version
    found = table_find(&e.spis, &key)
    if found == NULL:
        return False
    a.sa, a.serial = found.sa, found.serial
    sa = live_sa(e, a.sa, a.serial)
    if sa == NULL:
        return False
    if head.protocol == 17 and (not sa.has_encapsulation or sa.sport != head.sport or sa.dport != head.dport):
        return False
    if v.octets < esp + 8 + sa.iv_octets + sa.icv_octets + 2:
        return False
    a.sealed = v.octets - esp - 8 - sa.iv_octets - sa.icv_octets
    if a.sealed & (sa.align_octets - 1):
        return False
    a.is_esp, a.esp, a.seq32 = True, esp, long_at(v, esp + 4)
    a.seq64 = infer(sa, a.seq32)
    return is_fresh(sa, a.seq64)


cdef inline bint start_opening(Engine *e, Packet *packet, const Arrived *a, int number) noexcept nogil:
    cdef Sa *sa = &e.sas[a.sa]
    cdef uint8_t *room = arena_take(e, HEADROOM + a.sealed + 32)
    cdef Job *job
    if room == NULL:
        return False
    job = job_for(e, sa, number)
    job.src = packet.data + a.esp + 8 + sa.iv_octets
    job.dst, job.octets = room + HEADROOM, a.sealed
    job.icv = job.src + a.sealed
    number_job(sa, job, a.seq64, packet.data + a.esp + 8)
    packet.result = job.dst
    return True


cdef inline bint egress(const Sa *sa, uint8_t outer, uint8_t inner, uint8_t *tos) noexcept nogil:
    """The inner TOS after decapsulation; False: the packet ends (RFC 6040 §4.2). xform.tunnel._tos_egress."""
    cdef uint8_t dscp = (outer if sa.takes_dscp else inner) & 0xFC
    cdef uint8_t code = inner & 3
    if not sa.copies_no_ecn:
        if outer & 3 == 3:
            if code == 0:
                return False
            code = 3
        elif outer & 3 == 1 and code == 2:
            code = 1
    tos[0] = dscp | code
    return True


cdef inline bint untrail(const Sa *sa, const uint8_t *clear, uint32_t *octets, uint8_t *next_header) noexcept nogil:
    """Padding and trailer off; False: they are wrong, or it is a dummy. RFC 4303 §2.4, §2.6."""
    cdef uint32_t padding = clear[octets[0] - 2]
    cdef uint32_t end, i
    next_header[0] = clear[octets[0] - 1]
    if padding + 2 > octets[0] or next_header[0] == 59:
        return False
    end = octets[0] - 2 - padding
    if sa.is_padding_checked:
        for i in range(padding):
            if clear[end + i] != <uint8_t> (i + 1):
                return False
    octets[0] = end
    return True


cdef bint unwrap(Engine *e, Sa *sa, const Arrived *a, Packet *packet, uint8_t next_header, uint32_t octets) noexcept nogil:
    """The inner packet of a tunnel, cut to its own length, congestion marks carried over."""
    cdef View v
    cdef uint32_t length
    cdef uint8_t inner_tos, tos
    cdef uint8_t *inner = packet.result
    v.data, v.octets = inner, octets
    if e.checks_source and sa.has_src and memcmp(sa.src, a.head.src, 16) != 0:
        return False
    if next_header == 4:
        if octets < IPV4_OCTETS or inner[0] >> 4 != 4:
            return False
        length, inner_tos = word_at(v, 2), inner[1]
    else:
        if octets < IPV6_OCTETS or inner[0] >> 4 != 6:
            return False
        length, inner_tos = <uint32_t> word_at(v, 4) + IPV6_OCTETS, <uint8_t> (inner[0] << 4 | inner[1] >> 4)
    if length > octets or not egress(sa, a.head.tos, inner_tos, &tos):
        return False
    packet.result_octets = length
    if tos != inner_tos:
        if next_header == 4:
            if inner[0] != 0x45:
                return False
            inner[1] = tos
            finish_ipv4(inner)
        else:
            inner[0], inner[1] = 0x60 | tos >> 4, <uint8_t> (tos << 4) | inner[1] & 0x0F
    return True


cdef bint rejoin(const Arrived *a, Packet *packet, uint8_t next_header, uint32_t octets) noexcept nogil:
    """Transport mode: the packet's own header in front again, its protocol and lengths as they were."""
    cdef uint32_t length = a.head.octets
    cdef uint8_t *to = packet.result - length
    memcpy(to, packet.data, length)
    if length == IPV4_OCTETS:
        put16(to + 2, <uint16_t> (length + octets))
        to[9] = next_header
        finish_ipv4(to)
    else:
        put16(to + 4, <uint16_t> octets)
        to[6] = next_header
    packet.result, packet.result_octets = to, length + octets
    return True


cdef inline bint is_plain(Engine *e, const Head *head) noexcept nogil:
    """Nothing that IPsec or a tunnel would still have to take off."""
    if head.protocol == 50 or head.protocol == 108 or head.protocol == 4 or head.protocol == 41:
        return False
    if head.protocol == 1 or (head.protocol == 58 and head.sport < 138):  # errors and neighbour discovery have rules of their own
        return head.sport == 8 or head.sport == 0 if head.protocol == 1 else head.sport == 128 or head.sport == 129
    return not (head.protocol == 17 and head.has_ports and is_port(e, head.dport))


cdef Flow *judge(Engine *e, Packet *packet, uint64_t tag, uint64_t at_ns) noexcept nogil:
    """What policy says of a packet in clear at last; NULL: ask the reference."""
    cdef View v
    cdef Head head
    cdef FlowKey key
    cdef Flow *flow
    v.data, v.octets = packet.result, packet.result_octets
    if not parse(v, &head) or (head.version == 4 and not is_ipv4_right(v)) or not is_plain(e, &head):
        return NULL
    key_of(&key, &head, tag)
    flow = table_find(&e.inbound, &key)
    if flow == NULL or not is_current(e, flow, at_ns) or flow.kind == PUNTED:
        return NULL
    return flow


cdef bint accept(Engine *e, Packet *packet, const Arrived *a, const Job *job, uint64_t at_ns) noexcept nogil:
    """All of one opened packet, in order; False with nothing touched: the reference opens it again."""
    cdef Sa *sa = live_sa(e, a.sa, a.serial)
    cdef uint32_t octets = a.sealed
    cdef uint32_t shown
    cdef uint8_t next_header
    cdef bint is_tunnel
    cdef Flow *flow
    if sa == NULL or not job.is_right or infer(sa, a.seq32) != a.seq64 or not is_fresh(sa, a.seq64):
        return False
    if not untrail(sa, packet.result, &octets, &next_header):
        return False
    is_tunnel = sa.mode != 1 and (next_header == 4 or next_header == 41)
    if is_tunnel:
        shown = a.head.octets + octets
        if not unwrap(e, sa, a, packet, next_header, octets):
            return False
    else:
        # NAT-T's checksums in transport mode are the reference's.
        if sa.mode == 2 or sa.has_encapsulation or not rejoin(a, packet, next_header, octets):
            return False
        shown = packet.result_octets
    flow = judge(e, packet, <uint64_t> is_tunnel << 63 | <uint64_t> a.sa << 32 | a.serial, at_ns)
    if flow == NULL or would_cross(sa, packet.result_octets, a.seq64, at_ns):
        return False
    commit(sa, a.seq64)
    use(sa, packet.result_octets, at_ns)
    sa.opened_packets += 1
    sa.opened_octets += a.sealed
    e.tap_in_packets += 1
    e.tap_in_octets += shown
    take_note_of_sa(e, sa, a.sa)
    take_note(e, flow, packet.result_octets, at_ns)
    packet.flow, packet.kind = flow, flow.kind
    return True


cdef int open_burst(Engine *e, Packet *packets, const Head *heads, int count, uint64_t at_ns) noexcept nogil:
    """Answer packets in order until one is not ours; how many were. Results are in the arena, or the packet itself if it came in clear.

    heads: how each came, where that is known beside it (a UDP socket): then a packet is what was in the datagram. NULL: whole packets.
    """
    cdef Arrived arrived[BURST]
    cdef View v
    cdef Flow *flow
    cdef bint is_fine
    cdef int i, seen = 0
    e.arena_used = 0
    e.queued[0] = e.queued[1] = 0
    for i in range(count):
        packets[i].flow = NULL
        v.data, v.octets = packets[i].data, packets[i].octets
        if heads != NULL:
            arrived[i].head, arrived[i].is_esp = heads[i], False
            is_fine = recognise_esp(e, v, 0, &arrived[i])
        else:
            is_fine = recognise(e, v, &arrived[i])
        if not is_fine or (arrived[i].is_esp and not start_opening(e, &packets[i], &arrived[i], i)):
            break
        seen += 1
    for i in range(DRIVERS):
        if e.queued[i]:
            e.drivers[i].open(e.queue[i], e.queued[i])
    for i in range(seen):
        if arrived[i].is_esp:
            if not accept(e, &packets[i], &arrived[i], &e.jobs[i], at_ns):
                return i
            continue
        packets[i].result, packets[i].result_octets = packets[i].data, packets[i].octets
        flow = judge(e, &packets[i], 0, at_ns)
        if flow == NULL:
            return i
        take_note(e, flow, packets[i].octets, at_ns)
        packets[i].flow, packets[i].kind = flow, flow.kind
    return seen
