"""Who wants numbers gets them: the engine's side of the ledger. docs/architecture.md §4, Nonce discipline.

    SA comes, or is at the end of its block --RESERVE--> keeper: on disk --RESERVED--> Granted to the stack, held packets go on

Blocks are asked for ahead of need: a new SA at once, a busy one while half of what it has is left (sequence.draw). Once a second the
highest numbers of windows that moved go to the keeper, a slice of the SAs at a time; and those of an SA that goes, at once. A clean
stop ends with both for all SAs, exactly.
"""

import struct
from collections.abc import Iterable, Iterator

from koura.daemon.records import Kind, Record
from koura.errors import Malformed
from koura.notices import Granted
from koura.sadb import hot
from koura.sadb.association import Association, State
from koura.sadb.ledger import FIRST_BLOCK, Entry, Ledger
from koura.sadb.ledger import Kind as Line
from koura.stack import Stack
from koura.traffic.outcome import Event, Wanted

MARKS_S = 1.0
_LINE = struct.Struct(">B16sQ")
_SLICE = 2000
_LINES = 20_000  # of one record
Handle = tuple[int, int]


class Grants:
    """One stack's with its ledger. Set after whoever else listens to `sadb.noted`."""

    def __init__(self, stack: Stack, ledger: Ledger) -> None:
        self._stack = stack
        self._ledger = ledger
        self._new: dict[Handle, None] = {}
        self._under_way: dict[int, tuple[Granted, ...]] = {}
        self._asked: set[Handle] = set()
        self._gone: list[Entry] = []
        self._last = 0
        self._round: Iterator[Association] = iter(())
        self._others = stack.sadb.noted
        stack.sadb.noted = self._noted
        for sa in stack.sadb:
            self._noted_new(sa)

    def _noted(self, sa: Association) -> None:
        self._others(sa)
        if self._stack.sadb.holds(sa):
            self._noted_new(sa)
            return
        self._ledger.forget_blocks(sa.agreement)
        self._gone += self._mark(sa)

    def _noted_new(self, sa: Association) -> None:
        if not sa.has_ledger or sa.state is State.LARVAL:
            return
        is_fresh = sa.agreement.is_negotiated and sa.hot.words[hot.SEQUENCE_RESERVED] <= sa.agreement.sequence + FIRST_BLOCK
        if is_fresh or sa.awaits_grant:
            self._new[sa.slot, sa.epoch] = None

    def take(self, events: Iterable[Event]) -> list[Record]:
        """What is to be reserved now, and marks of SAs that went."""
        wanted = self._new | {(event.slot, event.epoch): None for event in events if isinstance(event, Wanted)}
        self._new = {}
        lines, self._gone = self._gone, []
        granted = []
        for handle in wanted:
            sa = self._stack.sadb.by_handle(*handle)
            if sa is None or handle in self._asked:
                continue
            block, changes = self._ledger.reserve(sa.agreement, sa.hot, sa.last_sequence)
            lines += changes
            granted.append(Granted(*handle, block.sequence_end, block.iv_count, block.iv_from))
            self._asked.add(handle)
        return [self._record(lines, tuple(granted))] if lines else []

    def marks(self) -> list[Record]:
        """Marks of the next SAs whose windows moved."""
        lines: list[Entry] = []
        for _ in range(_SLICE):
            sa = next(self._round, None)
            if sa is None:
                self._round = iter((*self._stack.sadb, *self._stack.sadb.grace))
                break
            lines += self._mark(sa)
        return [self._record(lines, ())] if lines else []

    def last_words(self) -> list[Record]:
        """No packet is sent or received any more: what every SA has sent and seen."""
        lines: list[Entry] = []
        for sa in (*self._stack.sadb, *self._stack.sadb.grace):
            lines += self._mark(sa)
            if sa.has_ledger and sa.state is not State.LARVAL:
                entry = self._ledger.stopped(sa.agreement, int(sa.hot.words[hot.SEQUENCE_LAST]))
                lines += [entry] if entry is not None else []
        return [self._record(lines[first : first + _LINES], ()) for first in range(0, len(lines), _LINES)]

    @property
    def slices(self) -> int:
        """How often `marks` is to be called to have seen every SA."""
        return len(self._stack.sadb) // _SLICE + 1

    def written(self, number: int, is_done: bool) -> tuple[Granted, ...]:
        """The keeper's answer: what may be granted. What could not be written is asked for again when somebody needs it."""
        granted = self._under_way.pop(number, ())
        self._asked.difference_update((one.slot, one.epoch) for one in granted)
        return granted if is_done else ()

    def _mark(self, sa: Association) -> list[Entry]:
        words = sa.hot.words
        if not sa.has_ledger or not sa.agreement.checked_packets or not words[hot.WINDOW_SEEN]:
            return []
        entry = self._ledger.mark(sa.agreement, int(words[hot.WINDOW_TOP]))
        return [entry] if entry is not None else []

    def _record(self, lines: Iterable[Entry], granted: tuple[Granted, ...]) -> Record:
        self._last = self._last % 0xFFFF_FFFF + 1
        if granted:
            self._under_way[self._last] = granted
        return Record(Kind.RESERVE, self._last, b"".join(_LINE.pack(line.kind, line.id, line.value) for line in lines))


def read_lines(octets: bytes) -> list[Entry]:
    """What a RESERVE asks the keeper to write. Raises Malformed."""
    try:
        return [Entry(Line(kind), name, value) for kind, name, value in _LINE.iter_unpack(octets)]
    except (struct.error, ValueError) as error:
        raise Malformed("reserve", "no lines of a ledger") from error
