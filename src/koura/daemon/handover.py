"""Descriptors for an engine that runs: a socket beside the link, on which the keeper sends them with a word of what each is for.

    keeper.hand({"do": "capture", ...}, descriptor)      now, or never: the next engine knows nothing of it
    keeper.stand(name, {"do": "enc", ...}, descriptor)   now, and to every engine to come, until keeper.fall(name)

One datagram each, in this order; {"do": "all"} when an engine that is ready has all that stands: it reads no packets before. The keeper
does not wait: what the socket has no room for is sent when it has. What an engine gets is its own: it closes it.
"""

import json
import os
import select
import socket
import stat
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from koura.errors import Errno, Refused
from koura.host import tun
from koura.host.loop import WRITE, Loop

OCTETS = 65536
ALL: Mapping[str, Any] = {"do": "all"}
RETRY_S = 0.01  # where the kernel has other reasons than no room: too many descriptors on their way, no memory
_MOST = tun.QUEUES
Handed = Callable[[Mapping[str, Any], list[int]], None]


@dataclass(slots=True)
class Word:
    """What one datagram says, with its descriptors, which are ours."""

    said: Mapping[str, Any]
    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class Handover:
    """The keeper's side, over engines that come and go."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._standing: dict[str, Word] = {}
        self._waiting: deque[str | Word] = deque()  # what stands by its name, for it may fall before it is sent
        self._end: socket.socket | None = None
        self._is_ready = self._is_watched = False

    def renew(self) -> socket.socket:
        """A pair for a new engine; the engine's end, which it inherits."""
        self.close()
        self._end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._end.setblocking(False)
        return theirs

    def ready(self) -> None:
        """The engine is ready: what stands is its."""
        self._is_ready = True
        self._waiting.extend((*self._standing, Word(ALL)))
        self._flush()

    def hand(self, said: Mapping[str, Any], *descriptors: int) -> bool:
        """Whether an engine was there to take it. The descriptors stay the caller's."""
        if not self._is_ready:
            return False
        try:
            self._waiting.append(Word(said, tuple(map(os.dup, descriptors))))
        except OSError:  # there are no more descriptors to be had
            return False
        self._flush()
        return self._is_ready

    def stand(self, name: str, said: Mapping[str, Any], *descriptors: int) -> None:
        """The descriptors are ours to keep until `fall`."""
        self._standing[name] = Word(said, descriptors)
        if self._is_ready:
            self._waiting.append(name)
            self._flush()

    def fall(self, name: str, said: Mapping[str, Any] | None = None) -> None:
        """It stands no longer, and the engine is told `said`."""
        self._standing.pop(name).close()
        if said is not None:
            self.hand(said)

    def close(self) -> None:
        """To this engine nothing more is said."""
        self._is_ready = False
        while self._waiting:
            self._sent(self._waiting.popleft())
        if self._end is not None:
            self._watch(False)
            self._end.close()
            self._end = None

    def _flush(self) -> None:
        """As much as there is room for."""
        while self._waiting and self._end is not None:
            one = self._waiting[0]
            word = self._standing.get(one) if isinstance(one, str) else one
            if word is not None:
                try:
                    socket.send_fds(self._end, [json.dumps(word.said).encode()], list(word.descriptors))
                except BlockingIOError:
                    self._watch(True)
                    return
                except ConnectionError:  # the engine has ended; the next one gets what stands
                    self.close()
                    return
                except OSError:
                    self._watch(False)
                    self._loop.after_s(RETRY_S, self._flush)
                    return
            self._sent(self._waiting.popleft())
        self._watch(False)

    def _watch(self, is_wanted: bool) -> None:
        """Whether there is room again."""
        if is_wanted == self._is_watched or self._end is None:
            return
        self._is_watched = is_wanted
        if is_wanted:
            self._loop.watch(self._end.fileno(), lambda _events: self._flush(), WRITE)
        else:
            self._loop.forget(self._end.fileno())

    @staticmethod
    def _sent(one: str | Word) -> None:
        if isinstance(one, Word):
            one.close()


def take(end: socket.socket, handed: Handed, *, waits: bool = False) -> bool:
    """At the engine's side: one datagram, if it is there or whenever it is; False at the end."""
    arrival = select.poll()
    arrival.register(end, select.POLLIN)
    if not arrival.poll(None if waits else 0):
        return True
    octets, descriptors, _, _ = socket.recv_fds(end, OCTETS, _MOST)
    if octets:
        handed(json.loads(octets), list(descriptors))
    return bool(octets)


def own(descriptor: int) -> socket.socket:
    """Our own copy of a key socket's end. Raises Refused."""
    if is_pair(descriptor):
        return socket.socket(fileno=os.dup(descriptor))
    raise Refused(Errno.EPROTOTYPE, "adopt: the descriptor is no SOCK_SEQPACKET socket")


def is_pair(descriptor: int) -> bool:
    """Whether it is a SOCK_SEQPACKET socket of this machine."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as end:
        return (end.family, end.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)
