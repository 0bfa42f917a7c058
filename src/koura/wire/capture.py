"""Capture files: pcap and pcapng in, pcap out, and the IP packet in a frame. draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

Readers are generators: each record before a fault has been yielded when Malformed says where the file broke. A length is
believed only as far as there are octets.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from koura.errors import Malformed

NULL, ETHERNET, LOOP, SLL, ENC, SLL2, IPV4, IPV6 = 0, 1, 108, 113, 109, 276, 228, 229
RAW = 101
_RAWS = frozenset((12, 14, RAW, IPV4, IPV6))
_ETHERTYPES = frozenset((0x0800, 0x86DD))
_VLANS = frozenset((0x8100, 0x88A8, 0x9100))
_PCAP = {b"\xa1\xb2\xc3\xd4": (">", 1000), b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\x3c\x4d": (">", 1), b"\x4d\x3c\xb2\xa1": ("<", 1)}
_SECTION, _INTERFACE, _PACKET_OLD, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
LINKTYPES = _RAWS | {NULL, ETHERNET, LOOP, SLL, ENC, SLL2}  # those in whose frames `network` finds IP packets
_LINKTYPE_MASK = 0xFFFF  # The upper half of pcap's word says how long the frames' check sequences are: IP's own length leaves them off.
_PACKERS = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"\xfd\x37": "xz", b"\x42\x5a": "bzip2", b"\x04\x22": "lz4"}
MAX_RECORD_OCTETS = 1 << 24


class Source(Protocol):
    """A binary file, as far as it is read here."""

    def read(self, count: int, /) -> bytes: ...


class Sink(Protocol):
    """A binary file, as far as it is written here."""

    def write(self, octets: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Record:
    """One captured frame. original_octets: how long it was before the capture cut it. is_ns: its file has finer time than microseconds."""

    at_ns: int
    linktype: int
    octets: bytes
    original_octets: int
    is_ns: bool = False


class _Counted:
    """A source that knows where it is and refuses to come short in the middle of something."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.offset = 0

    def take(self, count: int, what: str, *, may_end: bool = False) -> bytes:
        octets = self._source.read(count)
        if len(octets) < count and not (may_end and not octets):
            raise Malformed("capture", f"at octet {self.offset}: {what} needs {count} octets, the file has {len(octets)} more")
        self.offset += len(octets)
        return octets


def read(file: Source) -> Iterator[Record]:
    """Each record in order, whatever the format. Raises Malformed at the first fault."""
    source = _Counted(file)
    magic = source.take(4, "a capture's magic number")
    if magic in _PCAP:
        yield from _read_pcap(source, *_PCAP[magic])
    elif magic == b"\x0a\x0d\x0d\x0a":
        yield from _read_pcapng(source)
    elif packer := _PACKERS.get(magic[:2]):
        raise Malformed("capture", f"it is compressed with {packer}: unpack it first")
    else:
        raise Malformed("capture", f"neither pcap nor pcapng: it begins with {magic.hex()}")


def _read_pcap(source: _Counted, order: str, unit_ns: int) -> Iterator[Record]:
    major, _, _, _, _, link = struct.unpack(f"{order}HHiIII", source.take(20, "the file header"))
    if major != 2:
        raise Malformed("pcap", f"version {major}, only 2 is known")
    head = struct.Struct(f"{order}IIII")
    while octets := source.take(head.size, "a record's header", may_end=True):
        seconds, fraction, kept, original = head.unpack(octets)
        if kept > MAX_RECORD_OCTETS:
            raise Malformed("pcap", f"at octet {source.offset - 8}: a record of {kept} octets")
        data = source.take(kept, f"a record of {kept} octets")
        yield Record(seconds * 1_000_000_000 + fraction * unit_ns, link & _LINKTYPE_MASK, data, original, unit_ns < 1000)


@dataclass(frozen=True, slots=True)
class _Interface:
    linktype: int
    snap_octets: int
    ticks_per_s: int
    offset_s: int

    def ns(self, ticks: int) -> int:
        """Nanoseconds since 1970; an offset that leads before it gives 0."""
        return max(self.offset_s * 1_000_000_000 + ticks * 1_000_000_000 // self.ticks_per_s, 0)


def _read_pcapng(source: _Counted) -> Iterator[Record]:
    order = _section(source, first=True)
    interfaces: list[_Interface] = []
    while head := source.take(8, "a block's header", may_end=True):
        if head[:4] == b"\x0a\x0d\x0d\x0a":
            order = _section(source, first=False, length=head[4:])
            interfaces = []
            continue
        kind, length = struct.unpack(f"{order}II", head)
        if length < 12 or length % 4 or length > MAX_RECORD_OCTETS:
            raise Malformed("pcapng", f"at octet {source.offset - 4}: a block of {length} octets")
        body = _body(source, order, length, f"a block of {length} octets")
        try:
            if kind == _INTERFACE:
                interfaces.append(_read_interface(order, body))
            elif kind in (_ENHANCED, _SIMPLE, _PACKET_OLD):
                yield _read_packet(order, kind, body, interfaces)
        except struct.error as fault:
            raise Malformed("pcapng", f"a block of type {kind} that ends at octet {source.offset} is too short") from fault


def _section(source: _Counted, *, first: bool, length: bytes = b"") -> str:
    if first:
        length = source.take(4, "the section header")
    magic = source.take(4, "the section header")
    order = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}.get(magic)
    if order is None:
        raise Malformed("pcapng", f"at octet {source.offset - 4}: the byte-order magic is {magic.hex()}")
    octets = struct.unpack(f"{order}I", length)[0]
    if octets < 28 or octets % 4 or octets > MAX_RECORD_OCTETS:
        raise Malformed("pcapng", f"at octet {source.offset - 8}: a section header of {octets} octets")
    major, _ = struct.unpack(f"{order}HH", source.take(4, "the section header"))
    if major != 1:
        raise Malformed("pcapng", f"version {major}, only 1 is known")
    _body(source, order, octets, "the section header", read=16)
    return order


def _body(source: _Counted, order: str, length: int, what: str, *, read: int = 8) -> bytes:
    """The rest of a block of which `read` octets are read, without the length that stands once more at its end."""
    octets = source.take(length - read, what)
    (again,) = struct.unpack(f"{order}I", octets[-4:])
    if again != length:
        raise Malformed("pcapng", f"at octet {source.offset - 4}: {what} is {length} octets long at its beginning, {again} at its end")
    return octets[:-4]


def _read_interface(order: str, body: bytes) -> _Interface:
    linktype, _, snap = struct.unpack_from(f"{order}HHI", body)
    ticks, offset = 1_000_000, 0
    place = 8
    while place + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}HH", body, place)
        value = body[place + 4 : place + 4 + length]
        if code == 0:
            break
        if code == 9 and length == 1:  # if_tsresol
            ticks = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** min(value[0], 18)
        if code == 14 and length == 8:  # if_tsoffset
            offset = struct.unpack(f"{order}q", value)[0]
        place += 4 + length + -length % 4
    return _Interface(linktype, snap, ticks, offset)


def _read_packet(order: str, kind: int, body: bytes, interfaces: list[_Interface]) -> Record:
    if kind == _SIMPLE:
        (original,) = struct.unpack_from(f"{order}I", body)
        interface = _the(interfaces, 0)
        kept = min(original, interface.snap_octets or original, len(body) - 4)
        return Record(0, interface.linktype, body[4 : 4 + kept], original)
    if kind == _ENHANCED:
        number, high, low, kept, original = struct.unpack_from(f"{order}IIIII", body)
    else:
        number, _, high, low, kept, original = struct.unpack_from(f"{order}HHIIII", body)
    if kept > len(body) - 20:
        raise Malformed("pcapng", f"a packet of {kept} octets in a block with {len(body) - 20}")
    interface = _the(interfaces, number)
    return Record(interface.ns(high << 32 | low), interface.linktype, body[20 : 20 + kept], original, interface.ticks_per_s > 1_000_000)


def _the(interfaces: list[_Interface], number: int) -> _Interface:
    if number >= len(interfaces):
        raise Malformed("pcapng", f"a packet of interface {number}, of which no block told")
    return interfaces[number]


class Writer:
    """Writes a pcap file of one link type; microseconds, as every reader knows them, unless `is_ns`."""

    def __init__(self, file: Sink, linktype: int = RAW, *, is_ns: bool = False) -> None:
        self._file = file
        self._unit_ns = 1 if is_ns else 1000
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D if is_ns else 0xA1B2C3D4, 2, 4, 0, 0, 0xFFFF_FFFF >> 13, linktype))

    def write(self, at_ns: int, octets: bytes) -> None:
        seconds, fraction = divmod(at_ns, 1_000_000_000)
        self._file.write(struct.pack("<IIII", seconds & 0xFFFF_FFFF, fraction // self._unit_ns, len(octets), len(octets)) + octets)


def network(linktype: int, frame: bytes) -> bytes | None:
    """The IP packet in a frame, link padding still behind it; None where there is none (ARP, a frame cut short)."""
    if linktype in _RAWS:
        return frame if frame and frame[0] >> 4 in (4, 6) else None
    if linktype == ETHERNET:
        return _behind_ethertype(frame, 12)
    if linktype == SLL:
        return _behind_ethertype(frame, 14)
    if linktype == SLL2:
        # The protocol stands in front; a VLAN's tag and the type behind it are the first of the payload.
        return _behind_ethertype(frame[:2] + frame[20:], 0)
    head = {NULL: 4, LOOP: 4, ENC: 12}.get(linktype)
    if head is None:
        return None
    return frame[head:] if len(frame) > head and frame[head] >> 4 in (4, 6) else None


def _behind_ethertype(frame: bytes, place: int) -> bytes | None:
    ethertype = int.from_bytes(frame[place : place + 2], "big")
    while ethertype in _VLANS:
        place += 4
        ethertype = int.from_bytes(frame[place : place + 2], "big")
    return frame[place + 2 :] if ethertype in _ETHERTYPES and len(frame) > place + 2 else None
