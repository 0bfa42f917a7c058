"""Where a transform's header stands in a packet. RFC 4303 §3.1, RFC 4302 §3.1.

IPv4: behind the options. IPv6: behind hop-by-hop, routing and fragment headers, and the destination options in front of
those; before destination options for the last destination (S10). FreeBSD puts it right behind the fixed header.

    IPv6 | hop-by-hop | dest | routing | fragment |  HERE  | dest | upper layer
"""

from collections.abc import Callable
from dataclasses import dataclass

from koura.quick import quick
from koura.wire import ipv4, ipv6

_BEFORE = frozenset((ipv6.HOP_BY_HOP, ipv6.ROUTING, ipv6.FRAGMENT))


@quick
@dataclass(frozen=True, slots=True)
class Place:
    """A packet, parted. `head`: the octets of the IP header (IPv4: with options; IPv6: the fixed one), whose lengths, protocol and checksum
    are not looked at; `before`: the extension headers in front; `last`: the offset in it of the last one's next-header octet.

    protocol: what `payload` is.
    """

    head: bytes
    before: bytes
    last: int
    protocol: int
    payload: bytes

    @property
    def is_ipv4(self) -> bool:
        return self.head[0] >> 4 == 4

    @property
    def src(self) -> bytes:
        return self.head[12:16] if self.is_ipv4 else self.head[8:24]

    @property
    def dst(self) -> bytes:
        return self.head[16:20] if self.is_ipv4 else self.head[24:40]

    @property
    def tos(self) -> int:
        """TOS or traffic class."""
        return self.head[1] if self.is_ipv4 else (self.head[0] << 4 | self.head[1] >> 4) & 0xFF

    @property
    def octets(self) -> int:
        """How long the whole packet is."""
        return len(self.head) + len(self.before) + len(self.payload)

    @property
    def packet(self) -> bytes:
        """The whole packet. Raises Malformed when too large."""
        return self.join(self.protocol, self.payload)

    def opened(self, protocol: int, payload: bytes) -> "Place":
        """The place with what stood in it taken off; nothing is written yet: a tunnel's header comes off next."""
        return Place(self.head, self._naming(protocol), self.last, protocol, payload)

    def join(self, protocol: int, payload: bytes) -> bytes:
        """The packet with another protocol and payload; lengths and checksum are made anew. Raises Malformed when too large."""
        if self.is_ipv4:
            return ipv4.rewrite(self.head, protocol, payload)
        if not self.before:
            return ipv6.rewrite(self.head, protocol, payload)
        return ipv6.rewrite(self.head, self.head[6], self._naming(protocol) + payload)

    def _naming(self, protocol: int) -> bytes:
        """The extension headers with another protocol behind the last."""
        return self.before and self.before[: self.last] + bytes((protocol,)) + self.before[self.last + 1 :]


def for_output(packet: bytes) -> Place:
    """Parted where a new header goes. Raises Malformed."""
    if packet[:1] and packet[0] >> 4 == 4:
        return _part4(packet)
    end = ipv6.end(packet)
    chain = ipv6.read_chain(packet[6], packet[ipv6.FIXED_OCTETS : end])
    count = max((n + 1 for n, extension in enumerate(chain.extensions) if extension.kind in _BEFORE), default=0)
    return _part6(packet, end, chain.extensions[:count])


def for_input(packet: bytes) -> Place:
    """Parted behind every extension header: `payload` begins with ESP, AH, IPComp or the upper layer. Raises Malformed."""
    if packet[:1] and packet[0] >> 4 == 4:
        return _part4(packet)
    end = ipv6.end(packet)
    return _part6(packet, end, ipv6.read_chain(packet[6], packet[ipv6.FIXED_OCTETS : end]).extensions)


def payload_octets(packet: bytes, part: Callable[[bytes], Place]) -> int:
    """The length of what `part` (for_output or for_input) gives as payload, for a packet that has passed it; most need not be parted."""
    if packet[0] >> 4 == 4:
        return int.from_bytes(packet[2:4], "big") - 4 * (packet[0] & 0xF)
    if packet[6] not in ipv6.EXTENSIONS:
        return int.from_bytes(packet[4:6], "big")
    return len(part(packet).payload)


def _part4(packet: bytes) -> Place:
    head_octets, end = ipv4.bounds(packet)
    return Place(packet[:head_octets], b"", 0, packet[9], packet[head_octets:end])


def _part6(packet: bytes, end: int, extensions: tuple[ipv6.Extension, ...]) -> Place:
    head = packet[: ipv6.FIXED_OCTETS]
    if not extensions:
        return Place(head, b"", 0, packet[6], packet[ipv6.FIXED_OCTETS : end])
    last = extensions[-1]
    start = ipv6.FIXED_OCTETS + last.offset + len(last.octets)
    return Place(head, packet[ipv6.FIXED_OCTETS : start], last.offset, last.next_header, packet[start:end])
