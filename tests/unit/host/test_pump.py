"""The pump between lists: what goes on in fragments, and what becomes of packets that the first link does not take."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from koura.attachment import Losses
from koura.host.clock import Clock
from koura.host.pump import Ends, Pump
from koura.moment import Moment
from koura.notices import LocalAddresses
from koura.reasons import PMTU_FORWARDED
from koura.traffic.fragments import split
from koura.traffic.outcome import Event
from koura.wire import icmp, ipv4, ipv6
from koura.wire.summary import summarise
from tests.unit.stack.kit import GCM, Host
from tests.unit.traffic.kit import INNER_A, INNER_A6, INNER_B, INNER_B6, A, datagram

NEAR, NEAR6 = INNER_A[:3] + b"\xfe", INNER_A6[:15] + b"\xfe"
OURS = frozenset((A, NEAR, NEAR6))
TUNNEL = "".join(
    f"spdadd {a} {b} any -P {way} ipsec esp/tunnel/{ends}/require;"
    for way, ends, order in (("out", "192.0.2.1-192.0.2.2", 1), ("in", "192.0.2.2-192.0.2.1", -1))
    for a, b in (("10.0.1.0/24", "10.0.2.0/24")[::order], ("2001:db8:1::/64", "2001:db8:2::/64")[::order])
) + f"add 192.0.2.1 192.0.2.2 esp 0x1000 {GCM}; add 192.0.2.2 192.0.2.1 esp 0x2000 {GCM};"
FAR = TUNNEL.replace("-P out", "-P x").replace("-P in", "-P out").replace("-P x", "-P in")


@dataclass
class Line:
    """An attachment of lists, which as a way out takes packets of `mtu_octets` at the most."""

    name: str = "line"
    mtu_octets: int = 65535
    losses: Losses = field(default_factory=Losses)
    refused: list[bytes] = field(default_factory=list)
    come: list[bytes] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)

    def fileno(self) -> int:
        return -1

    def receive(self) -> list[bytes]:
        come, self.come = self.come, []
        return come

    def send(self, packets: list[bytes]) -> None:
        for packet in packets:
            (self.gone if len(packet) <= self.mtu_octets else self.refused).append(packet)

    def mtu(self, _dst: bytes) -> int:
        return self.mtu_octets

    def close(self) -> None: ...


class Standing(Clock):
    """A host's own time, which goes on when the test says so."""

    def __init__(self, host: Host) -> None:
        super().__init__(0)
        self._host = host

    def now(self) -> Moment:
        return self._host.at


@dataclass
class Gateway:
    """A pump whose TUN, wire and way out are lists."""

    host: Host
    tun: Line = field(default_factory=Line)
    wire: Line = field(default_factory=Line)
    out: Line = field(default_factory=Line)

    def __post_init__(self) -> None:
        ends = Ends(self.tun, [self.wire], self.out, local=OURS)
        self.host.notice(LocalAddresses(OURS))
        self.pump = Pump(self.host.stack, Standing(self.host), ends, self.tell)

    def tell(self, events: Iterable[Event]) -> None:
        self.pump.packets_of(events)

    def sends(self, *packets: bytes) -> list[bytes]:
        """What leaves for what came from the TUN."""
        self.tun.come += packets
        self.out.gone.clear()
        self.pump.outbound_ready()
        return self.out.gone

    def receives(self, *packets: bytes) -> list[bytes]:
        """What the TUN gets for what came on the wire."""
        self.wire.come += packets
        self.tun.gone.clear()
        self.pump.inbound_ready(self.wire)
        return self.tun.gone


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(Host(TUNNEL))




def test_what_came_in_fragments_goes_on_in_fragments_no_larger() -> None:
    for src, dst, is_df in ((INNER_B, INNER_A, False), (INNER_B, INNER_A, True), (INNER_B6, INNER_A6, False)):
        gateway = Gateway(Host(TUNNEL))
        inner = datagram(src, dst, 3000, is_df=is_df)
        far = Host(FAR)
        came = [packet for piece in split(inner, 1400, 7) for packet in getattr(far.send(piece), "packets", ())]
        assert len(came) == 3, "the far gateway seals each fragment"
        gone = gateway.receives(*came)
        assert [len(piece) <= 1400 for piece in gone] == [True] * 3
        again = Host("")
        again.notice(LocalAddresses(OURS))
        if src == INNER_B:
            assert all(ipv4.read(piece)[0].is_df == is_df for piece in gone)
        assert [again.receive(piece) for piece in gone][-1].packet == inner  # type: ignore[union-attr]


def test_a_datagram_for_this_host_is_whole(gateway: Gateway) -> None:
    inner = datagram(INNER_B, NEAR, 3000)
    far = Host(FAR)
    came = [packet for piece in split(inner, 1400, 7) for packet in getattr(far.send(piece), "packets", ())]
    assert gateway.receives(*came) == [inner]


def test_a_protected_packet_that_the_link_refuses_is_cut_and_the_link_is_known(gateway: Gateway) -> None:
    gateway.out.mtu_octets = 1000
    first = gateway.sends(datagram(INNER_A, INNER_B, 1200))
    assert [len(piece) <= 1000 for piece in first] == [True, True]
    assert not gateway.out.losses.lost
    assert [len(piece) <= 1000 for piece in gateway.sends(datagram(INNER_A, INNER_B, 1200))] == [True, True]
    assert not gateway.out.refused


def test_one_with_df_is_lost_and_its_sender_is_told_the_next_time(gateway: Gateway) -> None:
    gateway.host.tune("net.inet.ipsec.dfbit", 2)
    gateway.out.mtu_octets = 1000
    packet = datagram(INNER_A, INNER_B, 1200, is_df=True)
    assert not gateway.sends(packet)
    assert gateway.out.losses.lost == {"EMSGSIZE": 1}
    (told,) = gateway.sends(packet)
    assert gateway.host.count(PMTU_FORWARDED) == 1
    assert (summarise(told).src, summarise(told).dst, summarise(told).sport) == (NEAR, INNER_A, icmp.UNREACHABLE)


def test_a_link_that_was_refused_is_tried_again_after_a_while(gateway: Gateway) -> None:
    gateway.out.mtu_octets = 1000
    gateway.sends(datagram(INNER_A, INNER_B, 1200))
    gateway.out.mtu_octets = 1500
    assert len(gateway.sends(datagram(INNER_A, INNER_B, 1200))) == 2
    gateway.host.later(gateway.host.stack.settings.limits.pmtu_timeout_s + 1)
    assert len(gateway.sends(datagram(INNER_A, INNER_B, 1200))) == 1


ELSEWHERE, ELSEWHERE6 = b"\xcb\0\x71\7", bytes.fromhex("20010db80099") + bytes(9) + b"\7"


@pytest.mark.parametrize("family", [4, 6])
def test_what_goes_in_clear_is_cut_or_its_sender_told(gateway: Gateway, family: int) -> None:
    gateway.out.mtu_octets = 1300
    src, dst = (INNER_A, ELSEWHERE) if family == 4 else (INNER_A6, ELSEWHERE6)
    if family == 4:
        assert len(gateway.sends(datagram(src, dst, 1400))) == 2
    (told,) = gateway.sends(datagram(src, dst, 1400, is_df=family == 4))
    found = summarise(told)
    assert (found.src, found.dst, found.sport) == (NEAR if family == 4 else NEAR6, src, 3 if family == 4 else 2)
    assert icmp.read(told[found.offset :]).rest & 0xFFFF == 1300
    ours = A if family == 4 else NEAR6
    gateway.tun.gone.clear()
    assert not gateway.sends(datagram(ours, dst, 1400, is_df=family == 4))
    (said,) = gateway.tun.gone
    assert summarise(said).dst == ours


def test_a_sender_behind_a_tunnel_is_told_through_it(gateway: Gateway) -> None:
    """What came through an SA and went on in clear: the error about it goes back as policy says, not in clear."""
    gateway.out.mtu_octets = 1300
    (told,) = gateway.sends(datagram(INNER_B, NEAR[:3] + b"\7", 1400, is_df=True))
    assert summarise(told).protocol == 50


def test_a_link_of_unknown_mtu_loses_the_packet_and_counts_it(gateway: Gateway) -> None:
    gateway.out.mtu_octets = 0
    assert not gateway.sends(datagram(INNER_A, INNER_B, 100))
    assert gateway.out.losses.lost == {"EMSGSIZE": 1}


def test_pieces_that_are_refused_again_are_lost_and_counted(gateway: Gateway) -> None:
    class Liar(Line):
        def mtu(self, _dst: bytes) -> int:
            return 1100

    gateway.out = gateway.pump._ends.out = Liar(mtu_octets=600)
    assert not gateway.sends(datagram(INNER_A, INNER_B, 1200, is_df=False))[1:]
    assert gateway.out.losses.lost == {"EMSGSIZE": 1}
    assert not gateway.out.refused


def test_ipv6_around_is_cut_by_us(gateway: Gateway) -> None:
    gateway.host.setkey(
        "spdflush; spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec esp/tunnel/2001:db8::a-2001:db8::b/require;"
        f"add 2001:db8::a 2001:db8::b esp 0x3000 {GCM};"
    )
    gateway.out.mtu_octets = 1300
    pieces = gateway.sends(datagram(INNER_A, INNER_B, 1400))
    assert [ipv6.read(piece)[0].next_header for piece in pieces] == [44, 44]


def test_news_in_the_middle_of_a_burst_do_not_make_time_go_on(gateway: Gateway) -> None:
    """Who asked with an earlier moment, and is not done, asks with it again."""

    class Hurrying(Clock):
        def now(self) -> Moment:
            gateway.host.at = gateway.host.at.after_s(1)
            return gateway.host.at

    gateway.pump._clock = Hurrying()
    begun = gateway.host.at.after_s(1)
    gateway.out.mtu_octets = 1000
    gateway.sends(datagram(INNER_A, INNER_B, 1200))
    assert gateway.host.stack.latest == begun
