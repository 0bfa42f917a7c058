"""IPv4 headers, with every option. RFC 791.

     0                   1                   2                   3
    +-------+-------+---------------+-------------------------------+
  0 |Version|  IHL  |      TOS      |          Total Length         |
  4 |         Identification        |Flags|     Fragment Offset     |
  8 |      TTL      |    Protocol   |        Header Checksum        |
 12 |                       Source Address                          |
 16 |                    Destination Address                        |
 20 |                    Options, up to 40 octets                   |
    +---------------------------------------------------------------+
"""

import struct
from dataclasses import dataclass

from koura.errors import Malformed
from koura.quick import quick
from koura.wire.checksum import internet

FIXED_OCTETS = 20
DF, MF, RESERVED = 0x4000, 0x2000, 0x8000
OFFSET_MASK = 0x1FFF
END_OF_LIST, NO_OPERATION = 0, 1
MAX_OCTETS = 65535

_FIXED = struct.Struct("!BBHHHBBH4s4s")


@quick
@dataclass(frozen=True, slots=True)
class Header:
    """One IPv4 header; `options` is padded to whole words, `offset_octets` is the fragment offset in octets."""

    src: bytes
    dst: bytes
    protocol: int
    ttl: int = 64
    tos: int = 0
    identification: int = 0
    is_df: bool = False
    is_mf: bool = False
    offset_octets: int = 0
    options: bytes = b""
    is_reserved: bool = False

    @property
    def octets(self) -> int:
        """Length of the header."""
        return FIXED_OCTETS + len(self.options)

    @property
    def is_fragment(self) -> bool:
        return self.is_mf or self.offset_octets != 0


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its type octet, its data (without type and length), and where it starts within the options."""

    kind: int
    data: bytes
    offset: int

    @property
    def is_copied(self) -> bool:
        """Whether every fragment carries it. RFC 791 §3.1."""
        return bool(self.kind & 0x80)


def bounds(packet: bytes) -> tuple[int, int]:
    """Where the header ends and where the packet ends; what a link padded lies behind that. Raises Malformed."""
    if len(packet) < FIXED_OCTETS:
        raise Malformed("IPv4", f"{len(packet)} octets, the header has at least {FIXED_OCTETS}")
    first, total = packet[0], packet[2] << 8 | packet[3]
    header_octets = (first & 0xF) * 4
    if first >> 4 != 4:
        raise Malformed("IPv4", f"version is {first >> 4}")
    if not FIXED_OCTETS <= header_octets <= total <= len(packet):
        raise Malformed("IPv4", f"header {header_octets}, total {total}, present {len(packet)} octets do not fit together")
    return header_octets, total


def read(packet: bytes) -> tuple[Header, bytes]:
    """The header, and the payload up to the total length; what a link padded is left off. Raises Malformed."""
    header_octets, total = bounds(packet)
    _, tos, _, identification, word, ttl, protocol, _, src, dst = _FIXED.unpack_from(packet)
    header = Header(
        src, dst, protocol, ttl, tos, identification, bool(word & DF), bool(word & MF), (word & OFFSET_MASK) * 8,
        packet[FIXED_OCTETS:header_octets], bool(word & RESERVED),
    )  # fmt: skip
    return header, packet[header_octets:total]


def write(header: Header, payload: bytes) -> bytes:
    """The whole packet: lengths and checksum computed. Raises Malformed when it would exceed 65535 octets or has odd options."""
    header_octets = FIXED_OCTETS + len(header.options)
    total = header_octets + len(payload)
    if total > MAX_OCTETS:
        raise Malformed("IPv4", f"{total} octets, the most is {MAX_OCTETS}")
    if len(header.options) % 4 or len(header.options) > 40:
        raise Malformed("IPv4", f"options of {len(header.options)} octets")
    word = header.offset_octets // 8
    word |= (DF if header.is_df else 0) | (MF if header.is_mf else 0) | (RESERVED if header.is_reserved else 0)
    head = _FIXED.pack(
        0x40 | header_octets // 4, header.tos, total, header.identification, word, header.ttl,
        header.protocol, 0, header.src, header.dst,
    )  # fmt: skip
    head += header.options
    return head[:10] + internet(head).to_bytes(2, "big") + head[12:] + payload


def rewrite(head: bytes, protocol: int, payload: bytes) -> bytes:
    """The packet with this header (all its octets, options included) but for protocol, length and checksum. Raises Malformed."""
    total = len(head) + len(payload)
    if total > MAX_OCTETS:
        raise Malformed("IPv4", f"{total} octets, the most is {MAX_OCTETS}")
    head = head[:2] + total.to_bytes(2, "big") + head[4:9] + bytes((protocol, 0, 0)) + head[12:]
    return head[:10] + internet(head).to_bytes(2, "big") + head[12:] + payload


def is_checksum_right(packet: bytes) -> bool:
    """Whether the header checksum holds; `packet` has passed `read`. RFC 1071."""
    return internet(packet[: (packet[0] & 0xF) * 4]) == 0


def read_options(options: bytes) -> tuple[Option, ...]:
    """Each option up to the end of the list; no-operations included. Raises Malformed on an impossible length. RFC 791 §3.1."""
    found = []
    place = 0
    while place < len(options):
        kind = options[place]
        if kind == END_OF_LIST:
            found.append(Option(kind, b"", place))
            break
        if kind == NO_OPERATION:
            found.append(Option(kind, b"", place))
            place += 1
            continue
        length = options[place + 1] if place + 1 < len(options) else 0
        if length < 2 or place + length > len(options):
            raise Malformed("IPv4 options", f"option {kind:#04x} at {place} has length {length}")
        found.append(Option(kind, options[place + 2 : place + length], place))
        place += length
    return tuple(found)


def copied_options(options: bytes) -> bytes:
    """What of the options later fragments carry, padded to whole words. RFC 791 §3.1. Raises Malformed."""
    kept = b"".join(bytes((o.kind, len(o.data) + 2)) + o.data for o in read_options(options) if o.is_copied)
    return kept + bytes(-len(kept) % 4)
