"""Peers behind a NAT on both paths: one whose mapping changes, forged and replayed packets among its own; and two with one address."""

import random
from dataclasses import replace

import pytest

from koura.moment import Moment
from koura.sadb.agreement import Agreement, Encapsulation
from koura.saindex import Direction
from koura.settings import Settings
from koura.traffic.outcome import Forward
from koura.wire import ipv4
from tests.parity.kit import AT, Pair, Shape, agreement, ends, needs_fast, packets, policy
from tests.unit.traffic import kit

pytestmark = needs_fast
SUITE = ("aes-gcm-16", None)
ELSEWHERE = bytes((192, 0, 2, 77))
ROUNDS = 40


def between(shape: Shape, spi: int, ports: tuple[int, int], *, is_back: bool = False) -> Agreement:
    """An SA from A to B, or back, with a window."""
    made = replace(agreement(SUITE, shape, spi), encapsulation=Encapsulation(*ports), window_packets=64)
    index = made.index
    return replace(made, index=replace(index, src=index.dst, dst=index.src)) if is_back else made


def seen(packet: bytes, sport: int, src: bytes = kit.A) -> bytes:
    """A packet as a NAT sends it on."""
    header, payload = ipv4.read(packet)
    return ipv4.write(replace(header, src=src), sport.to_bytes(2, "big") + payload[2:])


def sealed(pair: Pair, clear: list[bytes]) -> list[bytes]:
    return [packet for outcome in pair.outbound(clear).outcomes if isinstance(outcome, Forward) for packet in outcome.packets]


@pytest.mark.parametrize("roams", [0, 1])
@pytest.mark.parametrize("is_tunnel", [True, False])
def test_a_peer_that_moves_among_garbage(is_tunnel: bool, roams: int) -> None:
    shape, dice = Shape(is_tunnel, 4, 4, is_encapsulated=True), random.Random(3947 + roams)
    peer = Pair(1, [between(shape, 0x1000, (4500, 4500))], [policy(shape, Direction.OUTBOUND)])
    back = policy(replace(shape), Direction.OUTBOUND)
    assert back.selector is not None
    wanted = kit.tunnel(kit.ESP, kit.B, kit.A) if is_tunnel else kit.transport(kit.ESP)
    there, here = ends(shape)
    answers = kit.policy(kit.selector(Direction.OUTBOUND, ".".join(map(str, here)), ".".join(map(str, there))), wanted)
    sas = [between(shape, 0x1000, (4500, 4500)), between(shape, 0x2000, (4500, 4500), is_back=True)]
    host = Pair(2, sas, [answers], replace(Settings(), natt_roaming=roams))
    old: list[bytes] = []
    place = (4500, kit.A)
    for number in range(ROUNDS):
        at = Moment(AT.ns + number * 100_000_000)
        if dice.random() < 0.2:
            place = (dice.choice((4500, 4501, 4502)), dice.choice((kit.A, ELSEWHERE)) if is_tunnel else kit.A)
        burst = [seen(packet, *place) for packet in sealed(peer, packets(shape, number, 8)) if not ipv4.read(packet)[0].is_mf]
        garbage = [seen(packet, dice.choice((4500, 4503))) for packet in dice.sample(old, min(3, len(old)))]
        garbage += [packet[:-1] + bytes((packet[-1] ^ 1,)) for packet in burst[:2]]
        old += burst
        mixed = burst + garbage
        dice.shuffle(mixed)
        host.inbound(mixed, at)
        host.outbound([kit.datagram(here, there, 100, sport=dice.randrange(1000, 1003))], at)
    assert host.watched.opened and host.watched.sealed
    assert bool(host.fast.counters["natt.moved"]) == bool(roams)


def test_two_transport_peers_with_one_address_and_the_same_flows() -> None:
    shape, dice = Shape(False, 4, 4, is_encapsulated=True), random.Random(3948)
    peers = {n: Pair(n, [between(shape, 0x1000 * n, (4500, 4500))], [policy(shape, Direction.OUTBOUND)]) for n in (1, 2)}
    sas = [between(shape, 0x1000 * n, (40000 + n, 4500)) for n in (1, 2)]
    sas += [between(shape, 0x1000 * n + 1, (4500, 40000 + n), is_back=True) for n in (1, 2)]
    answers = kit.policy(kit.selector(Direction.OUTBOUND, "192.0.2.2", "192.0.2.1"), kit.transport(kit.ESP))
    host = Pair(9, sas, [answers])
    now = AT.ns
    for _ in range(ROUNDS):
        now += dice.choice((100_000_000, 3_000_000_000, 70_000_000_000))
        at = Moment(now)
        burst = []
        for n, peer in peers.items():
            clear = [kit.datagram(kit.A, kit.B, 40, sport=1000 + dice.randrange(6), dport=7) for _ in range(dice.randrange(6))]
            burst += [seen(packet, 40000 + n) for packet in sealed(peer, clear)]
        dice.shuffle(burst)
        host.inbound(burst, at)
        host.outbound([kit.datagram(kit.B, kit.A, 40, sport=7, dport=1000 + dice.randrange(6)) for _ in range(6)], at)
    counters = host.fast.counters
    assert counters["natt.conflict"] and counters["natt.ambiguous"]
    assert host.watched.opened and host.watched.sealed, "what is told apart is the engine's, too"
