"""UDP headers. RFC 768."""

import struct
from dataclasses import dataclass

from koura.errors import Malformed
from koura.quick import quick
from koura.wire.checksum import upper

PROTOCOL = 17
OCTETS = 8


@quick
@dataclass(frozen=True, slots=True)
class Header:
    """One UDP header; checksum 0 means none (IPv4 only)."""

    sport: int
    dport: int
    checksum: int = 0


def read(octets: bytes) -> tuple[Header, bytes]:
    """The header and the payload up to the length field. Raises Malformed."""
    if len(octets) < OCTETS:
        raise Malformed("UDP", f"{len(octets)} octets, the header has {OCTETS}")
    sport, dport, length, checksum = struct.unpack_from("!HHHH", octets)
    if not OCTETS <= length <= len(octets):
        raise Malformed("UDP", f"length {length}, present {len(octets)} octets")
    return Header(sport, dport, checksum), octets[OCTETS:length]


def write(header: Header, payload: bytes) -> bytes:
    """Header and payload, with the checksum that `header` has. Raises Malformed above 65535 octets."""
    if len(payload) + OCTETS > 0xFFFF:
        raise Malformed("UDP", f"payload of {len(payload)} octets")
    return struct.pack("!HHHH", header.sport, header.dport, OCTETS + len(payload), header.checksum) + payload


def write_checked(src: bytes, dst: bytes, sport: int, dport: int, payload: bytes) -> bytes:
    """Header and payload with the checksum computed; 0 becomes 0xffff. RFC 768, RFC 8200 §8.1."""
    bare = write(Header(sport, dport), payload)
    return bare[:6] + (upper(src, dst, PROTOCOL, bare) or 0xFFFF).to_bytes(2, "big") + bare[8:]
