"""The asyncio client: the same operations as client.keys, awaited. docs/client.md.

    async with await connect() as engine:
        await engine.add(agreement)
        async for entry in engine.dump(): ...
        async for event in engine.events(): ...

One task reads the socket. Replies of a dump wait in a short queue, and while it is full nothing more is read, so the engine waits,
too; events wait in a long one, and what does not fit there is lost and counted. Requests take turns.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

from koura.client import control, operations, place
from koura.client.control import Unreachable
from koura.client.exchange import MESSAGE_OCTETS, OURS, Exchange, Lost, check_hello, hello, read_ack, unwrapped
from koura.client.keys import Directory
from koura.client.operations import Event, Operation
from koura.client.values import PolicyEntry, SaEntry, read_policy, read_sa
from koura.errors import Errno, KouraError, Malformed, Refused
from koura.pfkey.dialect import DIALECTS, FREEBSD, Dialect
from koura.pfkey.message import Message
from koura.pfkey.offers import Supported
from koura.sadb.agreement import Agreement
from koura.saindex import Protocol, SaIndex
from koura.spd.policy import Policy
from koura.spd.selector import Selector

T = TypeVar("T")
_MOST_EVENTS = 10_000
_MOST_REPLIES = 64


async def connect(directory: Directory = None, dialect: str | Dialect = FREEBSD) -> "AsyncClient":
    """A client of the engine in a directory ($KOURA_SOCKET, /run/koura). Raises Unreachable."""
    chosen = DIALECTS[dialect] if isinstance(dialect, str) else dialect
    client = AsyncClient(control.connect(place.directory(directory) / place.PFKEY), chosen)
    await client.begin()
    return client


class AsyncClient:
    """One connection, in one event loop."""

    def __init__(self, end: socket.socket, dialect: Dialect = FREEBSD) -> None:
        self.dialect = dialect
        self.pid = os.getpid()
        end.setblocking(False)
        self._socket = end
        self._turn = asyncio.Lock()
        self._seq = 0
        self._exchange: Exchange | None = None
        self._replies: asyncio.Queue[Message | None] = asyncio.Queue(_MOST_REPLIES)
        self._events: deque[Message] = deque()
        self._lost = 0
        self._has_events = asyncio.Event()
        self._end: KouraError | None = None
        self._reader: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Say hello and start to read."""
        try:
            await self._send(hello(self.dialect))
            check_hello(await self._receive())
        except KouraError:
            self._socket.close()
            raise
        self._reader = asyncio.create_task(self._read())

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; whoever waits for something gets Unreachable."""
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        self._socket.close()

    # -- SAs -----------------------------------------------------------------------------------------------------------

    async def getspi(self, relation: SaIndex, span: tuple[int, int] | None = None, seq: int = 0) -> int:
        return await self._do(operations.getspi(relation, span, seq, self.dialect))

    async def add(self, agreement: Agreement) -> None:
        await self._do(operations.add(agreement, self.dialect))

    async def update(self, agreement: Agreement, *, with_keys: bool = True) -> None:
        await self._do(operations.update(agreement, with_keys, self.dialect))

    async def delete(self, relation: SaIndex, spi: int | None = None) -> None:
        await self._do(operations.delete(relation, spi, self.dialect))

    async def get(self, relation: SaIndex, spi: int) -> SaEntry:
        return await self._do(operations.get(relation, spi, self.dialect))

    async def flush(self, protocol: Protocol | None = None) -> None:
        await self._do(operations.flush(protocol))

    async def dump(self, protocol: Protocol | None = None) -> AsyncIterator[SaEntry]:
        """Every SA, as fast as it is read; other requests wait until it is."""
        async for message in self._dump(operations.dump(protocol).message):
            yield read_sa(message)

    async def register(self, protocol: Protocol | None = None) -> tuple[Supported, ...]:
        return await self._do(operations.register(protocol))

    # -- policies ------------------------------------------------------------------------------------------------------

    async def spdadd(self, policy: Policy) -> int:
        return await self._do(operations.spdadd(policy, self.dialect))

    async def spdupdate(self, policy: Policy) -> int:
        return await self._do(operations.spdupdate(policy, self.dialect))

    async def spddelete(self, selector: Selector) -> None:
        await self._do(operations.spddelete(selector, self.dialect))

    async def spddelete_id(self, number: int) -> None:
        await self._do(operations.spddelete_id(number))

    async def spdget(self, number: int) -> PolicyEntry:
        return await self._do(operations.spdget(number, self.dialect))

    async def spdflush(self) -> None:
        await self._do(operations.spdflush())

    async def spddump(self, scopes: int = 0) -> AsyncIterator[PolicyEntry]:
        async for message in self._dump(operations.spddump(scopes, self.dialect).message):
            yield read_policy(message, self.dialect)

    # -- what the engine says of itself --------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[Event]:
        """ACQUIRE, EXPIRE and what others do, for ever. Raises Lost for what was not kept, Unreachable at the engine's end."""
        while True:
            if self._lost:
                count, self._lost = self._lost, 0
                raise Lost(count)
            if self._events:
                yield operations.event(self._events.popleft(), self.dialect)
                continue
            if self._end is not None:
                raise self._end
            self._has_events.clear()
            await self._has_events.wait()

    async def acquire_failed(self, acquire: operations.Acquire, errno: Errno = Errno.EHOSTUNREACH) -> None:
        """Give an ACQUIRE up: the engine leaves its relation alone for a while."""
        message = operations.failed(acquire.seq, acquire.relation.protocol, self.dialect.errno(errno))
        await self._send(message.write(self.dialect))

    # -- requests ------------------------------------------------------------------------------------------------------

    async def ask(self, message: Message) -> tuple[Message, ...]:
        """A request and its replies. Raises Refused, Unreachable."""
        async with self._turn:
            exchange = await self._start(message)
            found = [reply async for reply in self._answers(exchange)]
        return tuple(found)

    async def _do(self, operation: Operation[T]) -> T:
        return operation.read(await self.ask(operation.message))

    async def _dump(self, message: Message) -> AsyncIterator[Message]:
        async with self._turn:
            exchange = await self._start(message)
            try:
                async for reply in self._answers(exchange):
                    yield reply
            except Refused as error:
                if error.errno is not Errno.ENOENT:
                    raise
            finally:
                while not exchange.is_done and self._end is None:  # What is not read must not be taken for the next answer.
                    await self._replies.get()

    async def _start(self, message: Message) -> Exchange:
        if self._end is not None:
            raise self._end
        if message.seq == 0:
            self._seq = self._seq % 0x7FFF_FFFF + 1
            message = replace(message, seq=self._seq)
        exchange = Exchange(replace(message, pid=message.pid or self.pid), self.dialect)
        while not self._replies.empty():
            self._replies.get_nowait()
        self._exchange = exchange
        await self._send(exchange.octets)
        return exchange

    async def _answers(self, exchange: Exchange) -> AsyncIterator[Message]:
        while True:
            reply = await self._replies.get()
            if reply is None:
                break
            yield reply
        if self._end is not None and not exchange.is_done:
            raise self._end
        exchange.check()

    # -- octets --------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """The reader: until the engine or the client ends."""
        try:
            while True:
                await self._take(await self._receive())
        except (Unreachable, Malformed) as error:
            self._end = error
        finally:
            self._end = self._end or Unreachable("the connection is closed")
            self._has_events.set()
            while self._replies.full():
                self._replies.get_nowait()
            self._replies.put_nowait(None)

    async def _take(self, octets: bytes) -> None:
        exchange = self._exchange
        if octets[0] == OURS:
            note = read_ack(octets)
            if isinstance(note, Lost):
                self._lost += note.count
                self._has_events.set()
            elif exchange is not None and exchange.ack is None:
                exchange.acknowledged(note)
        elif exchange is None or not exchange.feed(octets):
            self._note(octets)
        if exchange is None or self._exchange is None:
            return
        for reply in exchange.replies:
            await self._replies.put(reply)
        exchange.replies.clear()
        if exchange.is_done:
            self._exchange = None
            await self._replies.put(None)

    def _note(self, octets: bytes) -> None:
        if len(self._events) >= _MOST_EVENTS:
            self._lost += 1
        else:
            self._events.append(Message.read(unwrapped(octets), self.dialect))
        self._has_events.set()

    async def _send(self, octets: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, octets)
        except OSError as error:
            raise Unreachable(f"the engine ended: {os.strerror(error.errno or 0)}") from error

    async def _receive(self) -> bytes:
        try:
            octets = await asyncio.get_running_loop().sock_recv(self._socket, MESSAGE_OCTETS)
        except OSError as error:
            raise Unreachable(f"the engine ended: {os.strerror(error.errno or 0)}") from error
        if not octets:
            raise Unreachable("the engine ended")
        return octets
