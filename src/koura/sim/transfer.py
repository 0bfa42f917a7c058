"""Transfer: octets from one node to another, reliably, under TCP's header. RFC 9293's ideas in their smallest form.

    SYN ->   <- SYN ACK   data ->   <- ACK ...   FIN ->   <- ACK

Go back N: what is not acknowledged in time is sent again from there, more patiently each time. Packets have DF, so that a path's MTU is
felt: segments shrink to what the node has learned. No congestion control, no window updates, one direction of data.
"""

import struct
from collections.abc import Iterable

from koura.moment import NS_PER_S, Moment
from koura.sim.node import Node
from koura.sim.world import World
from koura.wire import checksum, ipv4, ipv6, tcp
from koura.wire.summary import Summary

PROTOCOL = 6
WINDOW_SEGMENTS = 8
FIRST_TIMEOUT_NS, MAX_TIMEOUT_NS = NS_PER_S // 4, 4 * NS_PER_S
_HEADER = struct.Struct("!HHIIBBHHH")
_FIN, _SYN, _PSH, _ACK = tcp.FIN, tcp.SYN, 0x08, tcp.ACK


class Tcp:
    """What protocol 6 is on one node: listeners and senders by their local port."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.ends: dict[int, Sender | Receiver] = {}
        node.handlers[PROTOCOL] = self._receive

    def _receive(self, packet: bytes, summary: Summary, at: Moment) -> Iterable[bytes]:
        segment = packet[summary.offset : summary.octets]
        if len(segment) < _HEADER.size or checksum.upper(summary.src, summary.dst, PROTOCOL, segment):
            return ()
        sport, dport, seq, ack, offset, flags, _, _, _ = _HEADER.unpack_from(segment)
        end = self.ends.get(dport)
        if end is None or (end.peer, end.peer_port) != (summary.src, sport):
            return ()
        head = (offset >> 4) * 4
        return end.receive(flags, seq, ack, segment[_HEADER.size : head], segment[head:])


def _segment(src: bytes, dst: bytes, ports: tuple[int, int], seq: int, ack: int, flags: int, data: bytes, options: bytes = b"") -> bytes:
    head = _HEADER.pack(*ports, seq, ack, (20 + len(options)) // 4 << 4, flags, 65535, 0, 0) + options + data
    right = checksum.upper(src, dst, PROTOCOL, head)
    body = head[: tcp.CHECKSUM_AT] + right.to_bytes(2, "big") + head[tcp.CHECKSUM_AT + 2 :]
    if len(src) == 4:
        return ipv4.write(ipv4.Header(src, dst, PROTOCOL, is_df=True), body)
    return ipv6.write(ipv6.Header(src, dst, PROTOCOL), body)


def _headers(address: bytes) -> int:
    return 40 if len(address) == 4 else 60


def _mss_option(mtu_octets: int, address: bytes) -> bytes:
    return struct.pack("!BBH", tcp.MSS, 4, mtu_octets - _headers(address))


class Receiver:
    """Gathers what comes, in order. `data` is what has come; `is_done` once the peer has said that it was all."""

    def __init__(self, node: Node, src: bytes, port: int, peer: bytes, peer_port: int) -> None:
        self.node, self.peer, self.peer_port = node, peer, peer_port
        self.data = bytearray()
        self.is_done = False
        self._src, self._port = src, port

    def receive(self, flags: int, seq: int, _ack: int, _options: bytes, data: bytes) -> Iterable[bytes]:
        """One segment; what to answer."""
        if flags & _SYN:
            mtu_octets = min(interface.mtu_octets for interface in self.node.interfaces.values())
            return (self._answer(0, 1, _SYN | _ACK, _mss_option(mtu_octets, self._src)),)
        expected = len(self.data) + 1
        if seq == expected and not self.is_done:
            self.data += data
            self.is_done = bool(flags & _FIN)
        return (self._answer(1, len(self.data) + 1 + self.is_done, _ACK),)

    def _answer(self, seq: int, ack: int, flags: int, options: bytes = b"") -> bytes:
        return _segment(self._src, self.peer, (self._port, self.peer_port), seq, ack, flags, b"", options)


class Sender:
    """Sends `data`; `is_done` once all of it is acknowledged. The first number is 0: SYN; data begins at 1."""

    def __init__(self, world: World, node: Node, src: bytes, port: int, peer: bytes, peer_port: int, data: bytes) -> None:
        self.peer, self.peer_port = peer, peer_port
        self.is_done = False
        self.sent_segments = 0
        self._world, self._node, self._src, self._port, self._data = world, node, src, port, data
        self._mss = min(interface.mtu_octets for interface in node.interfaces.values()) - _headers(src)
        self._acked = 0
        self._next = 0
        self._timeout_ns = FIRST_TIMEOUT_NS
        self._timer = 0

    def start(self) -> None:
        """Begin: SYN."""
        self._emit(self._pump())

    def receive(self, flags: int, _seq: int, ack: int, options: bytes, _data: bytes) -> Iterable[bytes]:
        """An acknowledgment; what to send next."""
        if flags & _SYN:
            for option in tcp.read_options(options):
                if option.kind == tcp.MSS:
                    self._mss = min(self._mss, int.from_bytes(option.data, "big"))
        if ack <= self._acked:
            return ()
        self._acked = ack
        self._next = max(self._next, ack)
        self._timeout_ns = FIRST_TIMEOUT_NS
        if ack == len(self._data) + 2:
            self.is_done = True
            return ()
        return self._pump()

    def _pump(self) -> list[bytes]:
        """The segments that may leave now."""
        if self._acked == 0:
            self._next = 1
            self._set_timer()
            return [self._make(0, _SYN, b"", _mss_option(self._mss + _headers(self._src), self._src))]
        mss = min(self._mss, self._node.path_mtu.get(self.peer, 65535) - _headers(self._src))
        end = len(self._data) + 1
        made = []
        while self._next < end and self._next < self._acked + WINDOW_SEGMENTS * mss:
            data = self._data[self._next - 1 : self._next - 1 + mss]
            made.append(self._make(self._next, _ACK | _PSH, data))
            self._next += len(data)
        if self._next == end:
            made.append(self._make(end, _ACK | _FIN, b""))
            self._next = end + 1
        self._set_timer()
        return made

    def _make(self, seq: int, flags: int, data: bytes, options: bytes = b"") -> bytes:
        self.sent_segments += 1
        return _segment(self._src, self.peer, (self._port, self.peer_port), seq, 1 if flags & _ACK else 0, flags, data, options)

    def _emit(self, packets: Iterable[bytes]) -> None:
        for packet in packets:
            self._world.put(self._node, self._node.send(packet, self._world.at))

    def _set_timer(self) -> None:
        self._timer += 1
        number = self._timer
        self._world.later(self._timeout_ns, lambda: self._due(number))

    def _due(self, number: int) -> None:
        """Nothing was acknowledged in time: once more, from there."""
        if number != self._timer or self.is_done:
            return
        self._timeout_ns = min(2 * self._timeout_ns, MAX_TIMEOUT_NS)
        self._next = self._acked
        self._emit(self._pump())


Ends = tuple[bytes, bytes]


def transfer(world: World, near: Tcp, far: Tcp, ends: tuple[Ends, Ends], port: int, data: bytes) -> tuple[Sender, Receiver]:
    """Open both ends on `port` and begin. ends: the near and the far address, as the near and as the far node see them."""
    (src, dst), (seen_src, seen_dst) = ends
    sender = Sender(world, near.node, src, port, dst, port, data)
    receiver = Receiver(far.node, seen_dst, port, seen_src, port)
    near.ends[port], far.ends[port] = sender, receiver
    sender.start()
    return sender, receiver
