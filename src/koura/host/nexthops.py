"""The next hop of what leaves past the kernel's IP (AF_XDP): interface, link header, size. rtnetlink(7).

    destination -> route, with our mark -> gateway, or the destination itself -> neighbour -> its station
                   interface -> one with a socket that sends?  its own station, its MTU

Asked of the kernel, which keeps routes and neighbours; known for `LIFE_NS` at the most, and only until something about it changes. For
all else, and for what would be too much to ask, the answer is that the kernel itself is to send, for a while. Not here: who remembers
(fast/hops.pxi).
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from koura.address import is_link_local
from koura.host import rtnetlink
from koura.host.rtnetlink import RTM_DELNEIGH, RTM_DELROUTE, RTM_NEWNEIGH, RTM_NEWROUTE, Interface, Neighbour, Rtnetlink

GROUPS = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000  # RTMGRP_LINK, NEIGH; IPV4_ and IPV6_IFADDR, ROUTE, RULE
LIFE_NS = 4_000_000_000
UNKNOWN_NS = 250_000_000  # nobody is there, or nobody said yet
PER_SECOND = 256
_KINDS = {4: b"\x08\x00", 16: b"\x86\xdd"}
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Hop:
    """Where packets to a destination go, for so long. most: octets of a packet; 0: by the kernel's own way."""

    life_ns: int
    way: int = 0
    front: bytes = b""
    most: int = 0


class NextHops:
    """`ways`: of each socket that sends the number, by its interface. `own_table`: whose routes are of no interest."""

    def __init__(self, ask: socket.socket, changes: socket.socket, ways: Mapping[int, int], mark: int, own_table: int) -> None:
        self._ask = Rtnetlink(end=ask)
        self._changes = changes
        changes.setblocking(False)
        self._ways = ways
        self._mark, self._own_table = mark, own_table
        self._neighbours: dict[tuple[int, bytes], bytes] = {}  # those that somebody's way leads by
        self._links: dict[int, Interface | None] = {}
        self._until_ns = self._asked = 0

    def fileno(self) -> int:
        """Readable when something changed."""
        return self._changes.fileno()

    def find(self, destination: bytes, now_ns: int) -> Hop:
        """The next hop to an address. now_ns: of a clock that does not go back."""
        if len(destination) == 16 and is_link_local(destination):
            return Hop(LIFE_NS)
        if now_ns >= self._until_ns:
            self._until_ns, self._asked = now_ns + _SECOND_NS, 0
        self._asked += 1
        if self._asked > PER_SECOND:
            return Hop(_SECOND_NS)
        try:
            return self._find(destination)
        except OSError:
            return Hop(_SECOND_NS)

    def _find(self, destination: bytes) -> Hop:
        route = self._ask.find(destination, self._mark)
        if route is None or not route.is_plain or route.interface not in self._ways:
            return Hop(LIFE_NS)
        link = self._link(route.interface)
        if link is None or not link.is_ethernet:
            return Hop(LIFE_NS)
        address = route.gateway or destination
        found = self._ask.neighbour(route.interface, address)
        station = found.station if found is not None else b""
        self._neighbours[route.interface, address] = station
        if len(station) != 6 or len(link.station) != 6:
            return Hop(UNKNOWN_NS)
        octets = min(route.mtu_octets or link.mtu_octets, link.mtu_octets)
        return Hop(LIFE_NS, self._ways[route.interface], station + link.station + _KINDS[len(destination)], octets)

    def _link(self, index: int) -> Interface | None:
        if index not in self._links:
            self._links[index] = self._ask.link(index)
        return self._links[index]

    def drain(self) -> bool:
        """Read what changed; whether what was found is to be forgotten. What was too much to be told counts as such."""
        is_over = False
        for kind, part in rtnetlink.told(self._changes):
            is_over = is_over or self._matters(kind, part)
        if is_over:
            self._neighbours.clear()
            self._links.clear()
        return is_over

    def _matters(self, kind: int, part: bytes) -> bool:
        if kind in (RTM_NEWROUTE, RTM_DELROUTE):
            return rtnetlink.table_of(part) != self._own_table
        if kind in (RTM_NEWNEIGH, RTM_DELNEIGH):
            return self._is_new(rtnetlink.neighbour_of(kind, part))
        return True

    def _is_new(self, told: Neighbour | None) -> bool:
        """Whether somebody's way leads by this neighbour, and it is said to be elsewhere now."""
        if told is None:
            return False
        return self._neighbours.get((told.interface, told.address), told.station) != told.station
