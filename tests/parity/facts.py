"""What rules ask of a difference: of its case, of the packets that were sent, of those that came back. No verdicts here."""

from typing import Any

from koura.pfkey.dialect import FREEBSD
from koura.pfkey.extensions import Lifetime, NatType, SpiRange
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, Type
from tests.parity.difference import Difference
from tests.parity.observed import Observed
from tests.parity.packets import AH, ESP, IPCOMP, UDP, Layer, headers, inflated, next_of
from tests.parity.recordings import Asked, Event, Sent

_IPSEC = (ESP, AH, IPCOMP)
_IP = (4, 41)


# -- of the case ---------------------------------------------------------------------------------------------------------------


def tunable(difference: Difference, name: str) -> str:
    return dict(difference.recording.tunables).get(name, "")


def requests(difference: Difference, *types: int) -> list[Message]:
    """The requests of these types up to the event."""
    asked = [event for event in difference.recording.events[: difference.number + 1] if isinstance(event, Asked)]
    return [Message.read(event.octets, FREEBSD) for event in asked if event.octets[1] in types]


def registered(difference: Difference) -> set[tuple[int, int]]:
    """(socket, satype) of every REGISTER."""
    asked = [event for event in difference.recording.events[: difference.number] if isinstance(event, Asked)]
    return {(event.socket, event.octets[3]) for event in asked if event.octets[1] == Type.REGISTER}


def has_lifetimes(difference: Difference) -> bool:
    return any(m.find(Lifetime, ext) for m in requests(difference, Type.ADD, Type.UPDATE) for ext in (Ext.LIFETIME_HARD, Ext.LIFETIME_SOFT))


def has_encapsulation(difference: Difference) -> bool:
    return any(m.find(NatType, Ext.X_NAT_T_TYPE) for m in requests(difference, Type.ADD, Type.UPDATE))


def has_differed(difference: Difference) -> bool:
    return difference.has_differed


def spi_range(event: Asked) -> tuple[int, int] | None:
    span = Message.read(event.octets, FREEBSD).find(SpiRange, Ext.SPIRANGE)
    return (span.min, span.max) if span is not None else None


def was_sent_before(difference: Difference) -> bool:
    """Whether the very packets of this event were sent before."""
    event = difference.event
    before = difference.recording.events[: difference.number]
    return isinstance(event, Sent) and any(isinstance(one, Sent) and one.packets == event.packets for one in before)


def discovers(difference: Difference) -> bool:
    return any(is_neighbour_discovery(event) for event in difference.recording.events)


# -- of EXPIRE -----------------------------------------------------------------------------------------------------------------


def _limit(message: Any) -> tuple[Lifetime | None, Lifetime | None]:
    found = {one.ext: one for one in message[-1] if isinstance(one, Lifetime)}
    return found.get(Ext.LIFETIME_CURRENT), found.get(Ext.LIFETIME_HARD) or found.get(Ext.LIFETIME_SOFT)


def is_timed(message: Any) -> bool:
    """Whether an EXPIRE is about a limit of time alone."""
    _, limit = _limit(message)
    return limit is not None and not (limit.packets or limit.octets)


def is_reached(message: Any, difference: Difference) -> bool:
    """Whether an EXPIRE shows its limit of packets or octets reached; limits of time show nothing, but there must be one."""
    current, limit = _limit(message)
    if current is None or limit is None:
        return False
    by_packets, by_octets = 0 < limit.packets <= current.packets, 0 < limit.octets <= current.octets
    return by_packets or by_octets or (is_timed(message) and bool(limit.add_s or limit.use_s) and bool(difference))


# -- of what was sent ------------------------------------------------------------------------------------------------------------


def _sent(event: Event | None) -> tuple[bytes, ...]:
    return event.packets if isinstance(event, Sent) else ()


def _innermost(packet: bytes) -> tuple[int, bytes]:
    """The protocol behind the last header that can be seen, and its octets."""
    layers = list(headers(packet))
    return next_of(layers[-1]) if layers else (0, b"")


def is_ipv6(event: Event | None) -> bool:
    return any(packet[0] >> 4 == 6 for packet in _sent(event))


def is_nested6(event: Event | None) -> bool:
    """Whether IPsec headers follow one another directly, over IPv6."""
    for packet in _sent(event):
        kinds = [layer.kind for layer in headers(packet)]
        last = next_of(list(headers(packet))[-1])[0]
        for at, (one, other) in enumerate(zip(kinds, [*kinds[1:], last], strict=True)):
            family = next((kind for kind in reversed(kinds[: at + 1]) if kind in _IP), 0)
            if one in _IPSEC and other in _IPSEC and family == 41:
                return True
    return False


def is_udp(event: Event | None) -> bool:
    return any(_innermost(packet)[0] == UDP or any(layer.kind == UDP for layer in headers(packet)) for packet in _sent(event))


def is_to_encapsulation(event: Event | None) -> bool:
    """UDP to port 4500, in clear."""
    for packet in _sent(event):
        first = next(headers(packet))
        if first.kind in _IP and next_of(first)[0] == UDP and first.rest[2:4] == (4500).to_bytes(2, "big"):
            return True
    return False


def is_ip_in_ip(event: Event | None) -> bool:
    return any([layer.kind in _IP for layer in headers(packet)][:2] == [True, True] for packet in _sent(event))


def is_neighbour_discovery(event: Event | None) -> bool:
    return any(packet[0] >> 4 == 6 and packet[6] == 58 and 133 <= packet[40] <= 137 for packet in _sent(event) if len(packet) > 40)


# -- of what came back -----------------------------------------------------------------------------------------------------------


def end_of(difference: Difference) -> str:
    """What our stack said of what was sent, in the end."""
    return next((end for end in difference.ours.ends if end != "held.fragment"), "")


def is_answered(theirs: Observed, event: Event | None) -> bool:
    """Whether anything but a parameter problem came back."""
    kinds = [_innermost(packet) for packet in theirs.packets]
    return any(kind != 58 or rest[:1] != b"\x04" for kind, rest in kinds) and event is not None


def is_port_unreachable(packet: bytes) -> bool:
    kind, rest = _innermost(packet)
    return (kind, rest[:2]) in ((1, b"\x03\x03"), (58, b"\x01\x04"))


def icmp_kind(packet: bytes) -> tuple[int, int, int] | None:
    """(IP version, type, code) of ICMP in clear."""
    layers = list(headers(packet))
    if len(layers) != 1 or next_of(layers[0])[0] not in (1, 58):
        return None
    return packet[0] >> 4, layers[0].rest[0], layers[0].rest[1]


def without_ecn(packet: bytes) -> bytes:
    """The outer header's ECN bits, and what depends on them, zero."""
    if packet[0] >> 4 == 4:
        return packet[:1] + bytes((packet[1] & 0xFC,)) + packet[2:10] + bytes(2) + packet[12:]
    return packet[:1] + bytes((packet[1] & 0xCF,)) + packet[2:]


def without_df(packet: bytes) -> bytes:
    """An IPv4 header without DF, and without what depends on it: identification, checksum, the ICV of an AH behind it."""
    layers = list(headers(packet))
    head = packet[:4] + bytes(2) + bytes((packet[6] & 0xBF,)) + packet[7:10] + bytes(2) + packet[12:20]
    rest = layers[0].rest
    if layers[1].kind == AH:
        rest = rest[:12] + bytes(len(layers[1].head) - 12) + rest[len(layers[1].head) :]
    return head + rest


def carries_ipv6(packet: bytes) -> bool:
    return any(layer.kind == 41 for layer in list(headers(packet))[1:])


def is_inside(inner: bytes, outer: bytes) -> bool:
    """Whether one packet is in the other, protected without encryption."""
    return len(inner) < len(outer) and inner in outer


def _ipcomps(packet: bytes) -> list[Layer]:
    return [layer for layer in headers(packet) if layer.kind == IPCOMP]


def has_ipcomp(packet: bytes) -> bool:
    return bool(_ipcomps(packet))


def has_cpi(event: Sent, cpi: int) -> bool:
    return any(layer.spi == cpi for packet in event.packets for layer in _ipcomps(packet))


def grew_by_ipcomp(packet: bytes) -> bool:
    """Whether IPComp, with its header, made the payload no smaller."""
    return any(len(layer.rest) + 4 >= len(inflated(layer.rest) or b"") for layer in _ipcomps(packet))


# -- AH over options ---------------------------------------------------------------------------------------------------------------


def is_option_icv(difference: Difference) -> bool:
    """One side refuses the ICV that the other takes, and an option that may change stands in front of AH."""
    counts = sorted((difference.theirs.count("ah.badauth"), difference.ours.count("ah.badauth")))
    return counts == [0, 1] and any(_has_mutable_option(packet) for packet in _sent(difference.event))


def _has_mutable_option(packet: bytes) -> bool:
    if packet[0] >> 4 != 6:
        return False
    for layer in headers(packet):
        at = 2
        while layer.kind in (0, 60) and at < len(layer.head):
            if layer.head[at] & 0x20:
                return True
            at += 1 if layer.head[at] == 0 else 2 + layer.head[at + 1]
    return False
