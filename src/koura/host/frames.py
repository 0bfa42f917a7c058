"""Ethernet frames as a bump in the wire sees them: addresses, VLAN tags, what is inside. Pure; IEEE 802.3, 802.1Q, RFC 826, RFC 4861.

       0        6        12                    12 + 4n
    |  to    |  from  |  n tags of 4 octets  | kind | payload        kind: of IEEE 802; up to 1500 a length, and no IP inside

Tags stay on a frame. What a kernel keeps beside it (PACKET_AUXDATA) is put back first.
"""

from dataclasses import dataclass

from koura.quick import quick

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
_TAGS = (0x8100, 0x88A8, 0x9100)
_MOST_TAGS = 4
_ADDRESSES_OCTETS, _TAG_OCTETS = 12, 4
_ICMPV6, _HOP_BY_HOP, _UDP, _IGMP = 58, 0, 17, 2
_ROUTING = frozenset((_IGMP, 88, 89, 103, 112))  # IGMP, EIGRP, OSPF, PIM, VRRP
_DHCP, _DHCPV6 = (67, 68), (546, 547)
_ND, _MLD = range(133, 138), (130, 131, 132, 143)


@quick
@dataclass(frozen=True, slots=True)
class Link:
    """What stands in front of a frame's kind."""

    dst: bytes
    src: bytes
    tags: bytes = b""

    def front(self, kind: int) -> bytes:
        """A frame's header."""
        return self.dst + self.src + self.tags + kind.to_bytes(2, "big")

    def back(self) -> "Link":
        """To where it came from."""
        return Link(self.src, self.dst, self.tags)

    def to(self, dst: bytes) -> "Link":
        """The same to another station."""
        return Link(dst, self.src, self.tags)

    def by(self, src: bytes) -> "Link":
        """The same from another station."""
        return Link(self.dst, src, self.tags)


def read(frame: bytes) -> tuple[Link, int, int] | None:
    """(link, kind, where the payload begins); None for what is too short, or has more tags than any network stacks."""
    at = _ADDRESSES_OCTETS
    for _ in range(_MOST_TAGS + 1):
        kind = int.from_bytes(frame[at : at + 2], "big")
        if len(frame) < at + 2:
            return None
        if kind not in _TAGS:
            return Link(frame[:6], frame[6:12], frame[_ADDRESSES_OCTETS:at]), kind, at + 2
        at += _TAG_OCTETS
    return None


def kind_of(packet: bytes) -> int:
    """Which kind of frame carries an IP packet."""
    return IPV4 if packet[0] >> 4 == 4 else IPV6


def trimmed(packet: bytes) -> bytes:
    """An IP packet without what the link padded it with. A length that says nothing, or more than is there, is the reader's to refuse."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        octets = int.from_bytes(packet[2:4], "big")
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        octets = int.from_bytes(packet[4:6], "big") + 40
    else:
        return packet
    return packet[:octets] if 20 <= octets < len(packet) else packet


def ends_of(packet: bytes) -> tuple[bytes, bytes]:
    """Source and destination of an IP packet; short ones give short addresses."""
    return (packet[12:16], packet[16:20]) if packet[:1] and packet[0] >> 4 == 4 else (packet[8:24], packet[24:40])


def is_control(packet: bytes) -> bool:
    """Whether an IP packet keeps the link itself going and never leaves it: it passes whatever policy says.

    Neighbour discovery, by its hop limit of 255; multicast listeners; IGMP and routers among themselves, to groups of this link; DHCP.
    """
    if len(packet) >= 28 and packet[0] >> 4 == 4:
        if int.from_bytes(packet[6:8], "big") & 0x1FFF:
            return False
        return _is_control4(packet, packet[(packet[0] & 0xF) * 4 :])
    return len(packet) >= 48 and packet[0] >> 4 == 6 and _is_control6(packet)


def _is_control4(packet: bytes, body: bytes) -> bool:
    is_local_group = packet[16:19] == b"\xe0\0\0"
    if packet[9] in _ROUTING:
        return is_local_group or (packet[9] == _IGMP and packet[8] == 1)
    return packet[9] == _UDP and _ports(body) in (_DHCP, _DHCP[::-1])


def _is_control6(packet: bytes) -> bool:
    protocol, body = packet[6], packet[40:]
    if protocol == _HOP_BY_HOP:  # Listener reports have a router alert in front.
        protocol, body = body[0], body[8 + 8 * body[1] :]
        return protocol == _ICMPV6 and packet[7] == 1 and body[:1] != b"" and body[0] in _MLD
    if protocol == _ICMPV6:
        return (packet[7] == 255 and body[0] in _ND) or (packet[7] == 1 and body[0] in _MLD)
    is_local_group = packet[24] == 0xFF and packet[25] & 0xF == 2
    if protocol in _ROUTING:
        return is_local_group
    is_link_local = packet[8] == 0xFE and packet[9] & 0xC0 == 0x80
    return protocol == _UDP and is_link_local and (_ports(body) in (_DHCPV6, _DHCPV6[::-1]) or _ports(body) == (547, 547))


def _ports(body: bytes) -> tuple[int, int]:
    return int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")
