"""IPv4 options as FreeBSD 13.0's input takes them, and as its echo replies give them back. RFC 791 §3.1, RFC 1122 §3.2.1.8."""

from dataclasses import dataclass

from koura.wire import ipv4, ipv6

_RECORD_ROUTE, _TIMESTAMP, _SECURITY, _LSRR, _SSRR = 7, 68, 130, 131, 137
_KNOWN6 = (1, 5)
_KEPT_IN_REPLIES = (_RECORD_ROUTE, _TIMESTAMP, _SECURITY)


class BadOption(Exception):
    """The ICMP error that an option causes; pointer: where in the header the fault is."""

    def __init__(self, kind: int, code: int, pointer: int) -> None:
        super().__init__(f"ICMP {kind} {code} at {pointer}")
        self.kind, self.code, self.pointer = kind, code, pointer


class Unroutable(Exception):
    """A source route that would have to be followed further."""


def processed(packet: bytes, own: frozenset[bytes], takes_source_routes: bool) -> bytes:
    """The packet as it goes on: routes recorded. Raises BadOption, Unroutable."""
    header_octets = (packet[0] & 15) * 4
    out = bytearray(packet)
    at = ipv4.FIXED_OCTETS
    while at < header_octets and packet[at] != ipv4.END_OF_LIST:
        kind = packet[at]
        if kind == ipv4.NO_OPERATION:
            at += 1
            continue
        octets = packet[at + 1] if at + 1 < header_octets else 0
        if octets < 2 or at + octets > header_octets:
            raise BadOption(12, 0, at + 1)
        if kind in (_LSRR, _SSRR):
            _check_route(packet, at, octets, own, takes_source_routes)
        elif kind == _RECORD_ROUTE:
            _record(out, packet, at, octets)
        elif kind == _TIMESTAMP:
            _stamp(out, at, octets)
        at += octets
    if bytes(out) == packet:
        return packet
    head, _ = ipv4.read(bytes(out))
    return ipv4.write(head, bytes(out[header_octets:]))


def _record(out: bytearray, packet: bytes, at: int, octets: int) -> None:
    """Our address into the next free place of a recorded route."""
    place = packet[at + 2]
    if place >= 4 and place + 3 <= octets:
        out[at + place - 1 : at + place + 3] = packet[16:20]
        out[at + 2] = place + 4


def _stamp(out: bytearray, at: int, octets: int) -> None:
    """The next free place of a timestamp option is taken, with 0 for the time; where none is, that is counted. Flag 0 alone."""
    place, flags = out[at + 2], out[at + 3]
    if place + 3 <= octets and flags & 15 == 0:
        out[at + place - 1 : at + place + 3] = bytes(4)
        out[at + 2] = place + 4
    elif place + 3 > octets:
        out[at + 3] = (flags + 16) & 0xFF


def _check_route(packet: bytes, at: int, octets: int, own: frozenset[bytes], takes_source_routes: bool) -> None:
    if octets < 3 or packet[at + 2] < 4:
        raise BadOption(12, 0, at + 2)
    if packet[16:20] not in own or takes_source_routes:
        return
    if packet[at + 2] + 3 <= octets:  # Not at its end: we do not pass it on, and do not say so.
        raise Unroutable
    raise BadOption(3, 5, 0)


def reversed_route(asked: ipv4.Header) -> tuple[bytes, bytes]:
    """For a packet that came by a source route: the option of its reply, and where the reply goes first; (b"", source) without one."""
    for option in ipv4.read_options(asked.options):
        if option.kind in (_LSRR, _SSRR):
            hops = [option.data[at : at + 4] for at in range(1, len(option.data) - 3, 4)][::-1]
            rest = b"".join([*hops[1:], asked.src])
            made = bytes((ipv4.NO_OPERATION, option.kind, 3 + len(rest), 4)) + rest
            return made, hops[0]
    return b"", asked.src


@dataclass(frozen=True)
class UnknownOption:
    """An IPv6 option that nobody here knows and that may not be skipped. tells: the sender hears of it."""

    pointer: int
    tells: bool


def unknown(packet: bytes) -> UnknownOption | None:
    """The first such option in front of whatever ends the chain. Raises Malformed."""
    header, payload = ipv6.read(packet)
    for extension in ipv6.read_chain(header.next_header, payload).extensions:
        if extension.kind not in (ipv6.HOP_BY_HOP, ipv6.DESTINATION):
            continue
        for option in ipv6.read_options(extension.octets):
            if option.kind not in _KNOWN6 and option.kind >> 6:
                return UnknownOption(ipv6.FIXED_OCTETS + extension.offset + option.offset, option.kind >> 6 > 1)
    return None


def answered(options: bytes) -> bytes:
    """The options of an echo request that its reply has."""
    kept = b"".join(bytes((o.kind, len(o.data) + 2)) + o.data for o in ipv4.read_options(options) if o.kind in _KEPT_IN_REPLIES)
    return kept + bytes(-len(kept) % 4)
