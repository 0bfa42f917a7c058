"""A veth pair in place of a TUN: packets of the near end are read and written by AF_PACKET at the far one. veth(4), packet(7).

    the host's stack  <->  near (addresses, routes, no ARP)  <->  far (no stack of its own)  <->  AF_PACKET

Where there is no /dev/net/tun. The far end shows each packet as it would be on a wire, so the near one computes checksums itself.
"""

import array
import errno
import fcntl
import socket
import struct
from pathlib import Path

from pyroute2 import IPRoute

from koura.attachment import BURST, Losses

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
PACKET_OUTGOING = 4
IFF_NOARP = 0x80
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
LARGEST_OCTETS = 65535 + 20


def pair(near: str) -> str:
    """Make a pair, the near end of this name; the far end's name. Raises NetlinkError, OSError."""
    far = f"{near[:12]}-up"
    with IPRoute() as netlink:
        netlink.link("add", ifname=near, kind="veth", peer={"ifname": far})
        quiet = Path("/proc/sys/net/ipv6/conf", far, "disable_ipv6")
        if quiet.exists():
            quiet.write_text("1")
        _compute_checksums(near)
        for name, flags in ((near, IFF_NOARP), (far, IFF_NOARP)):
            netlink.link("set", index=netlink.link_lookup(ifname=name)[0], flags=flags, change=flags)
        netlink.link("set", index=netlink.link_lookup(ifname=far)[0], state="up", mtu=65535)
    return far


def _compute_checksums(name: str) -> None:
    """ethtool -K NAME tx off. Raises OSError."""
    value = array.array("I", [ETHTOOL_STXCSUM, 0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        fcntl.ioctl(end, SIOCETHTOOL, struct.pack("16sP16x", name.encode(), value.buffer_info()[0]))


def open_far(far: str) -> socket.socket:
    """The socket at the far end. Raises OSError."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
    end.bind((far, ETH_P_ALL))
    return end


class Veth:
    """The far end as an attachment: what the host sends, and gets. near: the hardware address of the near end."""

    def __init__(self, name: str, end: socket.socket, near: bytes, far: str) -> None:
        self.name = name
        self.losses = Losses()
        self._end = end
        self._near, self._far = near, far

    def fileno(self) -> int:
        return self._end.fileno()

    def receive(self) -> list[bytes]:
        found: list[bytes] = []
        try:
            while len(found) < BURST:
                octets, place = self._end.recvfrom(LARGEST_OCTETS)
                if place[1] in (ETH_P_IP, ETH_P_IPV6) and place[2] != PACKET_OUTGOING:
                    found.append(octets)
        except BlockingIOError:
            pass
        except OSError as error:
            self.losses.lose(errno.errorcode.get(error.errno or 0, "?"))
        self.losses.received += len(found)
        return found

    def send(self, packets: list[bytes]) -> None:
        for packet in packets:
            kind = ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6
            try:
                self._end.sendto(packet, (self._far, kind, 0, 0, self._near))
                self.losses.sent += 1
            except OSError as error:
                self.losses.lose(errno.errorcode.get(error.errno or 0, "?"))

    def close(self) -> None:
        self._end.close()
