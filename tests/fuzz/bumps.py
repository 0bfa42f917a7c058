"""A target for native I/O of a bump, where it was built: frames from Ethernet into it and into the reference, of which the same must leave.

    bump       the first octet chooses side and company, the second what is bent on the way to the peer; the rest is a frame as a
               packet socket gives it, with its virtio header in front
"""

import weakref
from typing import Any

from koura.fast import drivers
from koura.host.bump import INSIDE, OUTSIDE
from koura.host.frames import IPV4, IPV6, Link
from koura.wire import ipv4, udp
from tests.fuzz.formats import packets
from tests.fuzz.native import supers
from tests.fuzz.target import Target

_PLAIN = bytes(10)
_A, _B = bytes.fromhex("020000000a01"), bytes.fromhex("020000000b01")
_SRC, _DST = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
_TAGS = (b"", b"\x81\0\0\x05", b"\x88\xa8\0\x07\x81\0\0\x05", b"\x81\0\0\x05" * 5)


def _framed(packet: bytes, tags: bytes = b"", front: bytes = _PLAIN) -> bytes:
    return front + Link(_B, _A, tags).front(IPV4 if packet[:1] < b"\x60" else IPV6) + packet


def _own(octets: int) -> bytes:
    """What a policy protects, and so the engine learns."""
    return _framed(ipv4.write(ipv4.Header(_SRC, _DST, udp.PROTOCOL), udp.write_checked(_SRC, _DST, 7, 9, bytes(octets))))


_OWN = [_own(octets) for octets in (0, 13, 200, 1400)]


class Wires:
    """A bump of each kind in front of either host, and what lies between them."""

    def __init__(self) -> None:
        from tests.unit.fast.bump_kit import BYPASS, World
        from tests.unit.host.test_bump import IN_FRONT_OF_A, IN_FRONT_OF_B

        self.near, self.far = (
            [World(BYPASS + script, is_fast) for is_fast in (True, False)] for script in (IN_FRONT_OF_A, IN_FRONT_OF_B)
        )
        for world in (*self.near, *self.far):
            for side in world.sides:
                weakref.finalize(self, side.shut)
        self.seen: list[bytes] = []

    def run(self, octets: bytes) -> None:
        """Inside: between frames of its own, and what leaves goes to the peer, some of it bent. Outside: as it is, and what came before."""
        if len(octets) < 3:
            return
        way, what, body = octets[0], octets[1], octets[2:]
        if way & 1:
            self._into(self.far, OUTSIDE, [body, *self.seen[:2], body][: 1 + way % 4])
            return
        own = _OWN[what % len(_OWN)]
        found = self._into(self.near, INSIDE, [own, body, own, body, own][way % 3 :])
        wire = [_PLAIN + link.front(kind) + payload for link, kind, payload in found[OUTSIDE]]
        if wire and what & 1 and len(wire[way % len(wire)]) > 24:
            bent = bytearray(wire[way % len(wire)])
            bent[24 + what * 7 % (len(bent) - 24)] ^= what
            wire.append(bytes(bent))
        self.seen = wire
        self._into(self.far, OUTSIDE, wire)
        states = [{name: dict(world.host.stack.report.read(name)) for name in ("esp", "ipsec")} for world in (*self.near, *self.far)]
        assert states[0] == states[1], "the two leave different counts"
        assert states[2] == states[3], "the two leave different counts at the peer"

    @staticmethod
    def _into(worlds: list[Any], side: int, sent: list[bytes]) -> Any:
        found = [world.come(side, *sent) for world in worlds]
        assert found[0] == found[1], "something else leaves"
        return found[0]


def _seeds() -> list[bytes]:
    whole = [*_OWN, *(_framed(packet, tags) for packet in packets() for tags in _TAGS)]
    # A super packet's checksum begins behind the link header here.
    whole += [_framed(one[10:], b"", _moved(one[:10])) for one in supers()]
    return [bytes((way, what)) + one for what, one in enumerate(whole) for way in (0, 1, 2)]


def _moved(front: bytes) -> bytes:
    return front[:6] + (int.from_bytes(front[6:8], "little") + 14).to_bytes(2, "little") + front[8:]


TARGETS = [Target("bump", lambda: Wires().run, _seeds)] if not drivers.why_not() and drivers.has_bump_hands() else []
