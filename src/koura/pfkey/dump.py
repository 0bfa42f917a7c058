"""A dump that waits to be read, as fast as its reader reads. R55, S23.

What a dump shows: the entries that were in the database when it was asked for, each exactly once, in dump order. An entry is shown
as it is when its turn comes; one that was removed meanwhile is shown as it was at its end, one that was added is not shown. So the
numbers have no gap and the last message is always recognisable by its 0: n-1, n-2, ... 0 (Linux: 1, 2, ... and 0 for the last).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from koura.pfkey.dialect import Dialect
from koura.pfkey.message import Message


@dataclass(slots=True, eq=False)
class Dump:
    """One dump in progress. `show(entry, seq)` makes the message of an entry; `taken` of them have been."""

    entries: Sequence[Any]
    show: Callable[[Any, int], Message]
    dialect: Dialect
    taken: int = 0
    _next: bytes = b""

    @property
    def is_done(self) -> bool:
        return self.taken == len(self.entries)

    def take(self, room_octets: int) -> list[bytes]:
        """As many messages as fit into the room; none when the next one does not."""
        found = []
        while not self.is_done:
            octets = self._next or self._write()
            if len(octets) > room_octets:
                self._next = octets
                break
            self._next = b""
            room_octets -= len(octets)
            found.append(octets)
            self.taken += 1
        return found

    def _write(self) -> bytes:
        left = len(self.entries) - self.taken - 1
        seq = left if not self.dialect.dumps_count_up or left == 0 else self.taken + 1
        return self.show(self.entries[self.taken], seq).write(self.dialect)
