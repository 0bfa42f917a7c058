"""ESP in UDP on a port that an IKE daemon holds: each gets what is its own, and nothing of the other's. raw(7), RFC 3948 §2.2, §2.3.

The daemon under `koura run` asked for UDP_ENCAP on its socket; a kernel would take ESP and keepalives out of it. Here

    copies   a raw socket for UDP, of which a filter leaves what a kernel would take: the stack's
    hide     the same filter the other way round on the daemon's own socket: ESP neither wakes it nor fills its buffer, no IKE is lost

    payload of 1 octet, 0xff           a keepalive       the stack counts it
    of 9 octets or more, not 0 first   ESP               the stack opens it
    anything else                      IKE               the daemon's

The kernel has the daemon's datagram in both, so no octet is handed on by us. Filters see the UDP header first (IPv4's raw sockets: the
IP header). Whether anybody asked for encapsulation on the port is looked at when packets come. An IPv6 header is made anew.
"""

import socket
from collections.abc import Callable, Iterable

from koura.host import packet
from koura.host.raw import Raw4, Raw6

IPPROTO_UDP = 17
IKE_PORT = 4500
SO_DETACH_FILTER = 27
_LEAST_OCTETS = 8 + 9  # of a UDP datagram with ESP in it
_KEEPALIVE_OCTETS = 8 + 1
_TAKE, _LEAVE = 0xFFFFFFFF, 0
_LDX_IHL, _LDX_IMM, _LDH_ABS, _LDH_IND, _LDW_IND, _LDB_IND, _RET = 0xB1, 0x01, 0x28, 0x48, 0x40, 0x50, 0x06
_JEQ, _JGE, _JSET = 0x15, 0x35, 0x45
_Instruction = tuple[int, int, int, int]

# X is where the UDP header begins; the fourth of these is reached for what is no ESP by its length.
_IS_ESP = ((_LDH_IND, 0, 0, 4), (_JGE, 0, 2, _LEAST_OCTETS), (_LDW_IND, 0, 0, 8), (_JEQ, 4, 3, 0))
_IS_KEEPALIVE = ((_JEQ, 0, 3, _KEEPALIVE_OCTETS), (_LDB_IND, 0, 0, 8), (_JEQ, 0, 1, 0xFF))


def _program(start: tuple[_Instruction, ...], taken: int, other: int) -> tuple[_Instruction, ...]:
    return (*start, *_IS_ESP, *_IS_KEEPALIVE, (_RET, 0, 0, taken), (_RET, 0, 0, other))


def copying(family: socket.AddressFamily, ports: Iterable[int]) -> tuple[_Instruction, ...]:
    """For a raw UDP socket: ESP and keepalives to these ports, in no fragment. What is to no port of them is left at once."""
    wanted = sorted(ports)
    start: tuple[_Instruction, ...] = ((_LDX_IMM, 0, 0, 0),)
    if family == socket.AF_INET:
        start = ((_LDH_ABS, 0, 0, 6), (_JSET, 0, 1, 0x3FFF), (_RET, 0, 0, _LEAVE), (_LDX_IHL, 0, 0, 0))
    chosen = [(_JEQ, len(wanted) - number, 0, port) for number, port in enumerate(wanted)]
    return _program((*start, (_LDH_IND, 0, 0, 2), *chosen, (_RET, 0, 0, _LEAVE)), _TAKE, _LEAVE)


HIDING = _program(((_LDX_IMM, 0, 0, 0),), _LEAVE, _TAKE)


def aim(end: socket.socket, ports: Iterable[int]) -> None:
    """Let a raw UDP socket have copies from these ports. Raises OSError."""
    packet.attach(end, copying(end.family, ports))


def hide(end: socket.socket, *, is_on: bool) -> None:
    """Keep ESP and keepalives out of a daemon's UDP socket, or no longer. Raises OSError."""
    if is_on:
        packet.attach(end, HIDING)
    else:
        end.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


class Copies4(Raw4):
    """What the filter lets through, of ports that `is_wanted` says some socket or SA encapsulates on."""

    is_wanted: Callable[[int], bool] = staticmethod(lambda _port: False)

    def receive(self) -> list[bytes]:
        heads = [((packet[0] & 0xF) * 4, packet) for packet in super().receive()]
        return [_unchecked(packet, at) for at, packet in heads if self.is_wanted(_port(packet, at))]


class Copies6(Raw6):
    """The same over IPv6."""

    is_wanted: Callable[[int], bool] = staticmethod(lambda _port: False)

    def receive(self) -> list[bytes]:
        return [_unchecked(packet, 40) for packet in super().receive() if self.is_wanted(_port(packet, 40))]


def _port(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at + 2 : at + 4], "big")


def _unchecked(packet: bytes, at: int) -> bytes:
    """With a UDP checksum of 0, none: on virtual links it may never have been completed, and ESP has its ICV."""
    return packet[: at + 6] + bytes(2) + packet[at + 8 :]
