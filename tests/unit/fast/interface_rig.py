"""Virtual tunnel interfaces as the engine has them (daemon.inner), moved by native I/O or by the reference, and the host at their far ends.

The kernel is the other ends of pairs of sockets: what a test writes there comes out of an interface, packets, not super packets. Two have
IPv4 outside; the third has IPv6, and only sends: what comes in ESP over IPv6, sockets tell of with its addresses.
"""

import errno
import importlib
import select
import socket
from collections.abc import Iterable
from typing import Any

from koura.address import parse
from koura.attachment import Attachment
from koura.daemon.inner import Inner
from koura.entropy import Pooled
from koura.fast import drivers
from koura.fast.path import FastPath
from koura.host.fastpump import FastPump
from koura.host.loop import Loop
from koura.host.pump import Ends, Pump
from koura.notices import InterfacePolicies, LocalAddresses, PathMtu
from koura.pfkey.message import Message
from koura.pfkey.numbers import Type
from koura.saindex import Direction, Protocol
from koura.sim.entropy import Seeded
from koura.spd.policy import Policy
from koura.stack import Stack
from koura.traffic.outcome import Event, Forward, Origin
from koura.wire import checksum, ipv4, ipv6
from tests.unit.host.test_pump import Line, Standing
from tests.unit.stack.kit import GCM, Host
from tests.unit.traffic.kit import A6, B6, A, B, Dice, policy, selector, tunnel

REQIDS = (100, 101, 102)
OUTSIDE = (("192.0.2.1", "192.0.2.2"), ("192.0.2.1", "192.0.2.2"), ("2001:db8::a", "2001:db8::b"))
NAMES = tuple(f"ipsec{number}" for number in range(len(REQIDS)))
ORIGINS = tuple(Origin(interface=name) for name in NAMES)
OUT_SPI, IN_SPI = 0x1000, 0x2000
NARROW = 4500  # a little less than the kernel lets a socket's buffer be at the least


def sas(base: int = 0, reqids: Iterable[int] = REQIDS) -> str:
    """Both directions; base: of the SPIs."""
    return "".join(
        f"add {ends} esp {base + spi} -m tunnel -u {reqid} -r 32 {GCM};" for reqid in reqids for ends, spi in _named(reqid)
    )  # fmt: skip


def gone(base: int = 0, reqids: Iterable[int] = REQIDS) -> str:
    """What takes those of `sas` away."""
    return "".join(f"delete {ends} esp {base + spi};" for reqid in reqids for ends, spi in _named(reqid))


def _named(reqid: int) -> tuple[tuple[str, int], tuple[str, int]]:
    """Ends and SPIs of the first SAs, out and in."""
    near, far = OUTSIDE[REQIDS.index(reqid)]
    return (f"{near} {far}", OUT_SPI + reqid), (f"{far} {near}", IN_SPI + reqid)


def train(
    src: bytes, dst: bytes, count: int, octets: int, *, tos: int = 0, is_df: bool = True, sequence: int = 0, port: int = 1000,
    last: int = 0, number: int = 7, filling: bytes = b"",
) -> list[bytes]:  # fmt: skip
    """TCP segments that follow one another, of so many octets each; last: of the last one. number: the first one's ID."""
    found = []
    for at in range(count):
        data = (filling or bytes((at + 1,)) * octets)[: last if last and at == count - 1 else octets]
        body = segment(src, dst, port, sequence + at * octets & 0xFFFF_FFFF, data)
        found.append(packet(src, dst, 6, body, tos=tos, number=number + at & 0xFFFF, is_df=is_df))
    return found


def segment(src: bytes, dst: bytes, port: int, sequence: int, data: bytes) -> bytes:
    """TCP with ACK."""
    ports = port.to_bytes(2, "big") + (5).to_bytes(2, "big")
    whole = bytearray(ports + sequence.to_bytes(4, "big") + bytes(4) + b"\x50\x10\x20\0" + bytes(4) + data)
    whole[16:18] = checksum.internet(checksum.pseudo(src, dst, 6, len(whole)) + bytes(whole)).to_bytes(2, "big")
    return bytes(whole)


def packet(src: bytes, dst: bytes, protocol: int, body: bytes, *, tos: int, number: int, is_df: bool) -> bytes:
    if len(src) == 4:
        return ipv4.write(ipv4.Header(src, dst, protocol, tos=tos, identification=number, is_df=is_df), body)
    return ipv6.write(ipv6.Header(src, dst, protocol, 64, tos), body)


def _policies(reqid: int, near: bytes, far: bytes) -> tuple[Policy, ...]:
    return tuple(
        policy(selector(way, every, every), tunnel(Protocol.ESP, src, dst, reqid=reqid))
        for way, src, dst in ((Direction.OUTBOUND, near, far), (Direction.INBOUND, far, near))
        for every in ("0.0.0.0/0", "::/0")
    )


def received(end: socket.socket) -> list[bytes]:
    """All that has come there."""
    found = []
    while True:
        try:
            found.append(end.recv(1 << 17))
        except BlockingIOError:
            return found


class Pipe(Line):
    """An attachment whose kernel is the other end of a pair of sockets. Of SEQPACKET, which does not mind addresses of another family."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.near, self.far):
            end.setblocking(False)

    def fileno(self) -> int:
        return self.near.fileno()

    def taken(self) -> list[bytes]:
        """What native I/O has written there."""
        return received(self.far)

    def shut(self) -> None:
        self.near.close()
        self.far.close()


class Shared(Pipe):
    """One that the reference writes to as well."""

    def send(self, packets: list[bytes]) -> None:
        for packet in packets:
            try:
                self.near.send(packet)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                self.refused.append(packet)
            self.gone += received(self.far)  # at once: a narrow one has room for one

    def narrow(self) -> None:
        """It takes no more than NARROW octets from now on, as a link does."""
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.mtu_octets = NARROW

    def taken(self) -> list[bytes]:
        gone, self.gone = self.gone, []
        return gone + super().taken()


class Rig:
    """One such host."""

    def __init__(self, *, is_native: bool) -> None:
        self.is_native = is_native
        self.stack = Stack(Pooled(Seeded(4301)), fast=FastPath if is_native else None)
        self.host, self.far = Host(sas(), self.stack), Host(sas())
        self.host.notice(LocalAddresses(frozenset((A, A6))))
        for number, reqid in enumerate(REQIDS):
            near, far = map(parse, OUTSIDE[number])
            self.far.notice(InterfacePolicies(NAMES[number], 7 + number, _policies(reqid, far, near)))
        self.tun, self.esp, self.out, self.wire = Shared(), Shared(), Shared(), Line()
        self.pipes = tuple(Shared() for _ in REQIDS)
        self._descriptors = [pipe.near.detach() for pipe in self.pipes]
        self.loop = Loop()
        self.pump = self._made_pump()
        self.pump._dice = Dice()  # type: ignore[assignment]
        self.inner = Inner(self.loop, self.stack, Standing(self.host), self._tell)
        self.inner.begin(self.pump)
        for number, reqid in enumerate(REQIDS):
            local, remote = OUTSIDE[number]
            said = {"name": NAMES[number], "index": 7 + number, "reqid": reqid, "is_native": is_native, "local": local, "remote": remote}
            assert self.inner.add(said, (self._descriptors[number],)) == ""

    def _made_pump(self) -> Pump:
        if not self.is_native:
            return Pump(self.stack, Standing(self.host), Ends(self.tun, [self.wire], self.out), self._tell)
        esp: dict[bool, Attachment] = {True: self.esp}
        out = self.out.fileno()
        ends = Ends(self.tun, [self.wire], self.out, raw_descriptors=((True, out), (False, out)), native_esp=esp)
        return FastPump(self.stack, Standing(self.host), ends, self._tell)

    def shut(self) -> None:
        for name in NAMES:
            self.inner.remove(name)
        self.loop.close()
        for pipe in (self.tun, self.esp, self.out):
            pipe.shut()
        for pipe in self.pipes:
            pipe.far.close()

    def _tell(self, events: Iterable[Event]) -> None:
        events = tuple(events)
        self.pump.packets_of(events)
        self.host._take(events)

    # -- what happens --------------------------------------------------------------------------------------------------

    def send(self, number: int, packets: list[bytes]) -> list[bytes]:
        """What leaves for what the host's kernel sends into an interface."""
        pipe, descriptor = self.pipes[number], self._descriptors[number]
        for octets in _io().put_together(packets) if self.is_native else packets:
            pipe.far.send(octets)
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        while waiting.poll(0):
            self.loop.turn()
        return self.out.taken()

    def sealed(self, number: int, packets: list[bytes]) -> list[bytes]:
        """What the far host sends into its end of an interface."""
        outcomes = [self.far.send(packet, ORIGINS[number]) for packet in packets]
        return [one for outcome in outcomes if isinstance(outcome, Forward) for one in outcome.packets]

    def receive(self, packets: list[bytes]) -> None:
        """These came on the wire, at once."""
        if not self.is_native:
            self.wire.come += packets
            self.pump.inbound_ready(self.wire)
            return
        assert isinstance(self.pump, FastPump)
        for packet in packets:
            self.esp.far.send(packet)
        self.pump.esp_ready(True)

    def is_told(self, message: bytes) -> None:
        """An ICMP of a router came on the wire."""
        self.wire.come.append(message)
        self.pump.inbound_ready(self.wire)

    def taken(self, number: int) -> list[bytes]:
        """What has come out of an interface, in packets."""
        came = self.pipes[number].taken()
        return [packet for octets in came for packet in _io().cut_up(octets)] if self.is_native else came

    def setkey(self, script: str) -> None:
        """At this host; what waited for it goes on."""
        self.host.events.clear()
        self.host.setkey(script)
        self.pump.packets_of(self.host.events)

    def path(self, octets: int) -> None:
        """The path to the far host takes so much."""
        for destination in (B, B6):
            self.host.notice(PathMtu(destination, octets))

    def asked(self) -> list[Message]:
        """ACQUIREs since the last time."""
        return self.host.hear(Type.ACQUIRE)


def why_no_native() -> str:
    return drivers.why_not() or ("" if drivers.has_hands() else "native I/O was not built")


def _io() -> Any:
    return importlib.import_module("koura.fast._io")


def marked(packet: bytes, mark: int) -> bytes:
    """An IPv4 packet that met a router, which put this ECN code on it."""
    header = bytearray(packet[:20])
    header[1] = header[1] & 0xFC | mark
    header[10:12] = bytes(2)
    header[10:12] = checksum.internet(bytes(header)).to_bytes(2, "big")
    return bytes(header) + packet[20:]
