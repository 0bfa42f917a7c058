"""Packets that wait for something: an SA, the keys of a larval one, a grant of numbers. S31; RFC 4301 §5.1.

One class, three uses. Each waiting packet has a key (what it waits for), a group (what its limit counts by) and a deadline.
Packets of one key leave in the order they came. Not here: what they are told when they leave (outbound, inbound).
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from koura.moment import Moment
from koura.traffic.outcome import Applied, Origin


@dataclass(frozen=True, slots=True)
class Waiting:
    """One packet that waits; `came`: its Origin, or for an inbound one the history it has so far."""

    packet: bytes
    came: Origin | tuple[Applied, ...]
    group: Hashable
    deadline_ns: int


Key = TypeVar("Key", bound=Hashable)


class Holds(Generic[Key]):
    """The packets that wait, by what they wait for."""

    def __init__(self) -> None:
        self._queues: dict[Key, list[Waiting]] = {}
        self._groups: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def add(self, key: Key, waiting: Waiting, limit_packets: int) -> bool:
        """Keep a packet; False, and not kept, when its group has `limit_packets` waiting already."""
        count = self._groups.get(waiting.group, 0)
        if count >= limit_packets:
            return False
        self._groups[waiting.group] = count + 1
        self._queues.setdefault(key, []).append(waiting)
        return True

    def take(self, is_ready: Callable[[Key], bool]) -> tuple[Waiting, ...]:
        """Remove and return what waits for the keys that are ready."""
        taken: list[Waiting] = []
        for key in [key for key in self._queues if is_ready(key)]:
            taken += self._queues.pop(key)
        self._leave(taken)
        return tuple(taken)

    def due(self, at: Moment) -> tuple[Waiting, ...]:
        """Remove and return what has waited too long."""
        late: list[Waiting] = []
        for key, queue in list(self._queues.items()):
            kept = [waiting for waiting in queue if waiting.deadline_ns > at.ns]
            if len(kept) == len(queue):
                continue
            late += [waiting for waiting in queue if waiting.deadline_ns <= at.ns]
            if kept:
                self._queues[key] = kept
            else:
                del self._queues[key]
        self._leave(late)
        return tuple(late)

    def next_deadline(self) -> Moment | None:
        """When to call `due`. Deadlines of one key need not be in order: settings change."""
        ends = [waiting.deadline_ns for queue in self._queues.values() for waiting in queue]
        return Moment(min(ends)) if ends else None

    def _leave(self, gone: list[Waiting]) -> None:
        for waiting in gone:
            self._groups[waiting.group] -= 1
            if not self._groups[waiting.group]:
                del self._groups[waiting.group]
