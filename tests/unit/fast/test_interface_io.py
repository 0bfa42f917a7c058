"""Virtual tunnel interfaces, by native I/O and by the reference: sizes, inner and outer headers, who looks, keys that change.

A train of TCP goes in as one super packet where I/O is native, and comes out as one; what is expected is the same either way. M22.
"""

import socket
import struct
from collections.abc import Iterator

import pytest

from koura.daemon.filters import Filters
from koura.daemon.journal import Journal
from koura.daemon.taps import Taps, Watcher
from koura.host.fastpump import FastPump
from koura.pfkey.numbers import Type
from koura.reasons import HELD_ACQUIRE, PMTU_LOCAL, TUNNEL_ECN
from koura.traffic.outcome import Deliver
from koura.wire import icmp, ipv4
from koura.wire.summary import summarise
from tests.unit.fast.interface_rig import IN_SPI, NAMES, NARROW, OUT_SPI, REQIDS, Rig, gone, marked, received, sas, train, why_no_native
from tests.unit.traffic.kit import INNER_A, INNER_A6, INNER_B, INNER_B6, A, B, datagram

HEADER = {4: 40, 6: 60}  # of a TCP packet
OVERHEAD = 20 + 8 + 8 + 2 + 16  # outer header, SPI and number, IV, trailer, ICV; the sizes below need no padding
ENDS = {4: (INNER_A, INNER_B), 6: (INNER_A6, INNER_B6)}
CE, ECT0, ECT1 = 3, 2, 1
VERSIONS = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(params=["native", "reference"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    is_native = request.param == "native"
    if is_native and why_no_native():
        pytest.skip(f"no native I/O here: {why_no_native()}")
    made = Rig(is_native=is_native)
    yield made
    made.shut()


def warm(rig: Rig, version: int = 4, tos: int = 0) -> None:
    """The flow of `train` is known, both ways."""
    src, dst = ENDS[version]
    rig.send(2, train(src, dst, 1, 100, tos=tos))
    for number in (0, 1):
        rig.send(number, train(src, dst, 1, 100, tos=tos))
        rig.receive(rig.sealed(number, train(dst, src, 1, 100, tos=tos)))
        rig.taken(number)


def moved(rig: Rig) -> tuple[int, int]:
    """How many packets native I/O sealed and delivered; (0, 0) where there is none."""
    counts = rig.pump.counts() if isinstance(rig.pump, FastPump) else {"sent": 0, "delivered": 0}
    return counts["sent"], counts["delivered"]


def opened(rig: Rig, packets: list[bytes]) -> list[bytes]:
    """What they are at the far host."""
    outcomes = [rig.far.receive(packet) for packet in packets]
    return [outcome.packet for outcome in outcomes if isinstance(outcome, Deliver)]


# -- sizes -----------------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.covers("M22", "M23")
def test_the_sender_of_what_is_too_large_hears_of_it_at_the_interface(rig: Rig, version: int) -> None:
    src, dst = ENDS[version]
    rig.host.tune("net.inet.ipsec.dfbit", 1)
    rig.path(1400)
    warm(rig, version)
    sent = train(src, dst, 3, 1400 - HEADER[version])
    assert rig.send(0, sent) == []
    told = rig.taken(0)
    assert len(told) == 3, "each of them is answered"
    sizes = set()
    for packet, about in zip(told, sent, strict=True):
        seen = summarise(packet)
        kind = (icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED) if version == 4 else (icmp.TOO_BIG6, 0)
        assert (seen.src, seen.dst, seen.sport, seen.dport) == (dst, src, *kind), "as if from where it was to go, which is routed there"
        message = icmp.read(packet[seen.offset :])
        assert about[:60].startswith(message.data[:28]), "and it quotes the packet"
        sizes.add(message.rest & 0xFFFF)
    size = 1400 - OVERHEAD
    assert sizes == {size}
    (largest,) = rig.send(0, train(src, dst, 1, size - HEADER[version]))
    assert len(largest) <= 1400
    assert rig.send(0, train(src, dst, 1, size - HEADER[version] + 1)) == [], "and no octet more"
    assert rig.host.count(PMTU_LOCAL) == 4


@pytest.mark.covers("M22", "M23")
def test_ipv6_is_never_told_less_than_every_link_takes(rig: Rig) -> None:
    rig.path(1000)
    warm(rig, 6)
    rig.host.tune("net.inet.ipsec.dfbit", 1)
    warm(rig, 6)
    assert rig.send(0, train(*ENDS[6], 1, 1300 - HEADER[6])) == []
    (told,) = rig.taken(0)
    assert icmp.read(told[40:]).rest == 1280
    rig.host.tune("net.inet.ipsec.dfbit", 0)
    pieces = rig.send(0, train(*ENDS[6], 1, 1280 - HEADER[6]))
    assert [len(piece) <= 1000 for piece in pieces] == [True, True], "what no sender makes smaller is cut outside"


@pytest.mark.covers("M22", "M23")
@pytest.mark.parametrize(
    ("dfbit", "pre_frag", "is_sealed_first"), [(0, 0, True), (0, 1, False), (1, 0, False), (2, 0, True), (2, 1, False)]
)
def test_without_df_it_is_cut_before_or_after_sealing_as_the_tunables_say(
    rig: Rig, dfbit: int, pre_frag: int, is_sealed_first: bool
) -> None:
    rig.host.tune("net.inet.ipsec.dfbit", dfbit)
    rig.host.tune("net.koura.pre_frag", pre_frag)
    rig.path(1400)
    warm(rig)
    sent = train(*ENDS[4], 3, 1400 - HEADER[4], is_df=False)
    pieces = rig.send(0, sent)
    assert rig.taken(0) == []
    assert len(pieces) == 6
    assert all(len(piece) <= 1400 for piece in pieces)
    are_fragments = [bool(int.from_bytes(piece[6:8], "big") & 0x3FFF) for piece in pieces]
    assert are_fragments == [is_sealed_first] * 6
    came = opened(rig, pieces)
    assert came == (sent if is_sealed_first else came), "put together again before it is opened"
    assert sum(len(one) - 20 for one in came) == sum(len(one) - 20 for one in sent)


@pytest.mark.covers("M22", "M23", "S30")
def test_a_router_on_the_way_makes_the_path_narrower(rig: Rig) -> None:
    """The flow is known by then, and its train goes in as one super packet."""
    rig.host.tune("net.inet.ipsec.dfbit", 2)
    rig.path(1500)
    warm(rig)
    sent = train(*ENDS[4], 3, 1200)
    outer = rig.send(0, sent)
    assert len(outer) == 3
    about = icmp.Message(icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED, 1000, outer[0][:28])
    rig.is_told(ipv4.write(ipv4.Header(A[:3] + b"\xfe", A, 1, identification=1), icmp.write(A[:3] + b"\xfe", A, about)))
    assert rig.send(0, sent) == []
    assert {icmp.read(packet[20:]).rest for packet in rig.taken(0)} == {1000 - OVERHEAD}
    assert len(rig.send(1, sent)) == 3, "the other interface's SA has a path of its own"


@VERSIONS
@pytest.mark.covers("M22", "M23")
@pytest.mark.parametrize("dfbit", [0, 1])
def test_what_the_first_link_refuses_is_cut_or_its_sender_hears_of_it_the_next_time(rig: Rig, dfbit: int, version: int) -> None:
    """Nobody had said how much that link takes."""
    rig.host.tune("net.inet.ipsec.dfbit", dfbit)
    warm(rig, version)
    rig.out.narrow()
    sent = train(*ENDS[version], 2, 6000)
    first = rig.send(0, sent)
    assert [len(piece) <= NARROW for piece in first] == ([] if dfbit else [True] * 4)
    assert rig.out.losses.lost == ({"EMSGSIZE": 2} if dfbit and rig.is_native else {"EMSGSIZE": 1} if dfbit else {})
    rig.taken(0)
    assert len(rig.send(0, sent)) == (0 if dfbit else 4)
    assert [icmp.read(packet[HEADER[version] - 20 :]).rest & 0xFFFF for packet in rig.taken(0)] == [NARROW - OVERHEAD] * (2 if dfbit else 0)


@pytest.mark.covers("M22", "M23")
def test_what_had_waited_for_its_sa_and_is_too_large_is_answered_at_its_interface(rig: Rig) -> None:
    rig.host.tune("net.inet.ipsec.dfbit", 1)
    rig.path(1400)
    rig.setkey(gone())
    sent = train(*ENDS[4], 1, 1400)
    assert rig.send(1, sent) == []
    rig.setkey(sas())
    (told,) = rig.taken(1)
    assert icmp.read(told[20:]).rest == 1400 - OVERHEAD
    assert rig.tun.taken() == []


# -- headers ---------------------------------------------------------------------------------------------------------------

# By net.inet.ipsec.ecn: the outer ECN code for an inner Not-ECT, ECT(1), ECT(0) and CE.
INGRESS = {0: (0, 0, 0, 0), 1: (0, 1, 2, 2), 2: (0, 1, 2, 3), -1: (0, 1, 2, 3)}


@VERSIONS
@pytest.mark.parametrize("ecn", INGRESS)
@pytest.mark.covers("M22")
def test_each_piece_of_a_super_packet_has_the_outer_tos_of_its_own(rig: Rig, ecn: int, version: int) -> None:
    rig.host.tune("net.inet.ipsec.ecn", ecn)
    rig.host.tune("net.inet6.ipsec6.ecn", ecn)
    for code, expected in enumerate(INGRESS[ecn]):
        warm(rig, version, tos=0xB8 | code)
        for number in (0, 2):
            outer = rig.send(number, train(*ENDS[version], 4, 500, tos=0xB8 | code))
            assert [(packet[0] >> 4, _tos(packet)) for packet in outer] == [(6 if number else 4, 0xB8 | expected)] * 4, code


@pytest.mark.covers("M22")
@pytest.mark.parametrize("dfbit", [0, 1, 2])
def test_each_piece_has_the_df_and_ttl_that_the_tunables_say(rig: Rig, dfbit: int) -> None:
    rig.host.tune("net.inet.ipsec.dfbit", dfbit)
    rig.host.tune("net.inet.ip.ttl", 33)
    for version, is_df in ((4, True), (4, False), (6, False)):
        warm(rig, version)
        sent = train(*ENDS[version], 4, 500, is_df=is_df)
        outer = [ipv4.read(packet)[0] for packet in rig.send(0, sent)]
        assert [(one.is_df, one.ttl, one.src, one.dst) for one in outer] == [(dfbit == 1 or (dfbit == 2 and is_df), 33, A, B)] * 4
        assert len({one.identification for one in outer}) == (1 if outer[0].is_df else 4)
    rig.host.tune("net.inet6.ip6.hlim", 34)
    for version in (4, 6):
        warm(rig, version)
        assert [packet[7] for packet in rig.send(2, train(*ENDS[version], 4, 500))] == [34] * 4


@VERSIONS
@pytest.mark.covers("M22")
def test_congestion_outside_is_told_inside_on_its_own_packet_alone(rig: Rig, version: int) -> None:
    """RFC 6040 §4.2: of a train that comes at once and would be one super packet, one packet is marked."""
    src, dst = ENDS[version]
    warm(rig, version, tos=0xB8 | ECT0)
    before = moved(rig)
    sent = train(dst, src, 7, 500, tos=0xB8 | ECT0)
    outer = rig.sealed(0, sent)
    outer[3] = marked(outer[3], CE)
    outer[6] = marked(outer[6], ECT1)
    rig.receive(outer)
    came = rig.taken(0)
    assert [_tos(packet) for packet in came] == [0xB8 | code for code in (ECT0, ECT0, ECT0, CE, ECT0, ECT0, ECT1)]
    assert [packet[HEADER[version] :] for packet in came] == [packet[HEADER[version] :] for packet in sent]
    assert moved(rig)[1] - before[1] == (7 if rig.is_native else 0)


@VERSIONS
@pytest.mark.reason("tunnel.ecn")
@pytest.mark.covers("M22")
def test_congestion_that_nobody_inside_can_hear_of_ends_the_packet(rig: Rig, version: int) -> None:
    src, dst = ENDS[version]
    warm(rig, version)
    outer = rig.sealed(0, train(dst, src, 3, 500))
    outer[1] = marked(outer[1], CE)
    rig.receive(outer)
    assert len(rig.taken(0)) == 2
    assert rig.host.count(TUNNEL_ECN) == 1


def _tos(packet: bytes) -> int:
    return (packet[1] if packet[0] >> 4 == 4 else packet[0] << 4 | packet[1] >> 4) & 0xFF


# -- who looks -------------------------------------------------------------------------------------------------------------


def _watched(rig: Rig) -> tuple[Taps, Filters]:
    taps, filters = Taps(rig.loop, rig.stack), Filters(rig.stack, Journal(rig.stack))
    rig.pump.watcher = Watcher(taps, filters)
    return taps, filters


def _exchange(rig: Rig, count: int = 4) -> tuple[int, int]:
    """A train each way, in mid-stream; how many packets got through."""
    src, dst = ENDS[4]
    outer = rig.send(0, train(src, dst, count, 500))
    rig.receive(rig.sealed(0, train(dst, src, count, 500)))
    return len(opened(rig, outer)), len(rig.taken(0))


@pytest.mark.covers("M22", "R10")
def test_a_capture_sees_every_packet_and_native_io_comes_back_behind_it(rig: Rig) -> None:
    taps, _ = _watched(rig)
    warm(rig)
    before = moved(rig)
    assert _exchange(rig) == (4, 4)
    assert moved(rig) == ((before[0] + 4, before[1] + 4) if rig.is_native else before)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    taps.capture(near.detach())
    before = moved(rig)
    assert _exchange(rig) == (4, 4)
    assert moved(rig) == before, "nothing passes unseen"
    far.setblocking(False)
    assert struct.unpack_from(">QB", far.recv(1 << 16))[1] == 2, "begun"
    shown = [struct.unpack_from(">QBBHI", octets) for octets in received(far)]
    seen = [(bool(way), spi) for _, kind, way, _, spi in shown if kind == 1]
    assert seen == [(True, OUT_SPI + REQIDS[0])] * 4 + [(False, IN_SPI + REQIDS[0])] * 4
    assert sum(kind == 0 for _, kind, *_ in shown) >= 8, "and in clear, at each stage that is shown"
    far.close()
    rig.loop.turn()
    assert _exchange(rig) == (4, 4)
    before = moved(rig)
    assert _exchange(rig) == (4, 4)
    assert moved(rig) == ((before[0] + 4, before[1] + 4) if rig.is_native else before)


@pytest.mark.covers("M22", "R10", "R11", "M1")
@pytest.mark.parametrize(
    ("rule", "tunables", "passed"),
    [
        (("out", "before"), {"net.enc.out.ipsec_filter_mask": 1}, (0, 4)),
        (("in", "before"), {"net.enc.in.ipsec_filter_mask": 1}, (4, 0)),
        (("in", "input"), {}, (4, 4)),
        (("in", "input"), {"net.inet.ipsec.filtertunnel": 1}, (4, 0)),
    ],
)
def test_a_filter_set_in_mid_stream_decides_from_the_next_packet_on(
    rig: Rig, rule: tuple[str, str], tunables: dict[str, int], passed: tuple[int, int]
) -> None:
    _, filters = _watched(rig)
    for name, value in tunables.items():
        rig.host.tune(name, value)
    warm(rig)
    assert _exchange(rig) == (4, 4)
    filters.add(1, False, *rule, "")
    assert _exchange(rig) == passed
    filters.delete(1)
    assert _exchange(rig) == (4, 4)
    before = moved(rig)
    assert _exchange(rig) == (4, 4)
    assert moved(rig) == ((before[0] + 4, before[1] + 4) if rig.is_native else before)


# -- keys ------------------------------------------------------------------------------------------------------------------


@pytest.mark.covers("M22")
@pytest.mark.parametrize("is_oldest", [False, True])
def test_keys_change_in_mid_stream_without_a_lost_packet(rig: Rig, is_oldest: bool) -> None:
    """Newer SAs at both ends, then the older ones go, three times; meanwhile trains pass both ways, also under the older one."""
    for host in (rig.host, rig.far):
        host.tune("net.key.preferred_oldsa", int(is_oldest))
    warm(rig)
    src, dst = ENDS[4]
    for base in (0, 0x100, 0x200):
        for script in (sas(base + 0x100), gone(base)):
            late = rig.sealed(0, train(dst, src, 4, 500))
            if script.startswith("add"):
                for host in (rig.far, rig.host):
                    host.setkey(script)
                rig.receive(late)
            else:
                rig.receive(late)  # what has arrived is received before an SA goes
                for host in (rig.host, rig.far):
                    host.setkey(script)
            assert len(rig.taken(0)) == 4
            assert _exchange(rig) == (4, 4)
            spis = {int.from_bytes(packet[20:24], "big") for packet in rig.send(0, train(src, dst, 4, 500))}
            newer = base + 0x100 if not is_oldest or not script.startswith("add") else base
            assert spis == {OUT_SPI + newer + REQIDS[0]}
        before = moved(rig)
        assert _exchange(rig) == (4, 4)
        assert moved(rig) == ((before[0] + 4, before[1] + 4) if rig.is_native else before), "natively again"
    assert rig.asked() == []


@pytest.mark.covers("M22", "S31")
def test_without_an_sa_nothing_leaves_and_key_management_is_asked(rig: Rig) -> None:
    warm(rig)
    rig.setkey(gone(0, REQIDS[:1]))
    sent = train(*ENDS[4], 6, 500)
    assert rig.send(0, sent) == []
    assert rig.host.count(HELD_ACQUIRE) > 0
    assert [one.type for one in rig.asked()] == [Type.ACQUIRE]
    assert len(rig.send(1, sent)) == 6, "the other interface has its own"
    rig.receive(rig.sealed(0, train(*ENDS[4][::-1], 3, 500)))
    assert [rig.taken(number) for number in (0, 1)] == [[], []]
    assert rig.tun.taken() == []
    rig.setkey(sas(0, REQIDS[:1]))
    waited = rig.out.taken()
    assert 0 < len(waited) <= len(sent)
    assert opened(rig, waited) == sent[: len(waited)]
    assert _exchange(rig) == (4, 4)


# -- counts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.covers("M22")
def test_an_interface_counts_what_went_in_and_what_came_out(rig: Rig) -> None:
    for _ in range(3):
        assert _exchange(rig, 5) == (5, 5)
    rig.send(1, [datagram(INNER_A, INNER_B, 100), datagram(A, B, 100), datagram(A, B, 100)])
    nothing = {"received": 0, "sent": 0}
    assert rig.inner.losses() == {
        NAMES[0]: {"received": 15, "sent": 15},
        NAMES[1]: {"received": 3, "sent": 0, "ELOOP": 2},
        NAMES[2]: nothing,
    }
    rig.pipes[0].far.close()
    rig.receive(rig.sealed(0, train(INNER_B, INNER_A, 5, 500)))
    assert rig.inner.losses()[NAMES[0]] == {"received": 15, "sent": 15, "EPIPE": 5}, "what the kernel did not take, by the error's name"
