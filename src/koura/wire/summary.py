"""Summary: what policy and demultiplexing need of a packet, read once. RFC 4301 §4.4.1.1.

`protocol` and `offset` are those of the first header that is no IPv6 extension header; ESP, AH and IPComp count as such.
Ports are those of TCP, UDP, UDP-Lite, SCTP and DCCP; ICMP's type and code stand in their place; None where not visible.
"""

from dataclasses import dataclass

from koura.errors import Malformed
from koura.quick import quick
from koura.wire import ah, ipv4, ipv6

_WITH_PORTS = frozenset((6, 17, 33, 132, 136))
_WITH_TYPES = frozenset((1, 58))
_AH = 51


@quick
@dataclass(frozen=True, slots=True)
class Summary:
    """One packet's. `octets`: the packet's own length; what follows is a link's padding. offset: of the upper-layer header."""

    version: int
    src: bytes
    dst: bytes
    protocol: int
    offset: int
    sport: int | None
    dport: int | None
    tos: int
    ttl: int
    is_df: bool
    is_fragment: bool
    is_first_fragment: bool
    octets: int


def summarise(packet: bytes) -> Summary:
    """Raises Malformed for what is no IP packet, or has a broken chain of headers."""
    if not packet:
        raise Malformed("IP", "no octets")
    return _summarise4(packet) if packet[0] >> 4 == 4 else _summarise6(packet)


def upper(packet: bytes) -> Summary:
    """The same with AH headers skipped: what a selector sees. Raises Malformed."""
    return skip_ah(summarise(packet), packet)


def skip_ah(found: Summary, packet: bytes) -> Summary:
    """The summary of this packet with AH headers skipped. Raises Malformed."""
    while found.protocol == _AH and not (found.is_fragment and not found.is_first_fragment):
        try:
            header = ah.Header.read(packet[found.offset : found.octets])
        except Malformed:
            return found
        found = _moved(found, packet, header.next_header, found.offset + header.octets)
    return found


def _summarise4(packet: bytes) -> Summary:
    offset, end = ipv4.bounds(packet)
    word = packet[6] << 8 | packet[7]
    is_fragment = bool(word & (ipv4.MF | ipv4.OFFSET_MASK))
    sees = not word & ipv4.OFFSET_MASK
    protocol = packet[9]
    sport, dport = (None, None)
    if sees and (protocol in _WITH_PORTS or protocol in _WITH_TYPES):
        sport, dport = _visible(protocol, packet[offset : min(offset + 4, end)])
    return Summary(
        4, packet[12:16], packet[16:20], protocol, offset, sport, dport, packet[1], packet[8], bool(word & ipv4.DF),
        is_fragment, is_fragment and sees, end,
    )  # fmt: skip


def _summarise6(packet: bytes) -> Summary:
    header, payload = ipv6.read(packet)
    chain = ipv6.read_chain(header.next_header, payload)
    fragments = [ipv6.Fragment.read(e.octets) for e in chain.extensions if e.kind == ipv6.FRAGMENT]
    # RFC 6946: an atomic fragment (offset 0, no more) is whole, and still carries the header.
    is_fragment = any(f.offset_octets or f.is_more for f in fragments)
    sees = not any(f.offset_octets for f in fragments)
    sport, dport = _visible(chain.protocol, payload[chain.offset :]) if sees else (None, None)
    return Summary(
        6, header.src, header.dst, chain.protocol, ipv6.FIXED_OCTETS + chain.offset, sport, dport, header.traffic_class,
        header.hop_limit, True, is_fragment, is_fragment and sees, ipv6.FIXED_OCTETS + len(payload),
    )  # fmt: skip


def _visible(protocol: int, payload: bytes) -> tuple[int | None, int | None]:
    if protocol in _WITH_PORTS and len(payload) >= 4:
        return int.from_bytes(payload[0:2], "big"), int.from_bytes(payload[2:4], "big")
    if protocol in _WITH_TYPES and len(payload) >= 2:
        return payload[0], payload[1]
    return None, None


def _moved(found: Summary, packet: bytes, protocol: int, offset: int) -> Summary:
    payload = packet[offset : found.octets]
    if found.version == 6:
        chain = ipv6.read_chain(protocol, payload)
        protocol, offset = chain.protocol, offset + chain.offset
        payload = packet[offset : found.octets]
    sport, dport = _visible(protocol, payload)
    return Summary(
        found.version, found.src, found.dst, protocol, offset, sport, dport, found.tos, found.ttl, found.is_df,
        found.is_fragment, found.is_first_fragment, found.octets,
    )  # fmt: skip
