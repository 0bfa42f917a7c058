# Protected packets over IPv4 out of an interface by AF_XDP, past the kernel's IP: for each destination the next hop, as Python found it.
#
# A next hop is known for a while only. Who is none, or no more, is wanted: Python is told, and until it has said who it is packets leave by
# the raw socket. So the kernel hears of each destination now and then, resolves its neighbour, and learns that it is in use.

DEF HOPS = 1024
DEF TRIED = 8
DEF WANTED = 8
DEF LINK_OCTETS = 14
DEF IPPROTO_ESP = 50
DEF IPPROTO_AH = 51

ctypedef struct Hop:
    uint32_t dst
    uint32_t most             # octets of a packet; 0: the raw socket's
    uint64_t until_ns
    int way
    uint8_t front[LINK_OCTETS]

ctypedef struct Hops:
    Leaving ways[RINGS]
    int way_count
    Hop known[HOPS]
    uint32_t wanted[WANTED]
    int wanted_count


cdef inline uint32_t hop_place(uint32_t dst) noexcept nogil:
    return (dst * <uint32_t> 0x9E3779B1) >> 22


cdef Hop *hop_to(Hops *h, uint32_t dst, uint64_t now) noexcept nogil:
    """The next hop to an address in network order; NULL: it is wanted."""
    cdef uint32_t place = hop_place(dst)
    cdef uint32_t i
    cdef Hop *one
    for i in range(TRIED):
        one = &h.known[(place + i) & (HOPS - 1)]
        if one.dst == dst and now < one.until_ns:
            return one
    for i in range(<uint32_t> h.wanted_count):
        if h.wanted[i] == dst:
            return NULL
    if h.wanted_count < WANTED:
        h.wanted[h.wanted_count] = dst
        h.wanted_count += 1
    return NULL


cdef Hop *hop_for_new(Hops *h, uint32_t dst, uint64_t now) noexcept nogil:
    """Where the next hop to an address is to be written: over what was known of it, over one that is known no more, or over somebody's."""
    cdef uint32_t place = hop_place(dst)
    cdef uint32_t i
    cdef Hop *one
    cdef Hop *free_one = NULL
    for i in range(TRIED):
        one = &h.known[(place + i) & (HOPS - 1)]
        if one.dst == dst:
            return one
        if free_one == NULL and now >= one.until_ns:
            free_one = one
    return free_one if free_one != NULL else &h.known[place & (HOPS - 1)]


cdef Hop *leaves_by(Hops *h, const Packet *packet, uint64_t now) noexcept nogil:
    """The next hop of a result that may leave by AF_XDP; NULL: it may not, or it is not known."""
    cdef const uint8_t *ip = packet.result
    cdef uint32_t dst
    cdef Hop *hop
    if packet.kind != PROTECTED or ip[0] >> 4 != 4 or ip[9] != IPPROTO_ESP and ip[9] != IPPROTO_AH:
        return NULL
    if ip[4] == 0 and ip[5] == 0 and not ip[6] & 0x40:
        return NULL  # the kernel numbers it (raw(7)); with DF it needs none
    memcpy(&dst, ip + 16, 4)
    hop = hop_to(h, dst, now)
    if hop == NULL or packet.result_octets > hop.most or h.ways[hop.way].descriptor < 0:
        return NULL
    return hop


cdef inline void go_all(Hops *h) noexcept nogil:
    """Have the kernel send what is written."""
    cdef int i
    for i in range(h.way_count):
        if h.ways[i].written:
            go(&h.ways[i])
