"""Every key size over both drivers, and a flood of garbage that never reaches the reference."""

import random
from dataclasses import replace

import pytest

from koura.crypto.algorithm import Kind
from koura.crypto.algorithms import by_name
from koura.saindex import Direction
from koura.traffic.outcome import Deliver, Discard, Forward
from tests.parity.kit import AEADS, Pair, Shape, Watched, WithOpenssl, agreement, ends, needs_fast, packets, policy
from tests.unit.traffic import kit

pytestmark = needs_fast
SHAPE = Shape(True, 4, 4)
DRIVERS = pytest.mark.parametrize("fast", [Watched, WithOpenssl], ids=["ipsec-mb", "openssl"])


def _sizes() -> list[tuple[str, str | None, int]]:
    found: list[tuple[str, str | None, int]] = []
    for name in (*AEADS, "aes-cbc", "aes-ctr"):
        row = by_name(Kind.CIPHER, name)
        assert row is not None
        found += [(name, None if name in AEADS else "hmac-sha2-256", bits) for bits in row.key_bits]
    return found


@DRIVERS
@pytest.mark.parametrize(("name", "mac", "bits"), _sizes())
def test_each_key_size(name: str, mac: str | None, bits: int, fast: type[Watched]) -> None:
    made = [agreement((name, mac), SHAPE, key_bits=bits)]
    out = Pair(1, made, [policy(SHAPE, Direction.OUTBOUND)], fast=fast)
    wire = [packet for o in out.outbound(packets(SHAPE, 5, 20)).outcomes if isinstance(o, Forward) for packet in o.packets]
    back = Pair(2, made, [policy(SHAPE, Direction.INBOUND)], fast=fast)
    back.inbound(wire)
    assert len(wire) == 20


@DRIVERS
@pytest.mark.parametrize("bits", [128, 192, 256])
@pytest.mark.parametrize("has_esn", [False, True], ids=["numbers", "esn"])
def test_gcm_of_every_length(*, bits: int, has_esn: bool, fast: type[Watched]) -> None:
    """Packets of AES-GCM around every multiple of a cipher's block, of a register, of many registers; and one octet of each bent."""
    shape = replace(SHAPE, has_esn=has_esn)
    made = [agreement(("aes-gcm-16", None), shape, key_bits=bits)]
    src, dst = ends(shape)
    sizes = [*range(220, 800, 4), *range(1000, 9000, 333), 65000]
    out = Pair(1, made, [policy(shape, Direction.OUTBOUND)], fast=fast)
    inner = [kit.datagram(src, dst, size) for size in sizes]
    wire = [packet for o in out.outbound(inner).outcomes if isinstance(o, Forward) for packet in o.packets]
    assert len(wire) == len(sizes)
    back = Pair(2, made, [policy(shape, Direction.INBOUND)], fast=fast)
    dice = random.Random(bits)
    bent = [_with_one_bit_bent(dice, packet) for packet in wire]
    assert all(isinstance(end, Discard) for end in back.inbound(bent).outcomes)
    assert [end.packet for end in back.inbound(wire).outcomes if isinstance(end, Deliver)] == inner
    assert out.watched.sealed >= len(wire) - 5
    assert back.watched.opened >= len(wire) + len(bent) - 5  # the first of each kind are the reference's


def _with_one_bit_bent(dice: random.Random, packet: bytes) -> bytes:
    """Behind the IV."""
    octets = bytearray(packet)
    octets[dice.randrange(36, len(packet))] ^= 1 << dice.randrange(8)
    return bytes(octets)


@DRIVERS
def test_a_flood_of_garbage_is_answered_by_the_engine(fast: type[Watched]) -> None:
    """Forged, replayed, for SPIs that nobody has: after the first of each kind none is the reference's."""
    suite = ("aes-gcm-16", None)
    made = [agreement(suite, SHAPE)]
    out = Pair(1, made, [policy(SHAPE, Direction.OUTBOUND)], fast=fast)
    wire = [packet for o in out.outbound(packets(SHAPE, 5, 30)).outcomes if isinstance(o, Forward) for packet in o.packets]
    back = Pair(2, made, [policy(SHAPE, Direction.INBOUND)], fast=fast)
    back.inbound(wire[:20])
    dice = random.Random(4301)
    garbage = [_bent(dice, packet) for packet in wire[:20] * 100]
    back.inbound(garbage[:20])
    before = back.watched.opened
    ends = back.inbound(garbage).outcomes
    assert all(isinstance(end, Discard) for end in ends)
    assert back.watched.opened - before >= len(garbage) - 10


def _bent(dice: random.Random, packet: bytes) -> bytes:
    octets = bytearray(packet)
    how = dice.randrange(3)
    if how == 1:
        octets[20:24] = dice.randbytes(4)
    elif how == 2:
        octets[27] = 200
        octets[-1] ^= dice.randrange(1, 256)
    return bytes(octets)
