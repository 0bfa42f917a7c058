"""Descriptors for an engine that runs: a socket beside the link, on which the keeper sends them with a word of what each is for.

    keeper.hand({"do": "capture", ...}, descriptor)      now, or never: the next engine knows nothing of it
    keeper.stand(name, {"do": "enc", ...}, descriptor)   now, and to every engine to come, until keeper.fall(name)

One datagram each; the keeper does not wait. What an engine gets is its own: it closes it.
"""

import json
import os
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from koura.errors import Errno, Refused
from koura.host import tun

OCTETS = 65536
_MOST = tun.QUEUES
Handed = Callable[[Mapping[str, Any], list[int]], None]


@dataclass(slots=True)
class Standing:
    """What every engine gets."""

    said: dict[str, Any]
    descriptors: tuple[int, ...]


@dataclass(slots=True)
class Handover:
    """The keeper's side, over engines that come and go."""

    standing: dict[str, Standing] = field(default_factory=dict)
    _end: socket.socket | None = None
    _is_ready: bool = False

    def renew(self) -> socket.socket:
        """A pair for a new engine; the engine's end, which it inherits."""
        self.close()
        self._end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._end.setblocking(False)
        self._is_ready = False
        return theirs

    def ready(self) -> None:
        """The engine is ready: what stands is its."""
        self._is_ready = True
        for one in self.standing.values():
            self.hand(one.said, *one.descriptors)

    def hand(self, said: Mapping[str, Any], *descriptors: int) -> bool:
        """Whether an engine was there to take it."""
        if self._end is None or not self._is_ready:
            return False
        try:
            socket.send_fds(self._end, [json.dumps(said).encode()], list(descriptors))
        except OSError:
            return False
        return True

    def stand(self, name: str, said: dict[str, Any], *descriptors: int) -> None:
        """The descriptors are ours to keep until `fall`."""
        self.standing[name] = Standing(said, descriptors)
        self.hand(said, *descriptors)

    def fall(self, name: str, said: Mapping[str, Any] | None = None) -> None:
        """It stands no longer, and the engine is told `said`."""
        for descriptor in self.standing.pop(name).descriptors:
            os.close(descriptor)
        if said is not None:
            self.hand(said)

    def close(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None


def take(end: socket.socket, handed: Handed) -> bool:
    """At the engine's side: one datagram, if it is there; False at the end."""
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
