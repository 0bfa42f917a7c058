# Super packets of a TUN into packets (TSO in software), and packets back into super packets (GRO in software).


cdef inline uint64_t pseudo_sum(const uint8_t *ip, uint8_t version, uint32_t octets, uint8_t protocol) noexcept nogil:
    """The pseudo header's share of an upper-layer checksum, in memory order."""
    cdef uint64_t total = swap16(<uint16_t> octets) + swap16(protocol)
    return total + (sum_of(ip + 12, 8) if version == 4 else sum_of(ip + 8, 32))


cdef inline void finish_upper(uint8_t *ip, uint8_t version, uint32_t start, uint32_t offset, uint32_t octets, uint8_t protocol) noexcept nogil:
    """Write the checksum of what begins at `start`; `offset`: of the checksum in it."""
    cdef uint16_t sum16
    ip[start + offset] = ip[start + offset + 1] = 0
    sum16 = folded(pseudo_sum(ip, version, octets - start, protocol) + wide_sum(ip + start, octets - start))
    if sum16 == 0 and protocol == 17:
        sum16 = 0xFFFF
    memcpy(ip + start + offset, &sum16, 2)


cdef bint is_super_right(View v, const Vnet *h, uint32_t *header, uint8_t *version) noexcept nogil:
    """Whether what the kernel says of a packet fits it; header: octets before the TCP payload."""
    cdef uint8_t first = octet_at(v, 0)
    version[0] = first >> 4
    if not (first == 0x45 or first >> 4 == 6):
        return False
    if h.csum_start != (IPV4_OCTETS if version[0] == 4 else IPV6_OCTETS) or h.csum_offset != 16 or h.gso_size == 0:
        return False
    if octet_at(v, 9 if version[0] == 4 else 6) != 6:
        return False
    header[0] = h.csum_start + (octet_at(v, h.csum_start + 12) >> 4) * 4
    return header[0] >= <uint32_t> h.csum_start + 20 and header[0] < v.octets


cdef uint8_t *segment(View v, const Vnet *h, uint32_t header, uint8_t version, uint32_t at, uint8_t *to, Packet *packet) noexcept nogil:
    """One TCP segment of a super packet, from payload offset `at` on, into `to`; where the next may be written."""
    cdef uint32_t left = v.octets - header - at
    cdef uint32_t size = h.gso_size if left > h.gso_size else left
    cdef uint32_t octets = header + size
    cdef uint32_t tcp = h.csum_start
    memcpy(to, v.data, header)
    memcpy(to + header, v.data + header + at, size)
    if version == 4:
        put16(to + 2, <uint16_t> octets)
        put16(to + 4, <uint16_t> (word_at(v, 4) + at // h.gso_size))
        finish_ipv4(to)
    else:
        put16(to + 4, <uint16_t> (octets - IPV6_OCTETS))
    put32(to + tcp + 4, long_at(v, tcp + 4) + at)
    if at:
        to[tcp + 13] &= 0x7F                 # CWR is the first segment's
    if left > size:
        to[tcp + 13] &= 0xF6                 # FIN and PSH are the last one's
    finish_upper(to, version, tcp, 16, octets, 6)
    packet.data, packet.octets = to, octets
    return to + ((octets + TAILROOM + 63) & ~<uint32_t> 63)


ctypedef struct Merge:
    Packet *first
    uint32_t header           # octets before the payload
    uint32_t size             # of each payload but the last
    uint32_t payload          # in all
    uint32_t next_seq
    int count
    uint8_t version
    bint is_open


cdef inline bint is_mergeable(const Packet *p, uint32_t *header, uint8_t *version) noexcept nogil:
    """TCP with data, ACK and at most PSH, and a checksum that is right."""
    cdef View v
    cdef uint32_t tcp
    cdef uint64_t total
    v.data, v.octets = p.result, p.result_octets
    version[0] = octet_at(v, 0) >> 4
    tcp = IPV4_OCTETS if version[0] == 4 else IPV6_OCTETS
    if octet_at(v, 9 if version[0] == 4 else 6) != 6 or v.octets < tcp + 20 or (version[0] == 4 and octet_at(v, 0) != 0x45):
        return False
    if octet_at(v, tcp + 13) & 0xF7 != 0x10:
        return False
    header[0] = tcp + (octet_at(v, tcp + 12) >> 4) * 4
    if header[0] < tcp + 20 or header[0] >= v.octets:
        return False
    total = pseudo_sum(p.result, version[0], v.octets - tcp, 6) + wide_sum(p.result + tcp, v.octets - tcp)
    return folded(total) == 0


cdef inline bint continues(const Merge *m, const Packet *p, uint32_t header, uint8_t version) noexcept nogil:
    """Whether a packet is the next piece of the same stream: all fields equal but lengths, IDs, checksums, number and PSH."""
    cdef const uint8_t *a = m.first.result
    cdef const uint8_t *b = p.result
    cdef uint32_t tcp = IPV4_OCTETS if version == 4 else IPV6_OCTETS
    cdef View v
    v.data, v.octets = b, p.result_octets
    if version != m.version or header != m.header or long_at(v, tcp + 4) != m.next_seq:
        return False
    if p.result_octets - header > m.size or m.payload + p.result_octets > 65000:
        return False
    if version == 4:
        if a[1] != b[1] or memcmp(a + 6, b + 6, 4) != 0 or memcmp(a + 12, b + 12, 8) != 0:
            return False
    elif memcmp(a, b, 4) != 0 or memcmp(a + 6, b + 6, 34) != 0:
        return False
    if memcmp(a + tcp, b + tcp, 4) != 0 or memcmp(a + tcp + 8, b + tcp + 8, 5) != 0 or memcmp(a + tcp + 14, b + tcp + 14, 2) != 0:
        return False
    return memcmp(a + tcp + 18, b + tcp + 18, header - tcp - 18) == 0
