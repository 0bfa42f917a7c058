"""enc0 as a real interface: tcpdump and Wireshark open it like any other, and the host's own stack never gets what it shows. enc(4).

    engine --AF_PACKET--> enc0 (a TUN) --> its reader, who discards

A packet is sent *out* of the interface: there captures see it, and behind it is nothing. (Written into the TUN's descriptor it would
be injected into the host.) The link type is RAW: packets begin with their IP header. Whether anybody looks: captures make an interface
promiscuous, which the kernel tells at once; one that does not (tcpdump -p) is found in its list of packet sockets when that is read.
"""

import os
import socket
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError

from koura.host import tun

MTU_OCTETS = 65535
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
_DISCARD_BURST = 64
_RTMGRP_LINK = 1
PACKET_SOCKETS = Path("/proc/net/packet")
_PROTOCOL, _INTERFACE = 3, 4  # columns


def create(name: str) -> tuple[int, int]:
    """Make it: the TUN, and the socket that sends out of it. Raises OSError, NetlinkError."""
    device = tun.create(name)
    quiet = Path("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
    if quiet.exists():
        quiet.write_text("1")  # the host itself has nothing to say there
    with IPRoute() as netlink:
        netlink.link("set", index=netlink.link_lookup(ifname=name)[0], mtu=MTU_OCTETS, state="up")
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0) as end:
        end.bind((name, 0))
        return device, end.detach()


class Watch:
    """Whether somebody captures there; readable when links change. A capture without promiscuous mode tells nobody: ask now and then."""

    def __init__(self, name: str) -> None:
        self._netlink = IPRoute()
        self._watch = IPRoute()
        self._watch.bind(groups=_RTMGRP_LINK)
        self._index = self._netlink.link_lookup(ifname=name)[0]

    def fileno(self) -> int:
        return int(self._watch.fileno())

    def is_watched(self) -> bool:
        """Read what changed, and look."""
        self._watch.get()
        return self.look()

    def look(self) -> bool:
        """False also for an interface that somebody has deleted."""
        try:
            links = self._netlink.get_links(self._index)
        except NetlinkError:
            return False
        return bool(links and links[0].get_attr("IFLA_PROMISCUITY")) or self.is_listened_to()

    def is_listened_to(self) -> bool:
        """Whether a packet socket gets what passes this interface."""
        try:
            return is_listened_to(self._index, PACKET_SOCKETS.read_text())
        except OSError:
            return False

    def close(self) -> None:
        self._watch.close()
        self._netlink.close()


def is_listened_to(index: int, listed: str) -> bool:
    """The same by the kernel's list. One that receives has a protocol, unlike the engine's own, which only sends."""
    rows = (line.split() for line in listed.splitlines()[1:])
    return any(len(row) > _INTERFACE and row[_INTERFACE] == str(index) and int(row[_PROTOCOL], 16) != 0 for row in rows)


class Interface:
    """In the engine: shows packets."""

    def __init__(self, name: str, device: int, sender: int) -> None:
        self.name = name
        self.lost = 0
        self._device = device
        self._sender = socket.socket(fileno=sender)

    def fileno(self) -> int:
        return self._device

    def show(self, packet: bytes) -> None:
        """Send it out, to nobody; what does not fit is counted."""
        kind = ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6
        try:
            self._sender.sendto(packet, (self.name, kind, 0, 0, b""))
        except OSError:
            self.lost += 1

    def discard(self, _events: int = 0) -> None:
        """What came out is read, and forgotten."""
        try:
            for _ in range(_DISCARD_BURST):
                os.read(self._device, MTU_OCTETS)
        except BlockingIOError:
            return
