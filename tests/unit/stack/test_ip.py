"""The IP packet itself, through the doors: header, checksum, nesting, fragments of either family. ip.*, frag.*, sa.nesting."""

import random

import pytest

from koura.reasons import (
    FRAG_ECN,
    FRAG_LIMIT,
    FRAG_MALFORMED,
    FRAG_OVERLAP,
    FRAG_TIMEOUT,
    FRAG_TOO_BIG,
    HELD_FRAGMENT,
    IP_CHECKSUM,
    IP_MALFORMED,
    SA_NESTING,
)
from koura.traffic.fragments import split
from koura.traffic.outcome import Bypass, Deliver, Discard, Held, Origin
from koura.wire import ipv4, ipv6
from tests.unit.stack.kit import GCM, Host, discards, released
from tests.unit.traffic.kit import A6, B6, A, B, datagram

POLICED = "spdadd 0.0.0.0/0 0.0.0.0/0 tcp -P out none; spdadd ::/0 ::/0 tcp -P out none;"


@pytest.mark.reason("ip.malformed")
@pytest.mark.parametrize("octets", [b"", b"\x45", bytes(20), bytes(40), b"\x60" + bytes(38), b"\x4f" + bytes(30), b"\x55" + bytes(19)])
def test_no_ip_packet(octets: bytes) -> None:
    host = Host()
    discards(host, host.send(octets), IP_MALFORMED)
    discards(host, host.receive(octets), IP_MALFORMED, 2)


@pytest.mark.reason("ip.checksum")
def test_a_wrong_header_checksum_ends_a_packet_that_came_in() -> None:
    host = Host()
    packet = bytearray(datagram(B, A))
    packet[10] ^= 1
    discards(host, host.receive(bytes(packet)), IP_CHECKSUM)


@pytest.mark.reason("sa.nesting")
def test_more_ipsec_headers_than_any_policy_asks_for() -> None:
    tunnels = " ".join(["esp/tunnel/192.0.2.1-192.0.2.2/require"] * 4)
    host = Host(f"spdadd 10.0.0.0/8 10.0.0.0/8 any -P out ipsec {tunnels}; add 192.0.2.1 192.0.2.2 esp 0x1000 -r 8 {GCM};")
    inner = datagram(b"\x0a\0\0\1", b"\x0a\0\0\2")
    assert host.delivered(host.forwarded(inner)) == inner
    host.tune("net.koura.limits.nesting", 3)
    discards(host, host.receive(host.forwarded(inner)), SA_NESTING)


def fragments(octets: int = 1400, family: int = 4) -> list[bytes]:
    src, dst = (A, B) if family == 4 else (A6, B6)
    return list(split(datagram(src, dst, octets), 600, 5))


@pytest.mark.covers("R1")
@pytest.mark.reason("held.fragment")
@pytest.mark.parametrize("family", [4, 6])
def test_fragments_are_put_together_and_leave_in_clear_as_they_came(family: int) -> None:
    host = Host(POLICED)
    pieces = fragments(family=family)
    assert [host.receive(piece) for piece in pieces[:-1]] == [Held(HELD_FRAGMENT)] * 2
    whole = host.receive(pieces[-1])
    assert isinstance(whole, Deliver)
    assert whole.packet == datagram(*((A, B) if family == 4 else (A6, B6)), 1400)
    outcomes = [host.send(piece, Origin(is_forwarded=True)) for piece in pieces]
    assert outcomes[:-1] == [Held(HELD_FRAGMENT)] * 2
    assert isinstance(outcomes[-1], Bypass)
    assert [len(piece) for piece in outcomes[-1].packets] == [len(piece) for piece in pieces]
    assert host.count(HELD_FRAGMENT) == 4


@pytest.mark.reason("frag.timeout")
def test_the_others_never_came() -> None:
    host = Host(POLICED)
    host.receive(fragments()[0])
    host.receive(fragments()[1])
    host.send(fragments()[0])
    host.later(30)
    assert released(host) == [Discard(FRAG_TIMEOUT)] * 3
    assert host.count(FRAG_TIMEOUT) == 3
    assert host.stack.next_deadline() is None


def with_fields(piece: bytes, offset_octets: int, is_mf: bool, octets: int = 8, tos: int = 0) -> bytes:
    header, payload = ipv4.read(piece)
    made = ipv4.Header(header.src, header.dst, 17, 64, tos, header.identification, False, is_mf, offset_octets)
    return ipv4.write(made, (payload * 3)[:octets])


@pytest.mark.parametrize(("reason", "pieces"), [
    pytest.param(FRAG_OVERLAP, [(0, True, 16, 0), (8, True, 16, 0)], marks=pytest.mark.reason("frag.overlap")),
    pytest.param(FRAG_MALFORMED, [(0, True, 12, 0)], marks=pytest.mark.reason("frag.malformed")),
    pytest.param(FRAG_TOO_BIG, [(65528, False, 16, 0)], marks=pytest.mark.reason("frag.toobig")),
    pytest.param(FRAG_ECN, [(0, True, 8, 3), (8, False, 8, 0)], marks=pytest.mark.reason("frag.ecn")),
])  # fmt: skip
def test_fragments_that_cannot_be(reason, pieces) -> None:  # type: ignore[no-untyped-def]
    host = Host(POLICED)
    outcome = None
    for offset, is_mf, octets, tos in pieces:
        outcome = host.receive(with_fields(fragments()[0], offset, is_mf, octets, tos))
    assert outcome is not None
    discards(host, outcome, reason)


@pytest.mark.reason("frag.limit")
def test_fragments_that_wait_are_limited() -> None:
    host = Host(POLICED)
    host.tune("net.koura.limits.fragments", 1)
    assert host.receive(fragments()[0]) == Held(HELD_FRAGMENT)
    discards(host, host.receive(fragments()[1]), FRAG_LIMIT)


def test_no_ip_packet_behind_an_ah_of_its_own() -> None:
    """The chain that AH hides from the first look is read for the policy's sake; it may be broken."""
    ah = bytes.fromhex("0002 0000 00001109 00000001") + bytes(4)
    hop_by_hop_of_1264_octets = bytes.fromhex("119d") + bytes(26)
    host = Host(POLICED)
    packet = ipv6.write(ipv6.Header(A6, B6, 51), ah + hop_by_hop_of_1264_octets)
    discards(host, host.send(packet, Origin(is_forwarded=True)), IP_MALFORMED)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_escapes_the_doors_and_the_sums_hold(seed: int) -> None:
    """Packets in are outcomes, and the counters say the same; anything but an outcome would be an exception here."""
    dice = random.Random(seed)
    host = Host(POLICED + f"add 192.0.2.1 192.0.2.2 esp 0x1000 {GCM};")
    pool = [datagram(A, B), datagram(A6, B6), *fragments(), *fragments(family=6)]
    for _ in range(1500):
        packet = bytearray(dice.choice(pool))
        for _ in range(dice.choice((0, 1, 1, 2, 8))):
            packet[dice.randrange(min(len(packet), dice.choice((24, 48, 4000))))] = dice.randrange(256)
        cut = bytes(packet[: dice.choice((len(packet), len(packet), dice.randrange(len(packet))))])
        (host.send if dice.random() < 0.5 else host.receive)(cut)
    assert sum(host.stack.counters.endings().values()) == host.packets_in
