"""A live key socket: PF_KEY messages to a running engine and back, one request at a time. RFC 2367.

    with KeySocket.connect(place.directory()) as keys:
        (reply,) = keys.ask(Message(Type.FLUSH))
        for message in keys.dump(Message(Type.DUMP)): ...
        for message in keys.events(timeout_s=5): ...

What arrives and answers no request waits in `events`, in order. A dump is read as fast as it is consumed: the engine holds back what
does not fit. What an engine refuses is raised as Refused with its reason; an engine that went away as Unreachable.
"""

import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from koura.client import place
from koura.client.control import Unreachable, connect
from koura.client.exchange import MESSAGE_OCTETS, OURS, Exchange, Lost, check_hello, hello, read_ack, unwrapped
from koura.errors import KouraError, Malformed, Refused
from koura.pfkey.dialect import DIALECTS, FREEBSD, Dialect
from koura.pfkey.message import Message

ANSWER_S = 10.0  # an engine that is alive answers sooner
_AHEAD = 32  # requests that may be on their way at once


class Busy(KouraError):
    """A dump on this connection has not been read to its end; read or close it first, or use another connection."""


class Timeout(Unreachable):
    """The engine is there and did not answer in time."""


class KeySocket:
    """One connection. Not to be shared between threads."""

    def __init__(self, end: socket.socket, dialect: Dialect = FREEBSD, *, timeout_s: float | None = ANSWER_S) -> None:
        self.dialect = dialect
        self.timeout_s = timeout_s
        self.pid = os.getpid()
        self._socket = end
        self._seq = 0
        self._dump: Exchange | None = None
        self._waiting: deque[bytes | Lost] = deque()
        end.settimeout(timeout_s)
        self._send(hello(dialect))
        check_hello(self._receive())

    @classmethod
    def connect(
        cls, directory: Path | None = None, dialect: str | Dialect = FREEBSD, *, timeout_s: float | None = ANSWER_S
    ) -> "KeySocket":
        """To the engine of a directory. Raises Unreachable, and Refused for a dialect that it does not speak."""
        chosen = DIALECTS[dialect] if isinstance(dialect, str) else dialect
        end = connect((directory or place.directory()) / place.PFKEY)
        with ExitStack() as undo:
            undo.callback(end.close)
            keys = cls(end, chosen, timeout_s=timeout_s)
            undo.pop_all()
        return keys

    def __enter__(self) -> "KeySocket":
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    # -- requests ------------------------------------------------------------------------------------------------------

    def ask(self, message: Message) -> tuple[Message, ...]:
        """Send a request and give its replies. seq and pid 0 are filled in. Raises Refused, Unreachable."""
        exchange = self._begin(message)
        while not exchange.is_done:
            self._step(exchange)
        exchange.check()
        return tuple(exchange.replies)

    def ask_each(self, messages: Iterable[Message]) -> Iterator[tuple[Message, ...] | Refused]:
        """The replies, or the refusal, of each request in order; the next ones are on their way meanwhile. Not for dumps."""
        waiting: deque[Exchange] = deque()
        for message in messages:
            if len(waiting) == _AHEAD:
                yield self._end(waiting.popleft())
            waiting.append(self._begin(message))
        while waiting:
            yield self._end(waiting.popleft())

    def _end(self, exchange: Exchange) -> tuple[Message, ...] | Refused:
        """Requests are answered one after the other, so that everything up to its last reply is the oldest one's."""
        while not exchange.is_done:
            self._step(exchange)
        return exchange.refused or tuple(exchange.replies)

    def dump(self, message: Message) -> Iterator[Message]:
        """A DUMP or SPDDUMP, entry by entry; nothing for an empty database is Refused(ENOENT), as PF_KEY has it."""
        exchange = self._begin(message)
        self._dump = exchange
        try:
            while True:
                while not exchange.replies and not exchange.is_done:
                    self._step(exchange)
                yield from self._taken(exchange)
                if exchange.is_done:
                    break
        except GeneratorExit:
            while not exchange.is_done:  # What was asked for and not read must not be taken for the next answer.
                self._step(exchange)
                exchange.replies.clear()
            raise
        finally:
            self._dump = None
        exchange.check()

    def _taken(self, exchange: Exchange) -> tuple[Message, ...]:
        found = tuple(exchange.replies)
        exchange.replies.clear()
        return found

    def send(self, octets: bytes) -> None:
        """Octets as they are, without waiting for anything; their answer comes out of `events`."""
        self._send(octets)

    def _begin(self, message: Message) -> Exchange:
        if self._dump is not None:
            raise Busy("a dump on this connection has not been read to its end")
        if message.seq == 0:
            self._seq = self._seq % 0x7FFF_FFFF + 1
            message = replace(message, seq=self._seq)
        exchange = Exchange(replace(message, pid=message.pid or self.pid), self.dialect)
        self._send(exchange.octets)
        return exchange

    def _step(self, exchange: Exchange) -> None:
        """One message, to the request or to those that wait."""
        octets = self._receive()
        if octets[0] == OURS:
            note = read_ack(octets)
            if isinstance(note, Lost):
                self._waiting.append(note)
            elif exchange.ack is None:
                exchange.acknowledged(note)
        elif not exchange.feed(octets):
            self._waiting.append(octets)

    # -- what the engine says of itself --------------------------------------------------------------------------------

    def events(self, timeout_s: float | None = None) -> Iterator[Message]:
        """Messages that answer no request, for ever or until none came for timeout_s. Raises Lost where some could not be kept.

        In promiscuous mode also what others get, without the base header that says so.
        """
        for octets in self.frames(timeout_s):
            yield Message.read(unwrapped(octets), self.dialect)

    def frames(self, timeout_s: float | None = None) -> Iterator[bytes]:
        """The same as octets, promiscuous ones with their second header."""
        while True:
            while self._waiting:
                one = self._waiting.popleft()
                if isinstance(one, Lost):
                    raise one
                yield one
            if not self.wait(timeout_s):
                return
            octets = self._receive()
            if octets[0] != OURS:
                self._waiting.append(octets)
            elif isinstance(note := read_ack(octets), Lost):
                self._waiting.append(note)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether something is there to be read, within timeout_s (None: for ever)."""
        if self._waiting:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else max(0, round(timeout_s * 1000))))

    # -- octets --------------------------------------------------------------------------------------------------------

    def _send(self, octets: bytes) -> None:
        try:
            self._socket.send(octets)
        except TimeoutError as error:
            raise Timeout("the engine does not take the request") from error
        except OSError as error:
            raise Unreachable(f"the engine ended: {os.strerror(error.errno or 0)}") from error

    def _receive(self) -> bytes:
        started = time.monotonic()
        try:
            octets = self._socket.recv(MESSAGE_OCTETS)
        except TimeoutError as error:
            raise Timeout(f"the engine does not answer within {time.monotonic() - started:.0f} s") from error
        except OSError as error:
            raise Unreachable(f"the engine ended: {os.strerror(error.errno or 0)}") from error
        if not octets:
            raise Unreachable("the engine ended")
        if octets[0] != OURS and len(octets) < 16:
            raise Malformed("sadb_msg", f"{len(octets)} octets from the engine")
        return octets
