"""What hardware would have done, done in Python: against scapy, and against the native twin on dice."""

import random
import struct

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from koura.fast import drivers
from koura.host import offload

SEED = 20261125
FRONT = bytes(12) + b"\x08\0"  # a link header, over which offsets count


def _opened(packet: bytes, start: int, offset: int, protocol: int) -> bytes:
    """With the folded sum of the pseudo header in its checksum field."""
    octets = len(packet) - start
    words = (packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]) + struct.pack("!HH", protocol, octets)
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    at = start + offset
    return packet[:at] + total.to_bytes(2, "big") + packet[at + 2 :]


def _super(packet: bytes, gso: int, size: int, flags: int = offload.NEEDS_CSUM) -> tuple[bytes, bytes]:
    start = 20 if packet[0] >> 4 == 4 else 40
    protocol = packet[9] if start == 20 else packet[6]
    offset = 16 if protocol == 6 else 6
    front = offload.VNET.pack(flags, gso, start + offset, size, len(FRONT) + start, offset)
    return front, FRONT + (_opened(packet, start, offset, protocol) if flags else packet)


def _packet(version: int, layer: Packet, octets: int) -> bytes:
    head = IP(src="10.1.1.1", dst="10.2.2.2", id=0xFFFE) if version == 4 else IPv6(src="2001:db8::1", dst="2001:db8::2")
    return bytes(head / layer / Raw(random.Random(octets).randbytes(octets)))


def _is_right(packet: bytes) -> bool:
    layers = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    for layer, names in ((IP, ("chksum", "len")), (IPv6, ("plen",)), (TCP, ("chksum",)), (UDP, ("chksum", "len"))):
        for name in names if layer in layers else ():
            delattr(layers[layer], name)
    return bytes(layers) == packet


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("layer", [TCP(flags="A"), UDP(sport=9, dport=10)], ids=["tcp", "udp"])
def test_an_open_checksum_is_closed(version: int, layer: Packet) -> None:
    for octets in (0, 1, 2, 777, 1399):
        packet = _packet(version, layer, octets)
        assert offload.finish(*_super(packet, offload.GSO_NONE, 0), len(FRONT)) == [packet]


def test_a_finished_packet_stays_as_it_is() -> None:
    packet = _packet(4, TCP(), 10)
    assert offload.finish(bytes(10), FRONT + packet, len(FRONT)) == [packet]
    assert offload.finish(offload.VNET.pack(2, 0, 0, 0, 0, 0), FRONT + packet, len(FRONT)) == [packet]


@pytest.mark.parametrize(("version", "gso"), [(4, offload.GSO_TCPV4), (6, offload.GSO_TCPV6), (4, offload.GSO_TCPV4 | offload.GSO_ECN)])
def test_a_super_packet_is_cut(version: int, gso: int) -> None:
    packet = _packet(version, TCP(flags="FPACE", seq=0xFFFFFF00), 3001)
    found = offload.finish(*_super(packet, gso, 1000), len(FRONT))
    assert found is not None
    parsed = [IP(one) if version == 4 else IPv6(one) for one in found]
    assert all(map(_is_right, found))
    assert [str(one[TCP].flags) for one in parsed] == ["AEC", "AE", "AE", "FPAE"]
    assert b"".join(bytes(one[TCP].payload) for one in parsed) == packet[-3001:]
    assert [len(one[TCP].payload) for one in parsed] == [1000, 1000, 1000, 1]


def test_headers_that_do_not_fit_are_refused() -> None:
    packet = _packet(4, TCP(flags="A"), 3000)
    front, frame = _super(packet, offload.GSO_TCPV4, 1000)
    flags, gso, length, size, start, offset = offload.VNET.unpack(front)
    for wrong in (
        (0, gso, length, size, start, offset), (flags, offload.GSO_TCPV6, length, size, start, offset),
        (flags, gso, length, 0, start, offset),
        (flags, gso, length, size, start, 6), (flags, gso, length, size, 3, offset), (flags, gso, length, size, start + 4, offset),
        (flags, offload.GSO_UDP, length, size, start, offset), (flags, 0, 0, 0, len(frame), 16),
    ):  # fmt: skip
        assert offload.finish(offload.VNET.pack(*wrong), frame, len(FRONT)) is None
    assert offload.finish(front, frame[: len(FRONT) + 33], len(FRONT)) is None


@pytest.mark.skipif(bool(drivers.why_not()), reason="no fast path was built here")
def test_it_does_what_the_native_twin_does() -> None:
    io = pytest.importorskip("koura.fast._io", reason="the extension was not built here")
    dice = random.Random(SEED)
    for number in range(150):
        version, is_tcp = dice.choice((4, 6)), dice.random() < 0.6
        octets = dice.choice((1, 99, 1400, 3000, 20000))
        layer = TCP(flags=dice.choice(("A", "PA", "FPACE")), seq=dice.getrandbits(32)) if is_tcp else UDP(sport=1, dport=2)
        packet = _packet(version, layer, octets)
        gso = dice.choice((offload.GSO_NONE, offload.GSO_TCPV4, offload.GSO_TCPV6, offload.GSO_UDP_L4))
        front, frame = _super(packet, gso, dice.choice((0, 1, 536, 1400)) if octets < 3000 else dice.choice((536, 1400)))
        if dice.random() < 0.3:  # damage somewhere in the headers
            at = dice.randrange(60)
            frame = frame[: len(FRONT) + at] + bytes((dice.getrandbits(8),)) + frame[len(FRONT) + at + 1 :]
        flags, kind, length, size, start, offset = offload.VNET.unpack(front)
        ours = offload.finish(front, frame, len(FRONT))
        theirs = io.cut_up(offload.VNET.pack(flags, kind, length, size, start - len(FRONT), offset) + frame[len(FRONT) :])
        assert ours == theirs, (SEED, number)
