"""What can be compared of one event, from the recording and from us; and the dice that make octets comparable.

Compared: packets for the peer, octet by octet; messages for key sockets; what the port-4500 socket got; the errno of PF_KEY's send();
counters that changed; the SAD at the end. Not compared (PROVENANCE.md): times, sizes of deflate output - a packet with IPComp in it
is compared with its payload expanded and without the lengths and ICVs around it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from koura.errors import Malformed
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.extensions import Lifetime, Sa
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, Type
from koura.pfkey.offers import Proposal
from koura.wire import ipv4, ipv6
from tests.parity.packets import expanded, headers, timeless, whole
from tests.parity.recordings import Asked, Association, Event, Sent, Told

OWN4 = (bytes((198, 51, 100, 2)), bytes((10, 0, 2, 1)))


@dataclass(frozen=True)
class Observed:
    """One event's consequences. `ends`: ours alone, what the stack said of each packet."""

    packets: tuple[bytes, ...] = ()
    told: tuple[object, ...] = ()
    delivered: tuple[bytes, ...] = ()
    counters: tuple[tuple[str, int], ...] = ()
    errno: int = 0
    sad: tuple[Association, ...] = ()
    ends: tuple[str, ...] = ()

    def count(self, name: str) -> int:
        return dict(self.counters).get(name, 0)


def recorded(event: Event) -> Observed:
    """FreeBSD's side."""
    if isinstance(event, Asked):
        return Observed(told=messages(event.told), errno=0 if event.told else event.errno)
    if isinstance(event, Sent):
        return Observed(event.received, messages(event.told), event.delivered, event.counters)
    return Observed(event.received, messages(event.told))


def messages(told: tuple[Told, ...]) -> tuple[object, ...]:
    """Messages as values without times, by socket."""
    return tuple((one.socket, comparable(one.octets)) for one in sorted(told, key=lambda one: one.socket))


def comparable(octets: bytes) -> object:
    """A message without times, and without what GETSPI leaves in sadb_sa beside the SPI."""
    message = Message.read(octets, FREEBSD)
    said = []
    for one in message.extensions:
        if isinstance(one, Lifetime) and one.ext == Ext.LIFETIME_CURRENT:
            said.append(Lifetime(one.ext, one.packets, one.octets, 0, int(one.use_s > 0)))
        elif isinstance(one, Sa) and message.type == Type.GETSPI and not message.errno:
            said.append(Sa(one.spi))
        else:
            said.append(one)
    return message.type, message.satype, message.errno, message.seq, message.pid, message.reserved, message.version, tuple(said)


def same_packets(theirs: tuple[bytes, ...], ours: tuple[bytes, ...]) -> bool:
    """Octet by octet; where IPComp is, by content."""
    if theirs == ours:
        return True
    left, right = (tuple(timeless(packet) for packet in whole(packets)) for packets in (theirs, ours))
    return len(left) == len(right) and all(a == b or _same_content(a, b) for a, b in zip(left, right, strict=True))


def _same_content(one: bytes, other: bytes) -> bool:
    content = expanded(one)
    return content is not None and content == expanded(other)


def same(theirs: Observed, ours: Observed) -> bool:
    """Whether there is no difference at all."""
    return (
        same_packets(theirs.packets, ours.packets)
        and theirs.told == ours.told
        and theirs.delivered == ours.delivered
        and dict(theirs.counters) == dict(ours.counters)
        and theirs.errno == ours.errno
        and theirs.sad == ours.sad
    )


@dataclass(frozen=True)
class Draws:
    """What was drawn there while an event happened."""

    identifications: tuple[int, ...]
    fragments: tuple[int, ...]
    ivs: tuple[bytes, ...]
    sequences: tuple[tuple[int, int, int], ...]  # protocol, SPI, number


def draws(event: Event) -> Draws:
    """From the packets of a recording: innermost first, for that is the order of drawing."""
    identifications: list[int] = []
    fragments: list[int] = []
    ivs: list[bytes] = []
    sequences: list[tuple[int, int, int]] = []
    for packet in () if isinstance(event, Asked) else whole(event.received):
        layers = list(headers(packet))
        for layer in reversed(layers):
            if layer.kind == 4 and layer.src in OWN4 and not layer.offset_octets and not layer.is_df:
                identifications.append(layer.number)
            elif layer.kind == 44 and not layer.offset_octets:
                fragments.append(layer.number)
            elif layer.kind in (50, 51) and layer.spi:
                sequences.append((layer.kind, layer.spi, layer.number))
                if layer.kind == 50:
                    ivs.append(layer.rest[:16])
    return Draws(tuple(identifications), tuple(fragments), tuple(ivs), tuple(sequences))


def spi_draw(event: Asked) -> Iterator[int]:
    """For GETSPI: where in the range the answer lies."""
    from koura.pfkey.extensions import SpiRange

    if event.errno or not event.told or event.octets[1] != Type.GETSPI:
        return
    try:
        asked, got = Message.read(event.octets, FREEBSD), Message.read(event.told[0].octets, FREEBSD)
    except Malformed:
        return
    sa, span = got.find(Sa, Ext.SA), asked.find(SpiRange, Ext.SPIRANGE)
    if sa is not None and not got.errno:
        yield sa.spi - (span.min if span is not None else 0x100)


__all__ = ["Draws", "Observed", "Proposal", "comparable", "draws", "ipv4", "ipv6", "messages", "recorded", "same", "spi_draw"]
