"""Virtual tunnel interfaces by native I/O and by the reference, side by side: the same octets leave and come out, the same is counted.

What happens to both is drawn from a seed: trains of TCP, datagrams of many sizes, fragments, marks of routers on the way, narrower paths,
tunables, keys that change or go, captures and filters that come and go. M22, M23.
"""

import random
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import pytest

from koura.saindex import Direction
from koura.traffic.fragments import split
from koura.wire import udp
from tests.unit.fast.interface_rig import NAMES, REQIDS, Rig, gone, marked, packet, sas, train, why_no_native
from tests.unit.traffic.kit import INNER_A, INNER_A6, INNER_B, INNER_B6

pytestmark = pytest.mark.skipif(bool(why_no_native()), reason=f"no native I/O here: {why_no_native()}")

STEPS = 130
PORTS = (1000, 2000)
MARKS = (0, 1, 2, 3)
TUNABLES = {
    "net.inet.ipsec.dfbit": (0, 1, 2), "net.inet.ipsec.ecn": (-1, 0, 1, 2), "net.koura.pre_frag": (0, 1), "net.inet.ip.ttl": (64, 17),
    "net.inet6.ipsec6.ecn": (-1, 0, 1, 2), "net.inet6.ip6.hlim": (64, 17),
    "net.koura.mss_clamp": (0, 1),
}  # fmt: skip


class Twins:
    """A native one and one by the reference, to which the same happens."""

    def __init__(self, seed: int) -> None:
        self.seed, self.dice = seed, random.Random(seed)
        self.native, self.plain = self.both = Rig(is_native=True), Rig(is_native=False)
        self.base = 0
        self.sequence = 0

    def shut(self) -> None:
        for rig in self.both:
            rig.shut()

    # -- what is drawn -------------------------------------------------------------------------------------------------

    def _ends(self) -> tuple[bytes, bytes]:
        return self.dice.choice(((INNER_A, INNER_B), (INNER_A6, INNER_B6)))

    def _packets(self, ends: tuple[bytes, bytes]) -> list[bytes]:
        """A train of TCP, or some datagrams, or one in fragments."""
        dice, (src, dst) = self.dice, ends
        tos, is_df = dice.randrange(256), dice.random() < 0.6
        kind = dice.choice(("train", "train", "datagrams", "fragments"))
        if kind == "train":
            return self._train(src, dst, tos, is_df=is_df)
        if kind == "datagrams":
            return [self._datagram(src, dst, dice.randrange(1, 1600), tos, is_df=is_df) for _ in range(dice.randrange(1, 6))]
        return list(split(self._datagram(src, dst, 2500, tos, is_df=False), dice.choice((1000, 1400)), dice.randrange(1 << 16)))

    def _train(self, src: bytes, dst: bytes, tos: int, *, is_df: bool) -> list[bytes]:
        dice = self.dice
        octets, count = dice.choice((50, 500, 1200, 1360)), dice.randrange(1, 20)
        self.sequence += 1 << 16
        return train(
            src, dst, count, octets, tos=tos, is_df=is_df, sequence=self.sequence, port=dice.choice(PORTS),
            last=dice.randrange(1, octets + 1), number=dice.randrange(1 << 16), filling=dice.randbytes(octets),
        )  # fmt: skip

    def _datagram(self, src: bytes, dst: bytes, octets: int, tos: int, *, is_df: bool) -> bytes:
        body = udp.write_checked(src, dst, self.dice.choice(PORTS), 5, self.dice.randbytes(octets))
        return packet(src, dst, 17, body, tos=tos, number=self.dice.randrange(1, 1 << 16), is_df=is_df)

    # -- what happens --------------------------------------------------------------------------------------------------

    def send(self) -> None:
        number, packets = self.dice.randrange(len(NAMES)), self._packets(self._ends())
        self._same("sent", *(rig.send(number, packets) for rig in self.both))

    def receive(self) -> None:
        """Some of them marked on their way; of some a bit is wrong, and some come twice."""
        dice, number = self.dice, self.dice.randrange(2)
        packets = self._packets(self._ends()[::-1])
        fates = [(dice.choice(MARKS) if dice.random() < 0.3 else None, dice.random()) for _ in packets]
        for rig in self.both:
            came: list[bytes] = []
            for outer, (mark, fate) in zip(rig.sealed(number, packets), cycle(fates), strict=False):
                one = marked(outer, mark) if mark is not None else outer
                came += [one[:-1] + bytes((one[-1] ^ 1,)) if fate < 0.02 else one] * (2 if fate > 0.98 else 1)
            rig.receive(came)

    def tune(self) -> None:
        """Here, or at the far end."""
        name = self.dice.choice(list(TUNABLES))
        value, is_far = self.dice.choice(TUNABLES[name]), self.dice.random() < 0.3
        for rig in self.both:
            (rig.far if is_far else rig.host).tune(name, value)

    def path(self) -> None:
        octets = self.dice.choice((0, 0, 1500, 1500, 1400, 1300, 1000, 576))
        for rig in self.both:
            rig.path(octets)

    def keys(self) -> None:
        """Newer SAs on both sides, then the older ones go."""
        before, self.base = self.base, (self.base + 0x100) & 0xFFF
        self._setkey(sas(self.base) if before != self.base else "")
        self._setkey(gone(before))

    def gap(self) -> None:
        """An interface without an SA: what goes there waits, key management is asked, and what waited is sent when one comes."""
        number = self.dice.randrange(len(NAMES))
        packets = self._packets(self._ends())
        self._setkey(gone(self.base, (REQIDS[number],)))
        self._same("sent without an SA", *(rig.send(number, packets) for rig in self.both))
        self._same("ACQUIRE", *([one.type for one in rig.asked()] for rig in self.both))
        self._setkey(sas(self.base, (REQIDS[number],)))
        self._same("sent later", *(rig.out.taken() for rig in self.both))

    def watch(self) -> None:
        """A capture, for a while."""
        self._meanwhile(lambda rig, is_on: setattr(rig.stack.tap, "is_open", is_on))

    def filter(self) -> None:
        """A packet filter that blocks odd lengths, for a while."""
        self._meanwhile(lambda rig, is_on: setattr(rig.stack.filter, "rule", _passes if is_on else None))

    def _meanwhile(self, switch: Callable[[Rig, bool], None]) -> None:
        for is_on in (True, False):
            for rig in self.both:
                switch(rig, is_on)
            for step in (self.send, self.receive):
                step()
                self.compare()

    def time(self) -> None:
        seconds = self.dice.choice((1, 60, 700))
        for rig in self.both:
            rig.host.later(seconds)
            rig.far.later(seconds)

    def _setkey(self, script: str) -> None:
        for rig in self.both:
            rig.far.setkey(script)
            rig.setkey(script)

    # -- and is the same -----------------------------------------------------------------------------------------------

    def compare(self) -> None:
        for number, name in enumerate(NAMES):
            self._same(f"out of {name}", *(rig.taken(number) for rig in self.both))
        self._same("out of the host's TUN", *(rig.tun.taken() for rig in self.both))
        self._same("left", *(rig.out.taken() for rig in self.both))
        self._same("of interfaces", *(rig.inner.losses() for rig in self.both))
        self._same("counters", *({**rig.stack.counters.endings(), **rig.stack.counters.others()} for rig in self.both))
        self._same("enc0", *((rig.stack.tap.in_packets, rig.stack.tap.in_octets, rig.stack.tap.out_packets) for rig in self.both))

    def _same(self, what: str, native: Any, plain: Any) -> None:
        assert native == plain, f"seed {self.seed}: {what}"


def _passes(_stage: int, _direction: Direction, octets: bytes) -> bool:
    return len(octets) % 2 == 0


@pytest.fixture(params=range(3))
def twins(request: pytest.FixtureRequest) -> Iterator[Twins]:
    made = Twins(request.param)
    yield made
    made.shut()


@pytest.mark.covers("M22", "M23")
def test_native_io_does_with_tunnel_interfaces_what_the_reference_does(twins: Twins) -> None:
    steps = [twins.send] * 15 + [twins.receive] * 15
    steps += [twins.tune, twins.path, twins.keys, twins.gap, twins.watch, twins.filter, twins.time]
    for _ in range(STEPS):
        twins.dice.choice(steps)()
        twins.compare()
    counts = twins.native.pump.counts()  # type: ignore[attr-defined]
    assert counts["sent"] > 50, counts
    assert counts["delivered"] > 50, counts
