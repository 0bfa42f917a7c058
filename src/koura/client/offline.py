"""Offline: a key socket to a PF_KEY server inside this process, for looking at what a script would make. Same face as KeySocket."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from koura.crypto import registry
from koura.errors import Refused
from koura.moment import Moment
from koura.pfkey.dialect import FREEBSD, Dialect
from koura.pfkey.message import Message
from koura.pfkey.server import Asked, Parts, Server
from koura.sadb.association import Makings
from koura.sadb.database import Database as Sad
from koura.sadb.hot import Arena
from koura.saindex import SaIndex
from koura.settings import Settings
from koura.spd.database import Database as Spd

_SOCKET, _ROOM = 1, 1 << 16


class _Dice:
    """SPIs that nobody will use: any will do."""

    def __init__(self) -> None:
        self._count = 0

    def octets(self, count: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(count, "little")

    def below(self, limit: int) -> int:
        self._count += 1
        return self._count * 7919 % limit


class Offline:
    """The server, its two databases, and the one client."""

    def __init__(self, settings: Settings | None = None) -> None:
        known, dice = registry.default(), _Dice()
        self.dialect: Dialect = FREEBSD
        self.sad, self.spd = Sad(Makings(known, Arena(), dice)), Spd()
        asked = Asked(_ignore, _ignore, lambda _relation, _at: None)
        self._server = Server(Parts(self.sad, self.spd, dice, known), settings or Settings(), asked)
        self._server.opened(_SOCKET)
        self._seq = 0

    def ask(self, message: Message) -> tuple[Message, ...]:
        """A request and its replies. Raises Refused, with its reason."""
        return tuple(self._talk(message))

    def ask_each(self, messages: Iterable[Message]) -> Iterator[tuple[Message, ...] | Refused]:
        """The replies, or the refusal, of each request in order."""
        for message in messages:
            try:
                yield self.ask(message)
            except Refused as error:
                yield error

    def dump(self, message: Message) -> Iterator[Message]:
        """A DUMP or SPDDUMP, entry by entry. Raises Refused(ENOENT) for nothing."""
        return self._talk(message)

    def frames(self, timeout_s: float | None = None) -> Iterator[bytes]:
        """Nobody else is here."""
        return iter(())

    def _talk(self, message: Message) -> Iterator[Message]:
        self._seq += 1
        octets = replace(message, seq=message.seq or self._seq).write(self.dialect)
        at = Moment(time.time_ns())
        answer = self._server.receive(_SOCKET, octets, at)
        if answer.refused is not None:
            raise answer.refused
        for delivery in answer.deliveries:
            yield Message.read(delivery.octets, self.dialect)
        while self._server.has_dump(_SOCKET):
            for entry in self._server.pull(_SOCKET, _ROOM, at):
                yield Message.read(entry, self.dialect)


def _ignore(_seq: int, _relation: SaIndex | None = None) -> None:
    """No ACQUIRE is under way here."""


