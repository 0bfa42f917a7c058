"""A stack with a journal whose changes are applied to a plain dict, as the keeper does, and another stack made from it."""

import struct
from dataclasses import dataclass, field

from koura.daemon import journal
from koura.daemon.journal import Journal
from koura.daemon.site import Site
from koura.host import memory
from koura.moment import Moment
from koura.notices import KeySocketOpened
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.pfkey.numbers import Type
from koura.setkey import parse, run
from koura.settings import Settings
from koura.sim.entropy import Seeded
from koura.stack import Stack

START = Moment.of_s(1_700_000_000)


@dataclass
class Engine:
    """One engine's inside, and what its keeper has."""

    seed: int = 1
    memory: int = field(default_factory=memory.create)
    kept: dict[bytes, bytes] = field(default_factory=dict)
    at: Moment = START
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        standing = journal.lefts(self.kept)
        slots = frozenset(left.slot for left in standing)
        arena = memory.Shared(self.memory).arena(slots)
        settings = journal.settings(self.kept) if self.kept else Settings()
        self.stack = Stack(Seeded(self.seed), settings, arena=arena)
        self.book = Journal(self.stack)
        self.site = Site(self.stack, self.book)
        self.failed = self.book.resume(self.kept, standing, self.at)
        self.site.resume(self.kept)
        for socket in (1, 2):
            self.stack.notice(KeySocketOpened(socket, "freebsd", 100 + socket, True), self.at)
            if b"socket/%d" % socket in self.kept:
                self.book.resumed_socket(socket, self.kept[b"socket/%d" % socket])

    def keep(self) -> None:
        """What the keeper does with the changes of a step."""
        for key, value in self.book.take():
            if value is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = value

    def ask(self, octets: bytes, socket: int = 1) -> list[Message]:
        """A request, its changes kept; the messages that came of it for the socket."""
        answer = self.stack.control(socket, octets, self.at)
        self.book.note_socket(socket)
        self.keep()
        found = [event.octets for event in answer.events if getattr(event, "socket", 0) == socket]  # type: ignore[union-attr]
        while self.stack.has_dump(socket):
            found += self.stack.pull(socket, 1 << 20, self.at)
        return [Message.read(each, FREEBSD) for each in found]

    def simple(self, kind: Type, satype: int = 0, socket: int = 1) -> list[Message]:
        return self.ask(Message(kind, satype, 5, 100 + socket).write(FREEBSD), socket)

    def script(self, text: str) -> None:
        def ask(octets: bytes) -> run.Answered:
            refused = self.stack.control(1, octets, self.at).refused
            return run.Answered(refused.errno.bsd, refused.why) if refused is not None else run.Answered()

        assert not [refusal for refusal in run.run(parse.parse(text), ask) if refusal.is_lasting]
        self.keep()

    def dumps(self) -> tuple[list[Message], list[Message]]:
        return self.simple(Type.DUMP), self.simple(Type.X_SPDDUMP)

    def next(self, seconds: float = 1) -> "Engine":
        """The engine after this one."""
        return Engine(self.seed + 1, self.memory, dict(self.kept), self.at.after_s(seconds))


def udp(src: str, dst: str, payload: bytes = b"hello") -> bytes:
    """A UDP packet without checksum."""
    from koura.address import parse as packed
    from koura.wire import ipv4

    header = ipv4.Header(packed(src), packed(dst), 17)
    return ipv4.write(header, struct.pack(">HHHH", 1000, 2000, 8 + len(payload), 0) + payload)
