"""IP headers as the fast path reads them: through views that know their length, and only the shapes it takes.

`View` is a pointer with a length; every octet of a peer is read by one of the accessors here, which compare the offset first. `parse`
says yes only to a packet without IPv4 options, IPv6 extension headers, AH, fragments and trailing octets; no means: the reference.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #define koura_swap16 __builtin_bswap16
    #define koura_swap32 __builtin_bswap32
    #define koura_swap64 __builtin_bswap64
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the fast path is for little-endian machines; the reference is for all"
    #endif
    """
    uint16_t swap16 "koura_swap16"(uint16_t) noexcept nogil
    uint32_t swap32 "koura_swap32"(uint32_t) noexcept nogil
    uint64_t swap64 "koura_swap64"(uint64_t) noexcept nogil

cdef enum:
    IPV4_OCTETS = 20
    IPV6_OCTETS = 40
    UDP_OCTETS = 8

ctypedef struct View:
    const uint8_t *data
    uint32_t octets

ctypedef struct Head:
    uint8_t src[16]           # IPv4: the first 4 octets, the rest 0
    uint8_t dst[16]
    uint32_t octets           # of the header
    uint16_t sport
    uint16_t dport
    uint8_t version
    uint8_t protocol
    uint8_t tos
    bint is_df
    bint has_ports


cdef inline uint8_t octet_at(View v, uint32_t offset) noexcept nogil:
    return v.data[offset] if offset < v.octets else 0


cdef inline uint16_t word_at(View v, uint32_t offset) noexcept nogil:
    cdef uint16_t raw
    if v.octets < 2 or offset > v.octets - 2:
        return 0
    memcpy(&raw, v.data + offset, 2)
    return swap16(raw)


cdef inline uint32_t long_at(View v, uint32_t offset) noexcept nogil:
    cdef uint32_t raw
    if v.octets < 4 or offset > v.octets - 4:
        return 0
    memcpy(&raw, v.data + offset, 4)
    return swap32(raw)


cdef inline bint copy_from(View v, uint32_t offset, uint8_t *to, uint32_t octets) noexcept nogil:
    if octets > v.octets or offset > v.octets - octets:
        return False
    memcpy(to, v.data + offset, octets)
    return True


cdef inline void put16(uint8_t *to, uint16_t value) noexcept nogil:
    cdef uint16_t raw = swap16(value)
    memcpy(to, &raw, 2)


cdef inline void put32(uint8_t *to, uint32_t value) noexcept nogil:
    cdef uint32_t raw = swap32(value)
    memcpy(to, &raw, 4)


cdef inline uint64_t sum_of(const uint8_t *data, uint32_t octets) noexcept nogil:
    """The sum of 16-bit words in memory order, not folded; ours or length-checked octets only."""
    cdef uint64_t total = 0
    cdef uint32_t word
    cdef uint16_t half
    cdef uint32_t i = 0
    while i + 4 <= octets:
        memcpy(&word, data + i, 4)
        total += word
        i += 4
    if i + 2 <= octets:
        memcpy(&half, data + i, 2)
        total += half
        i += 2
    if i < octets:
        total += data[i]
    return total


cdef inline uint16_t folded(uint64_t total) noexcept nogil:
    """The checksum of a sum, in memory order: store it with memcpy. RFC 1071."""
    total = (total & <uint64_t> 0xFFFFFFFF) + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t> ~total


cdef inline void finish_ipv4(uint8_t *header) noexcept nogil:
    """Write the checksum of a header without options."""
    cdef uint16_t sum16
    header[10] = header[11] = 0
    sum16 = folded(sum_of(header, IPV4_OCTETS))
    memcpy(header + 10, &sum16, 2)


cdef inline void put_ipv4(uint8_t *to, const uint8_t *shown, uint32_t first, uint32_t second, uint32_t third) noexcept nogil:
    """Three words as they lie in memory, the checksum 0, and the addresses of another header: summed before they are written."""
    cdef uint32_t src, dst
    memcpy(&src, shown + 12, 4)
    memcpy(&dst, shown + 16, 4)
    third |= <uint32_t> folded(<uint64_t> first + second + third + src + dst) << 16
    memcpy(to, &first, 4)
    memcpy(to + 4, &second, 4)
    memcpy(to + 8, &third, 4)
    memcpy(to + 12, &src, 4)
    memcpy(to + 16, &dst, 4)


cdef inline bint is_ipv4_right(View v) noexcept nogil:
    return v.octets >= IPV4_OCTETS and folded(sum_of(v.data, IPV4_OCTETS)) == 0


cdef inline bint _takes_ports(uint8_t protocol) noexcept nogil:
    return protocol == 6 or protocol == 17 or protocol == 33 or protocol == 132 or protocol == 136


cdef inline bint _is_extension(uint8_t protocol) noexcept nogil:
    """IPv6 extension headers, behind which the upper layer hides."""
    return protocol == 0 or protocol == 43 or protocol == 44 or protocol == 60 or protocol == 135 or protocol == 139 or protocol == 140


cdef inline void put_address(uint8_t *to, const uint8_t *address) noexcept nogil:
    """Four octets and twelve of zero, in two stores: key_of reads them back in two, at once."""
    cdef uint32_t raw
    cdef uint64_t word
    memcpy(&raw, address, 4)
    word = raw
    memcpy(to, &word, 8)
    word = 0
    memcpy(to + 8, &word, 8)


cdef inline bint parse(View v, Head *head) noexcept nogil:
    """Read the headers of a whole packet; False for what is the reference's: behind AH the upper layer hides."""
    return parse_outer(v, head) and head.protocol != 51


cdef inline bint parse_outer(View v, Head *head) noexcept nogil:
    """The same with AH as a protocol like others."""
    cdef uint16_t word
    if octet_at(v, 0) == 0x45:
        if v.octets < IPV4_OCTETS or word_at(v, 2) != v.octets:
            return False
        word = word_at(v, 6)
        if word & 0xBFFF:  # reserved bit, more fragments, offset
            return False
        head.version, head.octets, head.is_df = 4, IPV4_OCTETS, (word & 0x4000) != 0
        head.tos, head.protocol = octet_at(v, 1), octet_at(v, 9)
        put_address(head.src, v.data + 12)
        put_address(head.dst, v.data + 16)
    elif octet_at(v, 0) >> 4 == 6:
        if v.octets < IPV6_OCTETS or <uint32_t> word_at(v, 4) + IPV6_OCTETS != v.octets:
            return False
        head.version, head.octets, head.is_df = 6, IPV6_OCTETS, False
        head.tos, head.protocol = <uint8_t> (octet_at(v, 0) << 4 | octet_at(v, 1) >> 4), octet_at(v, 6)
        copy_from(v, 8, head.src, 16)
        copy_from(v, 24, head.dst, 16)
    else:
        return False
    if head.version == 6 and _is_extension(head.protocol):
        return False
    head.has_ports = False
    head.sport = head.dport = 0
    if _takes_ports(head.protocol) and v.octets >= head.octets + 4:
        head.has_ports = True
        head.sport, head.dport = word_at(v, head.octets), word_at(v, head.octets + 2)
    elif (head.protocol == 1 or head.protocol == 58) and v.octets >= head.octets + 2:
        head.has_ports = True
        head.sport, head.dport = octet_at(v, head.octets), octet_at(v, head.octets + 1)
    return True
