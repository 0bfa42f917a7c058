"""The kernel's list of sockets: who is bound where, and who was closed. sock_diag(7); linux/inet_diag.h.

A socket is known by its cookie (SO_COOKIE), which no other socket gets while the machine runs.

     inet_diag_req_v2                        inet_diag_msg
     0    1     2    3    4       8          0    1      2      4     52
     | family | protocol | 0 | states | id   | family | state | 0 | id   | expires | rqueue | wqueue | uid | inode |

     id:  0       2       4          20         36          40        48
          | sport | dport | src (16) | dst (16) | interface | cookie |

Sockets that are bound to nothing are in no list, but their end is told. Raw sockets are neither listed nor told of on most kernels.
Not here: what a socket's place means to policies (intercept, daemon).
"""

import errno
import fcntl
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST_DUMP = 0x301
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP = 270, 1, 2
SO_COOKIE = 57
SIOCGSKNS = 0x894C
ALL_STATES = 0xFFFF_FFFF
RECEIVE_OCTETS = 1 << 20
PART_OCTETS = 65536

# SKNLGRP_*: whose end is told, by family and protocol.
DESTROY_GROUPS: dict[tuple[int, int], int] = {
    (socket.AF_INET, socket.IPPROTO_TCP): 1, (socket.AF_INET, socket.IPPROTO_UDP): 2,
    (socket.AF_INET6, socket.IPPROTO_TCP): 3, (socket.AF_INET6, socket.IPPROTO_UDP): 4,
}  # fmt: skip

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")
_ID = struct.Struct("=2s2s16s16sIQ")
_MESSAGE_OCTETS = 4 + _ID.size + 20
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a socket is: addresses packed, b"" for every address (local) or none (remote)."""

    local: bytes
    port: int
    remote: bytes = b""
    remote_port: int = 0


@dataclass(frozen=True, slots=True)
class Listed:
    """One socket of the list, or one that was. inode: as processes have it open; 0: no process has it (a connection not accepted yet)."""

    cookie: int
    place: Place
    inode: int = 0


def cookie_of(descriptor: socket.socket) -> int:
    """The socket's number, for as long as the machine runs. Raises OSError."""
    return int.from_bytes(descriptor.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")


def namespace_of(descriptor: socket.socket) -> int:
    """A descriptor of the network namespace that a socket is of, to be closed. Raises OSError: without CAP_NET_ADMIN there, always."""
    return fcntl.ioctl(descriptor, SIOCGSKNS)


def packed(address: bytes) -> bytes:
    """An address as we write it: IPv4-mapped IPv6 as IPv4, "every address" as b""."""
    if address.startswith(_MAPPED) and len(address) == 16:
        address = address[12:]
    return address if any(address) else b""


class Diag:
    """Asks the kernel, in the network namespace in which this was made. Both sockets never block for longer than `patience_s`."""

    def __init__(self, patience_s: float = 2.0) -> None:
        self._ask = _netlink()
        self._ask.settimeout(patience_s)
        self.events = _netlink()
        self.events.setblocking(False)
        self.events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_OCTETS)
        self._sequence = 0

    def close(self) -> None:
        self._ask.close()
        self.events.close()

    def watch(self, family: int, protocol: int, *, is_on: bool = True) -> bool:
        """Be told of the end of such sockets; False: the kernel does not tell of them."""
        group = DESTROY_GROUPS.get((family, protocol))
        if group is None:
            return False
        self.events.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP if is_on else NETLINK_DROP_MEMBERSHIP, group)
        return True

    def closed(self) -> tuple[list[Listed], bool]:
        """The sockets that ended since the last call, and whether some were lost because there were too many."""
        ended: list[Listed] = []
        is_lossy = False
        while True:
            try:
                octets = self.events.recv(PART_OCTETS)
            except BlockingIOError:
                return ended, is_lossy
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                is_lossy = True
                continue
            for kind, body in _messages(octets):
                if kind == SOCK_DIAG_BY_FAMILY and len(body) >= _MESSAGE_OCTETS:
                    ended.append(_listed(body))

    def sockets(self, family: int, protocol: int, port: int = 0) -> list[Listed]:
        """All sockets of this kind, or those with this local port. Raises OSError, also where the kernel has no such list."""
        self._sequence += 1
        wanted = _ID.pack(port.to_bytes(2, "big"), b"", b"", b"", 0, 0xFFFF_FFFF_FFFF_FFFF)
        body = _REQUEST.pack(family, protocol, 0, 0, ALL_STATES) + wanted
        self._ask.send(_HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, self._sequence, 0) + body)
        found: list[Listed] = []
        while True:
            for kind, part in _messages(self._ask.recv(PART_OCTETS), self._sequence):
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    code = -int(struct.unpack_from("=i", part)[0])
                    raise OSError(code, "sock_diag")
                if kind == SOCK_DIAG_BY_FAMILY and len(part) >= _MESSAGE_OCTETS:
                    found.append(_listed(part))


def _netlink() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    made.bind((0, 0))
    return made


def _listed(body: bytes) -> Listed:
    octets = 4 if body[0] == socket.AF_INET else 16
    sport, dport, src, dst, _, cookie = _ID.unpack_from(body, 4)
    remote_port = int.from_bytes(dport, "big")
    remote = packed(dst[:octets]) if remote_port else b""
    place = Place(packed(src[:octets]), int.from_bytes(sport, "big"), remote, remote_port)
    return Listed(cookie, place, int(struct.unpack_from("=I", body, _MESSAGE_OCTETS - 4)[0]))


def _messages(octets: bytes, sequence: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The netlink messages of one datagram: (type, body), only those that answer `sequence` if it is given."""
    at = 0
    while at + _HEADER.size <= len(octets):
        length, kind, _flags, number, _pid = _HEADER.unpack_from(octets, at)
        if not _HEADER.size <= length <= len(octets) - at:
            return
        if sequence is None or number == sequence:
            yield kind, octets[at + _HEADER.size : at + length]
        at += (length + 3) // 4 * 4
