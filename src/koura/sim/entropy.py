"""Dice from one seed: the same seed, the same run."""

import random


class Seeded:
    """Entropy for the simulator, replay and tests; never for keys that protect anything."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def octets(self, count: int) -> bytes:
        """`count` random octets."""
        return self._random.randbytes(count)

    def below(self, limit: int) -> int:
        """A number of 0 <= n < limit."""
        return self._random.randrange(limit)
