"""The link between keeper and engine: steps over a stream socket, without waiting on either side."""

import socket
from collections.abc import Callable, Iterable

from koura.daemon.records import Reader, Record, write
from koura.host.loop import GONE, READ, WRITE, Loop

_READ_OCTETS = 1 << 18
_SEND_OCTETS = 1 << 18


class Link:
    """One end. `on_step(records)` gets every step of the other side, `on_end()` is called once when that side is gone."""

    def __init__(
        self, loop: Loop, end: socket.socket, on_step: Callable[[tuple[Record, ...]], None], on_end: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._socket = end
        self._on_step = on_step
        self._on_end = on_end
        self._reader = Reader()
        self._out = bytearray()
        self._is_open = True
        end.setblocking(False)
        loop.watch(end.fileno(), self._ready)

    @property
    def is_empty(self) -> bool:
        """Whether everything that was sent has left this process."""
        return not self._out

    def send(self, records: Iterable[Record]) -> None:
        """One step. To a side that is gone: nothing."""
        if not self._is_open:
            return
        was_empty = not self._out
        self._out += write(records)
        if was_empty:
            self._flush()
            if self._out and self._is_open:
                self._loop.change(self._socket.fileno(), READ | WRITE)

    def flush(self) -> None:
        """Wait until everything has left."""
        while self._out and self._is_open:
            self._socket.setblocking(True)
            self._flush()
        if self._is_open:
            self._socket.setblocking(False)

    def finish(self, patience_s: float) -> None:
        """Wait for all that the other side says until its end. One that says nothing for so long has ended."""
        while self._is_open:
            self._socket.settimeout(patience_s)
            try:
                self._flush()
                self._read()
            except TimeoutError:
                self._end()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.forget(self._socket.fileno())
            self._socket.close()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
            if not self._out and self._is_open:
                self._loop.change(self._socket.fileno(), READ)
        if events & (READ | GONE) and self._is_open:
            self._read()

    def _read(self) -> None:
        try:
            octets = self._socket.recv(_READ_OCTETS)
        except BlockingIOError:
            return
        except ConnectionError:
            octets = b""
        if not octets:
            self._end()
            return
        for step in self._reader.feed(octets):
            self._on_step(step)
            if not self._is_open:
                return

    def _flush(self) -> None:
        try:
            while self._out:
                with memoryview(self._out) as view:
                    sent = self._socket.send(view[:_SEND_OCTETS])
                del self._out[:sent]
        except BlockingIOError:
            return
        except ConnectionError:
            self._out.clear()  # the end of the stream is read next

    def _end(self) -> None:
        self.close()
        self._on_end()
