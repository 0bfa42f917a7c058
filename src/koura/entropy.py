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
