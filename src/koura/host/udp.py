"""ESP in UDP on an ordinary socket: datagrams of a port as whole IP packets, both ways. RFC 3948; ip(7), ipv6(7), udp(7).

A datagram leaves with DF where its packet has it (IP_MTU_DISCOVER, for that one): then the kernel refuses what the link does not take.

In: the IP and UDP headers are made anew from what the kernel says beside the datagram (addresses, ports, TOS, TTL); checksums are
the kernel's and already verified. Out: addresses, ports and TOS of the packet's own headers travel as control messages, so the socket
must have that source address (any socket bound to the unspecified one has) and that port.
"""

import errno
import socket
import struct

from koura.attachment import BURST, Losses
from koura.host.raw import IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE, SO_MARK, SO_RCVBUFFORCE, SO_SNDBUFFORCE, stamp, widen
from koura.wire import ipv4, ipv6, udp

IP_PKTINFO, IP_TOS, IP_TTL, IP_RECVTOS, IP_RECVTTL = 8, 1, 2, 13, 12
PMTUDISC_DONT = 0
_ANCILLARY_OCTETS = 512
LARGEST_OCTETS = 65535
_PKTINFO4 = struct.Struct("i4s4s")
_PKTINFO6 = struct.Struct("16si")
_INT = struct.Struct("i")


UDP_GRO = 104


def whole(src: bytes, sport: int, dst: bytes, dport: int, tos: int, payload: bytes, ttl: int = 64) -> bytes:
    """A datagram as the IP packet it came in, as far as a socket shows; checksum 0: the kernel has verified it."""
    body = udp.write(udp.Header(sport, dport), payload)
    if len(src) == 4:
        return ipv4.write(ipv4.Header(src, dst, udp.PROTOCOL, ttl, tos), body)
    return ipv6.write(ipv6.Header(src, dst, udp.PROTOCOL, ttl, tos), body)


def take_trains(end: socket.socket) -> None:
    """For koura.fast._io: let the kernel hand over datagrams of one flow in trains (UDP_GRO), and say when they came. Raises OSError."""
    end.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    stamp(end)


def open_port(family: socket.AddressFamily, port: int, mark: int = 0, address: str = "") -> socket.socket:
    """A socket on this port (0: any) that can send from every address it has. Raises OSError."""
    end = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    widen(end, SO_RCVBUFFORCE, socket.SO_RCVBUF)
    widen(end, SO_SNDBUFFORCE, socket.SO_SNDBUF)
    if mark:
        end.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
    if family == socket.AF_INET:
        for option in (IP_PKTINFO, IP_RECVTOS, IP_RECVTTL):
            end.setsockopt(socket.IPPROTO_IP, option, 1)
        end.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
    else:
        end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for option in (socket.IPV6_RECVPKTINFO, socket.IPV6_RECVTCLASS, socket.IPV6_RECVHOPLIMIT):
            end.setsockopt(socket.IPPROTO_IPV6, option, 1)
        end.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
    end.bind((address, port))
    return end


class Udp:
    """One port of one family. port: what the packets say in its place, as behind a NAT; 0: the socket's own. refused: as of raw.Out."""

    def __init__(self, name: str, end: socket.socket, port: int = 0) -> None:
        self.name = name
        self.losses = Losses()
        self.refused: list[bytes] = []
        self._end = end
        self.port = port or int(end.getsockname()[1])
        self.is_ipv4 = end.family == socket.AF_INET

    def fileno(self) -> int:
        return self._end.fileno()

    def receive(self) -> list[bytes]:
        found: list[bytes] = []
        try:
            while len(found) < BURST:
                found.append(self._read())
        except BlockingIOError:
            pass
        except OSError as error:  # an ICMP error about what we sent is told here, too
            self.losses.lose(errno.errorcode.get(error.errno or 0, "?"))
        self.losses.received += len(found)
        return found

    def _read(self) -> bytes:
        octets, ancillary, _, source = self._end.recvmsg(LARGEST_OCTETS, _ANCILLARY_OCTETS)
        dst, ttl, tos = (bytes(4) if self.is_ipv4 else bytes(16)), 64, 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                dst = _PKTINFO4.unpack(value[: _PKTINFO4.size])[2]
            elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                dst = value[:16]
            elif (level, kind) == (socket.IPPROTO_IP, IP_TOS):
                tos = value[0]
            elif (level, kind) in ((socket.IPPROTO_IP, IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)):
                (ttl,) = _INT.unpack(value[:4])
            elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_TCLASS):
                (tos,) = _INT.unpack(value[:4])
        src = socket.inet_pton(socket.AF_INET if self.is_ipv4 else socket.AF_INET6, source[0].partition("%")[0])
        return whole(src, source[1], dst, self.port, tos, octets, ttl)

    def send(self, packets: list[bytes]) -> None:
        """Send whole IP packets with UDP from our port in them."""
        for packet in packets:
            try:
                self._send(packet)
                self.losses.sent += 1
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    self.refused.append(packet)
                else:
                    self.losses.lose(errno.errorcode.get(error.errno or 0, "?"))

    def _send(self, packet: bytes) -> None:
        if self.is_ipv4:
            header, body = ipv4.read(packet)
            info = (socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO4.pack(0, header.src, bytes(4)))
            tos = (socket.IPPROTO_IP, IP_TOS, _INT.pack(header.tos))
            to = socket.inet_ntop(socket.AF_INET, header.dst)
        else:
            header6, body = ipv6.read(packet)
            info = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(header6.src, 0))
            tos = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _INT.pack(header6.traffic_class))
            to = socket.inet_ntop(socket.AF_INET6, header6.dst)
        head, payload = udp.read(body)
        is_df = self.is_ipv4 and header.is_df
        if is_df:
            self._end.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        try:
            self._end.sendmsg([payload], [info, tos], 0, (to, head.dport))
        finally:
            if is_df:
                self._end.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)

    def close(self) -> None:
        self._end.close()
