"""Captures: pcap and pcapng in both byte orders, every link type, broken files; written ones are read by scapy."""

import io
import struct
from collections.abc import Callable

import pytest
from scapy.utils import PcapNgReader, PcapReader

from koura.errors import Malformed
from koura.wire import capture, pcapng
from koura.wire.capture import Record
from tests.unit.traffic.kit import A6, B6, A, B, datagram

AT = 1_700_000_000_123_456_789
PACKET, PACKET6 = datagram(A, B), datagram(A6, B6)
RECORDS = [(AT, b"first"), (AT + 1_000_000_001, PACKET), (AT + 5, b"")]


def pcap(order: str, magic: int, unit: int, *records: tuple[int, bytes], link: int = 101) -> bytes:
    out = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    for at_ns, octets in records:
        out += struct.pack(f"{order}IIII", at_ns // 10**9, at_ns % 10**9 // unit, len(octets), len(octets) + 7) + octets
    return out


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + length + body + length


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link: int = 101, options: bytes = b"") -> bytes:
    return block(order, 1, struct.pack(f"{order}HHI", link, 0, 0) + options)


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def enhanced(order: str, ticks: int, octets: bytes, number: int = 0) -> bytes:
    head = struct.pack(f"{order}IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(octets), len(octets) + 7)
    return block(order, 6, head + octets)


def read(octets: bytes) -> list[Record]:
    return list(capture.read(io.BytesIO(octets)))


def read_until_broken(octets: bytes) -> tuple[list[Record], bool]:
    found = []
    try:
        for record in capture.read(io.BytesIO(octets)):
            found.append(record)
    except Malformed:
        return found, True
    return found, False


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_pcap_in_both_orders_and_resolutions(order: str, magic: int, unit: int) -> None:
    found = read(pcap(order, magic, unit, *RECORDS))
    assert found == [Record(at_ns // unit * unit, 101, octets, len(octets) + 7, unit == 1) for at_ns, octets in RECORDS]


def test_pcap_says_beside_the_link_type_how_long_check_sequences_are() -> None:
    frame = bytes(12) + b"\x08\x00" + PACKET + b"\1\2\3\4"
    (record,) = read(pcap("<", 0xA1B2C3D4, 1000, (AT, frame), link=0x24000001))
    assert record.linktype == capture.ETHERNET
    assert capture.network(record.linktype, record.octets) == PACKET + b"\1\2\3\4"


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_in_both_orders(order: str) -> None:
    ns = option(order, 9, b"\x09")
    octets = section(order) + interface(order, 1, ns) + interface(order, 113)
    octets += block(order, 5, b"statistics of an interface.") + enhanced(order, AT, PACKET) + enhanced(order, AT // 1000, b"x", 1)
    octets += block(order, 3, struct.pack(f"{order}I", 3) + b"abc") + block(order, 0xBAD, b"unknown")
    old = struct.pack(f"{order}HHIIII", 1, 0, AT // 1000 >> 32, AT // 1000 & 0xFFFFFFFF, 2, 2) + b"ok"
    found = read(octets + block(order, 2, old))
    assert found[0] == Record(AT, 1, PACKET, len(PACKET) + 7, True)
    assert found[1] == Record(AT // 1000 * 1000, 113, b"x", 8)
    assert (found[2].at_ns, found[2].linktype, found[2].octets, found[2].original_octets) == (0, 1, b"abc", 3)
    assert found[3] == Record(AT // 1000 * 1000, 113, b"ok", 2)


def test_pcapng_a_new_section_may_turn_the_order_and_has_its_own_interfaces() -> None:
    octets = section("<") + interface("<", 1) + enhanced("<", 0, b"a") + section(">") + interface(">", 276) + enhanced(">", 0, b"b")
    assert [(record.linktype, record.octets) for record in read(octets)] == [(1, b"a"), (276, b"b")]


@pytest.mark.parametrize(
    ("resolution", "ticks", "ns"),
    [(b"\x06", 1_500_000, 1_500_000_000), (b"\x03", 1500, 1_500_000_000), (b"\x8a", 1536, 1_500_000_000), (b"\x09", 7, 7), (b"\xff", 1, 0)],
)
def test_pcapng_time_units(resolution: bytes, ticks: int, ns: int) -> None:
    (record,) = read(section("<") + interface("<", 1, option("<", 9, resolution)) + enhanced("<", ticks, b""))
    assert record.at_ns == ns


def test_pcapng_time_offsets_and_none_before_1970() -> None:
    for offset, at_ns in ((100, 100_000_000_005), (-100, 0)):
        options = option("<", 9, b"\x09") + option("<", 14, struct.pack("<q", offset))
        (record,) = read(section("<") + interface("<", 1, options) + enhanced("<", 5, b""))
        assert record.at_ns == at_ns


EMPTY = pcap("<", 0xA1B2C3D4, 1)
WHOLE: dict[str, Callable[[], bytes]] = {
    "pcap<": lambda: pcap("<", 0xA1B2C3D4, 1000, *RECORDS),
    "pcap>": lambda: pcap(">", 0xA1B23C4D, 1, *RECORDS),
    "pcapng<": lambda: section("<") + interface("<") + enhanced("<", 5, PACKET) + enhanced("<", 6, b"abc"),
    "pcapng>": lambda: section(">") + interface(">", 1, option(">", 9, b"\x09")) + enhanced(">", 5, PACKET) + enhanced(">", 6, b"abc"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_cut_at_every_length_what_was_whole_has_been_read(name: str) -> None:
    whole = WHOLE[name]()
    everything = read(whole)
    for length in range(len(whole)):
        found, is_broken = read_until_broken(whole[:length])
        assert found == everything[: len(found)]
        if not is_broken:
            assert name.startswith("pcap") and length >= 24
    assert read_until_broken(whole + b"\x01")[0] == everything


@pytest.mark.parametrize("name", WHOLE)
def test_every_octet_may_be_anything(name: str) -> None:
    whole = WHOLE[name]()
    for place in range(min(len(whole), 120)):
        for value in (0, 0xFF, whole[place] ^ 1, whole[place] ^ 0x80):
            read_until_broken(whole[:place] + bytes((value,)) + whole[place + 1 :])


@pytest.mark.parametrize(
    ("octets", "says"),
    [(b"", "magic number"), (b"GIF89a", "neither pcap nor pcapng"), (EMPTY[:4] + b"\3" + EMPTY[5:], "version 3"),
     (EMPTY + struct.pack("<IIII", 0, 0, 1 << 30, 1), "a record of"), (section("<") + block("<", 6, bytes(8)), "too short"),
     (section("<") + struct.pack("<II", 1, 8), "a block of 8"), (section("<")[:8] + bytes(20), "byte-order magic"),
     (section("<") + block("<", 6, bytes(20)), "interface 0, of which"), (section("<") + block("<", 3, bytes(8)), "interface 0, of which"),
     (section("<") + interface("<") + enhanced("<", 0, PACKET, 7), "interface 7, of which"),
     (section("<") + interface("<")[:-4] + struct.pack("<I", 24), "20 octets long at its beginning, 24 at its end"),
     (section("<")[:-1] + b"\1", "28 octets long at its beginning"),
     (block(">", 0x0A0D0D0A, struct.pack(">IHHq", 0x1A2B3C4D, 2, 0, -1)), "version 2"),
     (b"\x1f\x8b\x08\0", "compressed with gzip: unpack"), (b"\x28\xb5\x2f\xfd", "compressed with zstd")],
)  # fmt: skip
def test_a_fault_says_what_and_where(octets: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        read(octets)


# -- frames ----------------------------------------------------------------------------------------------------------------
MACS = bytes(12)
SLL_HEAD, SLL2_REST = bytes(14), bytes(18)


@pytest.mark.parametrize("packet", [PACKET, PACKET6], ids=["v4", "v6"])
def test_every_link_type_gives_the_ip_packet(packet: bytes) -> None:
    ethertype = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    tag = b"\x81\x00\x00\x07"
    for linktype, frame in (
        (capture.ETHERNET, MACS + ethertype + packet), (capture.ETHERNET, MACS + tag + ethertype + packet),
        (capture.ETHERNET, MACS + b"\x88\xa8\x00\x09" + tag + ethertype + packet), (capture.RAW, packet), (12, packet), (14, packet),
        (capture.IPV4, packet), (capture.IPV6, packet), (capture.NULL, b"\x02\0\0\0" + packet), (capture.NULL, b"\0\0\0\x1e" + packet),
        (capture.LOOP, b"\0\0\0\x02" + packet), (capture.SLL, SLL_HEAD + ethertype + packet),
        (capture.SLL, SLL_HEAD + tag + ethertype + packet), (capture.SLL2, ethertype + SLL2_REST + packet),
        (capture.SLL2, b"\x81\x00" + SLL2_REST + b"\x00\x07" + ethertype + packet), (capture.ENC, bytes(12) + packet),
    ):  # fmt: skip
        assert capture.network(linktype, frame) == packet, linktype
        assert linktype in capture.LINKTYPES
        for length in range(len(frame) - len(packet) + 1):
            assert capture.network(linktype, frame[:length]) is None, (linktype, length)


def test_what_is_no_ip_gives_none() -> None:
    arp = MACS + b"\x08\x06" + bytes(28)
    for linktype, frame in ((capture.ETHERNET, arp), (capture.SLL2, b"\x08\x06" + bytes(40)), (capture.RAW, bytes(30)), (147, PACKET)):
        assert capture.network(linktype, frame) is None


# -- writing ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_ns", [False, True])
def test_a_written_pcap_is_read_by_us_and_by_scapy(is_ns: bool) -> None:
    file = io.BytesIO()
    writer = capture.Writer(file, capture.RAW, is_ns=is_ns)
    for at_ns, packet in ((AT, PACKET), (AT + 1, PACKET6)):
        writer.write(at_ns, packet)
    unit = 1 if is_ns else 1000
    found = read(file.getvalue())
    assert [(r.at_ns, r.linktype, r.octets) for r in found] == [(AT // unit * unit, 101, PACKET), ((AT + 1) // unit * unit, 101, PACKET6)]
    file.seek(0)
    assert [bytes(packet) for packet in PcapReader(file)] == [PACKET, PACKET6]


def test_a_written_pcapng_is_read_by_us_and_by_scapy() -> None:
    file = io.BytesIO()
    writer = pcapng.Writer(file)
    ethernet = bytes(12) + b"\x08\x00" + PACKET
    writer.write(AT, capture.RAW, PACKET, "inner of frame 2 \N{RIGHTWARDS ARROW}".encode())
    writer.write(AT + 1, capture.ETHERNET, ethernet, interface=b"enc0")
    writer.write(AT + 2, capture.RAW, PACKET6, b"x" * 70000)
    found = read(file.getvalue())
    assert [(r.at_ns, r.linktype, r.octets) for r in found] == [
        (AT, capture.RAW, PACKET), (AT + 1, capture.ETHERNET, ethernet), (AT + 2, capture.RAW, PACKET6),
    ]  # fmt: skip
    file.seek(0)
    assert [bytes(packet) for packet in PcapNgReader(file)] == [PACKET, ethernet, PACKET6]
