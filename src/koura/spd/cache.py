"""Answers of the SPD that are kept: net.key.spdcache.*. M6, S33.

Off by default: a question costs little already (classifier). An answer is good for one generation of the SPD; of too many the oldest
goes. FreeBSD's cache holds a power of two of entries, 8 at least, and is used from `threshold` policies on; so does this one.
"""

from dataclasses import dataclass, field

from koura.saindex import Direction
from koura.settings import KeySettings
from koura.spd.database import Database
from koura.spd.entry import Entry
from koura.spd.selector import Flow

LEAST_ENTRIES = 8


@dataclass(slots=True)
class Cache:
    """The answers of one SPD."""

    _kept: dict[tuple[Direction, Flow], Entry | None] = field(default_factory=dict)
    _generation: int = -1

    def __len__(self) -> int:
        return len(self._kept)

    def match(self, spd: Database, direction: Direction, flow: Flow, key: KeySettings) -> tuple[Entry | None, bool | None]:
        """What `spd.match` says, and whether it was known; None: the cache is not in use."""
        if not key.spdcache_maxentries or len(spd) < key.spdcache_threshold:
            return spd.match(direction, flow), None
        if self._generation != spd.generation:
            self._kept.clear()
            self._generation = spd.generation
        asked = (direction, flow)
        if asked in self._kept:
            return self._kept[asked], True
        entry = spd.match(direction, flow)
        while len(self._kept) >= room(key.spdcache_maxentries):
            del self._kept[next(iter(self._kept))]
        self._kept[asked] = entry
        return entry, False


def room(most: int) -> int:
    """How many answers are kept."""
    return max(LEAST_ENTRIES, 1 << (most - 1).bit_length())
