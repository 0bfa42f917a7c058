# Super packets of a TUN into packets (TSO and USO in software), and packets back into super packets (GRO in software).
#
# Checksums: where the kernel left one open, its field holds the folded sum of the pseudo header (virtio, "partial"). A segment's is that
# sum with another length in it, so that it is right whatever stands between the IP header and the segment.

DEF LARGEST_PACKET = 65535
DEF MOST_MERGED = 65000


ctypedef struct Super:
    View v                    # without the virtio header
    Vnet h
    uint32_t header           # octets in front of each segment's payload; 0: the packet stays whole
    uint32_t at               # octets of payload that were cut off it
    bint is_open              # there is more of it


cdef inline uint16_t closed_sum(uint8_t *ip, uint32_t start, uint32_t offset, uint32_t octets, uint32_t before) noexcept nogil:
    """Close the checksum of what begins at `start`; octets: of the packet; before: its octets when the field was written."""
    cdef uint16_t partial, sum16
    memcpy(&partial, ip + start + offset, 2)
    ip[start + offset] = ip[start + offset + 1] = 0
    sum16 = folded(
        <uint64_t> partial + (0xFFFF ^ swap16(<uint16_t> (before - start))) + swap16(<uint16_t> (octets - start))
        + wide_sum(ip + start, octets - start)
    )
    if sum16 == 0 and offset == 6:  # of UDP; 0 would say that there is none
        sum16 = 0xFFFF
    memcpy(ip + start + offset, &sum16, 2)
    return sum16


cdef inline void finish_header(uint8_t *ip, uint32_t octets) noexcept nogil:
    """Write an IPv4 header's checksum, options and all."""
    cdef uint16_t sum16
    ip[10] = ip[11] = 0
    sum16 = folded(sum_of(ip, octets))
    memcpy(ip + 10, &sum16, 2)


cdef bint take_super(Super *s, const uint8_t *start, uint32_t got, bint has_vnet) noexcept nogil:
    """What a read from a TUN brought; False: its virtio header does not fit it."""
    cdef uint32_t skip = VNET_OCTETS if has_vnet else 0
    memset(s, 0, sizeof(Super))
    if got <= skip:
        return False
    s.v.data, s.v.octets, s.is_open = start + skip, got - skip, True
    if has_vnet:
        memcpy(&s.h, start, VNET_OCTETS)
    if s.h.gso_type == GSO_NONE:
        return not s.h.flags & NEEDS_CSUM or (
            <uint32_t> s.h.csum_start + s.h.csum_offset + 2 <= s.v.octets and s.v.octets - s.h.csum_start <= LARGEST_PACKET
        )
    return is_super_right(s)


cdef bint is_super_right(Super *s) noexcept nogil:
    """Whether a super packet can be cut as its virtio header says; finds how long its headers are."""
    cdef uint8_t kind = s.h.gso_type & 0x7F      # without ECN, which cutting obeys anyway
    cdef uint8_t version = octet_at(s.v, 0) >> 4
    cdef uint32_t start = s.h.csum_start
    cdef uint8_t protocol = 17 if kind == GSO_UDP_L4 else 6
    if s.v.octets > LARGEST_PACKET + IPV6_OCTETS or s.h.gso_size == 0 or not s.h.flags & NEEDS_CSUM:
        return False
    if s.h.csum_offset != (6 if protocol == 17 else 16):
        return False
    if kind == GSO_TCPV4 and version != 4 or kind == GSO_TCPV6 and version != 6:
        return False
    if kind != GSO_TCPV4 and kind != GSO_TCPV6 and kind != GSO_UDP_L4:
        return False
    if version == 4:
        if start < IPV4_OCTETS or <uint32_t> (octet_at(s.v, 0) & 15) * 4 != start or octet_at(s.v, 9) != protocol or word_at(s.v, 6) & 0x3FFF:
            return False
    elif version != 6 or start < IPV6_OCTETS or (start == IPV6_OCTETS and octet_at(s.v, 6) != protocol):
        return False
    s.header = start + (UDP_OCTETS if protocol == 17 else (octet_at(s.v, start + 12) >> 4) * 4)
    if s.header < start + (UDP_OCTETS if protocol == 17 else 20) or s.header >= s.v.octets:
        return False
    return s.header + s.h.gso_size <= LARGEST_PACKET and s.v.octets - start <= LARGEST_PACKET


cdef int cut(Super *s, uint8_t **to, uint8_t *end, Packet *packets, int room) noexcept nogil:
    """Finished packets of it, at most `room`, written from `to` on and not beyond `end`; s.is_open: there is more of it."""
    cdef uint32_t octets
    cdef int count = 0
    while s.is_open and count < room:
        octets = s.v.octets if s.header == 0 else s.header + s.h.gso_size
        if <uint64_t> (end - to[0]) < octets + TAILROOM + 64:
            break
        if s.header == 0:
            memcpy(to[0], s.v.data, octets)
            if s.h.flags & NEEDS_CSUM:
                closed_sum(to[0], s.h.csum_start, s.h.csum_offset, octets, octets)
            s.is_open = False
        else:
            octets = segment(s, to[0])
        packets[count].data, packets[count].octets = to[0], octets
        to[0] += (octets + TAILROOM + 63) & ~<uint32_t> 63
        count += 1
    return count


cdef uint32_t segment(Super *s, uint8_t *to) noexcept nogil:
    """The next segment of a super packet; its octets. Lengths, IDs, numbers, flags and checksums become its own."""
    cdef uint32_t left = s.v.octets - s.header - s.at
    cdef uint32_t size = s.h.gso_size if left > s.h.gso_size else left
    cdef uint32_t octets = s.header + size
    cdef uint32_t start = s.h.csum_start
    memcpy(to, s.v.data, s.header)
    memcpy(to + s.header, s.v.data + s.header + s.at, size)
    if to[0] >> 4 == 4:
        put16(to + 2, <uint16_t> octets)
        put16(to + 4, <uint16_t> (word_at(s.v, 4) + s.at // s.h.gso_size))
        finish_header(to, start)
    else:
        put16(to + 4, <uint16_t> (octets - IPV6_OCTETS))
    if s.h.csum_offset == 6:
        put16(to + start + 4, <uint16_t> (octets - start))
    else:
        put32(to + start + 4, long_at(s.v, start + 4) + s.at)
        if s.at:
            to[start + 13] &= 0x7F                 # CWR is the first segment's
        if left > size:
            to[start + 13] &= 0xF6                 # FIN and PSH are the last one's
    closed_sum(to, start, s.h.csum_offset, octets, s.v.octets)
    s.at += size
    s.is_open = left > size
    return octets


cdef inline void number(Packet *packets, int count) noexcept nogil:
    """An ID for IPv4 packets that may be cut and have none; the checksum stays the same. host.raw.numbered."""
    cdef uint8_t *ip
    cdef int i
    for i in range(count):
        ip = packets[i].data
        if packets[i].octets >= IPV4_OCTETS and ip[0] >> 4 == 4 and ip[4] == 0 and ip[5] == 0 and not ip[6] & 0x40:
            ip[4] = ip[5] = 0xFF


ctypedef struct Merge:
    int count                 # of packets; more than 1: TCP segments that become one super packet
    uint8_t version
    uint32_t header           # octets before the payload
    uint32_t size             # of each payload but the last
    uint32_t payload          # in all


cdef inline uint64_t pseudo_sum(const uint8_t *ip, uint8_t version, uint32_t octets, uint8_t protocol) noexcept nogil:
    """The pseudo header's share of an upper-layer checksum, in memory order."""
    cdef uint64_t total = swap16(<uint16_t> octets) + swap16(protocol)
    return total + (sum_of(ip + 12, 8) if version == 4 else sum_of(ip + 8, 32))


cdef inline bint is_mergeable(const Packet *p, uint32_t *header, uint8_t *version) noexcept nogil:
    """A whole packet of TCP with data, ACK and at most PSH, whose checksums are right; no IPv4 options, no extension headers."""
    cdef View v
    cdef uint32_t tcp
    v.data, v.octets = p.result, p.result_octets
    version[0] = octet_at(v, 0) >> 4
    if version[0] == 4:
        tcp = IPV4_OCTETS
        if octet_at(v, 0) != 0x45 or octet_at(v, 9) != 6 or word_at(v, 2) != v.octets or word_at(v, 6) & 0xBFFF:
            return False
    else:
        tcp = IPV6_OCTETS
        if version[0] != 6 or octet_at(v, 6) != 6 or <uint32_t> word_at(v, 4) + IPV6_OCTETS != v.octets:
            return False
    if octet_at(v, tcp + 13) & 0xF7 != 0x10:
        return False
    header[0] = tcp + (octet_at(v, tcp + 12) >> 4) * 4
    if header[0] < tcp + 20 or header[0] >= v.octets or (version[0] == 4 and not is_ipv4_right(v)):
        return False
    return folded(pseudo_sum(p.result, version[0], v.octets - tcp, 6) + wide_sum(p.result + tcp, v.octets - tcp)) == 0


cdef inline bint continues(const Packet *first, const Merge *m, const Packet *p, uint32_t header, uint8_t version) noexcept nogil:
    """Whether a mergeable packet is the next piece of the same stream: all fields equal but lengths, checksums, number and PSH.

    IDs count up, as those that are made when the super packet is cut again; where DF is set they mean nothing (RFC 6864 §4.1).
    """
    cdef const uint8_t *a = first.result
    cdef const uint8_t *b = p.result
    cdef uint32_t tcp = IPV4_OCTETS if version == 4 else IPV6_OCTETS
    cdef View v, w
    v.data, v.octets = b, p.result_octets
    w.data, w.octets = a, first.result_octets
    if version != m.version or header != m.header or long_at(v, tcp + 4) != <uint32_t> (long_at(w, tcp + 4) + m.payload):
        return False
    if p.result_octets - header > m.size or m.payload + p.result_octets > MOST_MERGED:
        return False
    if version == 4:
        if a[1] != b[1] or memcmp(a + 6, b + 6, 4) != 0 or memcmp(a + 12, b + 12, 8) != 0:
            return False
        if not a[6] & 0x40 and word_at(v, 4) != <uint16_t> (word_at(w, 4) + m.count):
            return False
    elif memcmp(a, b, 4) != 0 or memcmp(a + 6, b + 6, 34) != 0:
        return False
    if memcmp(a + tcp, b + tcp, 4) != 0 or memcmp(a + tcp + 8, b + tcp + 8, 5) != 0 or memcmp(a + tcp + 14, b + tcp + 14, 2) != 0:
        return False
    return memcmp(a + tcp + 18, b + tcp + 18, header - tcp - 18) == 0


cdef void gather(const Packet *packets, int first, int last, Merge *m) noexcept nogil:
    """What goes to a TUN at once, from `first` on: one packet, or TCP segments that follow one another."""
    cdef uint32_t header, size
    cdef uint8_t version
    cdef int i
    memset(m, 0, sizeof(Merge))
    m.count = 1
    if not is_mergeable(&packets[first], &header, &version):
        return
    m.version, m.header = version, header
    m.size = m.payload = size = packets[first].result_octets - header
    for i in range(first, min(last, first + PIECES) - 1):
        # A push, and a shorter one, is the last.
        if size < m.size or packets[i].result[(IPV4_OCTETS if version == 4 else IPV6_OCTETS) + 13] & 0x08:
            return
        if packets[i + 1].kind != DELIVERED or not is_mergeable(&packets[i + 1], &header, &version) or not continues(&packets[first], m, &packets[i + 1], header, version):
            return
        size = packets[i + 1].result_octets - header
        m.payload += size
        m.count += 1


cdef int assemble(const Packet *packets, int first, const Merge *m, uint8_t *front, iovec *pieces) noexcept nogil:
    """The pieces of one write to a TUN with virtio headers. front: room for FRONT octets, pieces: for PIECES + 1."""
    cdef uint8_t *ip = front + VNET_OCTETS
    cdef uint32_t tcp, octets
    cdef uint16_t partial
    cdef Vnet h
    cdef int i
    memset(&h, 0, sizeof(Vnet))
    if m.count == 1:
        memcpy(front, &h, VNET_OCTETS)
        pieces[0].iov_base, pieces[0].iov_len = front, VNET_OCTETS
        pieces[1].iov_base, pieces[1].iov_len = packets[first].result, packets[first].result_octets
        return 2
    tcp = IPV4_OCTETS if m.version == 4 else IPV6_OCTETS
    octets = m.header + m.payload
    memcpy(ip, packets[first].result, m.header)
    ip[tcp + 13] |= packets[first + m.count - 1].result[tcp + 13] & 0x08
    if m.version == 4:
        put16(ip + 2, <uint16_t> octets)
        finish_ipv4(ip)
    else:
        put16(ip + 4, <uint16_t> (octets - IPV6_OCTETS))
    partial = <uint16_t> ~folded(pseudo_sum(ip, m.version, octets - tcp, 6))
    memcpy(ip + tcp + 16, &partial, 2)
    h.flags, h.gso_type = NEEDS_CSUM, GSO_TCPV4 if m.version == 4 else GSO_TCPV6
    h.hdr_len, h.gso_size, h.csum_start, h.csum_offset = m.header, m.size, tcp, 16
    memcpy(front, &h, VNET_OCTETS)
    pieces[0].iov_base, pieces[0].iov_len = front, VNET_OCTETS + m.header
    for i in range(m.count):
        pieces[i + 1].iov_base = packets[first + i].result + m.header
        pieces[i + 1].iov_len = packets[first + i].result_octets - m.header
    return m.count + 1


cdef int queue_of(const Packet *p, int queues) noexcept nogil:
    """Into which queue of a TUN a packet is written. The host answers through the same one (tun_flow_update): flows of TCP and UDP are
    spread by their addresses and ports, all else, pings among it, has the first for itself.
    """
    cdef const uint8_t *a = p.result
    cdef uint32_t at = IPV4_OCTETS if p.result_octets and a[0] >> 4 == 4 else IPV6_OCTETS
    cdef uint8_t protocol
    cdef uint64_t mix
    cdef uint64_t word = 0
    cdef uint32_t i
    if queues == 1 or p.result_octets < at + 4:
        return 0
    protocol = a[9] if at == IPV4_OCTETS else a[6]
    if protocol != 6 and protocol != 17 or (at == IPV4_OCTETS and (a[0] & 15) * 4 != IPV4_OCTETS):
        return 0
    mix = protocol
    for i in range(12 if at == IPV4_OCTETS else 8, at + 4, 4):
        memcpy(&word, a + i, 4)
        mix = (mix ^ word) * <uint64_t> 0x9E3779B9 + 0x7F4A7C15
        mix ^= mix >> 32
    return 1 + <int> (mix % <uint64_t> (queues - 1))
