"""Super packets cut into segments and put together again: koura.fast._io against packets that scapy made and dissects."""

import random
import struct
from dataclasses import dataclass
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop, RouterAlert
from scapy.packet import Raw

from koura.fast import drivers

if drivers.why_not():
    pytest.skip(f"no fast path here: {drivers.why_not()}", allow_module_level=True)
io = pytest.importorskip("koura.fast._io", reason="the extension was not built here: no compiler, or no Cython")

VNET = struct.Struct("=BBHHHH")
NEEDS_CSUM, NONE, TCPV4, TCPV6, UDP_L4, ECN = 1, 0, 1, 4, 5, 0x80
SEED = 20261125
STAMP = [("Timestamp", (1, 2))]


def payload(octets: int, seed: int = SEED) -> bytes:
    return random.Random(seed).randbytes(octets)


def ipv4(octets: bytes, *, flags: str = "DF", number: int = 0xFFFE, seq: int = 0xFFFFFF00) -> bytes:
    tcp = TCP(sport=1234, dport=80, seq=seq, ack=7, flags="A")
    return bytes(IP(src="10.1.1.1", dst="10.2.2.2", id=number, flags=flags, tos=2, ttl=63) / tcp / Raw(octets))


def ipv6(octets: bytes) -> bytes:
    tcp = TCP(sport=1234, dport=80, seq=5, ack=7, flags="A")
    return bytes(IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=63, tc=2, fl=77) / tcp / Raw(octets))


def folded(octets: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(octets) + 1) // 2}H", octets + bytes(len(octets) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass(frozen=True)
class Shape:
    """Where the segment begins, and where its checksum stands in it."""

    start: int
    offset: int
    protocol: int


def opened(packet: bytes, shape: Shape) -> bytes:
    """The same with its checksum left open, as a kernel does: the pseudo header's sum alone."""
    length = len(packet) - shape.start
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    partial = folded(addresses + struct.pack("!HH", shape.protocol, length))
    at = shape.start + shape.offset
    return packet[:at] + struct.pack("!H", partial) + packet[at + 2 :]


def over(packet: bytes, kind: int, size: int, shape: Shape, flags: int = NEEDS_CSUM) -> bytes:
    """A super packet as a TUN gives it."""
    return VNET.pack(flags, kind, 0, size, shape.start, shape.offset) + opened(packet, shape)


TCP4, TCP6 = Shape(20, 16, 6), Shape(40, 16, 6)


def is_right(packet: bytes) -> bool:
    """scapy computes the checksums and lengths anew: they were right if that changes nothing."""
    layers: Any = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    for layer, fields in ((IP, ("chksum", "len")), (IPv6, ("plen",)), (TCP, ("chksum",)), (UDP, ("chksum", "len"))):
        if layer in layers:
            for field in fields:
                delattr(layers[layer], field)
    return bytes(layers) == packet


@pytest.mark.parametrize("octets", [1, 1399, 1400, 1401, 2800, 2801, 64000])
@pytest.mark.parametrize("room", [1, 3, 256])
@pytest.mark.parametrize("version", [4, 6])
def test_a_super_packet_becomes_segments_with_everything_right(version: int, room: int, octets: int) -> None:
    data = payload(octets)
    packet, kind, shape = (ipv4(data, flags="DF"), TCPV4, TCP4) if version == 4 else (ipv6(data), TCPV6, TCP6)
    found = io.cut_up(over(packet, kind, 1400, shape), room)
    parsed = [IP(one) if version == 4 else IPv6(one) for one in found]
    assert all(map(is_right, found))
    assert b"".join(bytes(one[TCP].payload) for one in parsed) == data
    assert {len(one[TCP].payload) for one in parsed[:-1]} <= {1400}
    first = parsed[0][TCP].seq
    assert [(one[TCP].seq - first) % 2**32 for one in parsed] == [1400 * i for i in range(len(parsed))]
    if version == 4:
        assert [one.id for one in parsed] == [(0xFFFE + i) % 65536 for i in range(len(parsed))]
        assert {(str(one.flags), one.ttl, one.tos) for one in parsed} == {("DF", 63, 2)}
    else:
        assert {(one.fl, one.hlim, one.tc) for one in parsed} == {(77, 63, 2)}


def test_fin_and_push_are_the_last_ones_cwr_the_first_ones() -> None:
    packet = bytes(IP(src="10.1.1.1", dst="10.2.2.2") / TCP(flags="FPACE", seq=1) / Raw(payload(3000)))
    for kind in (TCPV4, TCPV4 | ECN):
        found = io.cut_up(over(packet, kind, 1000, TCP4))
        assert [str(IP(one)[TCP].flags) for one in found] == ["AEC", "AE", "FPAE"]
        assert all(map(is_right, found))


def test_tcp_options_stand_in_each_segment() -> None:
    packet = bytes(IP(src="10.1.1.1", dst="10.2.2.2") / TCP(flags="A", options=STAMP) / Raw(payload(3001)))
    found = io.cut_up(over(packet, TCPV4, 1000, TCP4))
    assert [dict(IP(one)[TCP].options)["Timestamp"] for one in found] == [(1, 2)] * 4
    assert all(map(is_right, found))


def test_ip_options_and_extension_headers_are_copied() -> None:
    packet = bytes(IP(src="10.1.1.1", dst="10.2.2.2", options=[IPOption_Router_Alert()]) / TCP(flags="A") / Raw(payload(2500)))
    found = io.cut_up(over(packet, TCPV4, 1000, Shape(24, 16, 6)))
    assert [len(IP(one)[TCP].payload) for one in found] == [1000, 1000, 500]
    assert all(map(is_right, found))
    packet = bytes(
        IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / TCP(flags="A") / Raw(payload(2500))
    )
    found = io.cut_up(over(packet, TCPV6, 1000, Shape(48, 16, 6)))
    assert [len(IPv6(one)[TCP].payload) for one in found] == [1000, 1000, 500]
    assert all(map(is_right, found))


@pytest.mark.parametrize("version", [4, 6])
def test_udp_is_cut_into_datagrams(version: int) -> None:
    layer = IP(src="10.1.1.1", dst="10.2.2.2", id=9) if version == 4 else IPv6(src="2001:db8::1", dst="2001:db8::2")
    packet = bytes(layer / UDP(sport=5, dport=6) / Raw(payload(2500)))
    found = io.cut_up(over(packet, UDP_L4, 1200, Shape(20 if version == 4 else 40, 6, 17)))
    parsed = [IP(one) if version == 4 else IPv6(one) for one in found]
    assert [one[UDP].len for one in parsed] == [1208, 1208, 108]
    assert b"".join(bytes(one[UDP].payload) for one in parsed) == payload(2500)
    assert all(map(is_right, found))


def test_a_checksum_that_was_left_open_is_closed() -> None:
    for layer, start in ((IP(src="10.1.1.1", dst="10.2.2.2"), 20), (IPv6(src="2001:db8::1", dst="2001:db8::2"), 40)):
        packet = bytes(layer / UDP(sport=5, dport=6) / Raw(payload(333)))
        assert io.cut_up(over(packet, NONE, 0, Shape(start, 6, 17))) == [packet]
    packet = ipv4(payload(99))
    assert io.cut_up(over(packet, NONE, 0, TCP4)) == [packet]


def test_udp_never_says_that_it_has_no_checksum() -> None:
    """A sum of 0 is written as 0xffff. RFC 768."""
    base = bytearray(bytes(IP(src="10.1.1.1", dst="10.2.2.2") / UDP(sport=5, dport=6) / Raw(b"\0\0ab")))
    base[28:30] = struct.pack("!H", struct.unpack("!H", base[26:28])[0])  # the checksum of the zeros becomes a word of the payload
    (found,) = io.cut_up(over(bytes(base), NONE, 0, Shape(20, 6, 17)))
    assert found[26:28] == b"\xff\xff"
    assert folded(found[12:20] + struct.pack("!HH", 17, 12) + found[20:]) == 0xFFFF


def test_a_packet_that_is_whole_stays_as_it_is() -> None:
    packet = ipv4(payload(100))
    assert io.cut_up(bytes(10) + packet) == [packet]
    wrong = packet[:36] + b"\xab\xcd" + packet[38:]
    assert io.cut_up(bytes(10) + wrong) == [wrong]


GOOD = over(ipv4(payload(3000)), TCPV4, 1000, TCP4)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"\0"),  # no open checksum, and yet to be cut
        (1, b"\4"), (1, b"\2"), (1, b"\5"),  # IPv6's TCP, UFO, UDP
        (4, b"\0\0"),  # segments of nothing
        (6, b"\x13\0"), (6, b"\x18\0"), (6, b"\0\0"), (6, b"\xff\xff"),  # the segment begins elsewhere
        (8, b"\x06\0"), (8, b"\xff\xff"),  # another checksum's place
        (10, b"\x46"), (10, b"\x44"), (10, b"\x65"), (10, b"\0"),  # versions and lengths of the header
        (10 + 6, b"\x20"), (10 + 7, b"\1"),  # fragments
        (10 + 9, b"\x11"),  # another protocol
        (10 + 32, b"\x40"), (10 + 32, b"\0"),  # a TCP header that is too short
    ],
)  # fmt: skip
def test_a_header_that_lies_is_refused(at: int, value: bytes) -> None:
    assert io.cut_up(GOOD) is not None
    assert io.cut_up(GOOD[:at] + value + GOOD[at + len(value) :]) is None


def test_what_is_cut_short_is_refused_or_cut() -> None:
    for length in range(120):
        found = io.cut_up(GOOD[:length])
        assert (found is None) == (length <= 10 + 40)


def test_any_octets_become_packets_or_nothing() -> None:
    dice = random.Random(SEED)
    for _ in range(20_000):
        octets = bytearray(GOOD[: dice.randrange(len(GOOD))])
        for _ in range(dice.randrange(6)):
            if octets:
                octets[dice.randrange(min(len(octets), 60))] = dice.randrange(256)
        found = io.cut_up(bytes(octets))
        if found:
            assert all(len(one) <= 65535 + 40 for one in found)


# -- together again ------------------------------------------------------------------------------------------------------


def stream(octets: int = 5000, size: int = 1000, version: int = 4, flags: str = "DF") -> list[bytes]:
    """Segments of one stream, as they come out of a tunnel."""
    packet = ipv4(payload(octets), flags=flags) if version == 4 else ipv6(payload(octets))
    found: list[bytes] = io.cut_up(over(packet, TCPV4 if version == 4 else TCPV6, size, TCP4 if version == 4 else TCP6))
    return found


def changed(packet: bytes, **fields: Any) -> bytes:
    """One field of its IP or TCP header another, checksums right again."""
    layers: Any = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    for name, value in fields.items():
        target = layers if name in ("ttl", "tos", "id", "src", "fl", "hlim", "tc", "ipflags") else layers[TCP]
        setattr(target, "flags" if name == "ipflags" else name, value)
    del layers[TCP].chksum
    if IP in layers:
        del layers[IP].chksum, layers[IP].ihl, layers[IP].len
    else:
        del layers[IPv6].plen
    del layers[TCP].dataofs
    return bytes(layers)


def groups(packets: list[bytes]) -> list[int]:
    """How many packets each write stands for."""
    found = []
    for one in io.put_together(packets):
        _, kind, _, size, start, _ = VNET.unpack(one[:10])
        parts = io.cut_up(one)
        found.append(len(parts))
        assert (kind == NONE) == (len(parts) == 1)
        assert size == 0 or start in (20, 40)
    assert sum(found) == len(packets)
    return found


@pytest.mark.parametrize("octets", [1000, 1001, 1999, 2000, 5000, 60_000])
@pytest.mark.parametrize("version", [4, 6])
def test_together_and_cut_again_is_what_came(version: int, octets: int) -> None:
    packets = stream(octets, version=version)
    written = io.put_together(packets)
    assert len(written) == 1
    assert [part for one in written for part in io.cut_up(one)] == packets


def test_a_super_packet_has_at_most_64_pieces_and_65535_octets() -> None:
    assert groups(stream(64_000, 500)) == [64, 64]
    assert groups(stream(65_000, 8000) + stream(65_000, 8000)) == [8, 1, 8, 1]


def test_a_push_and_a_shorter_one_end_a_super_packet() -> None:
    packets = stream(6000)
    assert groups(packets) == [6]
    assert groups([*packets[:2], changed(packets[2], flags="PA"), *packets[3:]]) == [3, 3]
    short = stream(2500)
    assert groups([*short, *short]) == [3, 3]


def test_a_longer_one_does_not_follow() -> None:
    packets = stream(3000)
    tail = ipv4(payload(1500), seq=(0xFFFFFF00 + 2000) % 2**32, number=0)
    assert groups([*packets[:2], tail]) == [2, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"flags": "FA"}, {"flags": "SA"}, {"flags": "RA"}, {"flags": "UA"}, {"flags": "EA"}, {"flags": "CA"}, {"flags": ""},
        {"seq": 77}, {"ack": 8}, {"window": 1}, {"sport": 9}, {"dport": 9}, {"reserved": 1}, {"urgptr": 1}, {"options": STAMP},
        {"ttl": 62}, {"tos": 3}, {"tos": 0}, {"src": "10.1.1.9"}, {"ipflags": ""}, {"ipflags": "MF"},
    ],
    ids=str,
)  # fmt: skip
def test_what_differs_is_not_merged(fields: dict[str, Any]) -> None:
    packets = stream(3000)
    assert groups([packets[0], changed(packets[1], **fields), packets[2]]) == [1, 1, 1]


@pytest.mark.parametrize("fields", [{"fl": 78}, {"hlim": 62}, {"tc": 3}, {"src": "2001:db8::9"}, {"flags": "CA"}], ids=str)
def test_what_differs_is_not_merged_in_ipv6_either(fields: dict[str, Any]) -> None:
    packets = stream(3000, version=6)
    assert groups(packets) == [3]
    assert groups([packets[0], changed(packets[1], **fields), packets[2]]) == [1, 1, 1]


def test_ids_count_up_where_fragments_could_be_made() -> None:
    packets = stream(3000, flags="")
    assert groups(packets) == [3]
    assert groups([packets[0], changed(packets[1], id=5), packets[2]]) == [1, 1, 1]
    free = stream(3000, flags="DF")
    assert groups([free[0], changed(free[1], id=5), free[2]]) == [3]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("at", [-1, -700, 5])
def test_a_wrong_checksum_is_never_merged(version: int, at: int) -> None:
    packets = stream(3000, version=version)
    start = 20 if version == 4 else 40
    where = at if at < 0 else start + 16
    wrong = bytearray(packets[1])
    wrong[where] ^= 1
    written = io.put_together([packets[0], bytes(wrong), packets[2]])
    assert [one[10:] for one in written] == [packets[0], bytes(wrong), packets[2]]


def test_a_wrong_ip_checksum_is_never_merged() -> None:
    packets = stream(3000)
    wrong = packets[1][:10] + b"\0\0" + packets[1][12:]
    assert [one[10:] for one in io.put_together([packets[0], wrong, packets[2]])] == [packets[0], wrong, packets[2]]


def test_streams_by_turns_keep_their_order() -> None:
    one, other = stream(3000), [changed(packet, sport=4321) for packet in stream(3000)]
    mixed = [packet for pair in zip(one, other, strict=True) for packet in pair]
    assert [part for part in io.put_together(mixed) for part in io.cut_up(part)] == mixed


def test_any_packets_go_through_unchanged() -> None:
    dice = random.Random(SEED)
    for _ in range(1500):
        packets = stream(dice.randrange(1000, 6000), version=dice.choice((4, 6)))
        for _ in range(dice.randrange(4)):
            number = dice.randrange(len(packets))
            octets = bytearray(packets[number])
            octets[dice.randrange(min(len(octets), 64))] ^= 1 << dice.randrange(8)
            packets[number] = bytes(octets[: dice.randrange(1, len(octets))] if dice.random() < 0.2 else octets)
        found = [part for one in io.put_together(packets) for part in (io.cut_up(one) or [b""])]
        assert [_without_free_id(one) for one in found] == [_without_free_id(one) for one in packets]


def _without_free_id(packet: bytes) -> bytes:
    """An ID that means nothing, and the checksum over it, left out. RFC 6864 §4.1."""
    is_free = len(packet) > 12 and packet[0] == 0x45 and packet[6] == 0x40
    return packet[:4] + packet[6:10] + packet[12:] if is_free else packet


# -- trains --------------------------------------------------------------------------------------------------------------


def datagram(octets: int, **fields: Any) -> bytes:
    given = {"src": "192.0.2.1", "dst": "192.0.2.2", **fields}
    return bytes(IP(**given) / UDP(sport=4500, dport=4500) / Raw(payload(octets)))


def test_a_train_ends_with_a_shorter_one() -> None:
    assert io.trains([datagram(1400)] * 5 + [datagram(900)] + [datagram(1400)] * 2) == [6, 2]
    assert io.trains([datagram(900), datagram(1400)]) == [1, 1]
    assert io.trains([datagram(100)] * 100) == [64, 36]
    assert io.trains([datagram(60_000)] * 2) == [1, 1]
    assert io.trains([datagram(65_507)] * 2) == [1, 1]


@pytest.mark.parametrize("fields", [{"src": "192.0.2.9"}, {"dst": "192.0.2.9"}, {"tos": 1}], ids=str)
def test_a_train_goes_to_one_place(fields: dict[str, Any]) -> None:
    assert io.trains([datagram(100), datagram(100, **fields), datagram(100)]) == [1, 1, 1]


def test_ids_and_ttl_do_not_matter_to_a_train() -> None:
    assert io.trains([datagram(100, id=1), datagram(100, id=7)]) == [2]


def test_ids_that_come_round_to_0_are_left_out_where_they_matter() -> None:
    """0 is none: a kernel that is handed a packet with it, and without DF, fills in another."""
    for flags, ids in (("", [0xFFFE, 0xFFFF, 0xFFFF, 1]), ("DF", [0xFFFE, 0xFFFF, 0, 1])):
        found = io.cut_up(over(ipv4(payload(4000), flags=flags), TCPV4, 1000, TCP4), is_local=True)
        assert [IP(one).id for one in found] == ids
        assert all(map(is_right, found))
