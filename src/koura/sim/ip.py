"""What every IP node does to a packet without looking into it: count the hops down, answer an echo, say why not. RFC 1812, RFC 4443.

Pure functions from packets to packets. Not here: where a packet goes (node), what IPsec does to it (stack).
"""

from dataclasses import replace

from koura.traffic.icmp import may_answer, too_big
from koura.wire import icmp, ipv4, ipv6, udp
from koura.wire.summary import Summary, summarise

__all__ = [
    "datagram", "echo", "hop", "is_echo", "may_fragment", "port_unreachable", "reply", "time_exceeded", "too_big",
    "unreachable", "with_options",
]  # fmt: skip

_PATTERN = bytes(range(256))
_OPTIONS4 = bytes.fromhex("940400004408050000000000")
_ROUTER_ALERT6 = bytes.fromhex("050200000100")
_PADDING6 = bytes.fromhex("010400000000")


def hop(packet: bytes) -> bytes | None:
    """The packet one hop further: TTL or hop limit one less; None where that was the last."""
    if packet[0] >> 4 == 4:
        header, payload = ipv4.read(packet)
        return ipv4.write(replace(header, ttl=header.ttl - 1), payload) if header.ttl > 1 else None
    return packet[:7] + bytes([packet[7] - 1]) + packet[8:] if packet[7] > 1 else None


def may_fragment(packet: bytes) -> bool:
    """Whether a router may cut it: IPv4 without DF."""
    return packet[0] >> 4 == 4 and not ipv4.read(packet)[0].is_df


def is_echo(summary: Summary) -> bool:
    """Whether it asks for an echo."""
    return (summary.protocol, summary.sport) in ((icmp.ICMP, icmp.ECHO), (icmp.ICMPV6, icmp.ECHO6)) and not summary.is_fragment


def echo(src: bytes, dst: bytes, identifier: int, number: int, data: bytes = _PATTERN[:56], *, is_df: bool = False, tos: int = 0) -> bytes:
    """A ping."""
    kind = icmp.ECHO if len(src) == 4 else icmp.ECHO6
    body = icmp.write(src, dst, icmp.Message(kind, 0, identifier << 16 | number, data))
    return _packet(src, dst, icmp.ICMP if len(src) == 4 else icmp.ICMPV6, body, is_df, tos)


def reply(packet: bytes, summary: Summary) -> bytes:
    """The answer to an echo, the other way round, with its data and its TOS. RFC 792, RFC 4443 §4.2."""
    message = icmp.read(packet[summary.offset : summary.octets])
    kind = icmp.ECHO_REPLY if summary.version == 4 else icmp.ECHO_REPLY6
    body = icmp.write(summary.dst, summary.src, replace(message, kind=kind))
    return _packet(summary.dst, summary.src, summary.protocol, body, False, summary.tos)


def datagram(src: bytes, dst: bytes, sport: int, dport: int, payload: bytes, *, is_df: bool = False, tos: int = 0) -> bytes:
    """A UDP packet with its checksum."""
    return _packet(src, dst, udp.PROTOCOL, udp.write_checked(src, dst, sport, dport, payload), is_df, tos)


def with_options(packet: bytes) -> bytes:
    """The packet with a router alert and a timestamp, or for IPv6 hop-by-hop and destination options. RFC 2113, RFC 2711, RFC 791."""
    if packet[0] >> 4 == 4:
        header, payload = ipv4.read(packet)
        return ipv4.write(replace(header, options=_OPTIONS4), payload)
    header6, payload = ipv6.read(packet)
    hops = bytes((ipv6.DESTINATION, 0)) + _ROUTER_ALERT6
    options = bytes((header6.next_header, 0)) + _PADDING6
    return ipv6.write(replace(header6, next_header=ipv6.HOP_BY_HOP), hops + options + payload)


def _packet(src: bytes, dst: bytes, protocol: int, body: bytes, is_df: bool, tos: int) -> bytes:
    if len(src) == 4:
        return ipv4.write(ipv4.Header(src, dst, protocol, tos=tos, is_df=is_df), body)
    return ipv6.write(ipv6.Header(src, dst, protocol, traffic_class=tos), body)


# -- errors: each None where none may be sent (RFC 1122 §3.2.2, RFC 4443 §2.4) -----------------------------------------------


def time_exceeded(packet: bytes, source: bytes) -> bytes | None:
    """The hops are used up."""
    return _error(packet, source, (icmp.TIME_EXCEEDED, 0), (icmp.TIME_EXCEEDED6, 0))


def unreachable(packet: bytes, source: bytes) -> bytes | None:
    """There is no route."""
    return _error(packet, source, (icmp.UNREACHABLE, 1), (icmp.UNREACHABLE6, 0))


def port_unreachable(packet: bytes, source: bytes) -> bytes | None:
    """Nobody listens on that port."""
    return _error(packet, source, (icmp.UNREACHABLE, icmp.PORT_UNREACHABLE), (icmp.UNREACHABLE6, icmp.PORT_UNREACHABLE6))


def _error(packet: bytes, source: bytes, four: tuple[int, int], six: tuple[int, int]) -> bytes | None:
    summary = summarise(packet)
    if not may_answer(packet, summary):
        return None
    kind, code = four if summary.version == 4 else six
    return icmp.error(source, kind, code, 0, packet)
