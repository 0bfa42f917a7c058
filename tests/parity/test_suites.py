"""The fast path is the reference, octet for octet: every algorithm, mode, mix of families, ESN and ESP in UDP."""

import pytest

from koura.errors import Refused
from koura.fast import drivers
from koura.saindex import Direction, Protocol
from koura.traffic.outcome import Forward
from koura.wire import checksum
from tests.parity.kit import AHS, SHAPES, SUITES, Pair, Shape, agreement, needs_fast, packets, policy

pytestmark = needs_fast


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: "+".join(filter(None, s)))
@pytest.mark.parametrize("shape", SHAPES[::5], ids=str)
def test_each_suite_in_some_shapes(suite: tuple[str, str | None], shape: Shape) -> None:
    _both_ways(suite, shape)


@pytest.mark.parametrize("suite", [("aes-gcm-16", None), ("aes-cbc", "hmac-sha2-256")], ids=lambda s: s[0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_shape_of_two_suites(suite: tuple[str, str | None], shape: Shape) -> None:
    _both_ways(suite, shape)


@pytest.mark.parametrize("suite", AHS, ids=lambda s: s[1])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if not shape.is_encapsulated], ids=str)
def test_ah(suite: tuple[str, str | None], shape: Shape) -> None:
    _both_ways(suite, shape)


def _both_ways(suite: tuple[str, str | None], shape: Shape) -> None:
    protocol = Protocol.AH if suite[0] == "ah" else Protocol.ESP
    out = Pair(1, [agreement(suite, shape)], [policy(shape, Direction.OUTBOUND, protocol)])
    sent = packets(shape, 5, 40)
    wire = [packet for outcome in out.outbound(sent).outcomes if isinstance(outcome, Forward) for packet in outcome.packets]
    assert len(wire) == len(sent)
    assert out.watched.sealed >= len(sent) - 4, "the fast path answered too little to be compared"
    back = Pair(2, [agreement(suite, shape)], [policy(shape, Direction.INBOUND, protocol)])
    forged = bytearray(wire[22])
    forged[-1] ^= 1
    arriving = [*wire[:20], bytes(forged), *wire[3:6], *wire[20:], wire[-1]]
    back.inbound(arriving)
    assert back.watched.opened >= len(arriving) - 4, "the fast path answered too little to be compared"


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.is_encapsulated], ids=str)
def test_udp_around_esp_with_a_right_a_wrong_and_no_checksum(shape: Shape) -> None:
    suite = ("aes-gcm-16", None)
    out = Pair(1, [agreement(suite, shape)], [policy(shape, Direction.OUTBOUND)])
    wire = [packet for outcome in out.outbound(packets(shape, 7, 9)).outcomes if isinstance(outcome, Forward) for packet in outcome.packets]
    arriving = [_summed(packet, kind) for number, packet in enumerate(wire) for kind in [("none", "right", "wrong")[number % 3]]]
    back = Pair(2, [agreement(suite, shape)], [policy(shape, Direction.INBOUND)])
    ends = [type(outcome).__name__ for outcome in back.inbound(arriving).outcomes]
    assert ends == ["Deliver", "Deliver", "Discard"] * 3


def _summed(packet: bytes, kind: str) -> bytes:
    start = 20 if packet[0] >> 4 == 4 else 40
    src, dst = (packet[12:16], packet[16:20]) if start == 20 else (packet[8:24], packet[24:40])
    blank = packet[start : start + 6] + bytes(2) + packet[start + 8 :]
    right = checksum.upper(src, dst, 17, blank) or 0xFFFF
    value = {"none": 0, "right": right, "wrong": right ^ 1 or 2}[kind]
    return packet[: start + 6] + value.to_bytes(2, "big") + packet[start + 8 :]


def test_a_driver_was_found() -> None:
    assert drivers.found()


def test_the_tree_says_which_drivers_serve_and_what_makes_it_stand_aside() -> None:
    pair = Pair(1, [], [])
    assert pair.reference.read("net.koura.fast") == "off"
    name, version = next(iter(drivers.found().items()))
    assert pair.fast.read("net.koura.fast").startswith(f"{name} {version}")
    pair.fast.tune("net.inet.ipsec.test_replay", "1")
    assert pair.fast.read("net.koura.fast") == "off: test_replay or test_integrity is set"
    with pytest.raises(Refused):
        pair.fast.tune("net.koura.fast", "1")
