"""The keeper: the process that stays. It holds the directory, the listeners, the clients' sockets and what the engine writes down.

    client --octets--> keeper --REQUEST--> engine      the request stays in the client's socket until its answer is here
    client <--octets-- keeper <--one step- engine      answer, changes and replies together

When an engine dies, another is forked at once: it gets everything that was written down, the memory of the hot blocks, the clients,
and every request that has no answer yet. Clients see nothing but a pause; a dump that was under way ends with an error. A request
that two engines died of is refused. Who dies again and again before it is ready ends the daemon.
"""

import json
import os
import struct
import sys
import syslog
from collections.abc import Callable
from dataclasses import dataclass, field

from koura.daemon import child, codec
from koura.daemon.child import Birth, Child
from koura.daemon.clients import Client, Opened
from koura.daemon.engine import ANSWER, PULLED
from koura.daemon.grants import read_lines
from koura.daemon.handover import Handover
from koura.daemon.ledger import LedgerFile, NotWritten
from koura.daemon.link import Link
from koura.daemon.network import Network
from koura.daemon.records import Kind, Record, pack, unpack
from koura.errors import Errno, Malformed
from koura.host import memory
from koura.host.clock import Clock
from koura.host.loop import Loop
from koura.settings import Settings

MOST_FAILURES = 2  # engines that may die over one request
MOST_STILLBORN = 5  # engines in a row that die before they are ready
RETRY_S = 0.2
STOP_S = 30.0  # an engine that is asked to stop may be silent for so long
SYSLOG = "/dev/log"
RESTORE_STEP = 1000  # things restored in one step


@dataclass(slots=True)
class Call:
    """A control call under way; `done(replies)` gets the engine's messages."""

    request: bytes
    done: Callable[[tuple[bytes, ...]], None]
    failures: int = 0


@dataclass(slots=True)
class _State:
    """What outlives engines."""

    kept: dict[bytes, bytes] = field(default_factory=dict)
    clients: dict[int, Client] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)


class Keeper:
    """The engine's keeper. `on_ready` is called whenever an engine is; `on_failed` when none can be had."""

    def __init__(self, loop: Loop, settings: Settings, on_ready: Callable[[], None], on_failed: Callable[[], None]) -> None:
        self._loop = loop
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._memory = memory.create()
        self._clock = Clock()
        self._state = _State({b"settings": codec.write(settings)})
        self._link: Link | None = None
        self._child: Child | None = None
        self._is_ready = False
        self._is_stopping = False
        self._incarnation = 0
        self._stillborn = 0
        self._next_client = 0
        self._next_call = 0
        self.network: Network | None = None
        self.handover = Handover(loop)
        self.ledger: LedgerFile | None = None
        self._is_ledger_written = True

    # -- the engine ----------------------------------------------------------------------------------------------------

    @property
    def engine_pid(self) -> int:
        """The engine's process, 0 while there is none."""
        return self._child.pid if self._child is not None else 0

    @property
    def restarts(self) -> int:
        return max(0, self._incarnation - 1)

    def start(self) -> None:
        """Fork an engine and tell it everything."""
        opened = self.network.ends if self.network is not None else ()
        known = self.ledger.ledger if self.ledger is not None else None
        try:
            with self.handover.renew() as theirs:
                self._child = child.start(Birth(self._memory, self._clock, self._incarnation, opened, theirs.fileno(), known))
        except OSError as error:
            log(syslog.LOG_ERR, f"no engine could be started: {error.strerror}")
            self._stillborn += 1
            self._again()
            return
        self._incarnation += 1
        self._link = link = Link(self._loop, self._child.end, self._step, self._engine_ended)
        items = list(self._state.kept.items())
        for first in range(0, len(items), RESTORE_STEP):
            link.send([Record(Kind.RESTORE, 0, pack(item)) for item in items[first : first + RESTORE_STEP]])
        link.send([Record(Kind.START)])

    def stop(self) -> None:
        """End the engine; what it said before is done, and so are its last words to the ledger."""
        self._is_stopping = True
        self.handover.close()  # it waits for no more of what stands
        if self._link is not None:
            self._link.send([Record(Kind.STOP)])
            self._link.finish(STOP_S)
        if self._child is not None:
            child.reap(self._child, is_wanted=True)
            self._child = None
        if self._link is not None:
            self._link.close()
            self._link = None

    def _engine_ended(self) -> None:
        assert self._child is not None
        status = child.reap(self._child, is_wanted=False)
        self._child = self._link = None
        if self._is_stopping:
            return
        self._stillborn = 0 if self._is_ready else self._stillborn + 1
        self._is_ready = False
        for client in self.clients:  # one that cannot be written to goes meanwhile
            client.engine_ended()
        log(syslog.LOG_ERR, f"the engine ended (wait status {status}); its clients stay, another one starts")
        self._give_up_poison()
        self._again()

    def _again(self) -> None:
        """Another engine: at once after one that was ready, after a while after one that was not, and not for ever."""
        if self._stillborn >= MOST_STILLBORN:
            log(syslog.LOG_CRIT, f"{MOST_STILLBORN} engines ended before they were ready")
            self._on_failed()
        elif self._stillborn:
            self._loop.after_s(RETRY_S * self._stillborn, self.start)
        else:
            self.start()

    def _give_up_poison(self) -> None:
        """Requests that engines die of are answered here."""
        for client in self.clients:
            talk = client.talk
            if talk.request is None:
                continue
            talk.failures += 1
            if talk.failures >= MOST_FAILURES:
                client.answered(client.dialect.errno(Errno.EIO), False, "the engine ended over this request, twice")
                client.settle()
        for number, call in tuple(self._state.calls.items()):
            call.failures += 1
            if call.failures >= MOST_FAILURES:
                del self._state.calls[number]
                call.done((json.dumps({"ok": False, "errno": "EIO", "why": "the engine ended over this request, twice"}).encode(),))

    # -- what it says --------------------------------------------------------------------------------------------------

    def _step(self, records: tuple[Record, ...]) -> None:
        answered: list[Client] = []
        replied: list[tuple[Call, tuple[bytes, ...]]] = []
        kept, clients = self._state.kept, self._state.clients
        for record in records:
            kind, number, body = record.kind, record.number, record.body
            if kind == Kind.KEEP:
                key, value = unpack(body)
                kept[key] = value
                self._tell_network(key, value)
            elif kind == Kind.DROP:
                kept.pop(body, None)
                self._tell_network(body, None)
            elif kind == Kind.DELIVER:
                if number in clients:
                    clients[number].deliver(body)
            elif kind == Kind.ANSWER:
                client = clients.get(number)
                if client is not None:
                    errno, begins = ANSWER.unpack_from(body)
                    answered.append(client)
                    client.answered(errno, bool(begins), body[ANSWER.size :].decode())
            elif kind == Kind.PULLED:
                if number in clients:
                    clients[number].pulled(unpack(body[PULLED.size :]), *PULLED.unpack_from(body))
            elif kind == Kind.REPLY:
                call = self._state.calls.pop(number, None)
                if call is not None:
                    replied.append((call, unpack(body)))
            elif kind == Kind.RESERVE:
                self._reserve(record)
            elif kind == Kind.LOG:
                log(number, body.decode())
            elif kind == Kind.READY:
                self._ready()
            else:
                raise Malformed("step", f"the engine said {kind}")
        if self.network is not None:
            self.network.commit()
        for call, replies in replied:
            call.done(replies)
        for client in answered:
            client.settle()

    def _reserve(self, record: Record) -> None:
        """Lines for the ledger: on disk before they are answered."""
        assert self.ledger is not None
        is_done = True
        try:
            self.ledger.append(read_lines(record.body))
        except NotWritten as error:
            is_done = False
            if self._is_ledger_written:
                log(syslog.LOG_ERR, f"{error}: SAs get no more numbers, and send nothing when those they have are used up")
        if is_done and not self._is_ledger_written:
            log(syslog.LOG_NOTICE, "the ledger is written again")
        self._is_ledger_written = is_done
        if self._link is not None:
            self._link.send([Record(Kind.RESERVED, record.number, bytes((is_done,)))])

    def _tell_network(self, key: bytes, value: bytes | None) -> None:
        if self.network is not None:
            self.network.kept(key, value)

    def _ready(self) -> None:
        """It knows what was written down; now clients and what they wait for."""
        self._is_ready = True
        self.handover.ready()
        if self.network is not None:
            self.network.tell_engine()
        for client in self._state.clients.values():
            self._tell_opened(client)
        for client in self._state.clients.values():
            if client.talk.request is not None:
                self._send(Record(Kind.REQUEST, client.number, client.talk.request))
        for number, call in self._state.calls.items():
            self._send(Record(Kind.CALL, number, call.request))
        self._on_ready()

    # -- clients and calls ---------------------------------------------------------------------------------------------

    def next_number(self) -> int:
        """A name for a client."""
        self._next_client += 1
        return self._next_client

    def opened(self, client: Client) -> None:
        """A client came."""
        self._state.clients[client.number] = client
        self._tell_opened(client)

    def reopened(self, client: Client) -> None:
        """A client chose its dialect, before anything else; it may be gone already."""
        if client.number not in self._state.clients:
            return
        self._send(Record(Kind.CLOSED, client.number))
        self._tell_opened(client)

    def closed(self, client: Client) -> None:
        if self._state.clients.pop(client.number, None) is not None:
            self._send(Record(Kind.CLOSED, client.number))

    def request(self, client: Client) -> None:
        assert client.talk.request is not None
        self._send(Record(Kind.REQUEST, client.number, client.talk.request))

    def pull(self, client: Client, room_octets: int) -> None:
        self._send(Record(Kind.PULL, client.number, struct.pack(">I", room_octets)))

    def call(self, asked: dict[str, object], done: Callable[[tuple[bytes, ...]], None]) -> int:
        """Ask the engine for a control verb."""
        self._next_call += 1
        call = Call(json.dumps(asked).encode(), done)
        self._state.calls[self._next_call] = call
        self._send(Record(Kind.CALL, self._next_call, call.request))
        return self._next_call

    @property
    def clients(self) -> tuple[Client, ...]:
        return tuple(self._state.clients.values())

    def _tell_opened(self, client: Client) -> None:
        opened: Opened = client.opened
        told = {"dialect": opened.dialect, "pid": opened.pid, "is_privileged": opened.is_privileged}
        self._send(Record(Kind.OPENED, client.number, json.dumps(told).encode()))

    def _send(self, record: Record) -> None:
        """To an engine that is ready; one that is not is told everything when it is."""
        if self._is_ready and self._link is not None:
            self._link.send([record])


def log(priority: int, line: str) -> None:
    """One line to the log; what is wrong also to stderr, and everything where there is no syslog."""
    syslog.syslog(priority, line)
    if priority <= syslog.LOG_WARNING or not os.path.exists(SYSLOG):
        sys.stderr.write(f"koura: {line}\n")
        sys.stderr.flush()
