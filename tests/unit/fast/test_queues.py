"""Queues of native I/O: which one of a TUN's a packet is written to, and which packets of a socket's long queue are dropped."""

import random
import select
import socket
from itertools import pairwise

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6

from koura.entropy import Pooled
from koura.fast import drivers
from koura.sim.entropy import Seeded

if drivers.why_not():
    pytest.skip(f"no fast path here: {drivers.why_not()}", allow_module_level=True)
io = pytest.importorskip("koura.fast._io", reason="the extension was not built here: no compiler, or no Cython")

MS = 1_000_000
SEED = 20261125
Served = list[tuple[int, int, bool]]


def tcp(sport: int) -> bytes:
    return bytes(IP(src="10.1.1.1", dst="10.2.2.2") / TCP(sport=sport, dport=80))


def test_pings_have_the_first_queue_and_flows_share_the_others() -> None:
    lone = [bytes(IP(dst="10.2.2.2") / ICMP()), bytes(IPv6(dst="::2") / ICMPv6EchoRequest()), bytes(IP(dst="10.2.2.2", proto=47)), b""]
    assert io.queues(lone, 4) == [0, 0, 0, 0]
    found = io.queues([tcp(port) for port in range(1000, 1200)], 4)
    assert set(found) == {1, 2, 3}
    assert max(found.count(queue) for queue in (1, 2, 3)) < 120
    six = [bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=port, dport=53)) for port in range(1000, 1200)]
    assert set(io.queues(six, 4)) == {1, 2, 3}


def test_packets_of_one_flow_go_to_one_queue_and_a_single_one_takes_all() -> None:
    flow = [bytes(IP(src="10.1.1.1", dst="10.2.2.2", id=number) / TCP(sport=7, dport=80, seq=number)) for number in range(20)]
    assert len(set(io.queues(flow, 4))) == 1
    assert set(io.queues([*flow, tcp(8)], 1)) == {0}


def waits(*spans: tuple[int, int, bool], step: int = MS // 10) -> Served:
    """Packets 0.1 ms apart: for each span (how many, how long each waited, whether there was a queue)."""
    found: Served = []
    at = 10**15
    for count, waited, has_more in spans:
        for _ in range(count):
            found.append((at, waited, has_more))
            at += step
    return found


def test_a_short_queue_a_short_while_and_a_lone_packet_lose_nothing() -> None:
    assert not any(io.dropped(waits((10_000, MS // 10, True))))
    assert not any(io.dropped(waits((40, 3 * MS, True), (1, 0, True), (40, 3 * MS, True))))
    assert not any(io.dropped(waits((10_000, 50 * MS, False))))


def test_a_queue_that_stays_long_loses_one_packet_and_then_more_often() -> None:
    """RFC 8289 §4.2: the next drop comes an interval divided by the root of the number of drops later."""
    found = [number for number, is_dropped in enumerate(io.dropped(waits((2000, 2 * MS, True)))) if is_dropped]
    gaps = [after - before for before, after in pairwise(found)]
    assert found[0] == 50  # 5 ms
    assert gaps[:3] == [50, 36, 29]
    assert all(after <= before + 1 for before, after in pairwise(gaps))  # they fall on whole packets


def test_dropping_ends_when_the_queue_is_short_again_and_goes_on_where_it_was_if_it_comes_back_soon() -> None:
    served = waits((500, 2 * MS, True), (5, 0, True), (500, 2 * MS, True))
    found = io.dropped(served)
    assert not any(found[500:555])
    again = [number for number in range(505, 1005) if found[number]]
    assert again[1] - again[0] < 50


def test_a_clock_that_was_set_drops_nothing() -> None:
    dice = random.Random(SEED)
    steps: Served = [(10**15, dice.choice((-(10**12), 10**12)), True) for _ in range(1000)]
    assert not any(io.dropped(steps)), f"seed {SEED}"


def test_what_python_must_answer_starves_no_other_queue() -> None:
    """An engine that knows no flow leaves everything to Python; queues that never are empty have their turns all the same."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(3)]
    for inside, _ in pairs:
        inside.setblocking(False)
    hands = drivers.hands(drivers.engine(Pooled(Seeded(SEED)), 8), pairs[0][0].fileno())
    for inside, _ in pairs[1:]:
        hands.use_queue(inside.fileno())
    with select.epoll() as epoll:
        for inside, outside in pairs:
            epoll.register(inside.fileno(), select.EPOLLIN)
            outside.send(bytes(10) + tcp(1))
        served = []
        for _ in range(9):
            ((descriptor, events),) = hands.turn(epoll.fileno(), 5.0, 0, True)
            assert events == select.EPOLLIN
            queue = [inside.fileno() for inside, _ in pairs].index(descriptor)
            assert hands.read(queue) == (0, 1, 0)
            assert hands.packet(0) == tcp(1)
            served.append(queue)
            pairs[queue][1].send(bytes(10) + tcp(1))
    assert served == [0, 1, 2] * 3
    for ends in pairs:
        for end in ends:
            end.close()
