"""ESP in UDP on a port that an IKE daemon holds: the kernel's copies of its datagrams. raw(7), RFC 3948.

The daemon under `koura run` asked for UDP_ENCAP on its socket; a kernel would take ESP out of it. Here a raw socket with a filter gets a
copy of every datagram to that port that is ESP - longer than a keepalive, its first word not zero - and the daemon ignores the
original, as it must ignore what has no marker. IPv4 only. Whether anybody asked for encapsulation is looked at when packets come.
"""

import ctypes
import socket
import struct
from collections.abc import Callable

from koura.host.raw import Raw4

IPPROTO_UDP = 17
IKE_PORT = 4500
_SO_ATTACH_FILTER = 26
_LEAST_OCTETS = 8 + 8 + 4  # of the UDP datagram: its header, ESP's, something
# The packet starts with its IP header: BPF of "not a fragment, dport 4500, udp[4:2] >= 20, udp[8:4] != 0".
_CODE = (
    (0x28, 0, 0, 6), (0x45, 8, 0, 0x3FFF), (0xB1, 0, 0, 0), (0x48, 0, 0, 2), (0x15, 0, 5, IKE_PORT),
    (0x48, 0, 0, 4), (0x35, 0, 3, _LEAST_OCTETS), (0x40, 0, 0, 8), (0x15, 1, 0, 0), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0),
)  # fmt: skip


def receiver(end: socket.socket) -> socket.socket:
    """A raw socket for UDP, made to get nothing but ESP to the port."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in _CODE))
    end.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(_CODE), ctypes.addressof(code)))
    return end


class Copies(Raw4):
    """What the filter lets through, while `is_wanted` says that some socket or SA encapsulates on the port."""

    is_wanted: Callable[[], bool] = staticmethod(lambda: False)

    def receive(self) -> list[bytes]:
        found = super().receive()
        return [_unchecked(packet) for packet in found] if self.is_wanted() else []


def _unchecked(packet: bytes) -> bytes:
    """With a UDP checksum of 0, none: on virtual links it may never have been completed, and ESP has its ICV."""
    at = (packet[0] & 0xF) * 4 + 6
    return packet[:at] + bytes(2) + packet[at + 2 :]
