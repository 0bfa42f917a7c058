"""TCP's MSS option made small enough for what protection leaves of the path (mss_clamp, M36). RFC 9293 §3.7.1, RFC 4301 §8.2.

Of a SYN or SYN/ACK that is about to be protected, `clamp`; of one that came protected, `clamp_back`: whoever gets it sends into our
tunnel, whatever the far gateway does about it. An MSS is only ever lowered, never added.
"""

from koura.errors import Malformed
from koura.moment import Moment
from koura.reasons import Discarded
from koura.saindex import Direction
from koura.spd.policy import Action
from koura.spd.selector import Flow
from koura.traffic import bundle, pmtu
from koura.traffic.plane import Plane
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


def clamp_back(plane: Plane, packet: bytes, flow: Flow, at: Moment) -> bytes:
    """A whole packet that came protected, and its flow; an MSS in a SYN is lowered to what the way back leaves."""
    offset = summarise(packet).offset
    if not packet[offset + 13 : offset + 14] or not packet[offset + 13] & tcp.SYN:
        return packet
    room_octets = _room(plane, Flow(flow.dst, flow.src, flow.protocol, flow.dport, flow.sport), at)
    return clamp(packet, room_octets) if room_octets else packet


def _room(plane: Plane, flow: Flow, at: Moment) -> int:
    """The largest packet of a flow that fits its path once it is protected; 0: it is not, or nothing is known."""
    entry = plane.match(Direction.OUTBOUND, flow)
    if entry is None or entry.policy.action is not Action.IPSEC:
        return 0
    try:
        chosen = bundle.choose(entry.policy, flow, plane.sadb, plane.settings)
    except Discarded:  # a tunnel that leads nowhere
        return 0
    if chosen.missing or not chosen.steps:
        return 0
    destinations = [step.outer[1] for step in chosen.steps if step.outer is not None]
    mtu = plane.paths.mtu(destinations[-1] if destinations else flow.dst, chosen.steps[-1].sa, at)
    header_octets = _HEADERS4 - 20 if len(flow.src) == 4 else _HEADERS6 - 20
    return pmtu.room(chosen.steps, header_octets, mtu, plane.settings) if mtu is not None else 0


def _updated(value: int, before: bytes, after: bytes, is_odd: int) -> int:
    """The checksum with two octets changed; at an odd offset they lie across two of its words."""
    if is_odd:
        return checksum.update(value, b"\0" + before + b"\0", b"\0" + after + b"\0")
    return checksum.update(value, before, after)
