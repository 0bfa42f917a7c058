"""Packets as they are on the wire, beside the kernel's own way: what raw sockets do not give whole, or a guard would drop. packet(7).

    IPv6   AH, which covers the headers that a raw socket loses (RFC 4302 §3.3.3.1.2); ESP and IPComp behind other headers
           ICMPv6 "packet too big"
    IPv4   ICMP "fragmentation needed"

A router's word about our protected packets may come in clear from addresses that policy wants protected: the engine hears it here,
in front of the guard, and believes of it what RFC 4301 §8.2 allows. The kernel goes on with its own copy of each of these packets,
so nothing in clear that comes this way is handed to the host again.

A filter in the kernel lets pass little else, this module the rest. What raw sockets give (ESP and IPComp right behind the IPv6 header)
is refused here, and there the opposite (`straight`), so that no packet comes twice.
"""

import ctypes
import socket
import struct

from koura.attachment import BURST, Losses
from koura.errors import Malformed
from koura.wire import ipv6

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
SO_ATTACH_FILTER = 26
PACKET_OUTGOING = 4
LARGEST_OCTETS = 65535 + 40
_ESP, _AH, _IPCOMP, _ICMP6 = 50, 51, 108, 58
_FRAGMENT, _HEADERS = 44, (0, 43, 44, 60, 135)
_TOO_BIG6 = 2
_PACKET_TYPE = 0xFFFF_F004  # SKF_AD_OFF + SKF_AD_PKTTYPE
_NETWORK = 0xFFF0_0000  # SKF_NET_OFF
_LDB, _LDH, _LDXB_MSH, _LDB_X, _JEQ, _JSET, _RET = 0x30, 0x28, 0xB1, 0x50, 0x15, 0x45, 0x06
_TAKE, _LEAVE = 0x4_0000, 0
_Instruction = tuple[int, int, int, int]  # code, then, else, operand


def _program(family: socket.AddressFamily) -> tuple[_Instruction, ...]:
    """What of a family's packets may be for us; the precise test is `_is_ours`."""
    not_sent = [(_LDB, 0, 0, _PACKET_TYPE), (_JEQ, 0, 1, PACKET_OUTGOING), (_RET, 0, 0, _LEAVE)]
    if family == socket.AF_INET:
        return (
            *not_sent,
            (_LDB, 0, 0, 9), (_JEQ, 0, 7, 1),  # ICMP
            (_LDH, 0, 0, 6), (_JSET, 5, 0, 0x1FFF),  # no later fragment
            (_LDXB_MSH, 0, 0, 0), (_LDB_X, 0, 0, 0), (_JEQ, 0, 2, 3), (_LDB_X, 0, 0, 1), (_JEQ, 1, 0, 4),
            (_RET, 0, 0, _LEAVE), (_RET, 0, 0, _TAKE),
        )  # fmt: skip
    wanted = (_AH, *_HEADERS)
    return (
        *not_sent,
        (_LDB, 0, 0, 6),
        *((_JEQ, len(wanted) - index + 2 + 1, 0, value) for index, value in enumerate(wanted)),
        (_JEQ, 0, 2, _ICMP6), (_LDB, 0, 0, 40), (_JEQ, 1, 0, _TOO_BIG6),
        (_RET, 0, 0, _LEAVE), (_RET, 0, 0, _TAKE),
    )  # fmt: skip


def attach(end: socket.socket, program: tuple[_Instruction, ...]) -> None:
    """Give a socket a classic BPF filter. Raises OSError."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))


def straight(protocol: int) -> tuple[_Instruction, ...]:
    """For a raw IPv6 socket: only what stands right behind the fixed header; AH never."""
    if protocol == _AH:
        return ((_RET, 0, 0, _LEAVE),)
    return ((_LDB, 0, 0, _NETWORK + 6), (_JEQ, 0, 1, protocol), (_RET, 0, 0, _TAKE), (_RET, 0, 0, _LEAVE))


def receiver(family: socket.AddressFamily) -> socket.socket:
    """A socket for one family's packets on every interface. Raises OSError without CAP_NET_RAW."""
    kind = ETH_P_IP if family == socket.AF_INET else ETH_P_IPV6
    end = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(kind))
    attach(end, _program(family))
    while True:  # what came before the filter was there
        try:
            end.recv(1)
        except BlockingIOError:
            break
    return end


class Packet:
    """One family's. tunnel: the name of our own TUN, whose packets are none of the wire's."""

    def __init__(self, name: str, end: socket.socket, tunnel: str) -> None:
        self.name = name
        self.losses = Losses()
        self._end = end
        self._tunnel = tunnel

    def fileno(self) -> int:
        return self._end.fileno()

    def receive(self) -> list[bytes]:
        found: list[bytes] = []
        try:
            for _ in range(BURST):
                octets, where = self._end.recvfrom(LARGEST_OCTETS)
                if where[0] != self._tunnel and _is_ours(octets):
                    found.append(octets)
        except BlockingIOError:
            pass
        except OSError as error:  # an interface went down
            self.losses.lose(error.strerror or "?")
        self.losses.received += len(found)
        return found

    def send(self, packets: list[bytes]) -> None:
        raise NotImplementedError("packets leave by raw sockets")

    def close(self) -> None:
        self._end.close()


def _is_ours(packet: bytes) -> bool:
    """Whether no raw socket has this packet and the engine wants it. Of fragments the first headers decide, alike for all of them.

    What the kernel put together it hands to a raw socket as if it had come whole; a whole packet with a fragment header (RFC 6946) it
    does not.
    """
    if packet[:1] and packet[0] >> 4 == 4:
        return True
    try:
        header, payload = ipv6.read(packet)
        chain = ipv6.read_chain(header.next_header, payload)
    except Malformed:
        return False
    if chain.protocol == _ICMP6:
        return not chain.extensions and payload[:1] == bytes((_TOO_BIG6,))
    cut = next((index for index, one in enumerate(chain.extensions) if one.kind == _FRAGMENT), None)
    if cut is None or _is_whole(chain.extensions[cut]):
        return chain.protocol == _AH or (chain.protocol in (_ESP, _IPCOMP) and bool(chain.extensions))
    inside = chain.extensions[cut].next_header
    return inside in (_AH, *_HEADERS) or (inside in (_ESP, _IPCOMP) and cut > 0)


def _is_whole(header: ipv6.Extension) -> bool:
    fragment = ipv6.Fragment.read(header.octets)
    return not fragment.offset_octets and not fragment.is_more
