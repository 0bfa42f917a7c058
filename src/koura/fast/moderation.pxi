# How long to let packets gather before they are read, where they come one by one: interrupt moderation in software.
#
# Raw ESP has no trains: the first packet of a bulk wakes its receiver, which then takes the next ones as fast as they come, a few at a time, and each
# few costs system calls, a super packet of the TUN, and an ACK, all the way back. A wait as long as some more packets need, at the
# rate at which they came just now, makes the bulk cheaper at both ends. What is slower than that, a ping or a call, never waits.

DEF COMPANY = 32              # packets that are worth a wake-up
DEF LONGEST_NS = 150000       # plus the slack of timers, 50 microseconds
DEF SPARSE_NS = 20000         # packets further apart than this are no bulk
DEF SILENCE_NS = 1000000


ctypedef struct Pace:
    uint64_t before_ns        # the last time that something came
    uint64_t apart_ns         # how far apart packets are, on the average; 0: not known


cdef uint64_t wait_of(Pace *p, int count, uint64_t now) noexcept nogil:
    """How many nanoseconds to leave the sockets alone after a turn that brought `count` packets."""
    cdef uint64_t since = now - p.before_ns
    cdef uint64_t apart, wait
    if count == 0:
        return 0
    p.before_ns = now
    if since > SILENCE_NS:
        p.apart_ns = 0
        return 0
    apart = since // <uint64_t> count
    p.apart_ns = apart if p.apart_ns == 0 else (3 * p.apart_ns + apart) // 4
    if count >= COMPANY or p.apart_ns >= SPARSE_NS:
        return 0
    wait = p.apart_ns * <uint64_t> (COMPANY - count)
    return wait if wait < LONGEST_NS else LONGEST_NS


cdef void gather_company(Pace *p, int came, int left, uint64_t until) noexcept nogil:
    """Wait after a turn in which so many packets came in and left, if more are coming in, and the host has but answers to send."""
    cdef uint64_t now = boot_ns()
    cdef uint64_t wait = wait_of(p, came, now)
    cdef timespec span
    if wait == 0 or left >= came or now + wait >= until:
        return
    span.tv_sec, span.tv_nsec = 0, wait
    nanosleep(&span, NULL)
