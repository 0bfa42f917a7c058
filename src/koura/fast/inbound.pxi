# A burst on its way in: recognise, check, open; then, one by one and in order: check again, look inside, judge, commit, account.
# Nothing is committed for a packet before everything about it is known, so that "not mine" is always possible.


cdef inline bint is_once(const Sa *sa) noexcept nogil:
    """32-bit numbers, each once. sadb.replay.Numbers."""
    return not sa.has_esn and not sa.is_cyclic


cdef inline uint64_t infer(const Sa *sa, uint32_t seq32) noexcept nogil:
    """The 64-bit number that 32 bits on the wire stand for. sadb.replay.Window.infer; RFC 4303 A2."""
    cdef uint64_t top, high, low, reach
    if not sa.has_esn and not sa.is_cyclic:
        return seq32
    top = sa.hot[WINDOW_TOP]
    high, low = top >> 32, top & <uint64_t> 0xFFFFFFFF
    if sa.is_cyclic:
        reach = min(sa.window, <uint64_t> 0x40000000)
        if low > <uint64_t> 0xFFFFFFFF - reach and seq32 < reach:
            if high == <uint64_t> 0xFFFFFFFF:
                return 0
            high += 1
        elif high and seq32 > low + <uint64_t> 0x80000000:
            high -= 1
        return high << 32 | seq32
    reach = sa.window if sa.window else <uint64_t> 0x80000000
    if low >= reach - 1:
        if seq32 < low - reach + 1:
            if high == <uint64_t> 0xFFFFFFFF:
                return 0  # Beyond the number space: the reference says so.
            high += 1
    elif seq32 >= ((low - reach + 1) & <uint64_t> 0xFFFFFFFF) and high:
        high -= 1
    return high << 32 | seq32


cdef inline int stale(const Sa *sa, uint64_t seq64) noexcept nogil:
    """Why the window does not take the number; NO_END: it does. sadb.replay.Window.check."""
    cdef uint64_t top
    if sa.window == 0:
        return NO_END
    top = sa.hot[WINDOW_TOP]
    if seq64 == 0:
        return OVER if top == <uint64_t> 0xFFFFFFFF and is_once(sa) else ZERO
    if seq64 > top or not sa.hot[WINDOW_SEEN]:
        return NO_END
    if top - seq64 >= sa.window:
        return OVER if top == <uint64_t> 0xFFFFFFFF and is_once(sa) else OLD
    return REPLAYED if sa.ring[(seq64 >> 6) & sa.ring_mask] >> (seq64 & 63) & 1 else NO_END


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
    uint32_t spi
    uint32_t seq32
    uint64_t seq64
    FlowKey key               # in the table of SPIs
    uint64_t hash
    Flow *named
    bint is_protected         # else it came in clear
    bint has_header           # the packet begins with its IP header; a datagram of a socket does not
    uint8_t protocol          # 50 ESP, 51 AH
    uint8_t end               # where it is known before any key is used
    uint32_t at               # offset of the ESP or AH header
    uint32_t sealed           # octets of ciphertext; AH: of what is behind it


cdef bint recognise(Engine *e, View v, Arrived *a) noexcept nogil:
    """A packet that is whole and right: in clear, or protected in a way that can be answered here."""
    cdef Head *head = &a.head
    cdef uint32_t at
    if not parse_outer(v, head) or (head.version == 4 and not is_ipv4_right(v)):
        return False
    a.is_protected, a.has_header = False, True
    at = head.octets
    if head.protocol == 51:
        return recognise_ah(e, v, at, a)
    if head.protocol == 17 and head.has_ports and is_port(e, head.dport):
        if v.octets < at + UDP_OCTETS + 8 or word_at(v, at + 4) != v.octets - at or not is_udp_right(v, at, head.version):
            return False
        at += UDP_OCTETS
    elif head.protocol != 50:
        return is_plain(e, head)
    return recognise_esp(e, v, at, a)


cdef inline void note_named(Engine *e, Arrived *a, uint8_t protocol, uint32_t at, uint32_t spi, uint32_t seq32) noexcept nogil:
    """What a protected packet shows of its SA."""
    a.is_protected, a.protocol, a.at, a.end, a.spi, a.seq32 = True, protocol, at, NO_END, spi, seq32
    a.key.words[0] = a.key.words[1] = 0
    memcpy(&a.key.words[2], a.head.dst, 16)
    a.key.words[4], a.key.words[5] = spi, spi_word(a.head.version, protocol)
    a.hash = hash_of(&e.spis, &a.key)


cdef bint recognise_esp(Engine *e, View v, uint32_t at, Arrived *a) noexcept nogil:
    """ESP at this offset; a.head says how it came."""
    if not e.is_esp_on or v.octets < at + 8 or (a.head.protocol == 17 and long_at(v, at) == 0):
        return False
    a.sealed = 0
    note_named(e, a, 50, at, long_at(v, at), long_at(v, at + 4))
    return True


cdef inline bint is_elsewhere(const Sa *sa, const Head *head) noexcept nogil:
    """Whether ESP in UDP came by other ports than the SA's."""
    return sa.sport != head.sport or sa.dport != head.dport


cdef bint identify(Engine *e, View v, Arrived *a) noexcept nogil:
    """The SA of a protected packet, and what can be said before any key is used; False: the reference's."""
    cdef const Sa *sa = named(e, a)
    cdef const Head *head = &a.head
    cdef uint32_t front
    if sa == NULL:
        return a.end == NO_SA
    if a.protocol == 51:
        return identify_ah(sa, v, a)
    if head.protocol == 17 and (not sa.has_encapsulation or (not e.roams and is_elsewhere(sa, head))):
        a.end = WRONG_PORT
        return True
    front = a.at + 8 + sa.iv_octets + sa.icv_octets
    if v.octets <= front or (v.octets - front) & (sa.align_octets - 1):
        a.end = WRONG_LENGTH
        return True
    a.sealed = v.octets - front
    return check_number(sa, a)


cdef inline bint check_number(const Sa *sa, Arrived *a) noexcept nogil:
    """Infer the number, and look at the window before any key is used."""
    a.seq64 = infer(sa, a.seq32)
    if a.seq64 == 0 and not is_once(sa):  # Zero, or beyond the number space: the reference knows which.
        return False
    a.end = stale(sa, a.seq64)
    return True


cdef Sa *named(Engine *e, Arrived *a) noexcept nogil:
    """The SA that a packet names, if it is known here; NULL with a.end NO_SA: there is none, surely."""
    cdef FlowKey key
    cdef Flow *found = table_find_at(&e.spis, &a.key, a.hash)
    if found == NULL:
        if e.spi_counts[spi_bucket(e, a.spi)] == 0:
            key = a.key
            key.words[4], key.words[5] = 0, spi_word(a.head.version, 0)
            found = table_find(&e.spis, &key)
            if found != NULL and found.generation == e.generation:  # The destination is ours.
                a.end = NO_SA
        return NULL
    a.sa, a.serial = found.sa, found.serial
    return live_sa(e, a.sa, a.serial)


cdef inline bint start_opening(Engine *e, Packet *packet, const Arrived *a, int number) noexcept nogil:
    """Make the packet's job, unless its end is known already."""
    cdef Sa *sa
    cdef uint8_t *room
    cdef Job *job
    if a.end:
        return True
    sa = &e.sas[a.sa]
    if a.protocol == 51:
        return start_verifying(e, sa, packet, a, number)
    room = arena_take(e, HEADROOM + a.sealed + 32)
    if room == NULL:
        return False
    job = job_for(e, sa, number)
    job.src = packet.data + a.at + 8 + sa.iv_octets
    job.dst, job.octets = room + HEADROOM, a.sealed
    job.icv = job.src + a.sealed
    number_job(sa, job, a.seq64, packet.data + a.at + 8)
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
    """Padding and trailer off; False: they are wrong. RFC 4303 §2.4."""
    cdef uint32_t padding = clear[octets[0] - 2]
    cdef uint32_t end, i
    next_header[0] = clear[octets[0] - 1]
    if padding + 2 > octets[0]:
        return False
    end = octets[0] - 2 - padding
    if sa.is_padding_checked and next_header[0] != 59:
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


cdef void rejoin(const Arrived *a, Packet *packet, uint8_t next_header, uint32_t octets) noexcept nogil:
    """Transport mode: the packet's own header in front again, its protocol and lengths as they were.

    What came through a socket gets the header that koura.host.udp.whole makes for the reference.
    """
    cdef uint32_t length = IPV4_OCTETS if a.head.version == 4 else IPV6_OCTETS
    cdef uint8_t *to = packet.result - length
    if a.has_header:
        memcpy(to, packet.data, length)
    else:
        memset(to, 0, length)
        if length == IPV4_OCTETS:
            to[0], to[1], to[8] = 0x45, a.head.tos, 64
            memcpy(to + 12, a.head.src, 4)
            memcpy(to + 16, a.head.dst, 4)
        else:
            to[0], to[1], to[7] = 0x60 | a.head.tos >> 4, <uint8_t> (a.head.tos << 4), 64
            memcpy(to + 8, a.head.src, 16)
            memcpy(to + 24, a.head.dst, 16)
    if length == IPV4_OCTETS:
        put16(to + 2, <uint16_t> (length + octets))
        to[9] = next_header
        finish_ipv4(to)
    else:
        put16(to + 4, <uint16_t> octets)
        to[6] = next_header
    packet.result, packet.result_octets = to, length + octets


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
    if is_clamped(e, v, &head):
        return NULL
    key_of(&key, &head, tag)
    flow = table_find(&e.inbound, &key)
    if flow == NULL or not is_current(e, flow, at_ns) or flow.kind == PUNTED:
        return NULL
    return flow


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


cdef bint accept(Engine *e, Packet *packet, const Arrived *a, const Job *job, uint64_t at_ns) noexcept nogil:
    """All of one protected packet, in order; False with nothing touched: the reference opens it again."""
    cdef Sa *sa
    cdef uint32_t octets = a.sealed
    cdef uint32_t shown
    cdef uint8_t next_header
    cdef bint is_tunnel
    cdef Flow *flow
    cdef int end
    if a.end == NO_SA:
        return refuse(e, packet, a, NO_SA)
    sa = live_sa(e, a.sa, a.serial)
    if sa == NULL:
        return False
    if a.end == WRONG_PORT or a.end == WRONG_LENGTH:
        return refuse(e, packet, a, a.end)
    if infer(sa, a.seq32) != a.seq64:
        return False
    end = stale(sa, a.seq64)
    if end or a.end:  # What was stale before the burst is so now, perhaps for another reason.
        return end and refuse(e, packet, a, end)
    if not job.is_right:
        return refuse(e, packet, a, WRONG_ICV)
    if a.head.protocol == 17 and (is_elsewhere(sa, &a.head) or (sa.has_src and memcmp(sa.src, a.head.src, 16) != 0)):
        return False  # It authenticated, so the peer has moved: key management is told.
    if a.protocol == 51:
        next_header = packet.data[a.at]
    elif not untrail(sa, packet.result, &octets, &next_header):
        return False
    elif next_header == 59:
        if sa.receives_in != e.generation:
            return False
        commit(sa, a.seq64)
        return refuse(e, packet, a, DUMMY)
    is_tunnel = sa.mode != 1 and (next_header == 4 or next_header == 41)
    if is_tunnel:
        shown = (IPV4_OCTETS if a.head.version == 4 else IPV6_OCTETS) + octets
        if not unwrap(e, sa, a, packet, next_header, octets):
            return False
    else:
        if sa.mode == 2 or (sa.has_encapsulation and not repair(e, sa, a, packet.result, next_header, octets)):
            return False
        rejoin(a, packet, next_header, octets)
        shown = packet.result_octets
    flow = judge(e, packet, <uint64_t> is_tunnel << 63 | <uint64_t> a.sa << 32 | a.serial, at_ns)
    if flow == NULL or flow.kind != DELIVERED or would_cross(sa, packet.result_octets, a.seq64, at_ns):
        return False
    commit(sa, a.seq64)
    use(sa, packet.result_octets, at_ns)
    sa.came += 1
    sa.opened_packets += 1
    sa.opened_octets += a.sealed
    e.tap_in_packets += 1
    e.tap_in_octets += shown
    take_note_of_sa(e, sa, a.sa)
    take_note(e, flow, packet.result_octets, at_ns)
    packet.flow, packet.kind, packet.end = flow, flow.kind, NO_END
    return True


cdef int scan_in(Engine *e, Packet *packets, const Head *heads, int count, Arrived *arrived) noexcept nogil:
    """See how some packets came, and fetch what they will need; how many could be read."""
    cdef View v
    cdef int i, seen = 0
    cdef bint is_fine
    cdef bint fetches = is_scattered(e, &e.spis)
    for i in range(count):
        v.data, v.octets = packets[i].data, packets[i].octets
        if heads != NULL:
            arrived[i].head, arrived[i].has_header = heads[i], False
            is_fine = recognise_esp(e, v, 0, &arrived[i])
        else:
            is_fine = recognise(e, v, &arrived[i])
        if not is_fine:
            break
        if fetches and arrived[i].is_protected:
            table_touch(&e.spis, arrived[i].hash)
        seen += 1
    if fetches:
        for i in range(seen):
            arrived[i].named = table_peek(&e.spis, arrived[i].hash) if arrived[i].is_protected else NULL
        for i in range(seen):
            if arrived[i].named != NULL:
                fetch_sa(e, arrived[i].named.sa, False)
        for i in range(seen):
            if arrived[i].named != NULL:
                fetch_behind(e, arrived[i].named.sa, arrived[i].seq32)
    return seen


cdef void fetch_inner(Engine *e, Packet *packets, Arrived *arrived, int count) noexcept nogil:
    """What opened tunnel packets will need. A guess: nothing is decided by it."""
    cdef View v
    cdef Head head
    cdef int i
    for i in range(count):
        arrived[i].named = NULL
        if not arrived[i].is_protected or arrived[i].end or arrived[i].sealed < IPV4_OCTETS:
            continue
        v.data, v.octets = packets[i].result, arrived[i].sealed
        v.octets = min(v.octets, word_at(v, 2) if v.data[0] >> 4 == 4 else <uint32_t> word_at(v, 4) + IPV6_OCTETS)
        if parse(v, &head):
            key_of(&arrived[i].key, &head, <uint64_t> 1 << 63 | <uint64_t> arrived[i].sa << 32 | arrived[i].serial)
            arrived[i].hash = hash_of(&e.inbound, &arrived[i].key)
            table_touch(&e.inbound, arrived[i].hash)
            fetch_sa(e, arrived[i].sa, False)
            arrived[i].named = <Flow *> 1
    for i in range(count):
        if arrived[i].named != NULL:
            table_peek(&e.inbound, arrived[i].hash)
            prefetch(e.sas[arrived[i].sa].hot)
            prefetch(<uint8_t *> e.sas[arrived[i].sa].hot + 64)


cdef int open_burst(Engine *e, Packet *packets, const Head *heads, int count, uint64_t at_ns) noexcept nogil:
    """Answer packets in order until one is not ours; how many were. Results are in the arena, or the packet itself if it came in clear.

    heads: how each came, where that is known beside it (a UDP socket): then a packet is what was in the datagram. NULL: whole packets.
    """
    cdef Arrived arrived[BURST]
    cdef View v
    cdef Flow *flow
    cdef bint goes_on = True
    cdef bint fetches = is_scattered(e, &e.inbound)
    cdef int i, read, wanted, seen = 0
    e.arena_used = 0
    e.queued[0] = e.queued[1] = 0
    while goes_on and seen < count:
        wanted = min(<int> GROUP, count - seen)
        read = scan_in(e, packets + seen, heads + seen if heads != NULL else NULL, wanted, &arrived[seen])
        goes_on = read == wanted
        for i in range(seen, seen + read):
            packets[i].flow = NULL
            v.data, v.octets = packets[i].data, packets[i].octets
            if arrived[i].is_protected and not (identify(e, v, &arrived[i]) and start_opening(e, &packets[i], &arrived[i], i)):
                goes_on = False
                break
            seen += 1
    for i in range(DRIVERS):
        if e.queued[i]:
            e.drivers[i].open(e.queue[i], e.queued[i])
    for i in range(seen):
        if fetches and i % GROUP == 0:
            fetch_inner(e, packets + i, &arrived[i], min(<int> GROUP, seen - i))
        if arrived[i].is_protected:
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
