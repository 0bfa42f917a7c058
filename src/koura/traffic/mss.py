"""TCP's MSS option made small enough for what protection leaves of the path (mss_clamp, M36). RFC 9293 §3.7.1, RFC 4301 §8.2."""

from koura.errors import Malformed
from koura.wire import checksum, tcp
from koura.wire.summary import summarise

_TCP = 6
_HEADERS4, _HEADERS6 = 40, 60  # IP and TCP without options: what MSS leaves out of account


def clamp(packet: bytes, room_octets: int) -> bytes:
    """A whole IP packet; a SYN with an MSS above what `room_octets` per packet allow has it lowered, others are returned as they are."""
    try:
        summary = summarise(packet)
        if summary.protocol != _TCP or summary.is_fragment:
            return packet
        segment = packet[summary.offset : summary.octets]
        header = tcp.Header.read(segment)
        options = tcp.read_options(header.options) if header.flags & tcp.SYN else ()
    except Malformed:
        return packet
    most = room_octets - (_HEADERS4 if summary.version == 4 else _HEADERS6)
    for option in options:
        if option.kind == tcp.MSS and len(option.data) == 2 and int.from_bytes(option.data, "big") > most > 0:
            at = summary.offset + option.offset + 2
            before, after = packet[at : at + 2], most.to_bytes(2, "big")
            packet = packet[:at] + after + packet[at + 2 :]
            place = summary.offset + tcp.CHECKSUM_AT
            fixed = _updated(int.from_bytes(packet[place : place + 2], "big"), before, after, (at - summary.offset) % 2)
            packet = packet[:place] + fixed.to_bytes(2, "big") + packet[place + 2 :]
    return packet


def _updated(value: int, before: bytes, after: bytes, is_odd: int) -> int:
    """The checksum with two octets changed; at an odd offset they lie across two of its words."""
    if is_odd:
        return checksum.update(value, b"\0" + before + b"\0", b"\0" + after + b"\0")
    return checksum.update(value, before, after)
