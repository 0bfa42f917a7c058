"""Routes by the kernel's own messages: many changes in one system call, and what changed outside. rtnetlink(7); linux/rtnetlink.h.

Neighbours and links are asked for, too, by who sends past the kernel's IP (nexthops.py).

     nlmsghdr                                   rtmsg
     0        4      6       8          12      0        1         2         3     4       5          6       7      8
     | length | type | flags | sequence | pid   | family | dst bits | src bits | tos | table | protocol | scope | type | flags |

Attributes follow: length u16, type u16, value, to four octets. A daemon with thousands of policies sets thousands of routes; a library
that makes an object of each message takes milliseconds for one. Not here: which routes there shall be (routes.py), links, rules, addresses.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from koura.address import Prefix

RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_DUMP, NLM_F_CREATE = 0x1, 0x4, 0x100, 0x300, 0x400
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE, RTA_MARK, RTA_VIA = 1, 4, 5, 6, 7, 8, 15, 16, 18
NDA_DST, NDA_LLADDR = 1, 2
NUD_VALID = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT
IFLA_ADDRESS, IFLA_MTU = 1, 4
ARPHRD_ETHER, IFF_UP = 1, 0x1
RTAX_MTU = 2
RTN_UNICAST, RTN_BLACKHOLE = 1, 6
RTPROT_STATIC = 4
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTM_F_FIB_MATCH = 0x2000
PART_OCTETS = 1 << 16
RECEIVE_OCTETS = 1 << 20
BATCH = 64  # requests whose answers surely have room in our socket
TOO_MUCH = -1  # in place of a message's type
MOST_PARTS = 256  # read in one go of what changed
GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_FAMILIES = {4: socket.AF_INET, 16: socket.AF_INET6}
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_LINK = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Found:
    """The route to somewhere: the address that the host would speak from (b'': none is named), interface, the route's own MTU (0: none).

    gateway: of the same family; b'': there is none. is_plain: unicast, and not by a gateway of the other family.
    """

    source: bytes
    interface: int
    mtu_octets: int
    gateway: bytes = b""
    is_plain: bool = True


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Who is where on an interface. station: the link address; b'': nobody knows now."""

    interface: int
    address: bytes
    station: bytes


@dataclass(frozen=True, slots=True)
class Interface:
    """A link's own address and MTU. is_ethernet: and it is up."""

    station: bytes
    mtu_octets: int
    is_ethernet: bool


def replace(dst: Prefix, table: int, *, interface: int = 0, source: bytes = b"", blackhole_metric: int = 0) -> bytes:
    """The request for a route into an interface, or, with a metric, for a blackhole; in the place of the one of that kind."""
    return _request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, dst, table, interface, source, blackhole_metric)


def delete(dst: Prefix, table: int, *, interface: int = 0, blackhole_metric: int = 0) -> bytes:
    """The request that takes it away."""
    return _request(RTM_DELROUTE, 0, dst, table, interface, b"", blackhole_metric)


def tune_link(interface: int, kind: int, value: int) -> bytes:
    """The request that sets a number (IFLA_...) of an interface."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, interface, 0, 0) + _attribute(kind, _U32.pack(value))
    return _message(RTM_NEWLINK, NLM_F_ACK, body)


def _request(kind: int, flags: int, dst: Prefix, table: int, interface: int, source: bytes, metric: int) -> bytes:
    """Of link scope: with any wider one a packet for a neighbour only (SO_DONTROUTE, a strict route) would pass it by."""
    octets = len(dst.address)
    what = RTN_UNICAST if interface else RTN_BLACKHOLE
    protocol = RTPROT_STATIC if kind == RTM_NEWROUTE else 0
    scope = RT_SCOPE_LINK if octets == 4 else RT_SCOPE_UNIVERSE
    body = _ROUTE.pack(_FAMILIES[octets], dst.bits, 0, 0, 0, protocol, scope, what, 0)
    body += _attribute(RTA_TABLE, _U32.pack(table))
    body += _attribute(RTA_DST, dst.address) if dst.bits else b""
    body += _attribute(RTA_OIF, _U32.pack(interface)) if interface else b""
    body += _attribute(RTA_PREFSRC, source) if source else b""
    body += _attribute(RTA_PRIORITY, _U32.pack(metric)) if metric else b""
    return _message(kind, NLM_F_ACK | flags, body)


def _message(kind: int, flags: int, body: bytes, number: int = 0) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, number, 0) + body


class Rtnetlink:
    """Asks the kernel, in the network namespace in which this was made. A kernel that is silent is waited for `patience_s`.

    end: a socket that another process made, for want of the right to make one.
    """

    def __init__(self, patience_s: float = 5.0, end: socket.socket | None = None) -> None:
        self._ask = end or listener(0)
        self._ask.settimeout(patience_s)
        self._sequence = 0 if end is None else int.from_bytes(os.urandom(3))  # what an earlier process asked is not for us

    def close(self) -> None:
        self._ask.close()

    def do(self, requests: Sequence[bytes]) -> list[int]:
        """Each request in turn, whatever becomes of the others: its errno, 0 if it was done. Raises OSError if it cannot ask."""
        return [code for first in range(0, len(requests), BATCH) for code in self._batch(requests[first : first + BATCH])]

    def find(self, destination: bytes, mark: int, flags: int = 0) -> Found | None:
        """The route that a packet with this mark takes; None: there is none. Raises OSError if it cannot ask."""
        octets = len(destination)
        body = _ROUTE.pack(_FAMILIES[octets], 8 * octets, 0, 0, 0, 0, 0, 0, flags)
        body += _attribute(RTA_DST, destination) + _attribute(RTA_MARK, _U32.pack(mark))
        part = self._one(RTM_GETROUTE, RTM_NEWROUTE, body)
        return _found(part) if part is not None else None

    def neighbour(self, interface: int, address: bytes) -> Neighbour | None:
        """Who has the address there; None: nobody asked yet. Raises OSError if it cannot ask."""
        body = _NEIGHBOUR.pack(_FAMILIES[len(address)], interface, 0, 0, 0) + _attribute(NDA_DST, address)
        part = self._one(RTM_GETNEIGH, RTM_NEWNEIGH, body)
        return neighbour_of(RTM_NEWNEIGH, part) if part is not None else None

    def link(self, interface: int) -> Interface | None:
        """An interface; None: there is none. Raises OSError if it cannot ask."""
        part = self._one(RTM_GETLINK, RTM_NEWLINK, _LINK.pack(socket.AF_UNSPEC, 0, interface, 0, 0))
        if part is None or len(part) < _LINK.size:
            return None
        _, kind, _, flags, _ = _LINK.unpack_from(part)
        named = dict(attributes(part[_LINK.size :]))
        return Interface(named.get(IFLA_ADDRESS, b""), _number(named.get(IFLA_MTU)), kind == ARPHRD_ETHER and bool(flags & IFF_UP))

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All that there is of something; nothing, if the kernel does not know such things. Raises OSError if it cannot ask."""
        self._sequence += 1
        self._ask.send(_message(kind, NLM_F_DUMP, body, self._sequence))
        found: list[bytes] = []
        while True:
            for answered, number, part in messages(self._ask.recv(PART_OCTETS)):
                if number != self._sequence:
                    continue
                if answered in (NLMSG_ERROR, NLMSG_DONE):
                    return found
                found.append(part)

    def _one(self, kind: int, expected: int, body: bytes) -> bytes | None:
        """What one question is answered with; None: with an error."""
        self._sequence += 1
        self._ask.send(_message(kind, 0, body, self._sequence))
        while True:
            for answered, number, part in messages(self._ask.recv(PART_OCTETS)):
                if number == self._sequence:
                    return part if answered == expected else None

    def _batch(self, requests: Sequence[bytes]) -> list[int]:
        first = self._sequence + 1
        self._sequence += len(requests)
        together = bytearray()
        for number, request in enumerate(requests, first):
            together += request[:8] + _U32.pack(number) + request[12:]
        self._ask.send(together)
        codes: dict[int, int] = {}
        while len(codes) < len(requests):
            for kind, number, part in messages(self._ask.recv(PART_OCTETS)):
                if kind == NLMSG_ERROR and number >= first:
                    codes[number] = -int(struct.unpack_from("=i", part)[0])
        return [codes[number] for number in range(first, first + len(requests))]


class Changes:
    """Tells when addresses, links or routes change."""

    def __init__(self) -> None:
        self._socket = listener(GROUPS)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_OCTETS)

    def fileno(self) -> int:
        """Readable when something changed."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def drain(self, table: int) -> bool:
        """Read what changed; whether any of it is more than routes of this table. What was too much to be told counts as such."""
        matters = False
        for kind, part in told(self._socket):
            matters = matters or kind not in (RTM_NEWROUTE, RTM_DELROUTE) or table_of(part) != table
        return matters


def told(end: socket.socket) -> Iterator[tuple[int, bytes]]:
    """What a listener that does not wait has heard by now, the first MOST_PARTS datagrams of it: types and bodies.

    TOO_MUCH, without a body: the kernel had more to tell than there was room for.
    """
    for _ in range(MOST_PARTS):
        try:
            octets = end.recv(PART_OCTETS)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield TOO_MUCH, b""
            continue
        for kind, _number, part in messages(octets):
            yield kind, part


def table_of(route: bytes) -> int:
    """The table of a route's message, without its header."""
    if len(route) < _ROUTE.size:
        return 0
    named = dict(attributes(route[_ROUTE.size :])).get(RTA_TABLE, b"")
    return int(_U32.unpack(named)[0]) if len(named) == _U32.size else route[4]


def why(code: int) -> OSError:
    """An errno as what is raised for it."""
    return OSError(code, os.strerror(code))


def _found(part: bytes) -> Found:
    named = dict(attributes(part[_ROUTE.size :]))
    metrics = dict(attributes(named.get(RTA_METRICS, b"")))
    is_plain = part[7] == RTN_UNICAST and RTA_VIA not in named
    return Found(
        named.get(RTA_PREFSRC, b""), _number(named.get(RTA_OIF)), _number(metrics.get(RTAX_MTU)), named.get(RTA_GATEWAY, b""), is_plain
    )  # fmt: skip


def neighbour_of(kind: int, part: bytes) -> Neighbour | None:
    """What a message about a neighbour says; None: it does not say whom it is about."""
    if len(part) < _NEIGHBOUR.size:
        return None
    _, interface, state, _, _ = _NEIGHBOUR.unpack_from(part)
    named = dict(attributes(part[_NEIGHBOUR.size :]))
    if NDA_DST not in named:
        return None
    is_known = kind == RTM_NEWNEIGH and state & NUD_VALID
    return Neighbour(interface, named[NDA_DST], named.get(NDA_LLADDR, b"") if is_known else b"")


def _number(value: bytes | None) -> int:
    return int(_U32.unpack(value)[0]) if value is not None and len(value) == _U32.size else 0


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(octets: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(octets):
        length, kind = _ATTRIBUTE.unpack_from(octets, at)
        if not _ATTRIBUTE.size <= length <= len(octets) - at:
            return
        yield kind & 0x3FFF, octets[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) // 4 * 4


def messages(octets: bytes) -> Iterable[tuple[int, int, bytes]]:
    """The messages of one datagram: type, sequence number, body."""
    at = 0
    while at + _HEADER.size <= len(octets):
        length, kind, _flags, number, _pid = _HEADER.unpack_from(octets, at)
        if not _HEADER.size <= length <= len(octets) - at:
            return
        yield kind, number, octets[at + _HEADER.size : at + length]
        at += (length + 3) // 4 * 4


def listener(groups: int) -> socket.socket:
    """A socket that is told of these groups' changes; of none, it can ask."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.bind((0, groups))
    return made
