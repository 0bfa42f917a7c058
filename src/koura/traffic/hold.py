"""Packets that wait for something: an SA, the keys of a larval one, a grant of numbers. S31; RFC 4301 §5.1.

One class, three uses. Each waiting packet has a key (what it waits for), a group (what its limit counts by) and a deadline.
Packets of one key leave in the order they came. Not here: what they are told when they leave (outbound, inbound).
"""

import heapq
from collections.abc import Callable, Hashable, Iterable
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
    """The packets that wait, by what they wait for, numbered as they came.

    topic: what a key belongs to for those who bring news: they name topics, and no key of another one is looked at.
    """

    def __init__(self, topic: Callable[[Key], Hashable]) -> None:
        self._topic = topic
        self._topics: dict[Hashable, dict[Key, None]] = {}
        self._queues: dict[Key, dict[int, Waiting]] = {}
        self._groups: dict[Hashable, int] = {}
        self._deadlines: list[tuple[int, int, Key]] = []  # a heap; packets that have left stay in it for a while
        self._count = 0
        self._last = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: Key, waiting: Waiting, limit_packets: int) -> bool:
        """Keep a packet; False, and not kept, when its group has `limit_packets` waiting already."""
        count = self._groups.get(waiting.group, 0)
        if count >= limit_packets:
            return False
        self._groups[waiting.group] = count + 1
        self._count += 1
        self._last += 1
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = {}
            self._topics.setdefault(self._topic(key), {})[key] = None
        queue[self._last] = waiting
        heapq.heappush(self._deadlines, (waiting.deadline_ns, self._last, key))
        return True

    def take(self, topics: Iterable[Hashable], is_ready: Callable[[Key], bool]) -> tuple[Waiting, ...]:
        """There is news of these topics: remove and return what waits for those of their keys that are ready."""
        taken: list[Waiting] = []
        for topic in topics if self._queues else ():
            for key in [key for key in self._topics.get(topic, ()) if is_ready(key)]:
                taken += self._queues[key].values()
                self._forget(key)
        for waiting in taken:
            self._left(waiting)
        return tuple(taken)

    def due(self, at: Moment) -> tuple[Waiting, ...]:
        """Remove and return what has waited too long, in order of the deadlines."""
        late: list[Waiting] = []
        while (deadline := self.next_deadline()) is not None and deadline <= at:
            _, number, key = heapq.heappop(self._deadlines)
            late.append(self._queues[key].pop(number))
            if not self._queues[key]:
                self._forget(key)
            self._left(late[-1])
        return tuple(late)

    def next_deadline(self) -> Moment | None:
        """When to call `due`."""
        heap = self._deadlines
        while heap and heap[0][1] not in self._queues.get(heap[0][2], ()):
            heapq.heappop(heap)
        return Moment(heap[0][0]) if heap else None

    def _forget(self, key: Key) -> None:
        """Nothing waits for it any more."""
        del self._queues[key]
        topic = self._topic(key)
        del self._topics[topic][key]
        if not self._topics[topic]:
            del self._topics[topic]

    def _left(self, waiting: Waiting) -> None:
        self._count -= 1
        self._groups[waiting.group] -= 1
        if not self._groups[waiting.group]:
            del self._groups[waiting.group]
