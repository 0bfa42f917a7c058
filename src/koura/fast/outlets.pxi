# More TUNs than the host's own: virtual tunnel interfaces. Each has a tag, which keeps its flows apart, and a number, which inbound flows
# name (flows.pxd): a packet under its SA goes there or nowhere.

DEF ERRORS = 134              # errno of Linux, and 0 for what has none

ctypedef struct Outlet:
    int descriptors[QUEUES]
    int count                 # 0: there is none of this number
    uint64_t tag
    uint64_t taken
    uint64_t unread
    uint64_t delivered
    uint64_t lost[ERRORS]     # not taken by the TUN, by errno

DEF FIRST_ROOM = 8


cdef inline Outlet *outlet_at(Io io, int number) noexcept nogil:
    """The TUN of this number, from 1 on; NULL: there is none."""
    cdef Outlet *found
    if number < 1 or number > io.outlet_room:
        return NULL
    found = <Outlet *> io.outlets + number - 1
    return found if found.count else NULL


cdef inline int outlet_source(int number, int queue) noexcept nogil:
    return OUTLETS + number * QUEUES + queue


cdef inline Outlet *outlet_of_source(Io io, int source) noexcept nogil:
    return outlet_at(io, (source - OUTLETS) // QUEUES) if source >= OUTLETS else NULL


cdef inline int outlet_descriptor(Io io, int source) noexcept nogil:
    cdef Outlet *outlet = outlet_of_source(io, source)
    return outlet.descriptors[(source - OUTLETS) % QUEUES] if outlet != NULL else -1


cdef inline int source_of_outlet(Io io, int descriptor) noexcept nogil:
    """Which of theirs it is."""
    return io.by_descriptor[descriptor] if descriptor < io.descriptor_room else <int> NOTHING


cdef int put_outlet(Io io, uint64_t tag, descriptors) except -1:
    """Its number."""
    cdef Outlet *outlet
    cdef int number = 1
    cdef int queue, descriptor, room
    cdef void *grown
    while outlet_at(io, number) != NULL:
        number += 1
    if number > io.outlet_room:
        room = 2 * io.outlet_room if io.outlet_room else FIRST_ROOM
        grown = realloc(io.outlets, room * sizeof(Outlet))
        if grown == NULL:
            raise MemoryError
        memset(<Outlet *> grown + io.outlet_room, 0, (room - io.outlet_room) * sizeof(Outlet))
        io.outlets, io.outlet_room = grown, room
    room = max(descriptors) + 1
    if room > io.descriptor_room:
        grown = realloc(io.by_descriptor, room * sizeof(int))
        if grown == NULL:
            raise MemoryError
        memset(<int *> grown + io.descriptor_room, 0, (room - io.descriptor_room) * sizeof(int))
        io.by_descriptor, io.descriptor_room = <int *> grown, room
    outlet = <Outlet *> io.outlets + number - 1
    memset(outlet, 0, sizeof(Outlet))
    outlet.tag, outlet.count = tag, len(descriptors)
    for queue, descriptor in enumerate(descriptors):
        outlet.descriptors[queue] = descriptor
        io.by_descriptor[descriptor] = outlet_source(number, queue)
    return number


cdef void take_away(Io io, Outlet *outlet) noexcept nogil:
    """A turn that was left to Python there is nobody's any more, nor what is still to be cut."""
    cdef int queue
    cdef State *state = <State *> io.state
    if outlet_of_source(io, io.pending) == outlet:
        io.pending = NOTHING
    if outlet_of_source(io, state.super_source) == outlet:
        state.super.is_open = False
    for queue in range(outlet.count):
        io.by_descriptor[outlet.descriptors[queue]] = NOTHING
    memset(outlet, 0, sizeof(Outlet))


cdef lost_by_errno(const Outlet *outlet):
    cdef int error
    found = {}
    for error in range(ERRORS):
        if outlet.lost[error]:
            found[error] = outlet.lost[error]
    return found


cdef bint answer_outlets(Io io, uint64_t anchor_ns) noexcept nogil:
    """A burst of each that is ready; False: one is left to Python, and the next turn begins elsewhere among them."""
    cdef State *state = <State *> io.state
    cdef int k
    for k in range(state.ready_count):
        if not answer(io, state.ready[(k + state.punted) % state.ready_count], anchor_ns):
            state.punted = (state.punted + 1) & 0xFFFF
            return False
    return True


cdef void deliver_to(Io io, int first, int last, uint32_t number) noexcept nogil:
    """Results to one TUN, TCP segments that follow one another as one super packet. number: 0 is the host's."""
    cdef Outlet *outlet = outlet_at(io, <int> number)
    cdef const int *queues = &io.tuns[0] if number == 0 else &outlet.descriptors[0] if outlet != NULL else NULL
    cdef int queue_count = io.tun_count if number == 0 else outlet.count if outlet != NULL else 0
    cdef uint8_t front[FRONT]
    cdef iovec pieces[PIECES + 1]
    cdef uint64_t gone = 0
    cdef Merge m
    cdef int n
    cdef int i = first
    while i < last and queue_count:
        if io.has_vnet:
            gather(io.burst.packets, i, last, &m)
            n = assemble(io.burst.packets, i, &m, front, pieces)
        else:
            m.count = n = 1
            pieces[0].iov_base, pieces[0].iov_len = io.burst.packets[i].result, io.burst.packets[i].result_octets
        if writev(queues[queue_of(&io.burst.packets[i], queue_count)], pieces, n) >= 0:
            gone += m.count
        elif outlet != NULL:
            outlet.lost[errno if 0 <= errno < ERRORS else 0] += m.count
        i += m.count
    io.delivered += gone
    io.undelivered += last - first - gone
    if outlet != NULL:
        outlet.delivered += gone
