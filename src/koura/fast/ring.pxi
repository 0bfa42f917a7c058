# ESP from an AF_XDP socket: packets stand in frames that the kernel has filled, and are opened from there. AF_XDP; host.xdp.

DEF FRAMES = 4096
DEF FRAME_OCTETS = 4096
DEF ETHERNET_OCTETS = 14

ctypedef struct Received:     # struct xdp_desc
    uint64_t at
    uint32_t octets
    uint32_t options

ctypedef struct Ring:
    int descriptor
    uint8_t *frames
    uint32_t *fill_producer
    uint64_t *fill
    uint32_t *producer
    uint32_t *consumer
    Received *received
    uint64_t held[BURST]      # frames of the burst that is being opened
    uint32_t held_count
    uint64_t count            # of packets so far


cdef void give_back(Ring *r) noexcept nogil:
    """The frames of the burst before may be filled again."""
    cdef uint32_t at = r.fill_producer[0]
    cdef uint32_t i
    for i in range(r.held_count):
        r.fill[(at + i) & (FRAMES - 1)] = r.held[i] & ~<uint64_t> (FRAME_OCTETS - 1)
    koura_store(r.fill_producer, at + r.held_count)
    r.held_count = 0


cdef int take_frames(Io io, Ring *r, int most) noexcept nogil:
    """The next packets, at most a burst."""
    cdef Packet *packets = io.burst.packets
    cdef uint32_t at = r.consumer[0]
    cdef uint32_t there = koura_load(r.producer) - at
    cdef Received *one
    cdef View v
    cdef uint32_t octets
    cdef int count = 0
    give_back(r)
    if there > <uint32_t> most:
        there = most
    while r.held_count < there:
        one = &r.received[(at + r.held_count) & (FRAMES - 1)]
        r.held[r.held_count] = one.at
        r.held_count += 1
        if one.at >= <uint64_t> FRAMES * FRAME_OCTETS or one.octets < ETHERNET_OCTETS + IPV4_OCTETS:
            continue
        v.data, v.octets = r.frames + one.at + ETHERNET_OCTETS, one.octets - ETHERNET_OCTETS
        octets = word_at(v, 2) if octet_at(v, 0) >> 4 == 4 else <uint32_t> word_at(v, 4) + IPV6_OCTETS
        if octets < IPV4_OCTETS or octets > v.octets or octet_at(v, 0) >> 4 == 4 and not is_ipv4_right(v):
            io.truncated += 1  # no kernel would have taken it either
            continue
        packets[count].data, packets[count].octets = <uint8_t *> v.data, octets  # without Ethernet's padding
        count += 1
    koura_store(r.consumer, at + r.held_count)
    r.count += count
    return count


cdef void fill_all(Ring *r, const uint32_t *fill_consumer) noexcept:
    """Every frame that is not in a ring may be filled: at first all, later those that another process had in hand when it ended."""
    cdef uint8_t is_out[FRAMES]
    cdef uint32_t first = koura_load(fill_consumer)
    cdef uint32_t i
    memset(is_out, 0, sizeof(is_out))
    for i in range(r.fill_producer[0] - first):
        is_out[(r.fill[(first + i) & (FRAMES - 1)] // FRAME_OCTETS) & (FRAMES - 1)] = 1
    first = r.consumer[0]
    for i in range(koura_load(r.producer) - first):
        is_out[(r.received[(first + i) & (FRAMES - 1)].at // FRAME_OCTETS) & (FRAMES - 1)] = 1
    for i in range(FRAMES):
        if not is_out[i]:
            r.held[0], r.held_count = <uint64_t> i * FRAME_OCTETS, 1
            give_back(r)
