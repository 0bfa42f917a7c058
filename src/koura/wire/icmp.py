"""ICMP and ICMPv6: messages, and the errors that quote a packet. RFC 792, RFC 1191, RFC 4443, RFC 4884.

    +---------------+---------------+-------------------------------+
  0 |     Type      |     Code      |           Checksum            |
  4 |  the rest: identifier and sequence, or the MTU (v4: low 16 bits, v6: all 32)
  8 |  data: of an error, the packet that it is about ...           |
    +---------------------------------------------------------------+
"""

import struct
from dataclasses import dataclass

from koura.errors import Malformed
from koura.wire import checksum, ipv4, ipv6
from koura.wire.summary import summarise

ICMP, ICMPV6 = 1, 58
ECHO_REPLY, UNREACHABLE, ECHO, TIME_EXCEEDED = 0, 3, 8, 11
UNREACHABLE6, TOO_BIG6, TIME_EXCEEDED6, ECHO6, ECHO_REPLY6 = 1, 2, 3, 128, 129
FRAGMENTATION_NEEDED, PROHIBITED, PROHIBITED6, PORT_UNREACHABLE, PORT_UNREACHABLE6 = 4, 13, 1, 3, 4
ERRORS4 = frozenset((3, 4, 5, 11, 12))
QUOTE4_OCTETS = 548  # RFC 1812 §4.3.2.3: the whole error has at most 576 octets.
QUOTE6_OCTETS = 1232  # RFC 4443 §2.4 (c): the whole error has at most 1280 octets.
_HEAD_OCTETS = 8
_FIRST_QUERY6 = 128


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `rest` is the second word."""

    kind: int
    code: int
    rest: int
    data: bytes


def is_error(version: int, kind: int) -> bool:
    """Whether a type is an error's, which no error may be sent about. RFC 1122 §3.2.2, RFC 4443 §2.1."""
    return kind in ERRORS4 if version == 4 else kind < _FIRST_QUERY6


def read(body: bytes) -> Message:
    """From the ICMP header on; the checksum is not looked at. Raises Malformed."""
    if len(body) < _HEAD_OCTETS:
        raise Malformed("ICMP", f"{len(body)} octets, the header has {_HEAD_OCTETS}")
    kind, code, _, rest = struct.unpack_from("!BBHI", body)
    return Message(kind, code, rest, body[_HEAD_OCTETS:])


def write(src: bytes, dst: bytes, message: Message) -> bytes:
    """The ICMP body with its checksum; over the pseudo header too between IPv6 addresses."""
    body = struct.pack("!BBHI", message.kind, message.code, 0, message.rest) + message.data
    right = checksum.internet(body) if len(src) == 4 else checksum.upper(src, dst, ICMPV6, body)
    return body[:2] + right.to_bytes(2, "big") + body[4:]


def packet(src: bytes, dst: bytes, message: Message) -> bytes:
    """A whole IP packet with this message."""
    body = write(src, dst, message)
    return ipv4.write(ipv4.Header(src, dst, ICMP), body) if len(src) == 4 else ipv6.write(ipv6.Header(src, dst, ICMPV6), body)


def quoted(octets: bytes) -> bytes | None:
    """What an ICMP error in a whole packet quotes; None for every other packet, and for one whose checksum is wrong. Raises Malformed."""
    summary = summarise(octets)
    body = octets[summary.offset : summary.octets]
    if summary.is_fragment or summary.protocol != (ICMP if summary.version == 4 else ICMPV6) or len(body) < _HEAD_OCTETS:
        return None
    if not is_error(summary.version, body[0]):
        return None
    wrong = checksum.internet(body) if summary.version == 4 else checksum.upper(summary.src, summary.dst, ICMPV6, body)
    return None if wrong else body[_HEAD_OCTETS:]


def error(src: bytes, kind: int, code: int, rest: int, about: bytes) -> bytes:
    """An error from `src` to the sender of `about`, as much of which is quoted as such an error may hold. Raises Malformed."""
    if about[:1] and about[0] >> 4 == 4:
        header, _ = ipv4.read(about)
        return packet(src, header.src, Message(kind, code, rest, about[:QUOTE4_OCTETS]))
    header6, _ = ipv6.read(about)
    return packet(src, header6.src, Message(kind, code, rest, about[:QUOTE6_OCTETS]))
