"""Key sockets: who is open, who registered for what, and who gets which message. RFC 2367 §3.1.7, §3.1.11.

- An Outgoing is a message once, and its octets once per dialect: a broadcast costs one encoding for all FreeBSD clients.
- A promiscuous socket gets every message that anybody gets, behind one more base header; its own copy, if it has one, comes after that.
- ACQUIRE and EXPIRE go to those who registered for their satype (S16); `register_all` brings back FreeBSD's way.
- A message that a dialect has no number for does not reach clients of that dialect.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from koura.pfkey.dialect import Dialect
from koura.pfkey.dump import Dump
from koura.pfkey.message import Message
from koura.pfkey.numbers import HEADER_OCTETS, Type
from koura.pfkey.statistics import Statistics
from koura.quick import quick


class Audience(Enum):
    """Who gets a message."""

    ONE = "one"  # the sender
    REGISTERED = "registered"  # whoever registered for anything, and the sender
    SATYPE = "satype"  # whoever registered for the message's satype; the sender, too, only if it did
    ALL = "all"


@quick
@dataclass(frozen=True, slots=True)
class Delivery:
    """Octets for one key socket, by its number."""

    socket: int
    octets: bytes


@dataclass(slots=True, eq=False)
class KeySocket:
    """One open PF_KEY socket. `dumps` wait to be pulled, first come first served."""

    number: int
    dialect: Dialect
    pid: int
    is_privileged: bool
    registered: set[int] = field(default_factory=set)
    is_promiscuous: bool = False
    is_deaf: bool = False
    dumps: list[Dump] = field(default_factory=list)


Make = Callable[[Dialect], Message]


class Outgoing:
    """A message on its way to several sockets: made and written at most once per dialect."""

    __slots__ = ("_make", "_octets", "_writers", "kind", "satype")

    def __init__(self, kind: int, satype: int, make: Make) -> None:
        self.kind = kind
        self.satype = satype
        self._make = make
        self._octets: dict[str, bytes] = {}
        self._writers: dict[str, Callable[[], bytes]] = {}

    @classmethod
    def of(cls, message: Message) -> "Outgoing":
        """A message that says the same in every dialect."""
        return cls(message.type, message.satype, lambda _: message)

    @classmethod
    def written(cls, message: Message, dialect: Dialect, octets: bytes, make: Make | None = None) -> "Outgoing":
        """A message that is written already in one dialect; `make` makes it for the others."""
        outgoing = cls(message.type, message.satype, make or (lambda _: message))
        outgoing._octets[dialect.name] = octets
        return outgoing

    @classmethod
    def written_by(cls, kind: int, satype: int, dialect: Dialect, write: Callable[[], bytes], make: Make) -> "Outgoing":
        """A message that `write` writes in one dialect, if anybody gets it there; `make` makes it for the others."""
        outgoing = cls(kind, satype, make)
        outgoing._writers[dialect.name] = write
        return outgoing

    def octets(self, dialect: Dialect) -> bytes:
        """In this dialect; b'' if it has no such message."""
        known = self._octets.get(dialect.name)
        if known is None:
            write = self._writers.get(dialect.name)
            if write is not None:
                known = write()
            else:
                known = self._make(dialect).write(dialect) if dialect.types.has_theirs(self.kind) else b""
            self._octets[dialect.name] = known
        return known


def wrap(octets: bytes, dialect: Dialect) -> bytes:
    """The message behind one more base header of type X_PROMISC, whose length covers both."""
    return Message(Type.X_PROMISC).head(dialect, HEADER_OCTETS + len(octets)) + octets


class Sockets:
    """All open key sockets, in the order they were opened."""

    def __init__(self, statistics: Statistics) -> None:
        self._open: dict[int, KeySocket] = {}
        self._statistics = statistics
        self._promiscuous = 0

    def open(self, socket: KeySocket) -> None:
        self._open[socket.number] = socket

    def close(self, number: int) -> None:
        """Registrations, promiscuous mode and unfinished dumps go with it. A number that is not open is fine."""
        socket = self._open.pop(number, None)
        if socket is not None and socket.is_promiscuous:
            self._promiscuous -= 1

    def get(self, number: int) -> KeySocket | None:
        return self._open.get(number)

    def __iter__(self) -> Iterator[KeySocket]:
        return iter(self._open.values())

    def be_promiscuous(self, socket: KeySocket, on: bool) -> None:
        self._promiscuous += int(on) - int(socket.is_promiscuous)
        socket.is_promiscuous = on

    def deliver(
        self, outgoing: Outgoing, audience: Audience, sender: KeySocket | None = None, everyone: bool = False
    ) -> tuple[Delivery, ...]:
        """The deliveries of one message. everyone: registration for any satype is enough (register_all)."""
        satype = outgoing.satype
        stats = self._statistics
        if audience is Audience.ONE:
            stats.in_one += 1
            chosen: Iterable[KeySocket] = () if sender is None else (sender,)
        elif audience is Audience.ALL:
            stats.in_all += 1
            chosen = self._open.values()
        else:
            stats.in_registered += 1
            asks = sender if audience is Audience.REGISTERED else None
            any_type = everyone or audience is Audience.REGISTERED
            chosen = [s for s in self._open.values() if s is asks or (s.registered if any_type else satype in s.registered)]
        found = self.overheard(outgoing) if self._promiscuous else []
        for socket in chosen:
            if socket.is_deaf:
                continue
            octets = outgoing.octets(socket.dialect)
            if octets:
                stats.gave(octets[1], len(octets))
                found.append(Delivery(socket.number, octets))
        return tuple(found)

    @property
    def has_promiscuous(self) -> bool:
        """Whether any socket overhears others."""
        return self._promiscuous > 0

    def overheard(self, outgoing: Outgoing) -> list[Delivery]:
        """The copies of a message that promiscuous sockets get."""
        found = []
        for socket in self._open.values():
            octets = outgoing.octets(socket.dialect) if socket.is_promiscuous else b""
            if octets:
                wrapped = wrap(octets, socket.dialect)
                self._statistics.gave(wrapped[1], len(wrapped))
                found.append(Delivery(socket.number, wrapped))
        return found
