"""Protected packets that leave past the kernel's IP: behind which link header, which ones, and what stays the raw socket's."""

import mmap
import select
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from koura.address import parse
from koura.entropy import Pooled
from koura.fast import drivers
from koura.host.nexthops import Hop, NextHops
from koura.host.pump import Ends
from koura.host.xdp import FRAME_OCTETS, FRAMES, LEAVING_FRAMES, Leaving, Rings
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.outcome import Deliver
from tests.unit.fast.interface_rig import Pipe
from tests.unit.host.test_pump import Standing
from tests.unit.stack.kit import GCM, Host
from tests.unit.traffic.kit import B

if drivers.why_not() or not drivers.has_hands():
    pytest.skip(f"no native I/O here: {drivers.why_not() or 'it was not built'}", allow_module_level=True)

from koura.fast.path import FastPath
from koura.host.fastpump import FastPump

SECOND_NS = 1_000_000_000
LINK = bytes.fromhex("020000000002020000000001") + b"\x08\x00"
SCRIPT = f"""
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel {GCM};
add 192.0.2.7 192.0.2.2 esp 0x1002 -m transport {GCM};
spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;
spdadd 192.0.2.7 192.0.2.2 any -P out ipsec esp/transport//require;
add 2001:db8::1 2001:db8::2 esp 0x1003 -m tunnel {GCM};
spdadd 10.0.6.0/24 10.0.2.0/24 any -P out ipsec esp/tunnel/2001:db8::1-2001:db8::2/require;
"""
FIRST = FRAMES * FRAME_OCTETS


class Memory:
    """An AF_XDP socket's memory with nobody at the other side but the test."""

    def __init__(self, descriptor: int) -> None:
        self.frames = mmap.mmap(-1, FIRST + LEAVING_FRAMES * FRAME_OCTETS)
        self.sent, self.done = mmap.mmap(-1, 128 + 16 * LEAVING_FRAMES), mmap.mmap(-1, 128)
        leaving = Leaving("xdp/v0/0", descriptor, FIRST, self.frames, self.sent, self.done, (0, 64, 128, 0, 64))
        filled, received = mmap.mmap(-1, 128 + 8 * FRAMES), mmap.mmap(-1, 128 + 16 * FRAMES)
        self.filled = filled
        self.rings = Rings("xdp/v0/0", descriptor, self.frames, filled, received, (0, 64, 128, 0, 64, 128), 3, leaving)
        self._seen = 0

    def took(self, *, gives_back: bool = True) -> list[bytes]:
        """The frames that the kernel would send now; it does."""
        (last,) = struct.unpack_from("=I", self.sent, 0)
        found = []
        for number in range(self._seen, last):
            at, octets, options = struct.unpack_from("=QII", self.sent, 128 + 16 * (number % LEAVING_FRAMES))
            assert (at >= FIRST, options) == (True, 0)
            found.append(self.frames[at : at + octets])
        self._seen = last
        struct.pack_into("=I", self.sent, 64, last)
        if gives_back:
            struct.pack_into("=I", self.done, 0, last)
        return found


class Known:
    """Next hops as the test wants them."""

    def __init__(self) -> None:
        self.hop = Hop(SECOND_NS)
        self.asked: list[bytes] = []
        self.is_over = False

    def find(self, destination: bytes, now_ns: int) -> Hop:
        assert now_ns > 0
        self.asked.append(destination)
        return self.hop

    def drain(self) -> bool:
        return self.is_over


class World:
    def __init__(self) -> None:
        self.stack = Stack(Pooled(Seeded(4302)), fast=FastPath)
        self.host = Host(SCRIPT, self.stack)
        self.far = Host(SCRIPT.replace("-P out", "-P in"))
        self.tun, self.out, self.kick = Pipe(), Pipe(), Pipe()
        self.memory, self.known = Memory(self.kick.fileno()), Known()
        ends = Ends(
            self.tun, [], self.out, raw_descriptors=((True, self.out.fileno()),), rings=(self.memory.rings,),
            next_hops=cast(NextHops, cast(Any, self.known)),
        )  # fmt: skip
        self.pump = FastPump(self.stack, Standing(self.host), ends, lambda _events: None)
        self._epoll = select.epoll()

    def turn(self) -> None:
        """The loop comes round: what is wanted is found."""
        self.pump.poll(self._epoll, 0)

    def send(self, count: int = 1, octets: int = 100, **fields: Any) -> None:
        for number in range(count):
            header = IP(**{"src": "10.0.1.1", "dst": "10.0.2.1", "id": 7 + number, **fields})
            packet = bytes(header / UDP(sport=5, dport=6) / Raw(bytes(octets)))
            self.tun.far.send(bytes(10) + packet)
        self.pump.outbound_ready()

    def by_raw(self) -> int:
        """How many packets the raw socket was given since the last time."""
        return len(self.out.taken())

    def opened(self, packets: list[bytes]) -> int:
        """How many of them the peer takes."""
        return sum(isinstance(self.far.receive(packet), Deliver) for packet in packets)

    def shut(self) -> None:
        self._epoll.close()
        for pipe in (self.tun, self.out, self.kick):
            pipe.shut()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.send()  # by the reference, which the engine learns the flow from
    made.by_raw()
    yield made
    made.shut()


def test_the_first_packets_are_the_raw_sockets_and_the_others_leave_behind_the_link_header(world: World) -> None:
    world.known.hop = Hop(60 * SECOND_NS, 0, LINK, 1500)
    world.send(3)
    assert (world.by_raw(), world.memory.took(), world.known.asked) == (3, [], [])
    world.turn()
    assert world.known.asked == [B]
    world.send(70)
    frames = world.memory.took()
    assert (len(frames), world.by_raw()) == (70, 0)
    assert {frame[:14] for frame in frames} == {LINK}
    assert world.opened([frame[14:] for frame in frames]) == 70
    assert world.pump.frames() == {"xdp/v0/0": {"received": 0, "sent": 70}}
    world.turn()
    assert world.known.asked == [B]


def test_what_stays_the_raw_sockets(world: World) -> None:
    """What is longer than the way takes, and what goes elsewhere, or nowhere known."""
    world.known.hop = Hop(60 * SECOND_NS, 0, LINK, 300)
    world.send()
    world.turn()
    world.by_raw()
    world.send(octets=400)
    assert (world.by_raw(), world.memory.took()) == (1, [])
    world.send()
    assert (world.by_raw(), len(world.memory.took())) == (0, 1)
    world.pump.hops_changed(0)
    assert world.known.asked == [B]
    world.known.is_over, world.known.hop = True, Hop(60 * SECOND_NS)
    world.pump.hops_changed(0)
    for _ in range(2):
        world.send()
        assert (world.by_raw(), world.memory.took()) == (1, [])
        world.turn()
    assert world.known.asked == [B, B], "the kernel's own way is known for a while, too"


def test_what_the_kernel_must_number_is_the_raw_sockets(world: World) -> None:
    """In transit, without an identification and without DF: raw(7) fills it in, a frame has no such thing."""
    world.known.hop = Hop(60 * SECOND_NS, 0, LINK, 1500)
    ends = {"src": "192.0.2.7", "dst": "192.0.2.2"}
    for _ in range(2):
        world.send(**ends)
        world.turn()
    world.by_raw()
    world.memory.took()
    for fields, way in (({"id": 9}, (0, 1)), ({"id": 0}, (1, 0)), ({"id": 0, "flags": "DF"}, (0, 1))):
        world.send(**ends, **fields)
        assert (world.by_raw(), len(world.memory.took())) == way, fields


def test_ipv6_leaves_behind_its_own_link_header(world: World) -> None:
    link = LINK[:12] + b"\x86\xdd"
    world.known.hop = Hop(60 * SECOND_NS, 0, link, 1500)
    for _ in range(2):
        world.send(src="10.0.6.1")
        world.turn()
    world.by_raw()
    world.memory.took()
    world.send(5, src="10.0.6.1")
    frames = world.memory.took()
    assert (len(frames), world.by_raw(), world.known.asked) == (5, 0, [parse("2001:db8::2")])
    assert {frame[:14] for frame in frames} == {link}
    assert world.opened([frame[14:] for frame in frames]) == 5


def test_an_ipv4_address_is_no_ipv6_address_that_begins_alike(world: World) -> None:
    world.known.hop = Hop(60 * SECOND_NS)
    world.pump._io.put_hop(B + bytes(12), 60 * SECOND_NS, 0, LINK, 1500)
    world.send()
    assert (world.by_raw(), world.memory.took()) == (1, [])


def test_a_way_is_known_for_a_while(world: World) -> None:
    world.known.hop = Hop(0, 0, LINK, 1500)
    for asked in (1, 2):
        world.send()
        world.turn()
        assert (world.by_raw(), world.memory.took(), len(world.known.asked)) == (1, [], asked)


def test_a_full_ring_loses_and_counts(world: World) -> None:
    world.known.hop = Hop(60 * SECOND_NS, 0, LINK, 1500)
    world.send()
    world.turn()
    world.by_raw()
    for _ in range(LEAVING_FRAMES // 64):
        world.send(64)
        world.memory.took(gives_back=False)
    before = world.pump.counts()
    world.send(2)
    after = world.pump.counts()
    assert (after["unsent"] - before["unsent"], after["sent"] - before["sent"]) == (2, 0)
    struct.pack_into("=I", world.memory.done, 0, LEAVING_FRAMES)
    world.send(5)
    assert world.opened([frame[14:] for frame in world.memory.took()]) == 5


def test_frames_that_leave_are_never_filled(world: World) -> None:
    (count,) = struct.unpack_from("=I", world.memory.filled, 0)
    assert count == FRAMES
    assert {struct.unpack_from("=Q", world.memory.filled, 128 + 8 * number)[0] < FIRST for number in range(FRAMES)} == {True}


def test_many_destinations_share_the_table(world: World) -> None:
    hands = world.pump._io
    for number in range(5000):
        hands.put_hop(struct.pack("!I", 0x0A000000 + number), 60 * SECOND_NS, 0, LINK, 1500)
    hands.put_hop(B, 60 * SECOND_NS, 0, LINK, 1500)
    world.send()
    assert len(world.memory.took()) == 1
    for wrong in ((B + B, 1), (B, 1, 1, LINK, 1500), (B, 1, -1, LINK, 1500), (B, 1, 0, LINK[1:], 1500)):
        with pytest.raises(ValueError, match="no next hop"):
            hands.put_hop(*wrong)
