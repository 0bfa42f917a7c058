"""The Internet checksum: whole, incremental, and with pseudo headers. RFC 1071, RFC 1624, RFC 8200 §8.1.

A sum of 16-bit words in ones' complement is the number itself modulo 65535, which Python finds with one division.
"""

import struct


def internet(octets: bytes) -> int:
    """The checksum of `octets` (an odd last octet counts as the high half of a word). RFC 1071 §1."""
    if len(octets) & 1:
        octets += b"\0"
    total = int.from_bytes(octets, "big")
    # 0xffff and 0 are the same number here; only all-zero octets give the sum 0.
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def update(checksum: int, before: bytes, after: bytes) -> int:
    """The checksum after `before` has become `after` somewhere (both of one even length, at an even offset). RFC 1624 §3."""
    change = (0xFFFF - checksum) + 0xFFFF - int.from_bytes(before, "big") % 0xFFFF + int.from_bytes(after, "big") % 0xFFFF
    return 0xFFFF - (change % 0xFFFF or 0xFFFF)


def pseudo(src: bytes, dst: bytes, protocol: int, octets: int) -> bytes:
    """The pseudo header of TCP, UDP and ICMPv6. RFC 9293 §3.1, RFC 8200 §8.1."""
    if len(src) == 4:
        return src + dst + struct.pack("!BBH", 0, protocol, octets)
    return src + dst + struct.pack("!IHBB", octets, 0, 0, protocol)


def upper(src: bytes, dst: bytes, protocol: int, payload: bytes) -> int:
    """The checksum of an upper-layer payload with its pseudo header; 0 for a right one that is already in place."""
    return internet(pseudo(src, dst, protocol, len(payload)) + payload)
