"""Native I/O of virtual tunnel interfaces: super packets both ways, each interface its own. M22."""

import struct
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

from koura.attachment import Attachment
from koura.entropy import Pooled
from koura.fast import drivers
from koura.host.pump import Ends
from koura.moment import Moment
from koura.notices import InterfacePolicies
from koura.saindex import Direction, Protocol
from koura.sim.entropy import Seeded
from koura.spd.policy import Policy
from koura.stack import Stack
from koura.traffic.outcome import Applied, Origin
from tests.unit.fast.interface_rig import Pipe
from tests.unit.host.test_pump import Standing
from tests.unit.stack.kit import GCM, Host
from tests.unit.traffic.kit import A, B, policy, selector, tunnel

if drivers.why_not() or not drivers.has_hands():
    pytest.skip(f"no native I/O here: {drivers.why_not() or 'it was not built'}", allow_module_level=True)

from koura.fast.path import FastPath
from koura.host.fastpump import FastPump

io = pytest.importorskip("koura.fast._io")

REQIDS = (100, 101)
SAS = "".join(
    f"add {ends} esp {base + one} -m tunnel -u {one} {GCM};"
    for one in REQIDS
    for ends, base in (("192.0.2.1 192.0.2.2", 0x1000), ("192.0.2.2 192.0.2.1", 0x2000))
)


def policies(reqid: int, near: bytes, far: bytes) -> tuple[Policy, ...]:
    return tuple(
        policy(selector(way, "0.0.0.0/0", "0.0.0.0/0"), tunnel(Protocol.ESP, src, dst, reqid=reqid))
        for way, src, dst in ((Direction.OUTBOUND, near, far), (Direction.INBOUND, far, near))
    )


def segments(seq: int, count: int = 5) -> list[bytes]:
    head = {"src": "10.0.1.1", "dst": "10.0.2.1"}
    return [
        bytes(IP(**head, id=7 + n) / TCP(sport=5, dport=6, seq=seq + 100 * n, flags="A") / Raw(bytes((n,)) * 100)) for n in range(count)
    ]


class World:
    """A host with two tunnel interfaces, and the host at their far ends."""

    def __init__(self) -> None:
        self.stack = Stack(Pooled(Seeded(4301)), fast=FastPath)
        self.host, self.far = Host(SAS, self.stack), Host(SAS)
        for number, reqid in enumerate(REQIDS):
            self.host.notice(InterfacePolicies(f"ipsec{number}", 7 + number, policies(reqid, A, B)))
            self.far.notice(InterfacePolicies(f"ipsec{number}", 7 + number, policies(reqid, B, A)))
        self.tun, self.esp, self.out = Pipe(), Pipe(), Pipe()
        self.tunnels = (Pipe(), Pipe())
        esp: dict[bool, Attachment] = {True: self.esp}
        ends = Ends(self.tun, [], self.out, raw_descriptors=((True, self.out.fileno()),), native_esp=esp)
        self.pump = FastPump(self.stack, Standing(self.host), ends, self._tell)
        self.origins = [Origin(interface=f"ipsec{number}") for number in range(2)]
        self.numbers = [self.pump.use_outlet(one, (pipe.fileno(),)) for one, pipe in zip(self.origins, self.tunnels, strict=True)]
        self.pump.outlets(self._outlet_of)
        self.referred: list[bytes] = []

    def _tell(self, _events: object) -> None:
        """Nothing here is news."""

    def _outlet_of(self, applied: Applied) -> int | None:
        return self.numbers[REQIDS.index(applied.reqid)]

    def receive(self, number: int, packets: list[bytes]) -> None:
        """What the far host sends by an interface of its own."""
        for packet in packets:
            self.esp.far.send(self.far.forwarded(packet, self.origins[number]))
        self.pump.esp_ready(True)

    def send(self, number: int, octets: bytes) -> None:
        """The host's kernel gives an interface a super packet."""

        def refer(packet: bytes, at: Moment) -> None:
            self.referred.append(packet)
            self.stack.outbound_by_reference(packet, at, self.origins[number])

        self.tunnels[number].far.send(octets)
        self.pump.outlet_ready(self.numbers[number], 0, refer)

    def sealed(self, reqid: int) -> int:
        sa = self.stack.sadb.by_spi(B, Protocol.ESP, 0x1000 + reqid)
        assert sa is not None
        return int(sa.hot.words[9])


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for pipe in (made.tun, made.esp, made.out, *made.tunnels):
        pipe.shut()


@pytest.mark.covers("M22")
def test_what_comes_under_an_interfaces_sa_goes_there_as_a_super_packet(world: World) -> None:
    for number, pipe in enumerate(world.tunnels):
        world.receive(number, segments(1, 1))
        world.receive(number, segments(1, 1))
        pipe.taken()
    for number, pipe in enumerate(world.tunnels):
        sent = segments(1000)
        world.receive(number, sent)
        (one,) = pipe.taken()
        assert io.cut_up(one) == sent
    assert world.tun.taken() == []
    world.pump.drop_outlet(world.numbers[0])
    world.receive(0, segments(2000))
    assert [pipe.taken() for pipe in (world.tun, *world.tunnels)] == [[], [], []]
    assert world.pump.counts()["undelivered"] == 5


@pytest.mark.covers("M22")
def test_super_packets_into_an_interface_are_sealed_under_its_own_sa(world: World) -> None:
    for number, reqid in enumerate(REQIDS):
        for seq in (1, 1000):
            (octets,) = io.put_together(segments(seq))
            world.referred.clear()
            world.send(number, octets)
        assert world.referred == [], "the engine knows the flow by now"
        assert world.sealed(reqid) == 10
    assert [world.sealed(reqid) for reqid in REQIDS] == [10, 10]
    assert world.pump.outlet_counts(world.numbers[0])["received"] == 10


@pytest.mark.covers("M22")
def test_what_is_still_to_be_cut_goes_with_its_interface(world: World) -> None:
    """A super packet of more pieces than a burst has: those that are left must not leave as if they came from elsewhere."""
    payload, size = bytes(600 * 100), 100
    whole = bytes(IP(src="10.0.1.1", dst="10.0.2.1", id=7, len=40 + len(payload)) / TCP(sport=5, dport=6, flags="A")) + payload
    world.tunnels[0].far.send(struct.pack("<BBHHHH", 1, 1, 40, size, 20, 16) + whole)
    first, count, left = world.pump._io.read_outlet(world.numbers[0], 0)
    assert (first, count, left) == (0, 256, 2), "a burst, and there is more of it here"
    world.pump.drop_outlet(world.numbers[0])
    assert world.pump._io.read(0) == (0, 0, 0)
