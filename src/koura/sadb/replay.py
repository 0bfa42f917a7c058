"""The anti-replay window. RFC 4303 §3.4.3 and Appendix A2 (ESN); a ring of words as RFC 6479 has it.

                  bottom                    top
    ... too old ... |###.##.#######.###.##.##| ... new ...          # seen, . not yet

Three calls, in the order of security: `infer` guesses the 64-bit number from the 32 on the wire; `check` says whether it may
be accepted; `commit` takes the number that authenticated. Between check and commit lies the ICV, and nothing moves before it.

A window of 0 packets checks nothing, yet the top advances, so that ESN's high half is inferred from it (S32): the nearest number
is meant, up to 2^31 packets lost or late.

Cyclic numbers (setkey's cyclic-seq, where no cipher counts with them) count on inside, as ESN's do, though no high half is
authenticated: the window goes over the wrap without a seam (S3). Only from the last window of one round into the first of the next;
any other small number is an old one. What an attacker kept of the round before is then new again: that is what "cyclic" asks for.
"""

from enum import Enum

from koura.sadb.hot import ACCEPTED, RING, RING_WORDS, WINDOW_SEEN, WINDOW_TOP, Hot

WORD_BITS = 64
MAX_PACKETS = (1 << 32) - 33
_LOW = 0xFFFF_FFFF
_HALF = 1 << 31


class Stale(Enum):
    """Why a number is not acceptable."""

    REPLAYED = "accepted before"
    OLD = "behind the window"
    ZERO = "never sent"
    OVER = "beyond the end of the number space"


def words_for(window_packets: int) -> int:
    """Words of a ring that holds the window: a power of two with one to spare. RFC 6479 §2."""
    if window_packets == 0:
        return 0
    need = -(-window_packets // WORD_BITS) + 1
    return 1 << (need - 1).bit_length()


class Numbers(Enum):
    """What an SA's sequence numbers are."""

    ONCE = "32 bits, each once"
    CYCLIC = "32 bits, beginning again"
    EXTENDED = "64 bits (ESN)"



class Window:
    """The window of one inbound SA; its top and count are words of `hot`, and so is its ring if it fits there."""

    __slots__ = ("_hot", "_mask", "_numbers", "_ring", "packets")

    def __init__(self, hot: Hot, packets: int, numbers: Numbers = Numbers.ONCE, *, highest: int = 0) -> None:
        """`highest`: the highest number authenticated before (setkey -seq); all up to it count as seen."""
        assert 0 <= packets <= MAX_PACKETS
        self._hot = hot
        self.packets = packets
        self._numbers = numbers
        words = words_for(packets)
        self._mask = words - 1
        self._ring = hot.words[RING : RING + words] if words <= RING_WORDS else memoryview(bytearray(8 * words)).cast("Q")
        self._ring[:] = memoryview((b"\xff" if highest else b"\0") * (8 * words)).cast("Q")
        if highest:
            hot.words[WINDOW_TOP] = highest
            hot.words[WINDOW_SEEN] = 1
        if highest and words:
            # Of the word that the top stands in, what lies above the top was not seen.
            self._ring[highest // WORD_BITS & self._mask] = (2 << highest % WORD_BITS) - 1

    @property
    def ring(self) -> memoryview:
        """The words of the ring, shared with the fast path."""
        return self._ring

    @property
    def top(self) -> int:
        """The highest number authenticated, 0 for none."""
        return int(self._hot.words[WINDOW_TOP])

    def infer(self, seq32: int) -> int:
        """The 64-bit number that 32 bits on the wire stand for. RFC 4303 A2.1, A2.2. Changes nothing.

        Without ESN it is the number itself. With ESN it is the candidate nearest the window: the one in or above it if its
        low half does not lie below the bottom, else the one of the next (or, where the window spans two, the former) epoch.
        """
        if self._numbers is Numbers.ONCE:
            return seq32
        top = self.top
        high, low = top >> 32, top & _LOW
        if self._numbers is Numbers.CYCLIC:
            return self._infer_cyclic(high, low, seq32)
        reach = self.packets or _HALF
        if low >= reach - 1:
            if seq32 < low - reach + 1:
                high += 1
        elif seq32 >= (low - reach + 1) & _LOW:
            high -= 1
        # Nothing lies before the first epoch: then it is a number of this one, far ahead.
        return max(high, 0) << 32 | seq32

    def _infer_cyclic(self, high: int, low: int, seq32: int) -> int:
        """The wrap is believed only where the window lies across it; what is nearer to the round before belongs to that one."""
        reach = min(self.packets, _HALF // 2)
        if low > _LOW - reach and seq32 < reach:
            high += 1
        elif high and seq32 > low + _HALF:
            high -= 1
        return high << 32 | seq32

    def check(self, seq64: int) -> Stale | None:
        """Whether the number may not be accepted, and why. Changes nothing."""
        if seq64 >> 64:
            return Stale.OVER
        if self.packets == 0:
            return None
        top = self.top
        if seq64 == 0:
            return self._over(top) or Stale.ZERO
        if seq64 > top or not self._hot.words[WINDOW_SEEN]:
            return None
        if top - seq64 >= self.packets:
            return self._over(top) or Stale.OLD
        if self._ring[seq64 // WORD_BITS & self._mask] >> seq64 % WORD_BITS & 1:
            return Stale.REPLAYED
        return None

    def _over(self, top: int) -> Stale | None:
        """A small number behind a window at the end of the space: what a sender that began again would send (S3)."""
        return Stale.OVER if top == _LOW and self._numbers is Numbers.ONCE else None

    def commit(self, seq64: int) -> None:
        """Mark the number that authenticated. It has passed `check`."""
        words = self._hot.words
        top = self.top
        words[ACCEPTED] += 1
        words[WINDOW_SEEN] = 1
        if self.packets:
            self._advance(top, seq64)
            self._ring[seq64 // WORD_BITS & self._mask] |= 1 << seq64 % WORD_BITS
        if seq64 > top:
            words[WINDOW_TOP] = seq64

    def _advance(self, top: int, seq64: int) -> None:
        """Clear the words that the ring takes in between the old top's and the new one's; never more than the ring has."""
        first, last = top // WORD_BITS + 1, seq64 // WORD_BITS
        first = max(first, last - self._mask)
        if first > last:
            return
        start, end = first & self._mask, last & self._mask
        if start <= end:
            self._ring[start : end + 1] = _zeros(end + 1 - start)
        else:
            self._ring[start:] = _zeros(self._mask + 1 - start)
            self._ring[: end + 1] = _zeros(end + 1)


def _zeros(words: int) -> memoryview:
    return memoryview(bytes(8 * words)).cast("Q")
