"""Native I/O of a bump against the reference: the same frames into both, the same frames out of both, over sockets on paper."""

import random
from collections.abc import Iterable

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Raw

from koura.fast import drivers
from koura.host import bridge, frames, offload
from koura.host.bump import INSIDE, OUTSIDE
from koura.host.frames import Link
from tests.unit.host.test_bump import GATEWAY, IN_FRONT_OF_A, IN_FRONT_OF_B, TUNNEL, A, B

if drivers.why_not() or not drivers.has_bump_hands():
    pytest.skip(f"no native I/O here: {drivers.why_not() or 'it was not built'}", allow_module_level=True)

from tests.unit.fast.bump_kit import BYPASS, World, frame

SEED = 20261125
IN_TUNNEL = TUNNEL.format("192.0.2.8", "192.0.2.9")
TURNED = IN_TUNNEL.replace("-P out", "-P X").replace("-P in", "-P out").replace("-P X", "-P in")


@pytest.fixture
def made() -> Iterable[list[World]]:
    worlds: list[World] = []
    yield worlds
    for world in worlds:
        for side in world.sides:
            side.shut()


def both(made: list[World], script: str, own: tuple[str, ...] = ()) -> tuple[World, World]:
    made += (World(script, True, own), World(script, False, own))
    return made[-2], made[-1]


def some_super(dice: random.Random, link: Link, octets: int, *, is_v6: bool) -> bytes:
    """A train of TCP as a sender hands it to its adapter."""
    head = IPv6(src="2001:db8::1", dst="2001:db8::2") if is_v6 else IP(src="192.0.2.1", dst="192.0.2.2", flags="DF")
    packet = bytes(head / TCP(sport=9, dport=5001, seq=dice.getrandbits(32), flags="PA") / Raw(dice.randbytes(octets)))
    start, at = (40 if is_v6 else 20), len(link.front(0))
    words = (packet[8:40] if is_v6 else packet[12:20]) + bytes((0, 6)) + (len(packet) - start).to_bytes(2, "big")
    total = sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, len(words), 2)) % 0xFFFF
    packet = packet[: start + 16] + total.to_bytes(2, "big") + packet[start + 18 :]
    gso = offload.GSO_TCPV6 if is_v6 else offload.GSO_TCPV4
    return offload.VNET.pack(1, gso, start + 20, 1300, at + start, 16) + link.front(frames.kind_of(packet)) + packet


def draw(dice: random.Random) -> bytes:
    """Something that a host inside might send."""
    link = Link(dice.choice((B, GATEWAY)), A, dice.choice((b"", b"", b"\x81\0\0\x05", b"\x88\xa8\0\x07\x81\0\0\x05")))
    dst, dst6 = dice.choice(("192.0.2.2", "192.0.2.7")), dice.choice(("2001:db8::2", "2001:db8::7"))
    data = dice.randbytes(dice.choice((0, 1, 64, 1200, 1444, 1460)))
    what = dice.randrange(9)
    if what == 0:
        return frame(bytes(ARP(op=2, hwsrc="02:00:00:00:00:aa", psrc="192.0.2.1")), link, kind=frames.ARP)
    if what == 1:
        return frame(bytes(IPv6(src="fe80::1", dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt="fe80::2")), link)
    if what == 2:
        return some_super(dice, link, dice.choice((1, 3000, 20000)), is_v6=dice.random() < 0.5)
    if what == 3:
        return frame(bytes(IPv6(src="2001:db8::1", dst=dst6) / UDP(sport=dice.choice((7, 547)), dport=9) / Raw(data)), link)
    if what == 4:
        return frame(bytes(IP(src="192.0.2.1", dst=dst, frag=dice.choice((0, 0, 9))) / UDP(sport=68, dport=67) / Raw(data)), link)
    if what == 5:
        return frame(bytes(IP(src="192.0.2.1", dst=dst) / ICMP() / Raw(data)) + bytes(dice.choice((0, 18))), link)
    if what == 6:
        return frame(dice.randbytes(60), link, kind=dice.choice((frames.IPV4, frames.IPV6, 0x88CC)))
    return frame(bytes(IP(src="192.0.2.1", dst=dst, flags=dice.choice(("", "DF"))) / UDP(sport=7, dport=9) / Raw(data)), link)


@pytest.mark.parametrize("script", ["", BYPASS], ids=["protected", "tcp-in-clear"])
def test_the_same_leaves_both(made: list[World], script: str) -> None:
    """Frames from inside, what leaves back in from outside at the peer's bump; in bursts, some damaged."""
    dice = random.Random(SEED)
    fast, slow = both(made, script + IN_FRONT_OF_A)
    peers = both(made, script + IN_FRONT_OF_B)
    for number in range(15):
        burst = [draw(dice) for _ in range(dice.choice((1, 2, 40)))]
        left, right = fast.come(INSIDE, *burst), slow.come(INSIDE, *burst)
        assert left == right, (SEED, number)
        wire = [bytes(10) + link.front(kind) + payload for link, kind, payload in left[1]]
        for index in range(len(wire)):
            if dice.random() < 0.05:
                at = dice.randrange(24, len(wire[index]))
                wire[index] = wire[index][:at] + bytes((wire[index][at] ^ 1,)) + wire[index][at + 1 :]
        assert peers[0].come(OUTSIDE, *wire) == peers[1].come(OUTSIDE, *wire), (SEED, number)
    for one, other in ((fast, slow), peers):
        assert dict(one.host.stack.report.read("esp")) == dict(other.host.stack.report.read("esp"))
        assert dict(one.host.stack.report.read("ipsec")) == dict(other.host.stack.report.read("ipsec"))
    assert fast.host.stack.report.read("esp")["output"] > 40
    assert fast.bump.counts(fast.pair, INSIDE)["received"] > 40  # type: ignore[attr-defined]


def garbage(dice: random.Random) -> bytes:
    """Octets that nobody meant: cut, of chance, or with a header in front that does not fit."""
    link = Link(B, A, b"\x81\0\0\x05" * dice.randrange(7))
    what = dice.randrange(4)
    if what == 0:
        return dice.randbytes(dice.randrange(1, 80))
    if what == 1:
        whole = draw(dice)
        return whole[: dice.randrange(1, len(whole))]
    if what == 2:
        places = (dice.choice((0, 14, 34, 54, 1400, 65535)) for _ in range(4))
        front = offload.VNET.pack(dice.randrange(4), dice.choice((0, 1, 3, 4, 5, 0x81)), *places)
        return front + draw(dice)[10:]
    return bytes(10) + link.front(dice.choice((frames.IPV4, frames.IPV6))) + dice.randbytes(dice.randrange(70))


def test_garbage_ends_in_both_alike(made: list[World]) -> None:
    dice = random.Random(SEED + 1)
    fast, slow = both(made, BYPASS + IN_FRONT_OF_A)
    for number in range(300):
        side = dice.choice((INSIDE, OUTSIDE))
        sent = [garbage(dice) for _ in range(dice.choice((1, 5)))]
        assert fast.come(side, *sent) == slow.come(side, *sent), (SEED + 1, number)
    assert dict(fast.host.stack.report.read("ipsec")) == dict(slow.host.stack.report.read("ipsec"))
    kept = frame(bytes(IP(src="192.0.2.1", dst="192.0.2.2") / UDP() / b"still here"))
    assert fast.come(INSIDE, kept) == slow.come(INSIDE, kept) != ([], [])


def test_a_frame_that_names_another_version_leaves_both_alike(made: list[World]) -> None:
    """IPv6 in a frame of IPv4's kind, again and again, so that the engine knows its flow."""
    fast, slow = both(made, IN_FRONT_OF_A)
    packet = bytes(IPv6(src="2001:db8::7", dst="2001:db8::9") / UDP(sport=7, dport=9) / b"x")
    for kind in (frames.IPV4, frames.IPV6, frames.IPV4, frames.IPV6):
        sent = frame(packet, kind=kind)
        left = fast.come(INSIDE, sent, sent)
        assert left == slow.come(INSIDE, sent, sent)
        assert [kind for _, kind, _ in left[OUTSIDE]] == [frames.IPV6] * 2


def test_tunnels_at_own_addresses_go_where_the_reference_sends_them(made: list[World]) -> None:
    here, there = both(made, IN_TUNNEL, ("192.0.2.8",)), both(made, TURNED, ("192.0.2.9",))
    packet = frame(bytes(IP(src="10.1.0.1", dst="10.2.0.1") / UDP() / b"x"), Link(GATEWAY, A))
    answer = frame(bytes(ARP(op=2, hwsrc="02:00:00:00:00:bb", psrc="192.0.2.9")), Link(A, B), kind=frames.ARP)
    inner = frame(bytes(ARP(op=2, hwsrc="02:00:00:00:00:cc", psrc="10.2.0.1")), Link(A, GATEWAY), kind=frames.ARP)
    for number in range(6):
        left, right = (one.come(INSIDE, packet, packet) for one in here)
        assert left == right, number
        assert {link.dst for link, _, _ in left[1]} == {GATEWAY if number < 3 else B}
        wire = [bytes(10) + link.front(kind) + payload for link, kind, payload in left[1]]
        opened = [one.come(OUTSIDE, *wire) for one in there]
        assert opened[0] == opened[1], number
        if number == 2:
            assert here[0].come(OUTSIDE, answer) == here[1].come(OUTSIDE, answer)
            assert there[0].come(INSIDE, inner) == there[1].come(INSIDE, inner)
    assert [(link.dst, link.src) for link, _, _ in opened[0][0]] == [(GATEWAY, there[0].pair.inside.mac)] * 2


def test_what_follows_one_another_arrives_as_one_super_packet(made: list[World]) -> None:
    dice = random.Random(SEED)
    fast, peer = World(IN_FRONT_OF_A, True), World(IN_FRONT_OF_B, True)
    made += (fast, peer)
    train = some_super(dice, Link(B, A), 13000, is_v6=False)
    for _ in range(2):  # the first is the reference's to learn from
        _, sealed = fast.come(INSIDE, train)
        for link, kind, payload in sealed:
            peer.sides[OUTSIDE].far.send(bytes(10) + link.front(kind) + payload)
        peer.bump.ready(peer.pair, OUTSIDE)
        found = []
        while True:
            try:
                found.append(peer.sides[INSIDE].far.recv(1 << 17))
            except BlockingIOError:
                break
    assert len(found) == 1
    assert offload.VNET.unpack(found[0][:10])[1:4] == (offload.GSO_TCPV4, 54, 1300)
    opened = bridge.frame_of(found[0], b"")
    given = bridge.frame_of(train, b"")
    assert opened is not None
    assert given is not None
    assert (opened.link, len(opened.payloads)) == (given.link, 10)
    assert b"".join(one[40:] for one in opened.payloads) == b"".join(one[40:] for one in given.payloads)
