"""Targets for native I/O, where it was built: what a TUN says with a virtio header in front, and packets on their way into one.

    cut        octets read from a TUN; whatever comes of them goes together again, and is the same when it is cut once more
    together   the first octet says how many packets the rest is: the pieces come out as they went in
"""

import importlib
import struct
from typing import Any

from koura.wire import checksum, ipv4, ipv6
from tests.fuzz.target import Run, Target, stateless

_TCP = 6
_VNET = struct.Struct("=BBHHHH")


def _hands() -> Any:
    try:
        return importlib.import_module("koura.fast._io")
    except ImportError:
        return None


_IO = _hands()


def _cut(octets: bytes) -> None:
    found = _IO.cut_up(octets)
    if found:
        _together(found[:256])


def _together(packets: list[bytes]) -> None:
    found = [part for one in _IO.put_together(packets) for part in (_IO.cut_up(one) if one[1] else [one[10:]])]
    assert [_fixed(one) for one in found] == [_fixed(one) for one in packets]
    if packets and all(len(one) >= 60 for one in packets):
        assert sum(_IO.trains(packets)) == len(packets)


def _fixed(packet: bytes) -> bytes:
    """Without what an ID that means nothing changes. RFC 6864 §4.1."""
    return packet[:4] + packet[6:10] + packet[12:] if len(packet) > 12 and packet[0] == 0x45 and packet[6] == 0x40 else packet


def _pieces(octets: bytes) -> None:
    count = (octets[0] if octets else 0) % 5 + 1
    size = len(octets[1:]) // count
    _together([octets[1 + i * size : 1 + (i + 1) * size] for i in range(count) if size])


def _super(is_ipv4: bool, size: int) -> bytes:
    """A virtio header and a super packet with its checksum open."""
    src, dst = (b"\x0a\1\1\1", b"\x0a\2\2\2") if is_ipv4 else (bytes(15) + b"\1", bytes(15) + b"\2")
    segment = bytearray(struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x18, 500, 0, 0) + bytes(range(250)))
    partial = ~checksum.internet(checksum.pseudo(src, dst, _TCP, len(segment))) & 0xFFFF
    segment[16:18] = struct.pack("!H", partial)
    body = bytes(segment)
    packet = ipv4.write(ipv4.Header(src, dst, _TCP), body) if is_ipv4 else ipv6.write(ipv6.Header(src, dst, _TCP), body)
    return _VNET.pack(1, 1 if is_ipv4 else 4, 0, size, 20 if is_ipv4 else 40, 16) + packet


def supers() -> list[bytes]:
    return [_super(is_ipv4, size) for is_ipv4 in (True, False) for size in (50, 100, 249, 250, 1400)]


def _streams() -> list[bytes]:
    found = []
    for one in supers()[:1] + supers()[5:6]:
        parts = _IO.cut_up(one)
        found.append(bytes((len(parts) - 1,)) + b"".join(parts))
    return found


_RUNS: tuple[tuple[str, Run, Any], ...] = (("cut", _cut, supers), ("together", _pieces, _streams))
TARGETS: list[Target] = [stateless(*run) for run in _RUNS] if _IO is not None else []
