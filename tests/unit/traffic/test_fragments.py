"""traffic/fragments: put together, taken apart, and every refusal. RFC 791, RFC 815, RFC 8200 §4.5, RFC 5722, RFC 3168 §5.3."""

import random
from itertools import permutations

import pytest

from koura.moment import Moment
from koura.reasons import FRAG_ECN, FRAG_LIMIT, FRAG_MALFORMED, FRAG_OVERLAP, FRAG_TOO_BIG, Discarded
from koura.settings import Limits
from koura.traffic.fragments import Reassembly, Whole, split, without_atomic
from koura.wire import ipv4, ipv6
from koura.wire.summary import summarise

AT = Moment.of_s(1000)
LIMITS = Limits()
SRC4, DST4 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
SRC6, DST6 = bytes(15) + b"\x01", bytes(15) + b"\x02"
HOP_BY_HOP = bytes([17, 0, 1, 4, 0, 0, 0, 0])


def packet4(octets: int = 100, tos: int = 0, options: bytes = b"") -> bytes:
    return ipv4.write(ipv4.Header(SRC4, DST4, 17, identification=7, tos=tos, options=options), bytes(i & 0xFF for i in range(octets)))


def packet6(octets: int = 100, extension: bytes = b"") -> bytes:
    return ipv6.write(ipv6.Header(SRC6, DST6, 0 if extension else 17), extension + bytes(i & 0xFF for i in range(octets)))


def piece4(start: int, octets: bytes, is_mf: bool, tos: int = 0, identification: int = 7) -> bytes:
    header = ipv4.Header(SRC4, DST4, 17, identification=identification, tos=tos, is_mf=is_mf, offset_octets=start)
    return ipv4.write(header, octets)


def piece6(start: int, octets: bytes, is_more: bool, follows: int = 17) -> bytes:
    return ipv6.write(ipv6.Header(SRC6, DST6, ipv6.FRAGMENT), ipv6.Fragment(follows, start, is_more, 7).write() + octets)


def refused(reassembly: Reassembly, packet: bytes, limits: Limits = LIMITS) -> object:
    with pytest.raises(Discarded) as caught:
        reassembly.add(packet, AT, limits)
    return caught.value.reason


@pytest.mark.parametrize("packet", [packet4(), packet4(options=b"\x94\x04\0\0"), packet6(), packet6(extension=HOP_BY_HOP)])
@pytest.mark.parametrize("mtu", [68, 80, 96])
def test_what_is_taken_apart_comes_together_in_any_order(packet: bytes, mtu: int) -> None:
    pieces = split(packet, mtu, 99)
    assert len(pieces) > 1
    assert all(len(piece) <= mtu for piece in pieces)
    orders = list(permutations(pieces)) if len(pieces) < 5 else [pieces, pieces[::-1]]
    for order in orders:
        reassembly = Reassembly()
        found = [reassembly.add(piece, AT, LIMITS) for piece in order]
        assert found[:-1] == [None] * (len(pieces) - 1)
        assert found[-1] == Whole(packet, max(len(piece) for piece in pieces))
        assert len(reassembly) == 0
        assert reassembly.next_deadline() is None


def test_a_packet_that_fits_is_left_alone() -> None:
    assert split(packet4(), 120, 0) == (packet4(),)


def test_options_without_the_copy_bit_stand_in_the_first_fragment_only() -> None:
    record_route = b"\x07\x07\x04\0\0\0\0\0"
    pieces = split(packet4(options=record_route), 76, 0)
    assert [len(ipv4.read(piece)[0].options) for piece in pieces] == [8] + [0] * (len(pieces) - 1)


def test_hop_by_hop_goes_with_every_fragment() -> None:
    for piece in split(packet6(extension=HOP_BY_HOP), 96, 5):
        header, payload = ipv6.read(piece)
        kinds = [extension.kind for extension in ipv6.read_chain(header.next_header, payload).extensions]
        assert kinds == [ipv6.HOP_BY_HOP, ipv6.FRAGMENT]


@pytest.mark.parametrize("make", [piece4, piece6])
def test_the_same_fragment_twice_is_ignored(make) -> None:  # type: ignore[no-untyped-def]
    reassembly = Reassembly()
    assert reassembly.add(make(0, bytes(16), True), AT, LIMITS) is None
    assert reassembly.add(make(0, bytes(16), True), AT, LIMITS) is None
    assert len(reassembly) == 1
    assert reassembly.add(make(16, bytes(5), False), AT, LIMITS) is not None


@pytest.mark.reason("frag.overlap")
@pytest.mark.parametrize("make", [piece4, piece6])
@pytest.mark.parametrize("start", [0, 8])
def test_an_overlap_ends_the_datagram_and_what_follows(make, start: int) -> None:  # type: ignore[no-untyped-def]
    reassembly = Reassembly()
    reassembly.add(make(0, bytes(16), True), AT, LIMITS)
    assert refused(reassembly, make(start, b"\x11" * 16, True)) is FRAG_OVERLAP
    assert refused(reassembly, make(16, bytes(8), False)) is FRAG_OVERLAP
    assert len(reassembly) == 0
    assert reassembly.due(AT.after_s(31)) == ()
    assert reassembly.add(make(0, bytes(16), True), AT, LIMITS) is None


@pytest.mark.reason("frag.malformed")
@pytest.mark.parametrize("make", [piece4, piece6])
def test_impossible_lengths(make) -> None:  # type: ignore[no-untyped-def]
    assert refused(Reassembly(), make(0, bytes(15), True)) is FRAG_MALFORMED
    assert refused(Reassembly(), make(8, b"", False)) is FRAG_MALFORMED
    reassembly = Reassembly()
    reassembly.add(make(8, bytes(8), False), AT, LIMITS)
    assert refused(reassembly, make(16, bytes(8), True)) is FRAG_MALFORMED
    reassembly = Reassembly()
    reassembly.add(make(8, bytes(8), False), AT, LIMITS)
    assert refused(reassembly, make(24, bytes(8), False)) is FRAG_MALFORMED


def test_a_first_ipv6_fragment_holds_the_whole_header_chain() -> None:
    assert refused(Reassembly(), piece6(0, bytes([17, 5]) + bytes(6), True, ipv6.DESTINATION)) is FRAG_MALFORMED
    assert refused(Reassembly(), piece6(0, bytes([17, 0]) + bytes(6), True, ipv6.DESTINATION)) is FRAG_MALFORMED


@pytest.mark.reason("frag.toobig")
@pytest.mark.parametrize("make", [piece4, piece6])
def test_beyond_the_largest_packet(make) -> None:  # type: ignore[no-untyped-def]
    assert refused(Reassembly(), make(65528, bytes(16), False)) is FRAG_TOO_BIG


@pytest.mark.reason("frag.limit")
def test_limits_of_fragments_and_of_datagrams() -> None:
    reassembly = Reassembly()
    reassembly.add(piece4(0, bytes(8), True), AT, LIMITS)
    assert refused(reassembly, piece4(8, bytes(8), True), Limits(fragments=1)) is FRAG_LIMIT
    assert refused(reassembly, piece4(0, bytes(8), True, identification=8), Limits(fragment_datagrams=1)) is FRAG_LIMIT
    assert reassembly.add(piece4(8, bytes(8), False), AT, LIMITS) is not None


@pytest.mark.reason("frag.ecn")
@pytest.mark.parametrize(("a", "b", "whole"), [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3), (0, 2, 0), (2, 3, 3), (1, 3, 3), (0, 3, None)])
def test_congestion_marks_of_fragments(a: int, b: int, whole: int | None) -> None:
    reassembly = Reassembly()
    reassembly.add(piece4(0, bytes(8), True, tos=0xB8 | a), AT, LIMITS)
    if whole is None:
        assert refused(reassembly, piece4(8, bytes(8), False, tos=0xB8 | b)) is FRAG_ECN
        return
    found = reassembly.add(piece4(8, bytes(8), False, tos=0xB8 | b), AT, LIMITS)
    assert found is not None
    assert ipv4.read(found.packet)[0].tos == 0xB8 | whole


def test_fragments_of_different_contexts_never_meet() -> None:
    reassembly = Reassembly()
    assert reassembly.add(piece4(0, bytes(8), True), AT, LIMITS, context="clear") is None
    assert reassembly.add(piece4(8, bytes(8), False), AT, LIMITS, context="esp") is None


def test_an_ipv6_fragment_that_is_the_whole_is_returned_at_once() -> None:
    reassembly = Reassembly()
    reassembly.add(piece6(8, bytes(8), True), AT, LIMITS)
    found = reassembly.add(piece6(0, bytes(9), False), AT, LIMITS)
    assert found is not None
    assert found.packet == ipv6.write(ipv6.Header(SRC6, DST6, 17), bytes(9))


def test_a_whole_packet_loses_a_fragment_header_that_it_need_not_have() -> None:
    atomic, header = piece6(0, bytes(9), False), ipv6.Header(SRC6, DST6, 17)
    plain = ipv6.write(header, bytes(9))
    assert without_atomic(atomic, summarise(atomic)) == plain
    assert without_atomic(atomic + b"padding", summarise(atomic)) == plain
    for packet in (plain, piece6(8, bytes(8), True), packet4(100)):
        assert without_atomic(packet, summarise(packet)) is packet
    empty = piece6(0, b"", False)
    with pytest.raises(Discarded) as end:
        without_atomic(empty, summarise(empty))
    assert end.value.reason is FRAG_MALFORMED


def test_time_is_up_in_the_order_the_datagrams_came() -> None:
    reassembly = Reassembly()
    first = piece4(0, bytes(8), True)
    reassembly.add(first, AT, LIMITS)
    reassembly.add(piece4(8, bytes(8), True, identification=8), AT.after_s(1), LIMITS)
    assert reassembly.next_deadline() == AT.after_s(30)
    assert reassembly.due(AT.after_s(29)) == ()
    (expired,) = reassembly.due(AT.after_s(30))
    assert (expired.first, expired.count) == (first, 1)
    (expired,) = reassembly.due(AT.after_s(40))
    assert (expired.first, expired.count) == (b"", 1)


def test_random_datagrams_against_a_bytearray() -> None:
    dice = random.Random(20261124)
    for _ in range(200):
        packet = (packet4 if dice.random() < 0.5 else packet6)(dice.randint(1300, 4000))
        pieces = list(split(packet, dice.choice([68, 100, 576, 1280]), dice.randint(0, 9)))
        pieces += dice.sample(pieces, dice.randint(0, len(pieces) - 1))
        last = dice.randrange(len(pieces))
        pieces.append(pieces.pop(last))
        dice.shuffle(pieces)
        reassembly = Reassembly()
        found = [whole for piece in pieces if (whole := reassembly.add(piece, AT, LIMITS)) is not None]
        assert found[0].packet == packet
