"""Lifetimes: what a packet adds, what has run out. RFC 2367 §2.3.2, RFC 4301 §4.4.2.1.

Limits of packets and octets can only be crossed by a packet, limits of time only by a deadline: `use` notes the former, a heap
orders the latter, and `due` collects both, so that nobody scans a hundred thousand SAs. Hard comes before soft; each is told once.
"""

import heapq
from dataclasses import dataclass, replace

from koura.moment import NS_PER_S, Moment
from koura.sadb.agreement import NO_LIMITS, Agreement, Limits
from koura.sadb.association import Association, Happened, State
from koura.sadb.hot import OCTETS, PACKETS, SEQUENCE_LAST, SOFT_TOLD, USED_FIRST_NS, USED_LAST_NS, WINDOW_TOP

SOFT_PERCENT = 80


@dataclass(frozen=True, slots=True)
class Expired:
    """An SA whose soft or hard lifetime ended just now."""

    sa: Association
    is_hard: bool


def completed(agreement: Agreement) -> Agreement:
    """The agreement with soft limits at 80 % of the hard ones wherever none was given (S20)."""
    hard, soft = agreement.hard, agreement.soft
    if not any(_fields(hard)):
        return agreement
    filled = Limits(*(given or limit * SOFT_PERCENT // 100 for given, limit in zip(_fields(soft), _fields(hard), strict=True)))
    return agreement if filled == soft else replace(agreement, soft=filled)


def _fields(limits: Limits) -> tuple[int, int, int, int]:
    return limits.packets, limits.octets, limits.add_s, limits.use_s


def use(sa: Association, octets: int, at: Moment) -> None:
    """Account one packet of `octets`; inbound after removal of the protection, outbound finished, both with the IP header."""
    words = sa.hot.words
    words[PACKETS] += 1
    sa.hot.add(OCTETS, octets)
    words[USED_LAST_NS] = at.ns
    if not words[USED_FIRST_NS]:
        words[USED_FIRST_NS] = at.ns


def state_of(sa: Association, at: Moment) -> Happened | None:
    """Whether a limit is crossed now: HARD_LIMIT, SOFT_LIMIT (not told yet), or None."""
    if not sa.is_usable:
        return None
    if _is_over(sa, sa.agreement.hard, at):
        return Happened.HARD_LIMIT
    if sa.hot.words[SOFT_TOLD]:
        return None
    return Happened.SOFT_LIMIT if _is_over(sa, sa.agreement.soft, at) or _is_nearly_spent(sa) else None


def expire(sa: Association, happened: Happened) -> Expired:
    """Moves the SA on and says what to tell key management."""
    if happened is Happened.SOFT_LIMIT:
        sa.hot.words[SOFT_TOLD] = 1
    if happened is Happened.HARD_LIMIT or sa.state is State.MATURE:
        sa.happen(happened)
    return Expired(sa, happened is Happened.HARD_LIMIT)


def _is_over(sa: Association, limits: Limits, at: Moment) -> bool:
    if limits is NO_LIMITS:
        return False
    words = sa.hot.words
    if limits.packets and words[PACKETS] >= limits.packets:
        return True
    if limits.octets and words[OCTETS] >= limits.octets:
        return True
    return bool(limits.add_s or limits.use_s) and any(deadline <= at.ns for deadline in _deadlines(sa, limits))


def _deadlines(sa: Association, limits: Limits) -> list[int]:
    first = sa.hot.words[USED_FIRST_NS]
    ends = [sa.created.ns + limits.add_s * NS_PER_S] if limits.add_s else []
    return [*ends, first + limits.use_s * NS_PER_S] if limits.use_s and first else ends


def _is_nearly_spent(sa: Association) -> bool:
    """80 % of the number space are gone, out or in (S18)."""
    spent = max(sa.hot.words[SEQUENCE_LAST], sa.hot.words[WINDOW_TOP])
    return bool(spent > sa.last_sequence // 100 * SOFT_PERCENT)


class Deadlines:
    """When to look at which SA again. A stale entry costs one look."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Association]] = []
        self._crossed: dict[int, Association] = {}
        self._count = 0

    def watch(self, sa: Association) -> None:
        """Note the SA's next deadline; call when it becomes mature, renewed, or is used for the first time."""
        hard, soft = _deadlines(sa, sa.agreement.hard), _deadlines(sa, sa.agreement.soft)
        if not hard and not soft:
            return
        ends, told = [*hard, *soft], sa.hot.words[SOFT_TOLD]
        for ns in {min(hard)} if told and hard else set(ends):
            self._push(ns, sa)

    def watch_larval(self, sa: Association, seconds: int) -> None:
        self._push(sa.created.ns + seconds * NS_PER_S, sa)

    def watch_until(self, sa: Association, until: Moment) -> None:
        self._push(until.ns, sa)

    def look(self, sa: Association, at: Moment) -> Happened | None:
        """Remember the SA if it is over a limit, and say which."""
        crossed = state_of(sa, at)
        if crossed is not None:
            self._crossed[sa.slot] = sa
        return crossed

    def note(self, sa: Association, at: Moment) -> Happened | None:
        """A packet went through: remember the SA if that crossed a limit, and say which."""
        crossed = self.look(sa, at)
        if sa.hot.words[PACKETS] == 1:
            self.watch(sa)
        return crossed

    def take(self, at: Moment) -> list[Association]:
        """The SAs to look at now, each once, in order of their deadlines."""
        found = dict.fromkeys(self._crossed.values())
        self._crossed.clear()
        while self._heap and self._heap[0][0] <= at.ns:
            found[heapq.heappop(self._heap)[2]] = None
        return list(found)

    def next_deadline(self) -> Moment | None:
        if self._crossed:
            return Moment(0)
        while self._heap and self._heap[0][2].state is State.DEAD:
            heapq.heappop(self._heap)
        return Moment(self._heap[0][0]) if self._heap else None

    def _push(self, ns: int, sa: Association) -> None:
        self._count += 1
        heapq.heappush(self._heap, (ns, self._count, sa))
