# The same pieces alone, for tests: super packets cut up and put together, and trains.

def cut_up(bytes octets, int room=BURST, bint is_local=False):
    """What a read from a TUN with virtio headers becomes: packets, `room` at a time; None where the header does not fit."""
    cdef Super s
    cdef Packet packets[BURST]
    cdef uint8_t *staging
    cdef uint8_t *to
    cdef int i, count
    if not 0 < room <= BURST:
        raise ValueError("a burst has room for 1 to 256 packets")
    if not take_super(&s, <const uint8_t *> PyBytes_AS_STRING(octets), <uint32_t> PyBytes_GET_SIZE(octets), True):
        return None
    staging = <uint8_t *> malloc(STAGING_OCTETS)
    if staging == NULL:
        raise MemoryError
    found = []
    try:
        while s.is_open:
            to = staging
            count = cut(&s, &to, staging + STAGING_OCTETS, packets, room)
            if is_local:
                number(packets, count)
            for i in range(count):
                found.append(PyBytes_FromStringAndSize(<char *> packets[i].data, packets[i].octets))
    finally:
        free(staging)
    return found


cdef int _results(list octets, Packet *packets, uint8_t kind) except -1:
    """Point packets at Python's octets, as results of the engine of this kind."""
    cdef bytes one
    cdef int i
    if len(octets) > BURST:
        raise ValueError("more than a burst")
    memset(packets, 0, sizeof(Packet) * BURST)
    for i, one in enumerate(octets):
        packets[i].result, packets[i].result_octets = <uint8_t *> PyBytes_AS_STRING(one), <uint32_t> PyBytes_GET_SIZE(one)
        packets[i].kind = kind
    return len(octets)


def put_together(list octets):
    """What packets become on their way to a TUN with virtio headers: one write each."""
    cdef Packet packets[BURST]
    cdef iovec pieces[PIECES + 1]
    cdef uint8_t front[FRONT]
    cdef Merge m
    cdef int i = 0
    cdef int k, n
    cdef int count = _results(octets, packets, DELIVERED)
    found = []
    while i < count:
        gather(packets, i, count, &m)
        n = assemble(packets, i, &m, front, pieces)
        found.append(b"".join([PyBytes_FromStringAndSize(<char *> pieces[k].iov_base, pieces[k].iov_len) for k in range(n)]))
        i += m.count
    return found


def trains(list octets):
    """How many of these whole UDP packets go with each call, in order."""
    cdef Packet packets[BURST]
    cdef iovec pieces[PIECES]
    cdef int i = 0
    cdef int length
    cdef int count = _results(octets, packets, PROTECTED)
    found = []
    while i < count:
        length = train_of(packets, i, count, 0 if packets[i].result[0] >> 4 == 4 else 1, pieces)
        found.append(length)
        i += length
    return found


def queues(list octets, int count):
    """Into which queue of a TUN that has so many each packet is written."""
    cdef Packet packets[BURST]
    cdef int i
    cdef int found = _results(octets, packets, DELIVERED)
    return [queue_of(&packets[i], count) for i in range(found)]


def dropped(served):
    """Which packets of a queue are dropped: served has (when in ns, how long it waited, whether there was a queue) of each."""
    cdef Delay delay
    memset(&delay, 0, sizeof(Delay))
    return [is_to_drop(&delay, now, now - waited, has_more) for now, waited, has_more in served]


def waits(turns):
    """How many nanoseconds to wait after each turn: (when in ns, how many packets it brought)."""
    cdef Pace pace
    memset(&pace, 0, sizeof(Pace))
    return [wait_of(&pace, count, now) for now, count in turns]
