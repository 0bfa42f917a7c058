# How long packets waited in a socket, and which of them are dropped to keep that short: CoDel, RFC 8289 §5.
#
# What TCP has under way stands before the slowest stage. Where that is the socket of ESP, every packet behind waits as long, the lone ping,
# too, and there is no other order that an SA's packets could be served in. A packet dropped now and then makes the senders' windows fit.

DEF TARGET_NS = 200000
DEF INTERVAL_NS = 5000000
DEF BULK_OCTETS = 600
DEF NONSENSE_NS = 2000000000


ctypedef struct Delay:
    uint64_t above_until_ns   # it has been above the target since an interval before this; 0: it is below
    uint64_t next_ns          # of the next drop
    uint32_t count            # drops since it began to drop
    uint32_t count_before
    bint is_dropping


cdef inline uint64_t control_law(uint64_t at, uint32_t count) noexcept nogil:
    return at + <uint64_t> (INTERVAL_NS / sqrt(<double> count))


cdef bint is_to_drop(Delay *d, uint64_t now, uint64_t stamp, bint has_more) noexcept nogil:
    """Whether what came at `stamp` and is served now is to be dropped. A clock that was set meanwhile means nothing.

    has_more: there was a queue. A lone packet waited for a processor, and nobody would wait less without it.
    """
    cdef uint64_t waited = now - stamp if stamp and now > stamp else 0
    cdef bint is_late = False
    cdef uint32_t delta
    if not has_more or waited < TARGET_NS or waited > NONSENSE_NS:
        d.above_until_ns = 0
    elif d.above_until_ns == 0:
        d.above_until_ns = now + INTERVAL_NS
    else:
        is_late = now >= d.above_until_ns
    if d.is_dropping:
        if not is_late:
            d.is_dropping = False
        elif now >= d.next_ns:
            d.count += 1
            d.next_ns = control_law(d.next_ns, d.count)
            return True
        return False
    if not is_late:
        return False
    d.is_dropping = True
    delta = d.count - d.count_before
    d.count = delta if delta > 1 and now - d.next_ns < 16 * INTERVAL_NS else 1
    d.count_before = d.count
    d.next_ns = control_law(now, d.count)
    return True
