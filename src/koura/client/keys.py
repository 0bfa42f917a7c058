"""The sync client: SAs and policies of a live engine as Python values. docs/client.md.

    with connect() as engine:
        engine.add(sa(index("192.0.2.1", "192.0.2.2", "esp", "tunnel"), 0x1001, Keys("aes-gcm-16", key)))
        for entry in engine.dump(): print(entry.agreement.spi, entry.octets)

Refusals are Refused, with errno and the engine's reason; a missing engine is Unreachable.
"""

import os
from collections.abc import Iterator
from types import TracebackType
from typing import TypeVar

from koura.client import operations, place
from koura.client.keysocket import ANSWER_S, KeySocket
from koura.client.operations import Event, Operation
from koura.client.values import PolicyEntry, SaEntry, read_policy, read_sa
from koura.errors import Errno, Refused
from koura.pfkey.dialect import FREEBSD, Dialect
from koura.pfkey.message import Message
from koura.pfkey.offers import Supported
from koura.sadb.agreement import Agreement
from koura.saindex import Protocol, SaIndex
from koura.spd.policy import Policy
from koura.spd.selector import Selector

T = TypeVar("T")
Directory = str | os.PathLike[str] | None


def connect(directory: Directory = None, dialect: str | Dialect = FREEBSD, *, timeout_s: float | None = ANSWER_S) -> "Client":
    """A client of the engine in a directory ($KOURA_SOCKET, /run/koura). Raises Unreachable."""
    return Client(KeySocket.connect(place.directory(directory), dialect, timeout_s=timeout_s))


class Client:
    """One connection. `socket` is what lies below, for messages that have no method here."""

    def __init__(self, socket: KeySocket) -> None:
        self.socket = socket

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    @property
    def dialect(self) -> Dialect:
        return self.socket.dialect

    # -- SAs -----------------------------------------------------------------------------------------------------------

    def getspi(self, relation: SaIndex, span: tuple[int, int] | None = None, seq: int = 0) -> int:
        """A larval SA; its SPI. seq: of the ACQUIRE that this answers."""
        return self._do(operations.getspi(relation, span, seq, self.dialect))

    def add(self, agreement: Agreement) -> None:
        """A mature SA."""
        self._do(operations.add(agreement, self.dialect))

    def update(self, agreement: Agreement, *, with_keys: bool = True) -> None:
        """Keys for a larval SA; without keys, lifetimes and encapsulation for another."""
        self._do(operations.update(agreement, with_keys, self.dialect))

    def delete(self, relation: SaIndex, spi: int | None = None) -> None:
        """One SA, or without SPI all between the two addresses."""
        self._do(operations.delete(relation, spi, self.dialect))

    def get(self, relation: SaIndex, spi: int) -> SaEntry:
        return self._do(operations.get(relation, spi, self.dialect))

    def flush(self, protocol: Protocol | None = None) -> None:
        """Every SA, or those of a protocol."""
        self._do(operations.flush(protocol))

    def dump(self, protocol: Protocol | None = None) -> Iterator[SaEntry]:
        """Every SA, as fast as it is read; other requests wait until it is."""
        return (read_sa(message) for message in self._dump(operations.dump(protocol).message))

    def register(self, protocol: Protocol | None = None) -> tuple[Supported, ...]:
        """Hear of ACQUIRE and EXPIRE of a protocol; which algorithms the engine has. Without protocol only the latter."""
        return self._do(operations.register(protocol))

    # -- policies ------------------------------------------------------------------------------------------------------

    def spdadd(self, policy: Policy) -> int:
        """A policy; its id."""
        return self._do(operations.spdadd(policy, self.dialect))

    def spdupdate(self, policy: Policy) -> int:
        """A policy in the place of the one with its selector, if there is one; its id."""
        return self._do(operations.spdupdate(policy, self.dialect))

    def spddelete(self, selector: Selector) -> None:
        self._do(operations.spddelete(selector, self.dialect))

    def spddelete_id(self, number: int) -> None:
        self._do(operations.spddelete_id(number))

    def spdget(self, number: int) -> PolicyEntry:
        return self._do(operations.spdget(number, self.dialect))

    def spdflush(self) -> None:
        self._do(operations.spdflush())

    def spddump(self, scopes: int = 0) -> Iterator[PolicyEntry]:
        """Every policy of these scopes (spd.policy.Scope; 0: global and of interfaces), as fast as it is read."""
        return (read_policy(one, self.dialect) for one in self._dump(operations.spddump(scopes, self.dialect).message))

    # -- what the engine says of itself --------------------------------------------------------------------------------

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """ACQUIRE, EXPIRE and what others do, for ever or until nothing came for timeout_s. Raises Lost for what was not kept."""
        return (operations.event(message, self.dialect) for message in self.socket.events(timeout_s))

    def acquire_failed(self, acquire: operations.Acquire, errno: Errno = Errno.EHOSTUNREACH) -> None:
        """Give an ACQUIRE up: the engine leaves its relation alone for a while."""
        message = operations.failed(acquire.seq, acquire.relation.protocol, self.dialect.errno(errno))
        self.socket.send(message.write(self.dialect))

    def _do(self, operation: Operation[T]) -> T:
        return operation.read(self.socket.ask(operation.message))

    def _dump(self, message: Message) -> Iterator[Message]:
        """Nothing for an empty database."""
        try:
            yield from self.socket.dump(message)
        except Refused as error:
            if error.errno is not Errno.ENOENT:
                raise
