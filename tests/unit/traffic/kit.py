"""What the traffic tests share: seeded dice, SAs and policies by hand, packets. Nothing here is asked whether it is right."""

import random
from dataclasses import replace

from koura.address import Prefix, parse
from koura.crypto import registry
from koura.crypto.algorithm import Kind
from koura.crypto.algorithms import by_name
from koura.moment import Moment
from koura.sadb.agreement import Agreement, Encapsulation, SaFlags
from koura.saindex import Direction, Mode, Protocol, SaIndex
from koura.secret import Secret
from koura.spd.policy import Action, Level, Policy, Requirement
from koura.spd.selector import Selector
from koura.wire import ipv4, ipv6, udp

AT = Moment.of_s(1_800_000_000)
REGISTRY = registry.default()
A, B = parse("192.0.2.1"), parse("192.0.2.2")
A6, B6 = parse("2001:db8::a"), parse("2001:db8::b")
INNER_A, INNER_B = parse("10.0.1.1"), parse("10.0.2.1")
INNER_A6, INNER_B6 = parse("2001:db8:1::1"), parse("2001:db8:2::1")
ESP, AH, IPCOMP = Protocol.ESP, Protocol.AH, Protocol.IPCOMP
TRANSPORT, TUNNEL, ANY = Mode.TRANSPORT, Mode.TUNNEL, Mode.ANY


class Dice:
    """Entropy from one seed."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def octets(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def below(self, limit: int) -> int:
        return self._random.randrange(limit)


def agreement(
    protocol: Protocol, src: bytes, dst: bytes, spi: int, mode: Mode = ANY, *, reqid: int = 0, window: int = 64,
    encapsulation: Encapsulation | None = None, flags: SaFlags = SaFlags.NONE, sequence: int = 0,
) -> Agreement:  # fmt: skip
    """ESP with AES-GCM, AH with HMAC-SHA-256, IPComp with deflate; keys that follow from the SPI."""
    made = Agreement(
        SaIndex(src, dst, protocol, mode, reqid), spi, window_packets=0 if protocol is IPCOMP else window, encapsulation=encapsulation,
        flags=flags, sequence=sequence,
    )  # fmt: skip
    key = bytes((spi + i) & 0xFF for i in range(32))
    if protocol is ESP:
        return replace(made, encryption=by_name(Kind.AEAD, "aes-gcm-16"), encryption_key=Secret(key[:20]))
    if protocol is AH:
        return replace(made, integrity=by_name(Kind.INTEGRITY, "hmac-sha2-256"), integrity_key=Secret(key))
    return replace(made, compression=by_name(Kind.COMPRESSION, "deflate"))


def selector(direction: Direction, src: str, dst: str, protocol: int = 255, sport: int = 0, dport: int = 0) -> Selector:
    return Selector(direction, prefix(src), prefix(dst), protocol, sport, dport)


def prefix(text: str) -> Prefix:
    address, _, bits = text.partition("/")
    packed = parse(address)
    return Prefix(packed, int(bits) if bits else 8 * len(packed))


def policy(chosen: Selector, *requirements: Requirement, action: Action = Action.IPSEC) -> Policy:
    return Policy(chosen.direction, action, chosen, requirements)


def transport(protocol: Protocol, level: Level = Level.REQUIRE, reqid: int = 0, src: bytes = b"", dst: bytes = b"") -> Requirement:
    return Requirement(protocol, TRANSPORT, level, reqid, src, dst)


def tunnel(protocol: Protocol, src: bytes, dst: bytes, level: Level = Level.REQUIRE, reqid: int = 0) -> Requirement:
    return Requirement(protocol, TUNNEL, level, reqid, src, dst)


def datagram(src: bytes, dst: bytes, octets: int = 64, sport: int = 1111, dport: int = 2222, *, is_df: bool = False) -> bytes:
    """A UDP packet; its payload compresses."""
    body = udp.write_checked(src, dst, sport, dport, bytes(i % 7 for i in range(octets)))
    if len(src) == 4:
        return ipv4.write(ipv4.Header(src, dst, 17, identification=99, is_df=is_df), body)
    return ipv6.write(ipv6.Header(src, dst, 17), body)
