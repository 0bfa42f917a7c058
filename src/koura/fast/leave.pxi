# Frames out of an interface by AF_XDP: each is copied into the next frame of shared memory, and one call sends up to 32. AF_XDP; host.xdp.
#
# Frame n of the ring is frame n of the memory. Both rings' counters go on for as long as the socket lives, so that whoever inherits it
# knows from them alone what the kernel still has: nothing of this is lost with an engine.

DEF LEAVING_FRAMES = 2048
DEF LEAVING_OCTETS = 4096

cdef extern from *:
    """
    static inline uint32_t koura_load(const uint32_t *from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
    static inline void koura_store(uint32_t *to, uint32_t value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }
    """
    uint32_t koura_load(const uint32_t *) nogil
    void koura_store(uint32_t *, uint32_t) nogil

ctypedef struct Sent:         # struct xdp_desc
    uint64_t at
    uint32_t octets
    uint32_t options

ctypedef struct Leaving:
    int descriptor            # -1: none, or its interface has gone
    uint8_t *frames
    uint32_t *producer
    uint32_t *consumer
    Sent *entries
    uint32_t *done            # the completion ring's producer, and its consumer
    uint32_t *seen
    uint32_t written          # frames that the kernel has not been told of


cdef bint is_full(Leaving *l) noexcept nogil:
    """Whether the kernel has every frame; what it has done with is taken back."""
    cdef uint32_t done = koura_load(l.done)
    koura_store(l.seen, done)
    return l.producer[0] + l.written - done >= LEAVING_FRAMES


cdef bint leave(Leaving *l, const Front *front, const Packet *packet) noexcept nogil:
    """Write one frame; False: there is no room, even after a moment."""
    cdef uint32_t number
    cdef uint8_t *frame
    if is_full(l):
        go(l)
        if l.descriptor < 0 or is_full(l):
            return False
    number = (l.producer[0] + l.written) & (LEAVING_FRAMES - 1)
    frame = l.frames + <uint64_t> number * LEAVING_OCTETS
    memcpy(frame, front.octets, front.count)
    memcpy(frame + front.count, packet.result, packet.result_octets)
    l.entries[number].at, l.entries[number].octets = <uint64_t> number * LEAVING_OCTETS, front.count + packet.result_octets
    l.entries[number].options = 0
    l.written += 1
    return True


cdef void go(Leaving *l) noexcept nogil:
    """Have the kernel send what is written. What it does not take now, because the interface is down or full, goes with the next."""
    cdef uint32_t last = l.producer[0] + l.written
    cdef uint32_t before
    cdef bint has_waited = False
    koura_store(l.producer, last)
    l.written = 0
    while True:
        before = koura_load(l.consumer)
        if before == last:
            return
        if sendto(l.descriptor, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 and errno == ENXIO:
            l.descriptor = -1
            return
        if koura_load(l.consumer) == before:
            if has_waited:
                return
            has_waited = True
            poll(NULL, 0, PATIENCE_MS)
        else:
            has_waited = False
