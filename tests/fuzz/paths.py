"""A target for both paths: octets become bursts of packets through two stacks alike, one of them fast, which must stay equal.

    paths      the first octet chooses direction and origin, the second how the rest is cut into packets and which is bent how
"""

import random
from collections.abc import Iterator

from koura.entropy import Pooled
from koura.fast import drivers
from koura.moment import Moment
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.outcome import LOCAL, Forward, Origin
from koura.wire import ipv4, udp
from tests.fuzz.formats import packets
from tests.fuzz.target import Target
from tests.fuzz.traffic import script
from tests.parity.kit import Watched, state
from tests.unit.stack.kit import GCM, SHA, Host

# Tunnels of one SA each, which the fast path takes; what else `script` has is around them.
_TUNNELS = "".join(
    f"add 192.0.2.1 198.51.100.{n} {kind} {0x9000 + n} -m tunnel -r 8 {keys};"
    f"spdadd 10.0.0.1 10.8.0.{n} any -P out ipsec {kind}/tunnel/192.0.2.1-198.51.100.{n}/require;"
    f"spdadd 10.0.0.1 10.8.0.{n} any -P in ipsec {kind}/tunnel/192.0.2.1-198.51.100.{n}/require;"
    for n, (kind, keys) in enumerate((("esp", GCM), ("esp", f'-E aes-cbc 0x{bytes(16).hex()} {SHA}'), ("ah", SHA), ("esp", f"-esn {GCM}")))
)


def _own(n: int, octets: int) -> bytes:
    """A datagram for one of those tunnels."""
    src, dst = bytes((10, 0, 0, 1)), bytes((10, 8, 0, n))
    return ipv4.write(ipv4.Header(src, dst, udp.PROTOCOL), udp.write_checked(src, dst, 1, 2, bytes(octets)))


_OWN = [_own(n, octets) for n in range(4) for octets in (0, 13, 200)]
_ORIGINS = (LOCAL, Origin(is_forwarded=True), Origin(socket=3))
_KEPT = 64


class Twins:
    """The two stacks, and packets that went through them, to come again."""

    def __init__(self) -> None:
        self.hosts = [Host(script() + _TUNNELS, Stack(Pooled(Seeded(1)), fast=fast)) for fast in (None, Watched)]
        self.at: Moment = self.hosts[0].at
        self.first = [*packets(), *_OWN]
        self.known = list(self.first)
        self.dice = random.Random(4301)

    def run(self, octets: bytes) -> None:
        """Between packets of its own: arbitrary octets, and known ones bent by them."""
        if len(octets) < 3:
            return
        way, what, body = octets[0], octets[1], octets[2:]
        known = self.known[what % len(self.known)]
        bent = bytearray(known)
        for at, octet in enumerate(body[:4]):
            bent[(at * 7 + octet) % len(bent)] ^= octet if what & 1 else 0
        burst = [known, bytes(bent), body, known, known, bytes(bent[: max(1, len(bent) - way % 16)]), known]
        if way & 1:
            found = [host.stack.inbound(burst, self.at) for host in self.hosts]
        else:
            found = [host.stack.outbound(burst, self.at, _ORIGINS[way % 3]) for host in self.hosts]
        assert found[0] == found[1], "the paths disagree"
        for packet in _sent(found[0].outcomes):
            if self.dice.random() < 0.3:
                self.keep(packet)
        if not way & 0x70:
            self.at = self.at.after_s(1)
            assert len({tuple(map(repr, host.stack.advance(self.at))) for host in self.hosts}) == 1
        mine, theirs = (state(host.stack) for host in self.hosts)
        assert mine == theirs, "the paths leave different states"


    def keep(self, packet: bytes) -> None:
        """Have it come again, in the place of another."""
        self.known.append(packet)
        if len(self.known) > len(self.first) + _KEPT:
            del self.known[len(self.first)]


def _sent(outcomes: tuple[object, ...]) -> Iterator[bytes]:
    for outcome in outcomes:
        if isinstance(outcome, Forward):
            yield from outcome.packets


def _seeds() -> list[bytes]:
    return [bytes((way, what)) + packet for way in (0, 1, 17, 33, 49) for what, packet in enumerate([*packets(), *_OWN])]


TARGETS = [] if drivers.why_not() else [Target("paths", lambda: Twins().run, _seeds)]
