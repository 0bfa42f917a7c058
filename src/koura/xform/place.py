"""Where a transform's header stands in a packet. RFC 4303 §3.1, RFC 4302 §3.1.

IPv4: behind the options. IPv6: behind hop-by-hop, routing and fragment headers, and the destination options in front of
those; before destination options for the last destination (S10). FreeBSD puts it right behind the fixed header.

    IPv6 | hop-by-hop | dest | routing | fragment |  HERE  | dest | upper layer
"""

from collections.abc import Callable
from dataclasses import dataclass

from koura.errors import Malformed
from koura.wire import ipv4, ipv6

_BEFORE = frozenset((ipv6.HOP_BY_HOP, ipv6.ROUTING, ipv6.FRAGMENT))


@dataclass(frozen=True, slots=True)
class Place:
    """A packet, parted. `before` are the extension headers in front; `last` is the offset in it of the last one's next-header octet.

    protocol: what `payload` is. header: its own protocol field is not the payload's when `before` is not empty.
    """

    header: ipv4.Header | ipv6.Header
    before: bytes
    last: int
    protocol: int
    payload: bytes

    @property
    def src(self) -> bytes:
        return self.header.src

    @property
    def dst(self) -> bytes:
        return self.header.dst

    def join(self, protocol: int, payload: bytes) -> bytes:
        """The packet with another protocol and payload; lengths and checksum are made anew. Raises Malformed when too large."""
        if isinstance(self.header, ipv4.Header):
            return ipv4.write(self.header, payload, protocol)
        if not self.before:
            return ipv6.write(self.header, payload, protocol)
        before = self.before[: self.last] + bytes((protocol,)) + self.before[self.last + 1 :]
        return ipv6.write(self.header, before + payload)


def for_output(packet: bytes) -> Place:
    """Parted where a new header goes. Raises Malformed."""
    if packet[:1] and packet[0] >> 4 == 4:
        header, payload = ipv4.read(packet)
        return Place(header, b"", 0, header.protocol, payload)
    header6, payload = ipv6.read(packet)
    chain = ipv6.read_chain(header6.next_header, payload)
    count = max((n + 1 for n, extension in enumerate(chain.extensions) if extension.kind in _BEFORE), default=0)
    return _part(header6, payload, chain.extensions[:count])


def for_input(packet: bytes) -> Place:
    """Parted behind every extension header: `payload` begins with ESP, AH, IPComp or the upper layer. Raises Malformed."""
    if packet[:1] and packet[0] >> 4 == 4:
        header, payload = ipv4.read(packet)
        return Place(header, b"", 0, header.protocol, payload)
    header6, payload = ipv6.read(packet)
    return _part(header6, payload, ipv6.read_chain(header6.next_header, payload).extensions)


def payload_octets(packet: bytes, part: Callable[[bytes], Place]) -> int:
    """The length of what `part` (for_output or for_input) gives as payload, for a packet that has passed it; most need not be parted."""
    if packet[0] >> 4 == 4:
        return int.from_bytes(packet[2:4], "big") - 4 * (packet[0] & 0xF)
    if packet[6] not in ipv6.EXTENSIONS:
        return int.from_bytes(packet[4:6], "big")
    return len(part(packet).payload)


def _part(header: ipv6.Header, payload: bytes, extensions: tuple[ipv6.Extension, ...]) -> Place:
    if not extensions:
        return Place(header, b"", 0, header.next_header, payload)
    end = extensions[-1].offset + len(extensions[-1].octets)
    if end > len(payload):
        raise Malformed("IPv6", "extension headers run over the end")
    return Place(header, payload[:end], extensions[-1].offset, extensions[-1].next_header, payload[end:])
