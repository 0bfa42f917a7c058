"""The policies of sockets: at most one for each direction of each. R20, R27, M31-M33.

A socket without one, or with `entrust`, uses the SPD. A socket is a number that the host chose; what it is, only the host knows.
"""

from koura.saindex import Direction
from koura.spd.entry import Entry


class SocketPolicies:
    """Entries by socket and direction, in the order they were set."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[int, dict[Direction, Entry]] = {}

    def __len__(self) -> int:
        return sum(len(directions) for directions in self._entries.values())

    def get(self, socket: int, direction: Direction) -> Entry | None:
        """The socket's own entry; None means: use the SPD."""
        directions = self._entries.get(socket)
        return directions.get(direction) if directions is not None else None

    def of(self, socket: int) -> tuple[Entry, ...]:
        """All entries of a socket, by direction."""
        directions = self._entries.get(socket, {})
        return tuple(directions[direction] for direction in sorted(directions))

    def put(self, socket: int, entry: Entry) -> None:
        self._entries.setdefault(socket, {})[entry.direction] = entry

    def take(self, socket: int, direction: Direction) -> Entry | None:
        """Remove and return the entry, if there is one."""
        directions = self._entries.get(socket, {})
        entry = directions.pop(direction, None)
        if not directions:
            self._entries.pop(socket, None)
        return entry

    def all(self) -> list[Entry]:
        return [directions[direction] for directions in self._entries.values() for direction in sorted(directions)]
