"""A bump of the reference or of native I/O, its interfaces on paper: each is the other end of a pair of sockets."""

import select
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from koura.address import parse
from koura.attachment import Losses
from koura.entropy import Pooled
from koura.fast.path import FastPath
from koura.host import bridge, frames
from koura.host.bridge import Frame, Side
from koura.host.bump import INSIDE, OUTSIDE, Bump, Pair
from koura.host.fastbump import FastBump
from koura.host.frames import Link
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.outcome import Event
from tests.unit.host.test_bump import A, B, Still
from tests.unit.stack.kit import Host

BYPASS = "spdadd 192.0.2.0/24 192.0.2.0/24 tcp -P out none; spdadd 192.0.2.0/24 192.0.2.0/24 tcp -P in none;"


class Socketed(Side):
    """A side whose interface is the other end of a pair of sockets."""

    def __init__(self, name: str, last: int) -> None:
        self.name = name
        self.losses = Losses()
        self.mac = bytes.fromhex("0200000000") + bytes((last,))
        self._end, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._end, self.far):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)

    def look(self) -> None:
        """Its address is always the same."""

    @property
    def mtu_octets(self) -> int:
        return 1500

    def take(self) -> list[tuple[Link, int, bytes]]:
        """Everything that was sent, super packets cut."""
        found = []
        while True:
            try:
                octets = self.far.recv(1 << 17)
            except BlockingIOError:
                return found
            frame = bridge.frame_of(octets, b"")
            assert frame is not None
            found += [(frame.link, frame.kind, payload) for payload in frame.payloads]

    def shut(self) -> None:
        self._end.close()
        self.far.close()


@dataclass
class World:
    """One bump, fast or not."""

    script: str
    is_fast: bool
    own: tuple[str, ...] = ()
    sides: tuple[Socketed, Socketed] = field(init=False)

    def __post_init__(self) -> None:
        stack = Stack(Pooled(Seeded(4301)), fast=FastPath if self.is_fast else None)
        self.host = Host(self.script, stack)
        self.sides = (Socketed("in", 1), Socketed("out", 2))
        self.pair = Pair(*self.sides, frozenset(map(parse, self.own)))
        self.bump = (FastBump if self.is_fast else Bump)(stack, Still(), (self.pair,), self._tell)
        self.bump.measure()

    def _tell(self, events: Iterable[Event]) -> None:
        self.bump.packets_of(events)

    def come(self, number: int, *sent: bytes) -> tuple[list[tuple[Link, int, bytes]], list[tuple[Link, int, bytes]]]:
        """Frames with a header of virtio in front; what left inside and outside."""
        for octets in sent:
            self.sides[number].far.send(octets)
        if self.is_fast:
            while select.select([self.sides[number]], [], [], 0)[0]:
                self.bump.ready(self.pair, number)
        else:
            self._slowly(number)
        return self.sides[INSIDE].take(), self.sides[OUTSIDE].take()

    def _slowly(self, number: int) -> None:
        """As Bump.ready, but for the sockets' kind."""
        self.bump.look()
        while True:
            try:
                octets = self.sides[number]._end.recv(1 << 17)
            except BlockingIOError:
                return
            frame = bridge.frame_of(octets, b"")
            if isinstance(frame, Frame):
                self.bump.frame(self.pair, number, frame)
            else:
                self.sides[number].losses.lose("unread")


def frame(payload: bytes, link: Link = Link(B, A), front: bytes = bytes(10), kind: int = 0) -> bytes:  # noqa: B008
    return front + link.front(kind or frames.kind_of(payload)) + payload
