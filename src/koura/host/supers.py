"""How large the super packets are that the host gives a TUN of ours: as large as one train, where nothing is forwarded. rtnetlink(7).

A super packet of 65,536 octets becomes a train (UDP_SEGMENT) that is full, and a small one with the rest. One that fits is cheaper by as
much as a train costs. But what a host forwards comes in super packets of others, and what is larger than the interface takes the kernel
cuts itself, packet by packet: so where anything is forwarded, all stays as the kernel has it. Who forwards the kernel tells (netconf).
"""

import socket
import struct
from collections.abc import Iterable

from koura.host import rtnetlink
from koura.host.rtnetlink import Rtnetlink

RTM_NEWNETCONF, RTM_DELNETCONF, RTM_GETNETCONF = 80, 81, 82
NETCONFA_IFINDEX, NETCONFA_FORWARDING = 1, 2
GROUPS = 1 << 23 | 1 << 24  # RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF
IFLA_GSO_MAX_SIZE = 41
USUAL_OCTETS = 65536
TRAIN_OCTETS, TRAIN_PIECES = 65000, 64  # fast/trains.pxi
_OUTER_OCTETS = 80  # of IP, UDP, ESP, padding and ICV, at the most
_HEADER_OCTETS = 52  # of TCP with timestamps over IPv4
_ROOM_OCTETS = 330  # what TCP keeps of the size for headers: MAX_TCP_HEADER
_S32 = struct.Struct("=i")


def octets_for(mtu_octets: int) -> int:
    """The largest super packet that becomes one train, as TCP counts (tcp_tso_autosize)."""
    pieces = TRAIN_OCTETS // (mtu_octets + _OUTER_OCTETS)
    if not 1 <= pieces < TRAIN_PIECES:
        return USUAL_OCTETS
    return min(pieces * (mtu_octets - _HEADER_OCTETS) + _ROOM_OCTETS, USUAL_OCTETS)


class Supers:
    """Some TUNs in this network namespace."""

    def __init__(self) -> None:
        self._ask = Rtnetlink()
        self._told = rtnetlink.listener(GROUPS)
        self._told.setblocking(False)
        self._forwards: set[tuple[int, int]] = set()  # (family, interface)
        self._mtus: dict[int, int] = {}
        self._look()

    def fileno(self) -> int:
        """Readable when some interface forwards, or does no longer."""
        return self._told.fileno()

    def close(self) -> None:
        self._told.close()
        self._ask.close()

    @property
    def is_forwarding(self) -> bool:
        """Whether anything that comes in may go on: into any interface, then."""
        return bool(self._forwards)

    def add(self, index: int, mtu_octets: int) -> None:
        """Another TUN."""
        self._mtus[index] = mtu_octets
        self._forwards -= {(socket.AF_INET, index), (socket.AF_INET6, index)}
        if not self.is_forwarding:
            self._set([index])

    def drop(self, index: int) -> None:
        """It has gone."""
        self._mtus.pop(index, None)

    def drain(self) -> None:
        """Read what changed, and make it so. What was too much to be told is asked for."""
        before = self.is_forwarding
        for kind, part in rtnetlink.told(self._told):
            if kind == rtnetlink.TOO_MUCH:
                self._look()
            else:
                self._note(kind, part)
        if self.is_forwarding != before:
            self._set(self._mtus)

    def _look(self) -> None:
        self._forwards.clear()
        for part in self._ask.dump(RTM_GETNETCONF, struct.pack("=Bxxx", socket.AF_UNSPEC)):
            self._note(RTM_NEWNETCONF, part)

    def _note(self, kind: int, part: bytes) -> None:
        named = dict(rtnetlink.attributes(part[4:]))
        index, forwarding = (_S32.unpack(named[name])[0] if name in named else None for name in (NETCONFA_IFINDEX, NETCONFA_FORWARDING))
        if index is None or index <= 0 or index in self._mtus:  # "all" and "default" are no interfaces
            return
        if kind == RTM_DELNETCONF:
            self._forwards.discard((part[0], index))
        elif forwarding is not None:
            (self._forwards.add if forwarding else self._forwards.discard)((part[0], index))

    def _set(self, indices: Iterable[int]) -> None:
        """An interface that has gone meanwhile is no matter."""
        sizes = {one: USUAL_OCTETS if self.is_forwarding else octets_for(self._mtus[one]) for one in indices}
        self._ask.do([rtnetlink.tune_link(index, IFLA_GSO_MAX_SIZE, octets) for index, octets in sizes.items()])
