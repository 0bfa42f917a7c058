"""Two stacks of one making, one of them with the fast path; what goes through both must leave them equal in everything."""

import random
from dataclasses import dataclass, replace

import pytest

from koura.address import show
from koura.crypto.algorithm import Kind
from koura.crypto.algorithms import by_name
from koura.entropy import Pooled
from koura.fast import drivers
from koura.fast.path import FastPath
from koura.moment import Moment
from koura.sadb.agreement import Agreement, Encapsulation, SaFlags
from koura.saindex import Direction, Protocol
from koura.secret import Secret
from koura.settings import Settings
from koura.sim.entropy import Seeded
from koura.spd.policy import Policy
from koura.stack import Results, Stack
from koura.traffic.outcome import LOCAL, Origin, Outcome
from tests.unit.traffic import kit

AT = Moment.of_s(1_800_000_000)
needs_fast = pytest.mark.skipif(bool(drivers.why_not()), reason=f"no fast path here: {drivers.why_not()}")
CIPHERS = ("aes-cbc", "aes-ctr", "null")
MACS = (
    "hmac-sha1", "hmac-sha2-256", "hmac-sha2-256-96", "hmac-sha2-384", "hmac-sha2-512", "hmac-md5", "aes-xcbc-mac", "aes-cmac", "null",
)  # fmt: skip
AEADS = (
    "aes-gcm-16", "aes-gcm-12", "aes-gcm-8", "aes-gmac", "aes-ccm-16", "aes-ccm-12", "aes-ccm-8", "chacha20-poly1305",
)  # fmt: skip
AHS = tuple(("ah", mac) for mac in MACS if mac != "null")
SUITES = [(name, None) for name in AEADS] + [(cipher, mac) for cipher in CIPHERS for mac in MACS]


class Watched(FastPath):
    """The fast path, and how many packets it answered."""

    sealed = opened = 0

    def outbound(self, packets: list[bytes], start: int, origin: Origin, at: Moment) -> list[Outcome]:
        answered = super().outbound(packets, start, origin, at)
        self.sealed += len(answered)
        return answered

    def inbound(self, packets: list[bytes], start: int, at: Moment) -> list[Outcome]:
        answered = super().inbound(packets, start, at)
        self.opened += len(answered)
        return answered


class WithOpenssl(Watched):
    """The same over OpenSSL alone."""

    names = ("openssl",)


@dataclass(frozen=True)
class Shape:
    """One combination: tunnel or transport, families inside and outside, ESN, ESP in UDP."""

    is_tunnel: bool
    inner: int
    outer: int
    has_esn: bool = False
    is_encapsulated: bool = False

    def __str__(self) -> str:
        mode = f"tunnel{self.inner}in{self.outer}" if self.is_tunnel else f"transport{self.inner}"
        return f"{mode}{'-esn' * self.has_esn}{'-udp' * self.is_encapsulated}"


SHAPES = [
    Shape(is_tunnel, inner, outer, has_esn, is_encapsulated)
    for is_tunnel in (True, False)
    for inner in (4, 6)
    for outer in ((4, 6) if is_tunnel else (inner,))
    for has_esn in (False, True)
    for is_encapsulated in (False, True)
]


def agreement(suite: tuple[str, str | None], shape: Shape, spi: int = 0x1000, key_bits: int = 0) -> Agreement:
    """An SA from A to B; ("ah", MAC) is one of AH."""
    is_ah = suite[0] == "ah"
    encryption = None if is_ah else by_name(Kind.CIPHER, suite[0])
    integrity = by_name(Kind.INTEGRITY, suite[1]) if suite[1] else None
    bits = key_bits or (0 if encryption is None or suite[0] == "null" else encryption.key_bits[0])
    salt_octets = encryption.salt_octets if encryption is not None else 0
    stuff = bytes((7 * spi + i) & 0xFF for i in range(128))
    src, dst = (kit.A, kit.B) if shape.outer == 4 else (kit.A6, kit.B6)
    return replace(
        kit.agreement(
            kit.AH if is_ah else kit.ESP, src, dst, spi, kit.TUNNEL if shape.is_tunnel else kit.TRANSPORT,
            encapsulation=Encapsulation(4500, 4500) if shape.is_encapsulated else None,
            flags=SaFlags.ESN if shape.has_esn else SaFlags.NONE,
        ),
        encryption=encryption, encryption_key=Secret(stuff[: bits // 8 + salt_octets]),
        integrity=integrity, integrity_key=Secret(stuff[: integrity.key_bits[0] // 8]) if integrity is not None else Secret(),
    )  # fmt: skip


def ends(shape: Shape) -> tuple[bytes, bytes]:
    """The addresses of the packets to protect."""
    if shape.is_tunnel:
        return (kit.INNER_A, kit.INNER_B) if shape.inner == 4 else (kit.INNER_A6, kit.INNER_B6)
    return (kit.A, kit.B) if shape.inner == 4 else (kit.A6, kit.B6)


def policy(shape: Shape, direction: Direction, protocol: Protocol = kit.ESP) -> Policy:
    """What wants that SA."""
    src, dst = ends(shape)
    outer = (kit.A, kit.B) if shape.outer == 4 else (kit.A6, kit.B6)
    wanted = kit.tunnel(protocol, *outer) if shape.is_tunnel else kit.transport(protocol)
    return kit.policy(kit.selector(direction, show(src), show(dst)), wanted)


class Pair:
    """The reference and the fast stack, fed alike."""

    def __init__(
        self, seed: int, agreements: list[Agreement], policies: list[Policy], settings: Settings | None = None,
        fast: type[Watched] = Watched,
    ) -> None:  # fmt: skip
        self.reference = Stack(Pooled(Seeded(seed)), settings, fast=None)
        self.fast = Stack(Pooled(Seeded(seed)), settings, fast=fast)
        for stack in self.both:
            for given in agreements:
                stack.sadb.add(given, AT)
            for one in policies:
                stack.spd.add(one, AT)

    @property
    def both(self) -> tuple[Stack, Stack]:
        return self.reference, self.fast

    @property
    def watched(self) -> Watched:
        found = self.fast.fast_path
        assert isinstance(found, Watched)
        return found

    def outbound(self, packets: list[bytes], at: Moment = AT, origin: Origin = LOCAL) -> Results:
        mine, theirs = (stack.outbound(packets, at, origin) for stack in self.both)
        assert mine == theirs
        self.compare()
        return mine

    def inbound(self, packets: list[bytes], at: Moment = AT) -> Results:
        mine, theirs = (stack.inbound(packets, at) for stack in self.both)
        assert mine == theirs
        self.compare()
        return mine

    def compare(self) -> None:
        """Everything that packets change."""
        mine, theirs = (state(stack) for stack in self.both)
        assert mine == theirs


def state(stack: Stack) -> dict[str, object]:
    """Everything that packets change in a stack."""
    return {
        "counters": (dict(stack.counters.endings()), dict(stack.counters.others())),
        "hot": [bytes(sa.hot.words) for sa in (*stack.sadb, *stack.sadb.grace)],
        "rings": [bytes(sa.window.ring) for sa in (*stack.sadb, *stack.sadb.grace) if sa.window is not None],
        "failures": [dict(sa.failures) for sa in (*stack.sadb, *stack.sadb.grace)],
        "grace": stack.sadb.grace.opened_packets,
        "policies": [(entry.packets, entry.octets, entry.last_used) for entry in stack.spd.entries()],
        "enc0": (stack.tap.out_packets, stack.tap.out_octets, stack.tap.in_packets, stack.tap.in_octets),
        "deadline": stack.next_deadline(),
    }


def packets(shape: Shape, seed: int, count: int) -> list[bytes]:
    """Datagrams of every awkward size, over a few flows."""
    dice = random.Random(seed)
    src, dst = ends(shape)
    sizes = (0, 1, 2, 3, 12, 13, 14, 15, 16, 17, 36, 64, 500, 1372, 8000)
    return [kit.datagram(src, dst, dice.choice(sizes), sport=1000 + dice.randrange(3), is_df=dice.random() < 0.3) for _ in range(count)]
