# What was inside: padding off, the inner packet cut out or the outer header put back. All of it happens in the result's own memory.

cdef enum Inside:
    NOT_OURS = 0              # the reference opens it again
    DUMMY_PACKET = 1
    PACKET = 2


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


cdef bint unwrap(Engine *e, const Sa *sa, const Arrived *a, Packet *packet, uint8_t next_header, uint32_t octets) noexcept nogil:
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


cdef inline uint8_t look_inside(Engine *e, Packet *packet, Arrived *a) noexcept nogil:
    """An opened packet becomes the one it carries; a.key and a.hash are those of its flow."""
    cdef const Sa *sa = &e.sas[a.sa]
    cdef uint32_t octets = a.sealed
    cdef uint8_t next_header
    if a.protocol == 51:
        next_header = packet.data[a.at]
    else:
        if not untrail(sa, packet.result, &octets, &next_header):
            return NOT_OURS
        if next_header == 59:
            return DUMMY_PACKET
    a.is_tunnel = sa.mode != 1 and (next_header == 4 or next_header == 41)
    if a.is_tunnel:
        a.shown = (IPV4_OCTETS if a.head.version == 4 else IPV6_OCTETS) + octets
        if not unwrap(e, sa, a, packet, next_header, octets):
            return NOT_OURS
    else:
        if sa.mode == 2 or (sa.has_encapsulation and not repair(e, sa, a, packet.result, next_header, octets)):
            return NOT_OURS
        rejoin(a, packet, next_header, octets)
        a.shown = packet.result_octets
    return name_flow(e, packet, a, <uint64_t> a.is_tunnel << 63 | <uint64_t> a.sa << 32 | a.serial)


cdef inline uint8_t name_flow(Engine *e, const Packet *packet, Arrived *a, uint64_t tag) noexcept nogil:
    """Which flow the packet in clear belongs to."""
    cdef View v
    cdef Head head
    v.data, v.octets = packet.result, packet.result_octets
    if not parse(v, &head) or (head.version == 4 and not is_ipv4_right(v)) or not is_plain(e, &head) or is_clamped(e, v, &head):
        return NOT_OURS
    key_of(&a.key, &head, tag)
    a.hash = hash_of(&e.inbound, &a.key)
    return PACKET
