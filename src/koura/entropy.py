"""Entropy: dice that are handed in, never thrown by the core.

`host.entropy` gives the operating system's, `sim.entropy` a seeded stream, so that one seed is one run.
"""

from typing import Protocol


class Entropy(Protocol):
    """A source of random octets and numbers."""

    def octets(self, count: int) -> bytes:
        """`count` unpredictable octets."""
        ...

    def below(self, limit: int) -> int:
        """A number of 0 <= n < limit, each equally likely; limit >= 1."""
        ...


POOL_OCTETS = 1 << 16
_SEED_OCTETS = 32


class Pooled:
    """Entropy drawn from a source in large pieces. A fast path reads the same memory, so both ways of doing a thing draw the same dice.

    `seed` is for hash tables;
    `memory` holds the octets; `cursor[0]` is how many of them are spent. What is public anyway (IVs, IDs, SPIs) is drawn from here.
    """

    def __init__(self, source: Entropy) -> None:
        self._source = source
        self.seed = source.octets(_SEED_OCTETS)
        self.memory = memoryview(bytearray(POOL_OCTETS))
        self.cursor = memoryview(bytearray(8)).cast("Q")
        self.cursor[0] = POOL_OCTETS

    def octets(self, count: int) -> bytes:
        """`count` unpredictable octets; more than the pool holds come from the source."""
        if count > POOL_OCTETS:
            return self._source.octets(count)
        start = self.cursor[0]
        if start + count > POOL_OCTETS:
            self.memory[:] = self._source.octets(POOL_OCTETS)
            start = 0
        self.cursor[0] = start + count
        taken = bytes(self.memory[start : start + count])
        self.memory[start : start + count] = bytes(count)
        return taken

    def below(self, limit: int) -> int:
        """A number of 0 <= n < limit: the fewest octets that hold it, drawn again while they are too large."""
        bits = (limit - 1).bit_length()
        while True:
            drawn = int.from_bytes(self.octets((bits + 7) // 8), "big") & ((1 << bits) - 1)
            if drawn < limit:
                return drawn
