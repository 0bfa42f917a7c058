"""The engine: the process that owns the Stack. It is told by the keeper what clients say, and tells it what to answer and to keep.

Life: RESTORE each thing the engine before wrote down, START, then OPENED, REQUEST, PULL, CALL in any order; STOP or the end of the
link ends it. Everything that one of them changes goes back in one step, with its answer first: the keeper gets all of it or nothing.
Time: one timer, at the stack's next deadline. Attachments are descriptors in the same loop.
"""

import json
import socket
import struct
import syslog
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from koura.daemon import ends, handover, journal
from koura.daemon.bridges import Bridges
from koura.daemon.ends import End
from koura.daemon.grants import MARKS_S, Grants
from koura.daemon.inner import Inner
from koura.daemon.journal import Journal
from koura.daemon.link import Link
from koura.daemon.packets import Packets
from koura.daemon.records import Kind, Record, pack, unpack
from koura.daemon.taps import Taps, Watcher
from koura.daemon.verbs import LOAD, Verbs
from koura.errors import Bug
from koura.fast import drivers
from koura.fast.path import FastPath
from koura.host import garbage, memory
from koura.host.clock import Clock
from koura.host.entropy import System
from koura.host.loop import Loop, Timer
from koura.moment import Moment
from koura.notices import KeySocketGone, KeySocketOpened
from koura.pfkey.numbers import Type
from koura.sadb.ledger import Ledger
from koura.stack import Stack
from koura.traffic.outcome import Event, ToKeySocket

ANSWER = struct.Struct(">IB")
PULLED = struct.Struct(">I")
FIRST_OCTETS = 1 << 16  # of a dump, in the step that answers its request
ACQUIRES_OF_AN_ENGINE = 1 << 20  # numbers between the first ACQUIRE of one engine and of the next


class Engine:
    """One engine at its end of the link."""

    def __init__(
        self, loop: Loop, end: socket.socket, shared: memory.Shared, clock: Clock, incarnation: int, opened: tuple[End, ...] = (),
        handed: int = -1, ledger: Ledger | None = None,
    ) -> None:
        self._loop = loop
        self._memory = shared
        self._clock = clock
        self._incarnation = incarnation
        self._ends = opened
        self._ledger = ledger
        self._packets: Packets | Bridges | None = None
        self._handed = socket.socket(fileno=handed) if handed >= 0 else None
        self._has_all = False
        if self._handed is not None:
            loop.watch(handed, self._hand)
        self._link = Link(loop, end, self._step, loop.stop)
        self._kept: dict[bytes, bytes] = {}
        self._life: _Life | None = None
        self._timer: Timer | None = None
        self._is_armed = False
        self._loads: deque[tuple[int, dict[str, Any]]] = deque()  # asked for, by the number of the call; the first is under way
        self._doing: dict[int, Callable[[Record], None]] = {
            Kind.OPENED: self._opened, Kind.CLOSED: self._closed, Kind.REQUEST: self._request, Kind.PULL: self._pull, Kind.CALL: self._call,
            Kind.RESERVED: self._reserved,
        }  # fmt: skip

    def _step(self, records: tuple[Record, ...]) -> None:
        for record in records:
            if record.kind == Kind.RESTORE:
                key, value = unpack(record.body)
                self._kept[key] = value
            elif record.kind == Kind.START:
                with garbage.resting():  # what was left may be much, and is there to stay
                    self._start()
            elif record.kind == Kind.STOP:
                self._loop.soon(self._end)  # when the packets that are read already have left
            else:
                self._doing[record.kind](record)

    def _end(self) -> None:
        """Nothing is done after this: what SAs have sent and seen is exact."""
        if self._life is not None and self._life.grants is not None:
            self._tell(self._life.grants.last_words())
        self._link.flush()
        self._loop.stop()

    def _start(self) -> None:
        """Be what the engine before was."""
        at = self._clock.now()
        standing = journal.lefts(self._kept)
        slots = frozenset(left.slot for left in standing)
        stack = Stack(
            System(), journal.settings(self._kept), arena=self._memory.arena(slots), fast=FastPath if ends.is_fast() else None,
            acquires_from=self._incarnation * ACQUIRES_OF_AN_ENGINE, ledger=self._ledger,
        )  # fmt: skip
        if stack.fast_path is None:
            why = drivers.why_not() or f"{ends.NO_FAST} is set"
            stack.report.states["fast"] = lambda: f"off: {why}"
        book = Journal(stack)
        inner = Inner(self._loop, stack, self._clock, lambda events: self._tell([], events))
        self._life = life = _Life(stack, book, Verbs(stack, book), Taps(self._loop, stack), inner)
        failed = book.resume(self._kept, standing, at)
        life.verbs.resume(self._kept)
        lines = [Record(Kind.LOG, syslog.LOG_ERR, line.encode()) for line in failed]
        if self._ledger is not None:
            life.grants = Grants(stack, self._ledger)
            self._loop.after_s(MARKS_S, self._marks)
        self._tell([Record(Kind.READY), *lines])

    # -- what the keeper says ------------------------------------------------------------------------------------------

    def _opened(self, record: Record) -> None:
        told = json.loads(record.body)
        life = self._alive
        notice = KeySocketOpened(record.number, told["dialect"], told["pid"], told["is_privileged"])
        life.stack.notice(notice, self._clock.now())
        standing = self._kept.pop(b"socket/%d" % record.number, None)
        if standing is not None:
            life.book.resumed_socket(record.number, standing)

    def _closed(self, record: Record) -> None:
        notice = KeySocketGone(record.number)
        events = self._alive.stack.notice(notice, self._clock.now())
        self._alive.book.note(notice)
        self._tell([], events)

    def _request(self, record: Record) -> None:
        life = self._alive
        stack, number = life.stack, record.number
        if self._packets is not None and len(record.body) > 1 and record.body[1] == Type.DELETE:
            self._packets.drain()
        before = stack.dumps(number)
        answer = stack.control(number, record.body, self._clock.now())
        begun = stack.dumps(number) - before
        life.book.note_socket(number)
        why = answer.refused.why if answer.refused is not None else ""
        said = [Record(Kind.ANSWER, number, ANSWER.pack(answer.errno, begun) + why.encode())]
        events = answer.events
        if begun and not before:  # behind another dump it waits for its turn
            pulled, overheard = self._pulled(number, FIRST_OCTETS)
            said.append(pulled)
            events += overheard
        self._tell([*said, *life.verbs.debug_request(record.body, answer)], events)

    def _reserved(self, record: Record) -> None:
        """It is on disk: SAs may use it, and what waited for it goes on."""
        grants = self._alive.grants
        assert grants is not None
        at, stack = self._clock.now(), self._alive.stack
        granted = grants.written(record.number, record.body == b"\1")
        self._tell([], [event for notice in granted for event in stack.notice(notice, at)])

    def _marks(self) -> None:
        grants = self._alive.grants
        assert grants is not None
        self._tell(grants.marks())
        self._loop.after_s(MARKS_S / grants.slices, self._marks)

    def _pull(self, record: Record) -> None:
        (room,) = struct.unpack(">I", record.body)
        pulled, overheard = self._pulled(record.number, room)
        self._tell([pulled], overheard)

    def _pulled(self, number: int, room_octets: int) -> tuple[Record, tuple[Event, ...]]:
        """The next part of a client's dumps, and what promiscuous clients get of it."""
        stack = self._alive.stack
        messages = stack.pull(number, room_octets, self._clock.now())
        return Record(Kind.PULLED, number, PULLED.pack(stack.dumps(number)) + pack(messages)), stack.overheard(number, messages)

    def _call(self, record: Record) -> None:
        asked = json.loads(record.body)
        if asked["do"] in ("addresses", "paths", "begin"):
            self._host_says(asked)
            self._tell([Record(Kind.REPLY, record.number, pack(()))])
            return
        if asked["do"] == LOAD:
            self._loads.append((record.number, asked))
            if len(self._loads) == 1:
                self._load_next()
            return
        replies, events = self._alive.verbs.do(asked, self._clock.now())
        self._tell([Record(Kind.REPLY, record.number, pack(replies))], events)

    def _load_next(self) -> None:
        """The file that was asked for first; between its slices everybody else is served."""
        number, asked = self._loads[0]
        resting = ExitStack()
        resting.enter_context(garbage.resting())
        work = self._alive.verbs.load(asked, self._clock.now)

        def go_on() -> None:
            try:
                next(work)
            except StopIteration as end:
                replies, events = end.value
                self._tell([Record(Kind.REPLY, number, pack(replies))], events)
            else:
                self._loop.soon(go_on)
                return
            resting.close()
            memory.give_back()  # the stack that the file ran on, and its text
            self._loads.popleft()
            if self._loads:
                self._loop.soon(self._load_next)

        go_on()

    def _host_says(self, asked: dict[str, object]) -> None:
        """Which addresses are ours, how large packets may be, and when packets may be read: not before every policy is there."""
        if self._packets is None:
            life = self._alive
            make = Bridges if ends.is_bump(self._ends) else Packets
            self._packets = moving = make(self._loop, life.stack, self._clock, self._ends, lambda events: self._tell([], events))
            moving.pump.watcher = Watcher(life.taps, life.verbs.filters)
            if isinstance(moving, Packets):
                moving.log = life.inner.log = self._log
                life.inner.begin(moving.pump)
            life.verbs.drivers = lambda: {**moving.drivers(), **life.inner.drivers()}
            life.verbs.attachments = lambda: {**moving.losses(), **life.inner.losses()}
        if asked["do"] == "addresses":
            self._packets.addresses(asked, self._clock.now())
        elif asked["do"] == "paths":
            self._packets.paths(asked, self._clock.now())
        else:
            while not self._has_all:  # the keeper is about to send it: packets of a tunnel would go elsewhere without
                self._hand(waits=True)
            self._packets.begin()

    def _hand(self, _events: int = 0, *, waits: bool = False) -> None:
        """Descriptors came, or are about to."""
        if self._handed is None or not handover.take(self._handed, self._take, waits=waits):
            self._has_all = True
            if self._handed is not None:
                self._loop.forget(self._handed.fileno())

    def _take(self, said: Mapping[str, Any], descriptors: list[int]) -> None:
        taps = self._alive.taps
        if said["do"] == "all":
            self._has_all = True
        elif said["do"] == "capture":
            taps.capture(descriptors[0])
        elif said["do"] == "enc":
            taps.interface(said["name"], *descriptors)
        elif said["do"] == "listening":
            taps.listening(said["is_watched"])
        elif said["do"] == "tunnel":
            failed = self._alive.inner.add(said, descriptors)
            if failed:
                self._log(failed)
        elif said["do"] == "tunnel-gone":
            self._alive.inner.remove(said["name"])

    # -- what it says --------------------------------------------------------------------------------------------------

    def _log(self, line: str) -> None:
        self._tell([Record(Kind.LOG, syslog.LOG_ERR, line.encode())])

    def _tell(self, first: Iterable[Record], events: Iterable[Event] = ()) -> None:
        """One step: the answer, what is to be kept, messages for clients."""
        life = self._alive
        records = list(first)
        events = tuple(events)
        if self._packets is not None:
            self._packets.pump.packets_of(events)
        if life.taps.is_open:
            life.taps.happened(events)
        if life.grants is not None:
            records += life.grants.take(events)
        for key, value in life.book.take():
            records.append(Record(Kind.DROP, 0, key) if value is None else Record(Kind.KEEP, 0, pack((key, value))))
        records += [Record(Kind.DELIVER, event.socket, event.octets) for event in events if isinstance(event, ToKeySocket)]
        if records:
            self._link.send(records)
        if self._link.is_empty:
            life.stack.quiesce()  # the keeper knows of every SA that has gone, so no later engine can look for it there
        if not self._is_armed:
            self._is_armed = True
            self._loop.soon(self._arm)

    def _arm(self) -> None:
        """Set the timer to the stack's next deadline."""
        self._is_armed = False
        deadline = self._alive.stack.next_deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.after_s(max(0, deadline.ns - self._clock.now().ns) / 1e9, self._advance)

    def _advance(self) -> None:
        self._timer = None
        at: Moment = self._clock.now()
        self._tell([], self._alive.stack.advance(at))

    @property
    def _alive(self) -> "_Life":
        if self._life is None:
            raise Bug("the keeper did not say START")
        return self._life


class _Life:
    """What there is after START."""

    __slots__ = ("book", "grants", "inner", "stack", "taps", "verbs")

    def __init__(self, stack: Stack, book: Journal, verbs: Verbs, taps: Taps, inner: Inner) -> None:
        self.inner = inner
        self.taps = taps
        self.stack = stack
        self.book = book
        self.verbs = verbs
        self.grants: Grants | None = None
