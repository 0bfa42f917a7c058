"""Decoders are total: whole, with a tail, cut at every length; writers give what readers take; checksums against sums by hand."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from koura.errors import Malformed
from koura.wire import ah, checksum, esp, icmp, ipcomp, ipv4, ipv6, natt, summary, tcp, udp
from tests.unit.traffic.kit import A6, B6, A, B, datagram

HOP, ROUTING = bytes((43, 0, 1, 4, 0, 0, 0, 0)), bytes((60, 2, 0, 0)) + bytes(20)
CHAINED = ipv6.write(ipv6.Header(A6, B6, 0, 9, 0xAB, 0x54321), HOP + ROUTING + bytes((17, 0, 5, 2, 0, 0, 0, 0)) + bytes(8))
OPTIONS = bytes((1, 7, 7, 4, 0, 0, 0, 0, 0x44, 4, 5, 0))
WITH_OPTIONS = ipv4.write(ipv4.Header(A, B, 17, 3, 0x2E, 77, True, False, 0, OPTIONS, True), bytes(range(30)))
TCP_SEGMENT = bytes.fromhex("0457 08ae 00000001 00000002 7002 2000 1234 0000 0204 05b4 0101 0402".replace(" ", ""))

DECODERS: dict[str, tuple[Callable[[bytes], object], bytes, int]] = {
    # name: (reader, a whole message, how many of its octets a reader needs at least)
    "ipv4": (ipv4.read, WITH_OPTIONS, len(WITH_OPTIONS)),
    "ipv6": (ipv6.read, CHAINED, len(CHAINED)),
    "chain": (lambda octets: ipv6.read_chain(0, octets), HOP + ROUTING + bytes((17, 0, 5, 2, 0, 0, 0, 0)), 40),
    "ipv4 options": (ipv4.read_options, bytes((7, 7, 4, 0, 0, 0, 0)), 7),
    "ipv6 options": (ipv6.read_options, bytes((17, 0, 5, 4, 1, 2, 3, 4)), 8),
    "fragment": (ipv6.Fragment.read, bytes((17, 0, 0, 9, 1, 2, 3, 4)), 8),
    "udp": (udp.read, udp.write(udp.Header(1, 2, 3), b"payload"), 15),
    "tcp": (tcp.Header.read, TCP_SEGMENT, 28),
    "tcp options": (tcp.read_options, bytes((2, 4, 5, 180)), 4),
    "icmp": (icmp.read, bytes((8, 0, 0, 0, 1, 2, 3, 4)), 8),
    "esp": (esp.Header.read, bytes(range(8)), 8),
    "ah": (ah.Header.read, ah.Header(17, 256, 7, bytes(16)).write(), 28),
    "old ah": (lambda octets: ah.Header.read(octets, is_old=True), ah.Header(17, 256, 0, bytes(16), True).write(), 24),
    "ipcomp": (ipcomp.Header.read, bytes((17, 0, 0, 2)), 4),
    "summary": (summary.summarise, datagram(A6, B6), len(datagram(A6, B6))),
    "upper": (summary.upper, datagram(A, B), len(datagram(A, B))),
}


@pytest.mark.parametrize("name", DECODERS)
def test_whole_with_a_tail_and_cut_at_every_length(name: str) -> None:
    reader, whole, needed = DECODERS[name]
    value = reader(whole)
    if name not in ("ipv4 options", "ipv6 options", "tcp options", "tcp", "icmp"):
        tailed = reader(whole + b"\xa5" * 9)
        assert tailed == value or isinstance(value, ipv6.Chain)
    for length in range(needed):
        if name.endswith("options") and length < (3 if name == "ipv6 options" else 1):
            assert reader(whole[:length]) == ()
            continue
        with pytest.raises(Malformed):
            reader(whole[:length])


@pytest.mark.parametrize("name", DECODERS)
def test_any_octets_give_a_value_or_malformed(name: str) -> None:
    reader, whole, _ = DECODERS[name]
    dice = random.Random(name)
    for _ in range(400):
        octets = bytearray(whole[: dice.randrange(len(whole) + 1)] + dice.randbytes(dice.randrange(12)))
        for _ in range(dice.randrange(5)):
            if octets:
                octets[dice.randrange(len(octets))] = dice.choice((0, 1, 0x3B, 0x45, 0x60, 0xFF, dice.randrange(256)))
        try:
            reader(bytes(octets))
        except Malformed as fault:
            assert fault.where
            assert fault.why


@given(st.binary(max_size=120))
def test_octets_of_any_kind(octets: bytes) -> None:
    for reader, _, _ in DECODERS.values():
        try:
            reader(octets)
        except Malformed:
            continue
    assert natt.demultiplex(octets) in natt.Kind


@pytest.mark.covers("R2")
def test_ipv4_reads_what_it_writes_with_every_field() -> None:
    header, payload = ipv4.read(WITH_OPTIONS)
    assert (header.ttl, header.tos, header.identification, header.options) == (3, 0x2E, 77, OPTIONS)
    assert header.is_df
    assert header.is_reserved
    assert ipv4.write(header, payload) == WITH_OPTIONS
    assert ipv4.is_checksum_right(WITH_OPTIONS)
    theirs = IP(WITH_OPTIONS)
    assert (theirs.ihl, theirs.ttl, theirs.tos, theirs.id, theirs.len) == (8, 3, 0x2E, 77, len(WITH_OPTIONS))
    theirs = IP(src="192.0.2.1", dst="192.0.2.2", proto=17, ttl=9) / b"abc"
    assert bytes(theirs) == ipv4.write(ipv4.Header(A, B, 17, 9, identification=1), b"abc")
    assert [(o.kind, o.data, o.offset) for o in ipv4.read_options(OPTIONS)] == [(1, b"", 0), (7, b"\4\0\0\0\0", 1), (0x44, b"\5\0", 8)]
    fragment = ipv4.write(ipv4.Header(A, B, 17, is_mf=True, offset_octets=1480), bytes(8))
    assert ipv4.read(fragment)[0].is_fragment
    for bad in (ipv4.Header(A, B, 17, options=b"\1"), ipv4.Header(A, B, 17, options=bytes(44))):
        with pytest.raises(Malformed):
            ipv4.write(bad, b"")
    with pytest.raises(Malformed):
        ipv4.write(ipv4.Header(A, B, 17), bytes(65516))


@pytest.mark.covers("R2")
def test_ipv6_reads_what_it_writes_and_its_chain() -> None:
    header, payload = ipv6.read(CHAINED)
    assert (header.hop_limit, header.traffic_class, header.flow_label) == (9, 0xAB, 0x54321)
    assert ipv6.write(header, payload) == CHAINED
    theirs = IPv6(CHAINED)
    assert (theirs.tc, theirs.fl, theirs.hlim, theirs.plen) == (0xAB, 0x54321, 9, len(payload))
    chain = ipv6.read_chain(header.next_header, payload)
    assert [(e.kind, e.next_header, e.offset, len(e.octets)) for e in chain.extensions] == [(0, 43, 0, 8), (43, 60, 8, 24), (60, 17, 32, 8)]
    assert (chain.protocol, chain.offset) == (17, 40)
    with pytest.raises(Malformed):
        ipv6.write(header, bytes(65536))
    with pytest.raises(Malformed, match="more than"):
        ipv6.read_chain(60, bytes((60, 0, 1, 4, 0, 0, 0, 0)) * 70)
    assert ipv6.Fragment.read(ipv6.Fragment(17, 1480, True, 0xABCDEF01).write()) == ipv6.Fragment(17, 1480, True, 0xABCDEF01)


def sum_by_words(octets: bytes) -> int:
    """RFC 1071 §4.1, word by word."""
    total = 0
    for place in range(0, len(octets), 2):
        total += int.from_bytes(octets[place : place + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(max_size=200))
def test_checksums_are_sums_of_words(octets: bytes) -> None:
    assert checksum.internet(octets) == sum_by_words(octets)


@given(st.binary(min_size=2, max_size=60), st.binary(min_size=8, max_size=8), st.integers(0, 20))
def test_an_updated_checksum_is_as_one_made_anew(octets: bytes, new: bytes, place: int) -> None:
    octets = octets + bytes(10) + b"\x12\x34" + bytes(len(octets) % 2)
    place = 2 * (place % (len(octets) // 2 - 4))
    changed = octets[:place] + new + octets[place + 8 :]
    updated = checksum.update(checksum.internet(octets), octets[place : place + 8], new)
    assert updated % 0xFFFF == checksum.internet(changed) % 0xFFFF


def test_transport_checksums_are_scapys() -> None:
    packet = bytes(IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=5, dport=6) / b"odd")
    assert udp.write_checked(A, B, 5, 6, b"odd") == packet[20:]
    segment = bytes(IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=5, dport=6, flags="S"))[20:]
    assert checksum.upper(A, B, 6, segment) == 0
    packet6 = bytes(IPv6(src="2001:db8::a", dst="2001:db8::b") / UDP(sport=5, dport=6) / b"odd")
    assert udp.write_checked(A6, B6, 5, 6, b"odd") == packet6[40:]


@pytest.mark.covers("S41")
def test_natt_kinds() -> None:
    kinds = natt.Kind
    for payload, kind in (
        (b"\xff", kinds.KEEPALIVE), (b"\0\0\0\0", kinds.IKE), (b"\0\0\0\0abc", kinds.IKE), (b"\0\0\0\1" + bytes(4), kinds.ESP),
        (b"", kinds.SHORT), (b"\xff\xff", kinds.SHORT), (b"\0\0\0", kinds.SHORT), (b"\0\0\1\0abc", kinds.SHORT),
    ):  # fmt: skip
        assert natt.demultiplex(payload) is kind, payload


@pytest.mark.parametrize(
    "written",
    [esp.Header(0x12345678, 9).write(), ah.Header(6, 256, 1, bytes(12)).write(), ipcomp.Header(6, 0, 2).write(),
     udp.write(udp.Header(1, 2), b""), ipv6.Fragment(6, 8, False, 1).write()],
)  # fmt: skip
def test_what_is_written_stands_alone_in_a_used_buffer(written: bytes) -> None:
    buffer = bytearray(b"\xa5" * 64)
    buffer[8 : 8 + len(written)] = written
    assert buffer[:8] == b"\xa5" * 8
    assert bytes(buffer[8 : 8 + len(written)]) == written
    assert set(buffer[8 + len(written) :]) == {0xA5}
    assert len(buffer) == 64
