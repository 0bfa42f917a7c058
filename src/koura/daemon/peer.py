"""One connection of a SOCK_SEQPACKET socket in the keeper: messages out without waiting, messages in when they come.

Rules: nothing here waits for anybody. What the other side does not read stays in a queue that has a limit, and whoever reached it
is not listened to until it has read. The descriptor is watched once, by its edges: after every change of what we want, we look.
"""

import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from koura.host.loop import EDGE, GONE, READ, WRITE, Loop

QUEUE_OCTETS = 1 << 20  # beyond, broadcasts are lost and requests wait
_SO_PEERGROUPS = 59
_GROUPS_OCTETS = 1024  # the most that Python asks for
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int
    gids: frozenset[int]

    @classmethod
    def of(cls, end: socket.socket) -> "Credentials":
        """SO_PEERCRED and SO_PEERGROUPS."""
        pid, uid, gid = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        try:
            groups = end.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_OCTETS)
        except OSError:  # a user in more groups than that is taken for a member of the first only
            groups = b""
        return cls(pid, uid, frozenset((gid, *struct.unpack(f"{len(groups) // 4}I", groups))))


class Peer:
    """A connection and what waits to be sent on it. Subclasses say what a message means (`look`)."""

    def __init__(self, loop: Loop, end: socket.socket, on_gone: Callable[["Peer"], None]) -> None:
        self.socket = end
        self.queued_octets = 0
        self.is_open = True
        self._loop = loop
        self._on_gone = on_gone
        self._queue: deque[bytes] = deque()
        end.setblocking(False)

    def begin(self) -> None:
        """Watch it from now on."""
        self._loop.watch(self.socket.fileno(), self._ready, READ | WRITE | EDGE)

    @property
    def has_room(self) -> bool:
        return self.queued_octets < QUEUE_OCTETS

    def send(self, octets: bytes) -> None:
        """Now, or when the other side has read what waits."""
        if not self.is_open:
            return
        self._queue.append(octets)
        self.queued_octets += len(octets)
        if len(self._queue) == 1:
            self._flush()

    def look(self) -> None:
        """Take what there is to read, if it is wanted now."""
        raise NotImplementedError

    def drained(self) -> None:
        """Everything that waited has been sent."""

    def end(self) -> None:
        """Close it; `on_gone` is called once."""
        if self.is_open:
            self.is_open = False
            self._queue.clear()
            self.queued_octets = 0
            self._loop.forget(self.socket.fileno())
            self.socket.close()
            self._on_gone(self)

    def _ready(self, events: int) -> None:
        if events & (WRITE | GONE) and self._queue:
            self._flush()
            if self.is_open and not self._queue:
                self.drained()
        if self.is_open and (events & (READ | GONE) or self.has_room):
            self.look()

    def _flush(self) -> None:
        try:
            while self._queue:
                self.socket.send(self._queue[0])
                self.queued_octets -= len(self._queue.popleft())
        except BlockingIOError:
            return
        except OSError:
            self.end()
