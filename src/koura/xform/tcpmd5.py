"""TCP segments signed with a key of the SAD: the MD5 option. RFC 2385 §2.0, §4.3; M25.

The digest covers, in this order: the pseudo header, the TCP header without options and with checksum 0, the data, the key. What the
pseudo header calls the length is that of the whole segment, options included.

A segment that goes out gets the option in front of its others, aligned by two no-operations, or in the place its sender left for it.
One that came in and is right has its option overwritten with no-operations, because the TCP that gets it knows no key. Both times
length and checksums are made right. The digest itself: the SA's `digest` (crypto), whose key comes last.
"""

import struct

from koura.crypto.session import Digest
from koura.errors import Malformed, Unauthentic
from koura.reasons import TCPMD5_BAD, TCPMD5_FRAGMENT, TCPMD5_MISSING, TCPMD5_OPTIONS, TCPMD5_ROOM, Discarded
from koura.sadb.association import Association
from koura.wire import checksum, tcp
from koura.wire.summary import Summary

_TCP = 6
_OPTION_OCTETS = 2 + tcp.MD5_OCTETS
_ADDED_OCTETS = 2 + _OPTION_OCTETS
_HEADER_MAX = 60
_PACKET_MAX = 65535
_BEFORE = bytes((tcp.NO_OPERATION, tcp.NO_OPERATION, tcp.MD5, _OPTION_OCTETS))


def sign(sa: Association, packet: bytes, summary: Summary) -> bytes:
    """The packet with its segment signed. Raises Discarded."""
    if summary.is_fragment:
        raise Discarded(TCPMD5_FRAGMENT, sa)
    segment = packet[summary.offset : summary.octets]
    place, octets = _find(sa, segment)
    if place is None:
        if octets + _ADDED_OCTETS > _HEADER_MAX or summary.octets + _ADDED_OCTETS > _PACKET_MAX:
            raise Discarded(TCPMD5_ROOM, sa)
        segment = segment[: tcp.FIXED_OCTETS] + _BEFORE + bytes(tcp.MD5_OCTETS) + segment[tcp.FIXED_OCTETS :]
        place, octets = tcp.FIXED_OCTETS + len(_BEFORE), octets + _ADDED_OCTETS
        segment = segment[:12] + bytes((octets << 2 | segment[12] & 0x0F,)) + segment[13:]
    digest = _digest(sa).digest(_covered(summary, segment, octets))
    return _joined(packet, summary, segment[:place] + digest + segment[place + tcp.MD5_OCTETS :])


def verify(sa: Association, packet: bytes, summary: Summary) -> bytes:
    """The packet with its option taken off, if the signature is right. Raises Discarded."""
    segment = packet[summary.offset : summary.octets]
    place, octets = _find(sa, segment)
    if place is None:
        raise Discarded(TCPMD5_MISSING, sa)
    try:
        _digest(sa).verify(_covered(summary, segment, octets), segment[place : place + tcp.MD5_OCTETS])
    except Unauthentic as fault:
        raise Discarded(TCPMD5_BAD, sa) from fault
    blank = bytes((tcp.NO_OPERATION,)) * _OPTION_OCTETS
    return _joined(packet, summary, segment[: place - 2] + blank + segment[place + tcp.MD5_OCTETS :])


def _digest(sa: Association) -> Digest:
    assert sa.digest is not None, "a TCP-MD5 SA has its digest"
    return sa.digest


def _find(sa: Association, segment: bytes) -> tuple[int | None, int]:
    """Where the digest of the option is, None without one; and the octets of the header. Raises Discarded(TCPMD5_OPTIONS)."""
    try:
        header = tcp.Header.read(segment)
        found = [option for option in tcp.read_options(header.options) if option.kind == tcp.MD5]
    except Malformed as fault:
        raise Discarded(TCPMD5_OPTIONS, sa) from fault
    if len(found) > 1 or (found and len(found[0].data) != tcp.MD5_OCTETS):
        raise Discarded(TCPMD5_OPTIONS, sa)
    return (found[0].offset + 2 if found else None), header.octets


def _covered(summary: Summary, segment: bytes, octets: int) -> bytes:
    """RFC 2385 §2.0, all but the key."""
    fixed = segment[: tcp.CHECKSUM_AT] + b"\0\0" + segment[tcp.CHECKSUM_AT + 2 : tcp.FIXED_OCTETS]
    return checksum.pseudo(summary.src, summary.dst, _TCP, len(segment)) + fixed + segment[octets:]


def _joined(packet: bytes, summary: Summary, segment: bytes) -> bytes:
    """The packet around another segment: lengths and both checksums."""
    zeroed = segment[: tcp.CHECKSUM_AT] + b"\0\0" + segment[tcp.CHECKSUM_AT + 2 :]
    right = checksum.upper(summary.src, summary.dst, _TCP, zeroed)
    segment = zeroed[: tcp.CHECKSUM_AT] + struct.pack("!H", right) + zeroed[tcp.CHECKSUM_AT + 2 :]
    head = bytearray(packet[: summary.offset])
    if summary.version == 4:
        struct.pack_into("!H", head, 2, len(head) + len(segment))
        struct.pack_into("!H", head, 10, 0)
        struct.pack_into("!H", head, 10, checksum.internet(bytes(head)))
    else:
        struct.pack_into("!H", head, 4, len(head) - 40 + len(segment))
    return bytes(head) + segment
