# Frames out of an interface by AF_XDP: each is copied into the next frame of shared memory, and one call sends up to 32. AF_XDP; host.xdp.
#
# Entry n of the ring is the nth frame of its memory, always. Both rings' counters go on for as long as the socket lives, so that whoever inherits it
# knows from them alone what the kernel still has: nothing of this is lost with an engine.

DEF LEAVING_FRAMES = 2048
DEF LEAVING_OCTETS = 4096

ctypedef struct Sent:         # struct xdp_desc
    uint64_t at
    uint32_t octets
    uint32_t options

ctypedef struct Leaving:
    int descriptor            # -1: none, or its interface has gone
    uint8_t *frames
    uint64_t first            # where in the socket's memory they begin
    uint32_t *producer
    uint32_t *consumer
    Sent *entries
    uint32_t *done            # the completion ring's producer, and its consumer
    uint32_t *seen
    uint32_t written          # frames that the kernel has not been told of
    uint64_t count            # of frames so far
    bint is_stuck             # the kernel took nothing for a moment: it is not waited for again before it does


cdef bint is_full(Leaving *l) noexcept nogil:
    """Whether the kernel has every frame; what it has done with is taken back."""
    cdef uint32_t done = koura_load(l.done)
    koura_store(l.seen, done)
    return l.producer[0] + l.written - done >= LEAVING_FRAMES


cdef void map_leaving(Leaving *l, rings):
    """What a koura.host.xdp.Leaving says; it must be kept."""
    cdef uint8_t[::1] frames = rings.frames
    cdef uint8_t[::1] sent = rings.sent
    cdef uint8_t[::1] done = rings.done
    cdef Py_ssize_t producer, consumer, entries, over, seen
    producer, consumer, entries, over, seen = rings.places
    l.first = rings.first
    assert l.first + LEAVING_FRAMES * LEAVING_OCTETS == <uint64_t> frames.shape[0]
    assert entries + LEAVING_FRAMES * <Py_ssize_t> sizeof(Sent) <= sent.shape[0] and max(over, seen) + 4 <= done.shape[0]
    l.producer, l.consumer, l.entries = <uint32_t *> &sent[producer], <uint32_t *> &sent[consumer], <Sent *> &sent[entries]
    l.done, l.seen = <uint32_t *> &done[over], <uint32_t *> &done[seen]
    l.frames, l.descriptor, l.written = &frames[l.first], rings.descriptor, 0


cdef bint leave(Leaving *l, const uint8_t *front, uint32_t front_octets, const Packet *packet) noexcept nogil:
    """Write one frame; False: there is no room, even after a moment."""
    cdef uint32_t number
    cdef uint8_t *frame
    if is_full(l):
        go(l)
        if l.descriptor < 0 or is_full(l):
            return False
    number = (l.producer[0] + l.written) & (LEAVING_FRAMES - 1)
    frame = l.frames + <uint64_t> number * LEAVING_OCTETS
    memcpy(frame, front, front_octets)
    memcpy(frame + front_octets, packet.result, packet.result_octets)
    l.entries[number].at, l.entries[number].octets = l.first + <uint64_t> number * LEAVING_OCTETS, front_octets + packet.result_octets
    l.entries[number].options = 0
    l.written += 1
    l.count += 1
    return True


cdef void go(Leaving *l) noexcept nogil:
    """Have the kernel send what is written. What it does not take now, because the interface is down or full, goes with the next."""
    cdef uint32_t last = l.producer[0] + l.written
    cdef uint32_t before
    koura_store(l.producer, last)
    l.written = 0
    while True:
        before = koura_load(l.consumer)
        if before == last:
            return
        if sendto(l.descriptor, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 and errno == ENXIO:
            l.descriptor = -1
            return
        if koura_load(l.consumer) != before:
            l.is_stuck = False
        elif l.is_stuck:
            return
        else:
            l.is_stuck = True
            poll(NULL, 0, PATIENCE_MS)
