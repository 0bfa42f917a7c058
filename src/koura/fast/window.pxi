# The anti-replay window of one SA: infer, check, commit. sadb.replay, whose words and ring these are.


cdef inline bint is_once(const Sa *sa) noexcept nogil:
    """32-bit numbers, each once."""
    return sa.numbers == ONCE


cdef inline uint64_t infer(const Sa *sa, uint32_t seq32) noexcept nogil:
    """The 64-bit number that 32 bits on the wire stand for. sadb.replay.Window.infer; RFC 4303 A2.

    0: zero, or beyond the number space (then the reference says so).
    """
    cdef uint64_t top, high, low, reach
    if is_once(sa):
        return seq32
    top = sa.hot[WINDOW_TOP]
    high, low = top >> 32, top & LAST32
    if sa.numbers == CYCLIC:
        reach = min(<uint64_t> sa.window, <uint64_t> 0x40000000)
        if low > LAST32 - reach and seq32 < reach:
            if high == LAST32:
                return 0
            high += 1
        elif high and seq32 > low + <uint64_t> 0x80000000:
            high -= 1
        return high << 32 | seq32
    reach = sa.window if sa.window else <uint64_t> 0x80000000
    if low >= reach - 1:
        if seq32 < low - reach + 1:
            if high == LAST32:
                return 0
            high += 1
    elif seq32 >= ((low - reach + 1) & LAST32) and high:
        high -= 1
    return high << 32 | seq32


cdef inline int stale(const Sa *sa, uint64_t seq64) noexcept nogil:
    """Why the window does not take the number; NO_END: it does. sadb.replay.Window.check."""
    cdef uint64_t top
    if sa.window == 0:
        return NO_END
    top = sa.hot[WINDOW_TOP]
    if seq64 == 0:
        return OVER if top == LAST32 and is_once(sa) else ZERO
    if seq64 > top or not sa.hot[WINDOW_SEEN]:
        return NO_END
    if top - seq64 >= sa.window:
        return OVER if top == LAST32 and is_once(sa) else OLD
    return REPLAYED if sa.ring[(seq64 >> 6) & sa.ring_mask] >> (seq64 & 63) & 1 else NO_END


cdef inline void commit(Sa *sa, uint64_t seq64) noexcept nogil:
    """Mark the number that authenticated. sadb.replay.Window.commit."""
    cdef uint64_t top = sa.hot[WINDOW_TOP]
    cdef uint64_t first, last, word
    sa.hot[ACCEPTED] += 1
    sa.hot[WINDOW_SEEN] = 1
    if sa.window:
        first, last = (top >> 6) + 1, seq64 >> 6
        if last >= first:
            if last - first >= sa.ring_mask:
                first = last - sa.ring_mask
            for word in range(first, last + 1):
                sa.ring[word & sa.ring_mask] = 0
        sa.ring[(seq64 >> 6) & sa.ring_mask] |= <uint64_t> 1 << (seq64 & 63)
    if seq64 > top:
        sa.hot[WINDOW_TOP] = seq64
