"""Routes by the kernel's own messages: many changes in one system call, and what changed outside. rtnetlink(7); linux/rtnetlink.h.

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

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
NLMSG_ERROR = 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_CREATE = 0x1, 0x4, 0x100, 0x400
RTA_DST, RTA_OIF, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE, RTA_MARK = 1, 4, 6, 7, 8, 15, 16
RTAX_MTU = 2
RTN_UNICAST, RTN_BLACKHOLE = 1, 6
RTPROT_STATIC = 4
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTM_F_FIB_MATCH = 0x2000
PART_OCTETS = 1 << 16
RECEIVE_OCTETS = 1 << 20
BATCH = 64  # requests whose answers surely have room in our socket
MOST_PARTS = 256  # read in one go of what changed
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_FAMILIES = {4: socket.AF_INET, 16: socket.AF_INET6}
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Found:
    """The route to somewhere: the address that the host would speak from (b'': none is named), interface, the route's own MTU (0: none)."""

    source: bytes
    interface: int
    mtu_octets: int


def replace(dst: Prefix, table: int, *, interface: int = 0, source: bytes = b"", blackhole_metric: int = 0) -> bytes:
    """The request for a route into an interface, or, with a metric, for a blackhole; in the place of the one of that kind."""
    return _request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, dst, table, interface, source, blackhole_metric)


def delete(dst: Prefix, table: int, *, interface: int = 0, blackhole_metric: int = 0) -> bytes:
    """The request that takes it away."""
    return _request(RTM_DELROUTE, 0, dst, table, interface, b"", blackhole_metric)


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
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, 0, 0) + body


class Rtnetlink:
    """Asks the kernel, in the network namespace in which this was made. A kernel that is silent is waited for `patience_s`."""

    def __init__(self, patience_s: float = 5.0) -> None:
        self._ask = _socket(0)
        self._ask.settimeout(patience_s)
        self._sequence = 0

    def close(self) -> None:
        self._ask.close()

    def do(self, requests: Sequence[bytes]) -> list[int]:
        """Each request in turn, whatever becomes of the others: its errno, 0 if it was done. Raises OSError if it cannot ask."""
        return [code for first in range(0, len(requests), BATCH) for code in self._batch(requests[first : first + BATCH])]

    def find(self, destination: bytes, mark: int, flags: int = 0) -> Found | None:
        """The route that a packet with this mark takes; None: there is none. Raises OSError if it cannot ask."""
        octets = len(destination)
        self._sequence += 1
        body = _ROUTE.pack(_FAMILIES[octets], 8 * octets, 0, 0, 0, 0, 0, 0, flags)
        body += _attribute(RTA_DST, destination) + _attribute(RTA_MARK, _U32.pack(mark))
        self._ask.send(_HEADER.pack(_HEADER.size + len(body), RTM_GETROUTE, NLM_F_REQUEST, self._sequence, 0) + body)
        while True:
            for kind, number, part in _messages(self._ask.recv(PART_OCTETS)):
                if number != self._sequence:
                    continue
                return _found(part) if kind == RTM_NEWROUTE else None

    def _batch(self, requests: Sequence[bytes]) -> list[int]:
        first = self._sequence + 1
        self._sequence += len(requests)
        together = bytearray()
        for number, request in enumerate(requests, first):
            together += request[:8] + _U32.pack(number) + request[12:]
        self._ask.send(together)
        codes: dict[int, int] = {}
        while len(codes) < len(requests):
            for kind, number, part in _messages(self._ask.recv(PART_OCTETS)):
                if kind == NLMSG_ERROR and number >= first:
                    codes[number] = -int(struct.unpack_from("=i", part)[0])
        return [codes[number] for number in range(first, first + len(requests))]


class Changes:
    """Tells when addresses, links or routes change."""

    def __init__(self) -> None:
        self._socket = _socket(_GROUPS)
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
        for _ in range(MOST_PARTS):
            try:
                octets = self._socket.recv(PART_OCTETS)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                matters = True
                continue
            for kind, _number, part in _messages(octets):
                matters = matters or kind not in (RTM_NEWROUTE, RTM_DELROUTE) or table_of(part) != table
        return matters


def table_of(route: bytes) -> int:
    """The table of a route's message, without its header."""
    if len(route) < _ROUTE.size:
        return 0
    named = dict(_attributes(route[_ROUTE.size :])).get(RTA_TABLE, b"")
    return int(_U32.unpack(named)[0]) if len(named) == _U32.size else route[4]


def why(code: int) -> OSError:
    """An errno as what is raised for it."""
    return OSError(code, os.strerror(code))


def _found(part: bytes) -> Found:
    named = dict(_attributes(part[_ROUTE.size :]))
    metrics = dict(_attributes(named.get(RTA_METRICS, b"")))
    return Found(named.get(RTA_PREFSRC, b""), _number(named.get(RTA_OIF)), _number(metrics.get(RTAX_MTU)))


def _number(value: bytes | None) -> int:
    return int(_U32.unpack(value)[0]) if value is not None and len(value) == _U32.size else 0


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(octets: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(octets):
        length, kind = _ATTRIBUTE.unpack_from(octets, at)
        if not _ATTRIBUTE.size <= length <= len(octets) - at:
            return
        yield kind & 0x3FFF, octets[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) // 4 * 4


def _messages(octets: bytes) -> Iterable[tuple[int, int, bytes]]:
    """The messages of one datagram: type, sequence number, body."""
    at = 0
    while at + _HEADER.size <= len(octets):
        length, kind, _flags, number, _pid = _HEADER.unpack_from(octets, at)
        if not _HEADER.size <= length <= len(octets) - at:
            return
        yield kind, number, octets[at + _HEADER.size : at + length]
        at += (length + 3) // 4 * 4


def _socket(groups: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.bind((0, groups))
    return made
