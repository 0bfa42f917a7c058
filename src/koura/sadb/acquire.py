"""Which ACQUIREs are sent, and which are held back: one for each relation, then one for every so many packets. pfkey.md §7.

    first packet for a relation         sent, with a number of our own
    the next blockacq_count packets     held back
    one more                            sent again, with the same number; while packets wait for the SA, not sooner than in a second
    blockacq_lifetime later, or when a key manager answers the number: forgotten

By the count alone a busy relation would ask thousands of times a second, of a key manager that is at work on the answer.
"""

import heapq
from dataclasses import dataclass

from koura.moment import NS_PER_S, Moment
from koura.saindex import Mode, SaIndex
from koura.settings import KeySettings

REPEAT_NS = NS_PER_S
_NUMBERS = 0x7FFF_FFFF


@dataclass(slots=True)
class _Asked:
    seq: int
    deadline_ns: int
    sent_ns: int
    count: int = 0


class Acquires:
    """What was asked for lately."""

    def __init__(self, last: int = 0) -> None:
        """`last`: the number before the first that is given out."""
        self._asked: dict[SaIndex, _Asked] = {}
        self._by_seq: dict[int, SaIndex] = {}
        self._heap: list[tuple[int, int]] = []  # (deadline, seq); one whose seq is forgotten is stale
        self._last = last % _NUMBERS

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, index: SaIndex, at: Moment, key: KeySettings, limit: int, *, is_held: bool = False) -> int | None:
        """A packet lacks an SA, for which it may wait (is_held): the number of the ACQUIRE to send, None where none is due.

        At `limit` relations the oldest goes.
        """
        asked = self._asked.get(index)
        if asked is not None and asked.deadline_ns > at.ns:
            asked.count += 1
            if asked.count <= key.blockacq_count or (is_held and at.ns - asked.sent_ns < REPEAT_NS):
                return None
            asked.count, asked.sent_ns = 0, at.ns
            return asked.seq
        if asked is not None:
            self._forget(index)
        while len(self._asked) >= limit:
            self._forget(next(iter(self._asked)))
        self._last = self._last % _NUMBERS + 1
        self._asked[index] = _Asked(self._last, at.ns + key.blockacq_lifetime_s * NS_PER_S, at.ns)
        self._by_seq[self._last] = index
        heapq.heappush(self._heap, (self._asked[index].deadline_ns, self._last))
        return self._last

    def settled(self, seq: int, index: SaIndex) -> None:
        """A key manager made an SA under this number: if it serves what was asked for, the next packet without one is a new matter.

        The larval SA of GETSPI is the other direction's: it settles nothing, so the ACQUIRE is not repeated while keys are negotiated.
        """
        asked = self._by_seq.get(seq)
        if asked is None or (index.src, index.dst, index.protocol) != (asked.src, asked.dst, asked.protocol):
            return
        if index.mode in (Mode.ANY, asked.mode) and asked.reqid in (0, index.reqid):
            self._forget(asked)

    def failed(self, seq: int) -> SaIndex | None:
        """A key manager gave up. The relation stays held back for its time; returned, so that who waits for it can be told."""
        index = self._by_seq.get(seq)
        if index is not None:
            self._asked[index].count = 0
        return index

    def due(self, at: Moment) -> None:
        """Forget what is too old."""
        while (deadline := self.next_deadline()) is not None and deadline <= at:
            self._forget(self._by_seq[self._heap[0][1]])

    def next_deadline(self) -> Moment | None:
        """When to call `due`."""
        while self._heap and self._heap[0][1] not in self._by_seq:
            heapq.heappop(self._heap)
        return Moment(self._heap[0][0]) if self._heap else None

    def _forget(self, index: SaIndex) -> None:
        del self._by_seq[self._asked.pop(index).seq]
