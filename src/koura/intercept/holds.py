"""Holding a client's poll(2) on its key socket until the reply to its request is queued.

iked sends a request and gives the reply one millisecond: poll(fds, 1, 1). On a kernel the reply is there before send() returns; here
another process makes it. So that one call is held:

    program   send(request) ..... poll(key socket, 1 ms) ------ held ------> runs: readable at once
    engine              peeks the request, queues its replies, takes the request off the queue

The engine takes a request off only after its replies are queued, so the state of our duplicate of the client's descriptor says all:
readable, or nothing unanswered (SIOCOUTQ 0), or hung up. Either lets the call run as if nothing had been. How busy the machine is
makes no difference. HOLD_S is only for an engine that has stopped.
"""

import array
import fcntl
import os
import select
import socket
from dataclasses import dataclass

from koura.intercept import kernel
from koura.intercept.kernel import Gone

SIOCOUTQ = 0x5411
HOLD_S = 10.0
# Readable, or a request was taken off the queue; edges, because the latter is no lasting state.
EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET


@dataclass(frozen=True, slots=True)
class Held:
    """One call that waits, our duplicate of what it polls, and when it stops waiting."""

    id: int
    duplicate: socket.socket
    deadline_s: float


class Holds:
    """The calls that are held on one listener."""

    def __init__(self, listener: int, epoll: select.epoll) -> None:
        self._listener = listener
        self._epoll = epoll
        self._held: dict[int, Held] = {}

    def __contains__(self, descriptor: int) -> bool:
        return descriptor in self._held

    def hold(self, id_: int, duplicate: socket.socket, now_s: float) -> None:
        """Let the call run when it is time, perhaps now. Takes the duplicate over. Raises Gone."""
        if is_settled(duplicate):
            duplicate.close()
            kernel.answer(self._listener, id_, go_on=True)
            return
        self._held[duplicate.fileno()] = Held(id_, duplicate, now_s + HOLD_S)
        # What happens from here on is an edge, what happened before shows when the first one (writable) is looked at.
        self._epoll.register(duplicate.fileno(), EVENTS)

    def event(self, descriptor: int) -> None:
        """Something happened to a held socket."""
        if is_settled(self._held[descriptor].duplicate) or not kernel.is_valid(self._listener, self._held[descriptor].id):
            self._release(descriptor)

    def due(self, now_s: float) -> None:
        """Let go whoever waited for too long."""
        for descriptor, held in list(self._held.items()):
            if held.deadline_s <= now_s:
                self._release(descriptor)

    def next_s(self) -> float | None:
        return min((held.deadline_s for held in self._held.values()), default=None)

    def close(self) -> None:
        for descriptor in list(self._held):
            self._release(descriptor)

    def _release(self, descriptor: int) -> None:
        held = self._held.pop(descriptor)
        self._epoll.unregister(descriptor)
        held.duplicate.close()
        try:
            kernel.answer(self._listener, held.id, go_on=True)
        except Gone:
            return


def is_settled(duplicate: socket.socket) -> bool:
    """Whether a poll on this key socket has its answer: something to read, the end, or nothing asked."""
    ready = select.poll()
    ready.register(duplicate, select.POLLIN)
    return bool(ready.poll(0)) or unanswered_octets(duplicate.fileno()) == 0


def unanswered_octets(descriptor: int) -> int:
    """What was sent and not yet taken by the other end."""
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, SIOCOUTQ, count, True)
    return count[0]


def blocking_duplicate(descriptor: int) -> socket.socket:
    """A socket object around a stolen descriptor, its file status untouched (it is the program's, too)."""
    try:
        return socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise
