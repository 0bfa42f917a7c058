"""Counters: every end of every packet, counted under its Reason, and what else netstat -s shows. One set per stack, SA, policy.

Names beside Reasons: `input`, `output`, `ibytes`, `obytes` per protocol ("esp.input"), `out_nosa`, `out_bundlesa` per family.
"""

from collections import Counter
from collections.abc import Mapping

from koura.reasons import BY_NAME, Ending


class Counters:
    """Counts. Reading one that was never bumped gives 0."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, reason: Ending) -> None:
        """One packet ended so."""
        self._counts[reason.name] += 1

    def add(self, name: str, amount: int = 1) -> None:
        """Anything that is not an end."""
        self._counts[name] += amount

    def of(self, reason: Ending) -> int:
        return self._counts[reason.name]

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def clear(self) -> None:
        self._counts.clear()

    def endings(self) -> Mapping[str, int]:
        """Counts by Reason, in the order of the table; zeros left out."""
        return {name: self._counts[name] for name in BY_NAME if self._counts[name]}

    def others(self) -> Mapping[str, int]:
        """The rest, by name; zeros left out."""
        return {name: count for name, count in sorted(self._counts.items()) if count and name not in BY_NAME}
