"""Raw IP sockets: ESP, AH and IPComp as the kernel hands them to us, and whole packets out. raw(7), ipv6(7), RFC 3542.

IPv4 gives whole packets, put together; where this host recorded its address or the time in options, the kernel, which has checked the
checksum, leaves it wrong (`summed`). IPv6 gives what is behind the fixed header and its extension headers: the header is made anew
from what the kernel says beside it. AH covers what is lost that way, and other headers would be lost: such packets come by host.packet,
and the sockets here, which keep the kernel from answering "unknown protocol", let them pass by.

Out: IPv4 and IPv6 with their headers (IP_HDRINCL, IPV6_HDRINCL). The mark keeps what we send out of our own routes. The kernel gives an
IPv4 packet with ID 0 that may be cut another ID, which AH's ICV covers, and each fragment one of its own: the host's own packets get one
before they are sealed (`numbered`), outer headers have one (xform.tunnel). It fragments nothing and takes what the first link takes,
whatever it has heard of the path (PROBE): that is the stack's to know, for each SA.
"""

import ctypes
import errno
import socket
import struct
from collections.abc import Callable

from koura.attachment import BURST, Losses
from koura.host import packet
from koura.wire import ipv4, ipv6
from koura.wire.checksum import internet
from koura.xform.tunnel import INSTEAD_OF_0

IPPROTO_ESP, IPPROTO_AH, IPPROTO_IPCOMP = 50, 51, 108
SO_MARK, SO_RCVBUFFORCE, SO_SNDBUFFORCE, SO_TIMESTAMPNS = 36, 33, 32, 35
IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU = 10, 14, 23, 24
PMTUDISC_PROBE = 3
_ANCILLARY_OCTETS = 512
BUFFER_OCTETS = 4 << 20
LARGEST_OCTETS = 65535 + 60
_LIBC = ctypes.CDLL(None, use_errno=True)


def receiver(family: socket.AddressFamily, protocol: int) -> socket.socket:
    """A socket that gets packets of this protocol. Raises OSError without CAP_NET_RAW."""
    end = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    widen(end, SO_RCVBUFFORCE, socket.SO_RCVBUF)
    if family == socket.AF_INET6:
        for option in (socket.IPV6_RECVPKTINFO, socket.IPV6_RECVTCLASS, socket.IPV6_RECVHOPLIMIT):
            end.setsockopt(socket.IPPROTO_IPV6, option, 1)
        packet.attach(end, packet.straight(protocol))
    return end


def sender(family: socket.AddressFamily, mark: int) -> socket.socket:
    """A socket that sends whole packets as they are. Raises OSError without CAP_NET_RAW and CAP_NET_ADMIN."""
    end = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
    widen(end, SO_SNDBUFFORCE, socket.SO_SNDBUF)
    if mark:
        end.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
    if family == socket.AF_INET:
        end.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    else:
        end.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
    return end


def widen(end: socket.socket, forced: int, asked: int) -> None:
    """A larger buffer: as large as we like where that is allowed, else as large as the system allows."""
    try:
        end.setsockopt(socket.SOL_SOCKET, forced, BUFFER_OCTETS)
    except PermissionError:
        end.setsockopt(socket.SOL_SOCKET, asked, BUFFER_OCTETS)


def numbered(packet: bytes) -> bytes:
    """The packet with an ID, if it is IPv4, may be cut and has none. The checksum is that of 0, for both count as nothing in it."""
    if packet[0] >> 4 == 4 and not any(packet[4:6]) and not packet[6] & 0x40:
        return packet[:4] + INSTEAD_OF_0.to_bytes(2, "big") + packet[6:]
    return packet


def stamp(end: socket.socket) -> None:
    """Let the kernel say when each packet came, for koura.fast._io: it drops some that waited too long."""
    end.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def summed(packet: bytes) -> bytes:
    """The packet with a right header checksum, if its header has options."""
    header_octets = (packet[0] & 0xF) * 4
    if packet[0] >> 4 != 4 or not ipv4.FIXED_OCTETS < header_octets <= len(packet):
        return packet
    head = packet[:10] + bytes(2) + packet[12:header_octets]
    return head[:10] + internet(head).to_bytes(2, "big") + packet[12:]


class Raw4:
    """Packets of one protocol over IPv4."""

    def __init__(self, name: str, end: socket.socket) -> None:
        self.name = name
        self.losses = Losses()
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def receive(self) -> list[bytes]:
        found = _drain(self.losses, lambda: summed(self._end.recv(LARGEST_OCTETS)))
        self.losses.received += len(found)
        return found

    def send(self, packets: list[bytes]) -> None:
        raise NotImplementedError("packets leave by Out")

    def close(self) -> None:
        self._end.close()


class Raw6:
    """Packets of one protocol over IPv6, their fixed header made anew."""

    def __init__(self, name: str, end: socket.socket, protocol: int) -> None:
        self.name = name
        self.losses = Losses()
        self._end = end
        self._protocol = protocol

    def fileno(self) -> int:
        return self._end.fileno()

    def receive(self) -> list[bytes]:
        found = _drain(self.losses, self._read)
        self.losses.received += len(found)
        return found

    def _read(self) -> bytes:
        octets, ancillary, _, source = self._end.recvmsg(LARGEST_OCTETS, _ANCILLARY_OCTETS)
        dst, hop_limit, traffic_class = bytes(16), 64, 0
        for level, kind, value in ancillary:
            if level != socket.IPPROTO_IPV6:
                continue
            if kind == socket.IPV6_PKTINFO:
                dst = value[:16]
            elif kind == socket.IPV6_HOPLIMIT:
                (hop_limit,) = struct.unpack("i", value)
            elif kind == socket.IPV6_TCLASS:
                (traffic_class,) = struct.unpack("i", value)
        src = socket.inet_pton(socket.AF_INET6, source[0].partition("%")[0])
        return ipv6.write(ipv6.Header(src, dst, self._protocol, hop_limit, traffic_class), octets)

    def send(self, packets: list[bytes]) -> None:
        raise NotImplementedError("packets leave by Out")

    def close(self) -> None:
        self._end.close()


class Out:
    """Where whole packets leave, of either family. refused: those that are longer than the first link takes; who sends looks there."""

    name = "raw"

    def __init__(self, v4: socket.socket | None, v6: socket.socket | None) -> None:
        self.losses = Losses()
        self.refused: list[bytes] = []
        self._v4, self._v6 = v4, v6

    def send(self, packets: list[bytes]) -> None:
        """Send them; what is lost is counted under the error's name."""
        for one in packets:
            try:
                self._send(one)
                self.losses.sent += 1
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    self.refused.append(one)
                else:
                    self.losses.lose(errno.errorcode.get(error.errno or 0, "?"))

    def mtu(self, dst: bytes) -> int:
        """What the first link towards a destination takes, past our own routes; 0: not known."""
        family, end, option = (socket.AF_INET, self._v4, IP_MTU) if len(dst) == 4 else (socket.AF_INET6, self._v6, IPV6_MTU)
        if end is None:
            return 0
        try:
            end.connect((socket.inet_ntop(family, dst), 0))
            try:
                return end.getsockopt(socket.IPPROTO_IP if len(dst) == 4 else socket.IPPROTO_IPV6, option)
            finally:
                _disconnect(end)
        except OSError:
            return 0

    def _send(self, octets: bytes) -> None:
        if octets[0] >> 4 == 4:
            if self._v4 is None:
                raise OSError(errno.EAFNOSUPPORT, "no IPv4")
            self._v4.sendto(octets, (socket.inet_ntop(socket.AF_INET, octets[16:20]), 0))
            return
        if self._v6 is None:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6")
        self._v6.sendto(octets, (socket.inet_ntop(socket.AF_INET6, octets[24:40]), 0))

    def close(self) -> None:
        for end in (self._v4, self._v6):
            if end is not None:
                end.close()


def _disconnect(end: socket.socket) -> None:
    """connect(2) to AF_UNSPEC, for which Python has no words."""
    nowhere = struct.pack("=H26x", socket.AF_UNSPEC)
    if _LIBC.connect(end.fileno(), nowhere, len(nowhere)) != 0:
        raise OSError(ctypes.get_errno(), "connect")


def _drain(losses: Losses, read: Callable[[], bytes]) -> list[bytes]:
    """A burst of reads, until there is nothing."""
    found: list[bytes] = []
    try:
        while len(found) < BURST:
            found.append(read())
    except BlockingIOError:
        pass
    except OSError as error:
        losses.lose(errno.errorcode.get(error.errno or 0, "?"))
    return found
