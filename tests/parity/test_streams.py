"""Random streams through both paths: several SAs a burst, garbage, replays, forgeries, rekeys, limits, tunables that change."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from koura.moment import Moment
from koura.notices import LocalAddresses, PathMtu
from koura.sadb.agreement import Agreement, Encapsulation, Limits, SaFlags
from koura.saindex import Direction, Protocol
from koura.spd.policy import Action, Policy
from koura.stack import Stack
from koura.traffic.outcome import LOCAL, Forward, Origin
from tests.parity.kit import AHS, AT, SHAPES, SUITES, Pair, Watched, WithOpenssl, agreement, ends, needs_fast, policy
from tests.unit.traffic import kit

pytestmark = needs_fast
DRIVERS = pytest.mark.parametrize("fast", [Watched, WithOpenssl], ids=["ipsec-mb", "openssl"])
TUNABLES = {
    "net.inet.ipsec.dfbit": "0 1 2", "net.inet.ipsec.ecn": "-1 0 1 2", "net.inet6.ipsec6.ecn": "-1 0 1 2",
    "net.inet.ipsec.ah_cleartos": "0 1", "net.inet.ipsec.ah_offsetmask": "0 65535", "net.inet.esp.esp_enable": "1 0",
    "net.inet.ah.ah_enable": "1 0", "net.inet.ipsec.natt_cksum_policy": "0 1", "net.inet.ipsec.check_policy_history": "0 1",
    "net.inet.ip.ttl": "64 17", "net.inet.ipsec.def_policy": "1 0", "net.inet.ipsec.filtertunnel": "0 1",
}  # fmt: skip
_FLAGS = (SaFlags.NONE, SaFlags.NOECN, SaFlags.DECAP_DSCP, SaFlags.NOPMTUDISC, SaFlags.PZERO, SaFlags.PRAND, SaFlags.CYCSEQ)


class World:
    """A pair that sends, a pair that receives, and dice."""

    def __init__(self, seed: int, fast: type[Watched]) -> None:
        self.dice = random.Random(seed)
        self.at = AT
        self.shape = self.dice.choice(SHAPES)
        suites = [*SUITES, *AHS]
        self.suite = self.dice.choice([suite for suite in suites if suite[0] != "ah" or not self.shape.is_encapsulated])
        self.protocol = Protocol.AH if self.suite[0] == "ah" else Protocol.ESP
        made = [self.agreement(0x1000 + n) for n in range(self.dice.choice((1, 1, 3)))]
        self.out = Pair(seed, made, [policy(self.shape, Direction.OUTBOUND, self.protocol)], fast=fast)
        self.back = Pair(seed + 1, made, [policy(self.shape, Direction.INBOUND, self.protocol)], fast=fast)
        self.spi = 0x2000
        self.seen: list[bytes] = []
        self.pending: list[bytes] = []

    def agreement(self, spi: int) -> Agreement:
        dice = self.dice
        made = agreement(self.suite, self.shape, spi)
        flags = made.flags | dice.choice(_FLAGS)
        if self.shape.has_esn:
            flags &= ~SaFlags.CYCSEQ
        hard = Limits(dice.choice((0, 0, 150)), dice.choice((0, 0, 60_000)), dice.choice((0, 0, 90)), dice.choice((0, 0, 60)))
        around = made.encapsulation
        if around is not None and dice.random() < 0.5:
            around = Encapsulation(4500, 4500, ends(self.shape)[0] if dice.random() < 0.5 else b"", b"")
        start = (1 << 32) - 30 if self.shape.has_esn else dice.choice((0, 0, (1 << 32) - 60))
        return replace(
            made, flags=flags, hard=hard, encapsulation=around, window_packets=dice.choice((0, 1, 32, 64, 1000)),
            sequence=dice.choice((0, start)),
        )  # fmt: skip

    def clear(self, count: int) -> list[bytes]:
        dice = self.dice
        src, dst = ends(self.shape)
        sizes = (0, 1, 3, 13, 14, 15, 16, 64, 500, 1372)
        found = []
        for _ in range(count):
            octets = bytearray(kit.datagram(src, dst, dice.choice(sizes), sport=1000 + dice.randrange(3), is_df=dice.random() < 0.3))
            tos = dice.choice((0, 0, 1, 2, 3, 0xB8, 0xBB))
            octets[0], octets[1] = (0x45, tos) if octets[0] >> 4 == 4 else (0x60 | tos >> 4, tos << 4 & 0xFF)
            _mend(octets, 20 if octets[0] == 0x45 else 40)
            found.append(bytes(octets))
        return found

    def send(self) -> None:
        origin = self.dice.choice((LOCAL, LOCAL, Origin(is_forwarded=True)))
        found = self.out.outbound(self.clear(self.dice.randrange(1, 40)), self.at, origin).outcomes
        self.pending += [packet for outcome in found if isinstance(outcome, Forward) for packet in outcome.packets]

    def receive(self) -> None:
        dice = self.dice
        arriving = self.pending[:60]
        del self.pending[: len(arriving)]
        self.seen = (self.seen + arriving)[-300:]
        if dice.random() < 0.3:
            dice.shuffle(arriving)
        for _ in range(dice.randrange(12)):
            if self.seen:
                arriving.insert(dice.randrange(len(arriving) + 1), self.bent(dice.choice(self.seen)))
        arriving += self.clear(dice.randrange(4))
        self.back.inbound(arriving, self.at)

    def bent(self, packet: bytes) -> bytes:
        """A replay, or a packet with one thing wrong; the outer checksum is right again most of the time."""
        dice = self.dice
        octets = bytearray(packet)
        how = dice.randrange(6)
        start = 20 if packet[0] >> 4 == 4 else 40
        if how == 1:
            octets[dice.randrange(len(octets))] ^= 1 << dice.randrange(8)
        elif how == 2:
            octets[start + dice.randrange(min(24, len(octets) - start))] ^= 1 << dice.randrange(8)
        elif how == 3:
            del octets[max(start, len(octets) - dice.randrange(1, 40)) :]
        elif how == 4:
            octets[1] = dice.randrange(256) if start == 20 else octets[1]
            octets[0] = octets[0] if start == 20 else 0x60 | dice.randrange(16)
        elif how == 5:
            octets[12 if start == 20 else 8] ^= 1
        if how and dice.random() < 0.9:
            _mend(octets, start)
        return bytes(octets)

    def each(self, act: Callable[[Stack], object]) -> None:
        """Do it to all four stacks; what comes of it, and what they are then, is the same on both paths."""
        for pair in (self.out, self.back):
            mine, theirs = (act(stack) for stack in pair.both)
            assert mine == theirs
            pair.compare()

    def change(self) -> None:
        """Something else than packets happens."""
        dice = self.dice
        what = dice.randrange(7)
        if what == 0:
            name = dice.choice(list(TUNABLES))
            value = dice.choice(TUNABLES[name].split())
            self.each(lambda stack: stack.tune(name, value).settings)
        elif what == 1:
            self.at = self.at.after_s(dice.choice((1, 5, 30)))
            self.each(lambda stack: stack.advance(self.at))
        elif what == 2:
            self.spi += 1
            made = self.agreement(self.spi)
            self.each(lambda stack: stack.sadb.add(made, self.at).agreement)
        elif what == 3:
            self.remove(dice.randrange(4))
        elif what == 4:
            mtu = dice.choice((0, 576, 1280, 1500))
            self.each(lambda stack: stack.notice(PathMtu(b"", mtu), self.at))
        elif what == 5:
            local = None if dice.random() < 0.7 else frozenset((kit.B, kit.B6, kit.INNER_B))
            self.each(lambda stack: stack.notice(LocalAddresses(local), self.at))
        else:
            direction = dice.choice((Direction.INBOUND, Direction.OUTBOUND))
            selector = kit.selector(direction, "0.0.0.0/0", "0.0.0.0/0", 17, dice.randrange(1000, 1003))
            extra = Policy(direction, dice.choice((Action.DISCARD, Action.NONE)), selector)
            self.each(lambda stack: _toggle(stack, extra, self.at))

    def remove(self, number: int) -> None:
        def act(stack: Stack) -> None:
            found = list(stack.sadb)
            if len(found) > 1 and number < len(found):
                stack.sadb.remove(found[number])

        self.each(act)


def _toggle(stack: Stack, extra: Policy, at: Moment) -> None:
    if any(entry.policy.selector == extra.selector for entry in stack.spd.entries()):
        stack.spd.remove(extra.selector)
    else:
        stack.spd.add(extra, at)


def _mend(octets: bytearray, start: int) -> None:
    if start == 20 and len(octets) >= 20:
        octets[2:4] = len(octets).to_bytes(2, "big")
        octets[10:12] = bytes(2)
        total = sum(int.from_bytes(octets[i : i + 2], "big") for i in range(0, 20, 2))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        octets[10:12] = (total ^ 0xFFFF).to_bytes(2, "big")
    elif len(octets) >= 40:
        octets[4:6] = (len(octets) - 40).to_bytes(2, "big")


SEEDS = [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 100))]


@DRIVERS
@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_stream(seed: int, fast: type[Watched]) -> None:
    world = World(seed * 7919, fast)
    for _ in range(25):
        world.send()
        world.receive()
        if world.dice.random() < 0.4:
            world.change()
