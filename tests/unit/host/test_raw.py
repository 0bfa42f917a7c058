"""An ID for the host's own IPv4 packets that have none and may be cut: a kernel that is handed them would choose one behind the ICV."""

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from koura.fast import drivers
from koura.host.raw import numbered

BODY = UDP(sport=5, dport=6) / Raw(b"eight...")


def plain(number: int, flags: str = "", offset: int = 0) -> bytes:
    return bytes(IP(src="10.1.1.1", dst="10.2.2.2", id=number, flags=flags, frag=offset) / BODY)


KEPT = [plain(1), plain(0x0100), plain(0, "DF"), bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / BODY)]
GIVEN = [plain(0), plain(0, "MF"), plain(0, "", 3)]


@pytest.mark.parametrize("packet", KEPT)
def test_what_has_an_id_or_needs_none_is_left_alone(packet: bytes) -> None:
    assert numbered(packet) == packet


@pytest.mark.parametrize("packet", GIVEN)
def test_what_may_be_cut_gets_an_id_and_a_right_checksum(packet: bytes) -> None:
    """scapy computes the checksum anew; all fragments of one datagram get the same ID."""
    again = IP(packet)
    again.id = 0xFFFF
    del again.chksum
    assert numbered(packet) == bytes(again)


@pytest.mark.parametrize("packet", KEPT + GIVEN)
def test_native_hands_do_the_same(packet: bytes) -> None:
    io = pytest.importorskip("koura.fast._io", reason="the extension was not built here: no compiler, or no Cython")
    if drivers.why_not():
        pytest.skip(f"no fast path here: {drivers.why_not()}")
    assert io.cut_up(bytes(10) + packet, is_local=True) == [numbered(packet)]
    assert io.cut_up(bytes(10) + packet) == [packet]
