"""Who is behind which link address, as ARP and neighbour discovery say while they pass; and what a bump says for addresses of its own.

    learned    sender of any ARP (RFC 826); source of a solicitation, target of an advertisement (RFC 4861 §4.3, §4.4)
    said       the answer for an own address, the question for a neighbour

Stations are learned by side: who spoke there. The oldest goes when there are MOST. Pure; what is said is whole frames' payload.
"""

import struct

from koura.host.frames import ARP, IPV6, Link
from koura.wire import icmp, ipv6

MOST = 65536
BROADCAST = b"\xff" * 6
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET, _IPV4 = 1, 0x0800
_REQUEST, _REPLY = 1, 2
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_OPTION, _TARGET_OPTION = 1, 2
_SOLICITED, _OVERRIDE = 0x4000_0000, 0x2000_0000
_HEAD_OCTETS, _TARGET_OCTETS = 48, 64
_ICMPV6, _HOPS = 58, 255


class Neighbours:
    """Link addresses by address, of one side."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def get(self, address: bytes) -> bytes | None:
        """A station's link address; None: it was not heard."""
        return self._known.get(address)

    def learn(self, kind: int, payload: bytes) -> bytes:
        """Look at a frame's payload; the address that was learned, b'' for none."""
        found = _said_by_arp(payload) if kind == ARP else _said_by_discovery(payload) if kind == IPV6 else None
        if found is None or not any(found[0]) or found[1][0] & 1:  # nobody, or a group
            return b""
        if self._known.pop(found[0], None) is None and len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[found[0]] = found[1]
        return found[0]


def _said_by_arp(payload: bytes) -> tuple[bytes, bytes] | None:
    if len(payload) < _ARP.size:
        return None
    hardware, protocol, _, _, _, station, address, _, _ = _ARP.unpack_from(payload)
    return (address, station) if (hardware, protocol) == (_ETHERNET, _IPV4) else None


def _said_by_discovery(payload: bytes) -> tuple[bytes, bytes] | None:
    if not _is_discovery(payload):
        return None
    is_advertisement = payload[40] == _ADVERTISEMENT
    wanted = _TARGET_OPTION if is_advertisement else _SOURCE_OPTION
    at = _TARGET_OCTETS
    while at + 8 <= len(payload) and payload[at + 1]:
        if payload[at] == wanted and payload[at + 1] == 1:
            return (payload[48:64] if is_advertisement else payload[8:24]), payload[at + 2 : at + 8]
        at += 8 * payload[at + 1]
    return None


def _is_discovery(payload: bytes) -> bool:
    return (
        len(payload) >= _TARGET_OCTETS and payload[0] >> 4 == 6 and payload[6] == _ICMPV6 and payload[7] == _HOPS
        and payload[40] in (_SOLICITATION, _ADVERTISEMENT)
    )  # fmt: skip


def asked(kind: int, payload: bytes) -> bytes:
    """Whose link address a frame asks for; b'': it asks for none."""
    if kind == ARP and len(payload) >= _ARP.size:
        _, _, _, _, operation, _, _, _, target = _ARP.unpack_from(payload)
        return bytes(target) if operation == _REQUEST else b""
    return payload[48:64] if kind == IPV6 and _is_discovery(payload) and payload[40] == _SOLICITATION else b""


def answer(kind: int, payload: bytes, link: Link, own: bytes) -> tuple[Link, bytes]:
    """What says "I have it" to a question for an address of ours. own: our link address."""
    if kind == ARP:
        _, _, _, _, _, station, address, _, target = _ARP.unpack_from(payload)
        return Link(station, own, link.tags), _ARP.pack(_ETHERNET, _IPV4, 6, 4, _REPLY, own, target, station, address)
    src, target = payload[8:24], payload[48:64]
    flags = _OVERRIDE | (_SOLICITED if any(src) else 0)
    to = src if any(src) else ipv6_all_nodes()
    body = target + bytes((_TARGET_OPTION, 1)) + own
    packet = _discovery(target, to, icmp.Message(_ADVERTISEMENT, 0, flags, body))
    return Link(link.src if any(src) else _group(to), own, link.tags), packet


def question(address: bytes, own_address: bytes, own: bytes, tags: bytes = b"") -> tuple[Link, int, bytes]:
    """(link, kind, payload) of "who has it?". own_address: of the same family."""
    if len(address) == 4:
        return Link(BROADCAST, own, tags), ARP, _ARP.pack(_ETHERNET, _IPV4, 6, 4, _REQUEST, own, own_address, bytes(6), address)
    to = b"\xff\x02" + bytes(9) + b"\x01\xff" + address[13:]
    message = icmp.Message(_SOLICITATION, 0, 0, address + bytes((_SOURCE_OPTION, 1)) + own)
    return Link(_group(to), own, tags), IPV6, _discovery(own_address, to, message)


def ipv6_all_nodes() -> bytes:
    """ff02::1."""
    return b"\xff\x02" + bytes(13) + b"\x01"


def _group(address: bytes) -> bytes:
    """RFC 2464 §7."""
    return b"\x33\x33" + address[12:]


def _discovery(src: bytes, dst: bytes, message: icmp.Message) -> bytes:
    return ipv6.write(ipv6.Header(src, dst, _ICMPV6, _HOPS), icmp.write(src, dst, message))
