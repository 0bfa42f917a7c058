# A turn of the loop: what is ready is read, answered and sent; what is not native, or not the engine's, is left to Python.


cdef int turn(Io io, int epoll, uint64_t until, uint64_t anchor_ns, bint is_on, epoll_event *events) noexcept nogil:
    """Io.turn; the rest in `events`, which has room for one more than EVENTS."""
    cdef int count, i, source
    cdef int rest = 0
    cdef uint32_t ready
    cdef uint64_t now = boot_ns()
    cdef State *state = <State *> io.state
    cdef uint64_t taken, received
    cdef bint is_single
    while True:
        count = epoll_wait(epoll, events + 1, EVENTS, patience_ms(now, until))
        ready, state.ready_count = 0, 0
        for i in range(1, count + 1):
            source = source_of(io, events[i].data.fd) if is_on and events[i].events & EPOLLIN else NOTHING
            if source >= OUTLETS:
                state.ready[state.ready_count] = source
                state.ready_count += 1
                ready |= <uint32_t> 1 << OUTLETS
            elif source != NOTHING:
                ready |= <uint32_t> 1 << source
            else:
                rest += 1
                events[rest] = events[i]
        taken, received = io.taken, io.received
        is_single = ready & TRAINS == 0
        if not answer_all(io, ready, anchor_ns):  # what Python must go on with comes first
            events[0].data.fd, events[0].events = descriptor_of(io, io.pending), EPOLLIN
            return rest + 1
        if rest == 0 and is_single:
            gather_company(&state.pace, <int> (io.received - received), <int> (io.taken - taken), until)
        now = boot_ns()
        if rest or count < 0 or now >= until or io.refused_count or state.hops.wanted_count:
            memmove(events, events + 1, rest * sizeof(epoll_event))
            return rest


cdef bint answer_all(Io io, uint32_t ready, uint64_t anchor_ns) noexcept nogil:
    """A burst of each of these sources; False: one is left to Python, and at the next turn those behind it come first.

    All outlets together stand behind the others.
    """
    cdef int k, source
    for k in range(SOURCES + 1):
        source = (io.first + k) % (SOURCES + 1)
        if ready & (<uint32_t> 1 << source) and not (answer_outlets(io, anchor_ns) if source == OUTLETS else answer(io, source, anchor_ns)):
            io.first = source + 1
            return False
    return True


cdef int descriptor_of(Io io, int source) noexcept nogil:
    """The other way round."""
    if source >= OUTLETS:
        return outlet_descriptor(io, source)
    if source >= XDP:
        return (<State *> io.state).rings[source - XDP].descriptor
    if source >= OUT:
        return io.tuns[source - OUT]
    return io.udp[source - UDP4] if source < ESP4 else io.esp[source - ESP4]


cdef int source_of(Io io, int descriptor) noexcept nogil:
    """Which of ours it is."""
    cdef int which
    for which in range(io.tun_count):
        if descriptor == io.tuns[which]:
            return OUT + which
    for which in range(io.ring_count):
        if descriptor == (<State *> io.state).rings[which].descriptor:
            return XDP + which
    for which in range(2):
        if descriptor == io.udp[which]:
            return UDP4 + which
        if descriptor == io.esp[which]:
            return ESP4 + which
    return source_of_outlet(io, descriptor)


cdef bint answer(Io io, int source, uint64_t anchor_ns) noexcept nogil:
    """A burst from there, and what of it is left here; False: the engine did not answer all of it, Python goes on."""
    cdef int count, first, done
    cdef int left = LEFT_HERE
    cdef uint64_t at_ns
    while left == LEFT_HERE:
        count = take(io, source, &left)
        at_ns = anchor_ns + boot_ns()
        first = 0
        io.is_unsettled |= count > 0
        while first < count:
            if OUT <= source < XDP or source >= OUTLETS:
                done = io._seal(first, count, at_ns)
            else:
                done = io._open(first, count, source != ESP4 and source < XDP, at_ns)
            first += done
            if done == 0:
                io.pending, io.pending_first, io.pending_count, io.pending_left = source, first, count, left
                return False
    return True


cdef int take(Io io, int source, int *left) noexcept nogil:
    """The next burst from there."""
    cdef State *state = <State *> io.state
    cdef int count
    left[0] = 0
    if XDP <= source < OUTLETS:
        count = take_frames(io, &state.rings[source - XDP], ENOUGH)
    elif source >= OUT:
        count = io._read(source)
        io.taken += count
        left[0] = LEFT_HERE if state.super.is_open else LEFT_THERE if count >= ENOUGH else 0
        return count
    elif source == UDP4 or source == UDP6:
        count = io._receive(source - UDP4)
        left[0] = LEFT_HERE if state.train < state.train_count else LEFT_THERE if state.is_full else 0
    else:
        count = io._receive_esp(source - ESP4)
        left[0] = LEFT_THERE if count == MESSAGES else 0
    io.received += count
    return count


cdef taken(Io io, int source):
    """What a turn has left of this source, or else its next burst."""
    cdef int count
    cdef int first = 0
    cdef int left = 0
    if io.pending == source:
        first, count, left, io.pending = io.pending_first, io.pending_count, io.pending_left, NOTHING
    else:
        with nogil:
            count = take(io, source, &left)
    return first, count, left
