# Protected packets out of an interface by AF_XDP, past the kernel's IP: for each destination the next hop, as Python found it.
#
# A next hop is known for a while only. Who is none, or no more, is wanted: Python is told, and until it has said who it is packets leave by
# the raw socket. So the kernel hears of each destination now and then, resolves its neighbour, and learns that it is in use.

DEF HOPS = 1024
DEF TRIED = 8
DEF WANTED = 8
DEF LINK_OCTETS = 14
DEF IPPROTO_ESP = 50
DEF IPPROTO_AH = 51

ctypedef struct Place:
    uint64_t address[2]       # IPv4: the first half of the first
    uint32_t version          # 0: nowhere

ctypedef struct Hop:
    Place dst
    uint32_t most             # octets of a packet; 0: the raw socket's
    uint64_t until_ns
    int way
    uint8_t front[LINK_OCTETS]

ctypedef struct Hops:
    Leaving ways[RINGS]
    int way_count
    Hop known[HOPS]
    Place wanted[WANTED]
    int wanted_count


cdef inline void put_place(Place *place, int version, const uint8_t *address) noexcept nogil:
    place.address[0] = place.address[1] = 0
    place.version = version
    memcpy(place.address, address, 4 if version == 4 else 16)


cdef inline bint is_place(const Place *one, const Place *other) noexcept nogil:
    return one.address[0] == other.address[0] and one.address[1] == other.address[1] and one.version == other.version


cdef inline uint32_t hop_place(const Place *dst) noexcept nogil:
    return <uint32_t> (((dst.address[0] ^ (dst.address[1] * <uint64_t> 0x9E3779B97F4A7C15)) * <uint64_t> 0xFF51AFD7ED558CCD) >> 54)


cdef Hop *hop_to(Hops *h, const Place *dst, uint64_t now) noexcept nogil:
    """The next hop to an address; NULL: it is wanted."""
    cdef uint32_t place = hop_place(dst)
    cdef uint32_t i
    cdef Hop *one
    for i in range(TRIED):
        one = &h.known[(place + i) & (HOPS - 1)]
        if now < one.until_ns and is_place(&one.dst, dst):
            return one
    for i in range(<uint32_t> h.wanted_count):
        if is_place(&h.wanted[i], dst):
            return NULL
    if h.wanted_count < WANTED:
        h.wanted[h.wanted_count] = dst[0]
        h.wanted_count += 1
    return NULL


cdef Hop *hop_for_new(Hops *h, const Place *dst, uint64_t now) noexcept nogil:
    """Where the next hop to an address is to be written: over what was known of it, over one that is known no more, or over somebody's."""
    cdef uint32_t place = hop_place(dst)
    cdef uint32_t i
    cdef Hop *one
    cdef Hop *free_one = NULL
    for i in range(TRIED):
        one = &h.known[(place + i) & (HOPS - 1)]
        if is_place(&one.dst, dst):
            return one
        if free_one == NULL and now >= one.until_ns:
            free_one = one
    return free_one if free_one != NULL else &h.known[place & (HOPS - 1)]


cdef Hop *leaves_by(Hops *h, const Packet *packet, uint64_t now) noexcept nogil:
    """The next hop of a result that may leave by AF_XDP; NULL: it may not, or it is not known."""
    cdef const uint8_t *ip = packet.result
    cdef int version = ip[0] >> 4
    cdef uint8_t protocol = ip[9] if version == 4 else ip[6]
    cdef Place dst
    cdef Hop *hop
    if packet.kind != PROTECTED or protocol != IPPROTO_ESP and protocol != IPPROTO_AH:
        return NULL
    if version == 4 and ip[4] == 0 and ip[5] == 0 and not ip[6] & 0x40:
        return NULL  # the kernel numbers it (raw(7)); with DF it needs none
    put_place(&dst, version, ip + (16 if version == 4 else 24))
    hop = hop_to(h, &dst, now)
    if hop == NULL or packet.result_octets > hop.most or h.ways[hop.way].descriptor < 0:
        return NULL
    return hop


cdef inline void go_all(Hops *h) noexcept nogil:
    """Have the kernel send what is written."""
    cdef int i
    for i in range(h.way_count):
        if h.ways[i].written:
            go(&h.ways[i])
