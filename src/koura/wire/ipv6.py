"""IPv6 headers and the chain of extension headers behind them. RFC 8200.

    +-------+---------------+---------------------------------------+
  0 |Version| Traffic Class |              Flow Label               |
  4 |         Payload Length        |  Next Header  |   Hop Limit   |
  8 |                    Source Address (16)                        |
 24 |                  Destination Address (16)                     |
    +---------------------------------------------------------------+
"""

import struct
from dataclasses import dataclass

from koura.errors import Malformed
from koura.quick import quick

FIXED_OCTETS = 40
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, MOBILITY, HIP, SHIM6, NO_NEXT = 0, 43, 44, 60, 135, 139, 140, 59
EXTENSIONS = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, MOBILITY, HIP, SHIM6))
PAD1 = 0
MAX_EXTENSIONS = 64
MAX_PAYLOAD_OCTETS = 65535

_FIXED = struct.Struct("!IHBB16s16s")


@quick
@dataclass(frozen=True, slots=True)
class Header:
    """One fixed IPv6 header; `next_header` is the first extension's or the upper layer's number."""

    src: bytes
    dst: bytes
    next_header: int
    hop_limit: int = 64
    traffic_class: int = 0
    flow_label: int = 0


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension header: its number, what follows it, all its octets, and its offset from the end of the fixed header."""

    kind: int
    next_header: int
    octets: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Chain:
    """The extension headers in order, and where and what comes after them."""

    extensions: tuple[Extension, ...]
    protocol: int
    offset: int


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a hop-by-hop or destination options header: type, data, and the offset of its type within the header."""

    kind: int
    data: bytes
    offset: int

    @property
    def may_change(self) -> bool:
        """Whether routers may change its data on the way. RFC 8200 §4.2."""
        return bool(self.kind & 0x20)


@dataclass(frozen=True, slots=True)
class Fragment:
    """The fragment header's fields; offset in octets. RFC 8200 §4.5."""

    next_header: int
    offset_octets: int
    is_more: bool
    identification: int

    @classmethod
    def read(cls, octets: bytes) -> "Fragment":
        if len(octets) < 8:
            raise Malformed("IPv6 fragment header", f"{len(octets)} octets")
        next_header, _, word, identification = struct.unpack_from("!BBHI", octets)
        return cls(next_header, word & 0xFFF8, bool(word & 1), identification)

    def write(self) -> bytes:
        return struct.pack("!BBHI", self.next_header, 0, self.offset_octets | self.is_more, self.identification)


def end(packet: bytes) -> int:
    """Where the packet ends; what a link padded lies behind that. Jumbograms are Malformed. Raises Malformed."""
    if len(packet) < FIXED_OCTETS:
        raise Malformed("IPv6", f"{len(packet)} octets, the header has {FIXED_OCTETS}")
    if packet[0] >> 4 != 6:
        raise Malformed("IPv6", f"version is {packet[0] >> 4}")
    length = packet[4] << 8 | packet[5]
    if length == 0 and packet[6] == HOP_BY_HOP:
        raise Malformed("IPv6", "payload length 0: a jumbogram, or cut")
    if FIXED_OCTETS + length > len(packet):
        raise Malformed("IPv6", f"payload {length}, present {len(packet) - FIXED_OCTETS} octets")
    return FIXED_OCTETS + length


def read(packet: bytes) -> tuple[Header, bytes]:
    """The fixed header, and the payload up to its length. Raises Malformed."""
    packet_end = end(packet)
    word, _, next_header, hop_limit, src, dst = _FIXED.unpack_from(packet)
    header = Header(src, dst, next_header, hop_limit, word >> 20 & 0xFF, word & 0xFFFFF)
    return header, packet[FIXED_OCTETS:packet_end]


def write(header: Header, payload: bytes) -> bytes:
    """The whole packet. Raises Malformed when the payload exceeds 65535 octets."""
    if len(payload) > MAX_PAYLOAD_OCTETS:
        raise Malformed("IPv6", f"payload of {len(payload)} octets, the most is {MAX_PAYLOAD_OCTETS}")
    word = 6 << 28 | header.traffic_class << 20 | header.flow_label
    return _FIXED.pack(word, len(payload), header.next_header, header.hop_limit, header.src, header.dst) + payload


def rewrite(head: bytes, next_header: int, payload: bytes) -> bytes:
    """The packet with this fixed header but for next header and length. Raises Malformed when the payload exceeds 65535 octets."""
    if len(payload) > MAX_PAYLOAD_OCTETS:
        raise Malformed("IPv6", f"payload of {len(payload)} octets, the most is {MAX_PAYLOAD_OCTETS}")
    return head[:4] + len(payload).to_bytes(2, "big") + bytes((next_header,)) + head[7:] + payload


def read_chain(next_header: int, payload: bytes) -> Chain:
    """Walks the extension headers up to ESP, AH, IPComp, no-next-header or the upper layer. Raises Malformed.

    Behind a fragment header that is not the first of its packet nothing is a header: the chain ends there.
    """
    found: list[Extension] = []
    place = 0
    while next_header in EXTENSIONS:
        if len(found) >= MAX_EXTENSIONS:
            raise Malformed("IPv6", f"more than {MAX_EXTENSIONS} extension headers")
        if len(payload) < place + 8:
            raise Malformed("IPv6 extension header", f"header {next_header} at {place} is cut")
        length = 8 if next_header == FRAGMENT else 8 * (payload[place + 1] + 1)
        if place + length > len(payload):
            raise Malformed("IPv6 extension header", f"header {next_header} at {place} says {length} octets, {len(payload) - place} remain")
        octets = payload[place : place + length]
        extension = Extension(next_header, octets[0], octets, place)
        found.append(extension)
        place += length
        next_header = extension.next_header
        if extension.kind == FRAGMENT and Fragment.read(octets).offset_octets:
            break
    return Chain(tuple(found), next_header, place)


def read_options(header: bytes) -> tuple[Option, ...]:
    """The options of one hop-by-hop or destination options header (all its octets given). Raises Malformed. RFC 8200 §4.2."""
    found = []
    place = 2
    while place < len(header):
        kind = header[place]
        if kind == PAD1:
            place += 1
            continue
        if place + 2 > len(header) or place + 2 + header[place + 1] > len(header):
            raise Malformed("IPv6 options", f"option {kind:#04x} at {place} is cut")
        found.append(Option(kind, header[place + 2 : place + 2 + header[place + 1]], place))
        place += 2 + header[place + 1]
    return tuple(found)
