"""A server with both databases, and clients that send it messages."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from koura.crypto import registry
from koura.moment import Moment
from koura.pfkey.dialect import FREEBSD, Dialect
from koura.pfkey.message import Message
from koura.pfkey.server import Answer, Asked, Parts, Server
from koura.sadb.acquire import Acquires
from koura.sadb.association import Makings
from koura.sadb.database import Database as Sad
from koura.sadb.hot import Arena
from koura.saindex import SaIndex
from koura.settings import Settings
from koura.spd.database import Database as Spd

ROOM = 1 << 20


class Dice:
    """Entropy that counts, or says what it is told to."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self._count = 0

    def octets(self, count: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(count, "big")

    def below(self, limit: int) -> int:
        self._count += 1
        return self.told.pop(0) % limit if self.told else self._count * 7919 % limit


@dataclass
class World:
    """The server and what came out of it: `inbox[socket]`, octets in order."""

    settings: Settings = field(default_factory=Settings)
    at: Moment = field(default_factory=lambda: Moment.of_s(1000))
    dice: Dice = field(default_factory=Dice)
    settled: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    acquires: Acquires = field(default_factory=Acquires)
    inbox: dict[int, list[bytes]] = field(default_factory=dict)
    dialects: dict[int, Dialect] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = registry.default()
        self.sad = Sad(Makings(known, Arena(), self.dice))
        self.spd = Spd()
        parts = Parts(self.sad, self.spd, self.dice, known)
        self.server = Server(parts, self.settings, Asked(lambda seq, _: self.settled.append(seq), self.failed.append, self._ask))

    def _ask(self, index: SaIndex, at: Moment) -> int | None:
        return self.acquires.ask(index, at, self.settings.key, self.settings.limits.acquires)

    def open(self, socket: int, dialect: Dialect = FREEBSD, pid: int = 0, is_privileged: bool = True) -> None:
        self.server.opened(socket, dialect, pid, is_privileged)
        self.inbox[socket] = []
        self.dialects[socket] = dialect

    def send(self, socket: int, octets: bytes) -> int:
        """The errno of send(). Replies, dumps too, are in the inboxes afterwards."""
        answer: Answer = self.server.receive(socket, octets, self.at)
        for delivery in answer.deliveries:
            self.inbox[delivery.socket].append(delivery.octets)
        while self.server.has_dump(socket):
            pulled = self.server.pull(socket, ROOM, self.at)
            for delivery in self.server.overheard(socket, pulled):
                self.inbox[delivery.socket].append(delivery.octets)
            self.inbox[socket] += pulled
        return answer.errno

    def ask(self, socket: int, message: Message) -> list[Message]:
        """Send a message; what this socket received because of it."""
        before = len(self.inbox[socket])
        assert self.send(socket, message.write(self.dialects[socket])) == 0
        return self.read(socket, before)

    def read(self, socket: int, start: int = 0) -> list[Message]:
        return [Message.read(octets, self.dialects[socket]) for octets in self.inbox[socket][start:]]

    def take(self, socket: int) -> list[bytes]:
        """The inbox, emptied."""
        got, self.inbox[socket] = self.inbox[socket], []
        return got

    def state(self) -> tuple[object, ...]:
        """Everything a request can change, to compare before and after."""
        sas: Iterable[object] = ((sa.agreement, sa.state, bytes(sa.hot.words), sa.slot) for sa in self.sad)
        policies = ((entry.id, entry.policy, entry.created) for entry in self.spd.entries(7))
        sockets = ((s.number, tuple(sorted(s.registered)), s.is_promiscuous) for s in self.server._sockets)
        return tuple(sas), tuple(policies), tuple(sockets)
