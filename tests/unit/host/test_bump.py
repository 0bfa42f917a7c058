"""A bump in the wire between two sides on paper: what passes, what is protected, what is refused, where everything goes."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment, fragment
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment, defragment6, fragment6
from scapy.layers.l2 import ARP
from scapy.packet import Raw

from koura.address import parse
from koura.attachment import Losses
from koura.host import frames
from koura.host.bridge import Frame, Side
from koura.host.bump import INSIDE, MOST_WAITING, OUTSIDE, Bump, Pair
from koura.host.clock import Clock
from koura.host.frames import Link
from koura.moment import Moment
from koura.reasons import POLICY_IN_CLEAR, POLICY_OUT_DISCARD
from koura.stack import Stack
from koura.traffic.outcome import Event, Tapped
from tests.unit.stack.kit import GCM, START, Host

A, B, GATEWAY = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb"), bytes.fromhex("0200000000cc")
STRAIGHT = Link(B, A)
BOTH = (
    f"add 192.0.2.1 192.0.2.2 esp 0x1000 {GCM}; add 192.0.2.2 192.0.2.1 esp 0x2000 {GCM};"
    f"add 2001:db8::1 2001:db8::2 esp 0x1000 {GCM}; add 2001:db8::2 2001:db8::1 esp 0x2000 {GCM};"
)
IN_FRONT_OF_A = BOTH + (
    "spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require; spdadd 192.0.2.2 192.0.2.1 any -P in ipsec esp/transport//require;"
    "spdadd 2001:db8::1 2001:db8::2 any -P out ipsec esp/transport//require;"
    "spdadd 2001:db8::2 2001:db8::1 any -P in ipsec esp/transport//require;"
)
IN_FRONT_OF_B = IN_FRONT_OF_A.replace("-P out", "-P X").replace("-P in", "-P out").replace("-P X", "-P in")
TUNNEL = (
    f"add {{0}} {{1}} esp 0x1000 -m tunnel {GCM}; add {{1}} {{0}} esp 0x2000 -m tunnel {GCM};"
    "spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/{0}-{1}/require;"
    "spdadd 10.2.0.0/16 10.1.0.0/16 any -P in ipsec esp/tunnel/{1}-{0}/require;"
)


class Paper(Side):
    """A side whose frames are looked at."""

    def __init__(self, name: str, last: int, mtu: int = 1500) -> None:
        self.name = name
        self.losses = Losses()
        self.mac = bytes.fromhex("0200000000") + bytes((last,))
        self.sent: list[tuple[Link, int, bytes]] = []
        self.mtu = mtu

    def look(self) -> None:
        """It has its own address for ever."""

    @property
    def mtu_octets(self) -> int:
        return self.mtu

    def send(self, link: Link, kind: int, payload: bytes) -> None:
        self.sent.append((link, kind, payload))

    def take(self) -> list[tuple[Link, int, bytes]]:
        found, self.sent = self.sent, []
        return found


class Still(Clock):
    """A clock that stands."""

    def __init__(self) -> None:
        super().__init__(0)
        self.at = START

    def now(self) -> Moment:
        return self.at


@dataclass
class Wire:
    """One bump."""

    script: str = ""
    own: tuple[str, ...] = ()
    mtu: int = 1500
    passes_control: bool = True
    inside: Paper = field(init=False)
    outside: Paper = field(init=False)

    def __post_init__(self) -> None:
        self.host = Host(self.script)
        self.inside, self.outside = Paper("in", 1, self.mtu), Paper("out", 2, self.mtu)
        self.pair = Pair(self.inside, self.outside, frozenset(map(parse, self.own)), self.passes_control)
        self.clock = Still()
        self.bump = Bump(self.host.stack, self.clock, (self.pair,), self._tell)
        self.bump.measure()

    @property
    def stack(self) -> Stack:
        return self.host.stack

    def _tell(self, events: Iterable[Event]) -> None:
        self.bump.packets_of(events)

    def come(self, number: int, payload: bytes, link: Link = STRAIGHT, kind: int = 0) -> list[tuple[Link, int, bytes]]:
        """A frame comes; what left on the other side."""
        self.bump.look()
        self.bump.frame(self.pair, number, Frame(link, kind or frames.kind_of(payload), [payload]))
        return (self.inside if number == OUTSIDE else self.outside).take()


def ping(octets: int = 56, src: str = "192.0.2.1", dst: str = "192.0.2.2", **fields: object) -> bytes:
    return bytes(IP(src=src, dst=dst, **fields) / ICMP() / Raw(bytes(octets)))


def both(script_a: str = IN_FRONT_OF_A, script_b: str = IN_FRONT_OF_B, **more: int) -> tuple[Wire, Wire]:
    return Wire(script_a, **more), Wire(script_b, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [INSIDE, OUTSIDE])
def test_what_is_no_ip_passes_as_it_came(number: int) -> None:
    wire = Wire("spdadd 0.0.0.0/0 0.0.0.0/0 any -P out discard; spdadd 0.0.0.0/0 0.0.0.0/0 any -P in discard;")
    link = Link(b"\xff" * 6, A, b"\x81\0\0\x05")
    for kind, payload in ((frames.ARP, bytes(ARP(psrc="192.0.2.1", pdst="192.0.2.2"))), (0x88CC, b"lldp"), (3, b"\x42\x42\3" + bytes(43))):
        assert wire.come(number, payload, link, kind) == [(link, kind, payload)]


@pytest.mark.parametrize("number", [INSIDE, OUTSIDE])
def test_discovery_passes_whatever_policy_says_unless_policy_is_asked(number: int) -> None:
    script = "spdadd ::/0 ::/0 any -P out discard; spdadd ::/0 ::/0 any -P in discard;"
    asks = bytes(IPv6(src="fe80::1", dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt="fe80::2"))
    assert Wire(script).come(number, asks) == [(Link(B, A), frames.IPV6, asks)]
    assert Wire(script, passes_control=False).come(number, asks) == []


@pytest.mark.parametrize("tags", [b"", b"\x81\0\0\x05", b"\x88\xa8\0\x07\x81\0\0\x05"])
@pytest.mark.parametrize(("src", "dst"), [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")])
def test_a_packet_goes_protected_to_the_station_of_the_clear_one_and_comes_out_the_same(src: str, dst: str, tags: bytes) -> None:
    one, other = both()
    link = Link(B, A, tags)
    packet = ping() if "." in src else bytes(IPv6(src=src, dst=dst) / UDP() / b"hello")
    ((way, kind, sealed),) = one.come(INSIDE, packet, link)
    assert (way, kind) == (link, frames.kind_of(packet))
    assert packet[-8:] not in sealed
    assert (sealed[9] if kind == frames.IPV4 else sealed[6]) == 50
    assert other.come(OUTSIDE, sealed, link) == [(link, kind, packet)]


@pytest.mark.reason("policy.in.clear")
def test_what_comes_in_clear_where_policy_wants_protection_is_refused_and_counted() -> None:
    other = Wire(IN_FRONT_OF_B)
    assert other.come(OUTSIDE, ping()) == []
    assert other.host.count(POLICY_IN_CLEAR) == 1
    assert other.come(OUTSIDE, ping(src="192.0.2.7")) == [(Link(B, A), frames.IPV4, ping(src="192.0.2.7"))]


@pytest.mark.reason("policy.out.discard")
def test_what_policy_discards_does_not_leave() -> None:
    wire = Wire("spdadd 192.0.2.1 0.0.0.0/0 any -P out discard;")
    assert wire.come(INSIDE, ping()) == []
    assert wire.host.count(POLICY_OUT_DISCARD) == 1


def test_esp_of_others_is_judged_as_it_is() -> None:
    """Hosts behind the bump may speak ESP among themselves; only what its policies serve is opened here."""
    esp = bytes(IP(src="192.0.2.7", dst="192.0.2.8", proto=50) / Raw(bytes(64)))
    assert Wire(IN_FRONT_OF_B).come(OUTSIDE, esp) == [(Link(B, A), frames.IPV4, esp)]
    assert Wire(IN_FRONT_OF_B).come(OUTSIDE, bytes(IP(src="192.0.2.1", dst="192.0.2.2", proto=50) / Raw(bytes(64)))) == []


def test_ike_of_a_host_behind_is_judged_by_policy_like_others() -> None:
    """UDP 4500 with the marker of IKE: no socket of ours gets it."""
    ike = bytes(IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=4500, dport=4500) / Raw(bytes(40)))
    assert Wire(IN_FRONT_OF_B).come(OUTSIDE, ike) == []
    bypass = "spdadd 192.0.2.1[4500] 192.0.2.2[4500] udp -P in none;"
    assert Wire(bypass + IN_FRONT_OF_B).come(OUTSIDE, ike) == [(Link(B, A), frames.IPV4, ike)]


# -- sizes -----------------------------------------------------------------------------------------------------------------


def test_the_sender_inside_is_told_what_fits_and_then_it_does() -> None:
    one, other = both()
    big = ping(1472, flags="DF")
    assert one.come(INSIDE, big) == []
    ((link, _, told),) = one.inside.take()
    answer = IP(told)
    assert (link, answer.src, answer.dst) == (Link(A, B), "192.0.2.2", "192.0.2.1")
    assert (answer[ICMP].type, answer[ICMP].code) == (3, 4)
    room = answer[ICMP].nexthopmtu
    assert one.come(INSIDE, ping(room - 27, flags="DF")) == []
    one.inside.take()
    ((_, _, sealed),) = one.come(INSIDE, ping(room - 28, flags="DF"))
    assert len(sealed) <= 1500
    assert other.come(OUTSIDE, sealed) == [(Link(B, A), frames.IPV4, ping(room - 28, flags="DF"))]


def test_ipv6_is_told_too_and_what_the_host_cut_arrives_in_pieces_that_fit() -> None:
    one, other = both()
    whole = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP() / Raw(bytes(1452)))
    assert one.come(INSIDE, whole) == []
    ((link, _, told),) = one.inside.take()
    assert link == Link(A, B)
    room = IPv6(told)[ICMPv6PacketTooBig].mtu
    big = IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrFragment(id=7) / UDP() / Raw(bytes(3000))
    sealed = [packet for piece in fragment6(big, room) for _, _, packet in one.come(INSIDE, bytes(piece))]
    assert all(len(packet) <= 1500 for packet in sealed)
    out = [packet for piece in sealed for _, _, packet in other.come(OUTSIDE, piece)]
    assert all(len(packet) <= 1500 for packet in out)
    assert bytes(defragment6([IPv6(packet) for packet in out])[UDP].payload) == bytes(3000)


def test_fragments_of_a_sender_become_one_sealed_packet_and_fragments_again() -> None:
    one, other = both()
    big = IP(src="192.0.2.1", dst="192.0.2.2", id=77) / UDP() / Raw(bytes(6000))
    sealed = [packet for piece in fragment(big, 1400) for _, _, packet in one.come(INSIDE, bytes(piece))]
    assert all(len(packet) <= 1500 for packet in sealed)
    out = [packet for piece in sealed for _, _, packet in other.come(OUTSIDE, piece)]
    assert len(out) > 1
    assert all(len(packet) <= 1500 for packet in out)
    assert bytes(defragment([IP(packet) for packet in out])[0][UDP].payload) == bytes(6000)


def test_an_opened_packet_that_may_not_be_cut_and_does_not_fit_inside_is_complained_about_outside() -> None:
    ends = ("192.0.2.1", "192.0.2.2")
    one = Wire(TUNNEL.format(*ends), mtu=1600)
    other = Wire(TUNNEL.format(*ends).replace("-P out", "-P X").replace("-P in", "-P out").replace("-P X", "-P in"), mtu=1600)
    other.inside.mtu = 1400
    ((_, _, sealed),) = one.come(INSIDE, ping(1472, "10.1.0.1", "10.2.0.1", flags="DF"))
    assert other.come(OUTSIDE, sealed) == []
    ((link, _, complaint),) = other.outside.take()
    assert link == Link(A, B)
    ((back, _, clear),) = one.come(OUTSIDE, complaint, link)
    assert back == link
    told = IP(clear)
    assert (told.dst, told[ICMP].type, told[ICMP].code, told[ICMP].nexthopmtu) == ("10.1.0.1", 3, 4, 1400)
    assert other.inside.losses.lost == {"EMSGSIZE": 1}


# -- where it goes ---------------------------------------------------------------------------------------------------------


def test_what_is_opened_while_the_interface_inside_is_gone_is_lost_and_counted() -> None:
    one, other = both()
    ((link, _, sealed),) = one.come(INSIDE, ping())
    other.inside.mtu = 0
    assert other.come(OUTSIDE, sealed, link) == []
    assert other.inside.losses.lost == {"ENODEV": 1}


def test_a_tunnel_packet_goes_to_the_neighbour_that_has_its_end_if_one_said_so() -> None:
    wire = Wire(TUNNEL.format("192.0.2.1", "192.0.2.2"))
    packet = ping(src="10.1.0.1", dst="10.2.0.1")
    ((link, _, _),) = wire.come(INSIDE, packet, Link(GATEWAY, A))
    assert link == Link(GATEWAY, A)
    wire.come(OUTSIDE, bytes(ARP(op=2, hwsrc="02:00:00:00:00:bb", psrc="192.0.2.2")), Link(A, B), frames.ARP)
    ((link, _, sealed),) = wire.come(INSIDE, packet, Link(GATEWAY, A))
    assert link == Link(B, A)
    assert IP(sealed).dst == "192.0.2.2"


def test_an_opened_packet_goes_to_the_station_inside_that_has_its_destination() -> None:
    ends = ("192.0.2.1", "192.0.2.2")
    one = Wire(TUNNEL.format(*ends))
    other = Wire(TUNNEL.format(*ends).replace("-P out", "-P X").replace("-P in", "-P out").replace("-P X", "-P in"))
    ((_, _, sealed),) = one.come(INSIDE, ping(src="10.1.0.1", dst="10.2.0.1"))
    ((link, _, _),) = other.come(OUTSIDE, sealed, Link(GATEWAY, A))
    assert link == Link(GATEWAY, A)
    other.come(INSIDE, bytes(ARP(op=1, hwsrc="02:00:00:00:00:bb", psrc="10.2.0.1")), Link(GATEWAY, B), frames.ARP)
    ((link, _, _),) = other.come(OUTSIDE, one.come(INSIDE, ping(src="10.1.0.1", dst="10.2.0.1"))[0][2], Link(GATEWAY, A))
    assert link == Link(B, A)


def test_a_bump_speaks_for_its_own_address_and_asks_inside_for_what_it_opens() -> None:
    ends = ("192.0.2.8", "192.0.2.9")
    one = Wire(TUNNEL.format(*ends), own=("192.0.2.8",))
    other = Wire(TUNNEL.format(*ends).replace("-P out", "-P X").replace("-P in", "-P out").replace("-P X", "-P in"), own=("192.0.2.9",))
    asks = bytes(ARP(op=1, hwsrc="02:00:00:00:00:aa", psrc="192.0.2.1", pdst="192.0.2.9"))
    assert other.come(OUTSIDE, asks, Link(b"\xff" * 6, A), frames.ARP) == []
    ((link, _, said),) = other.outside.take()
    assert (link, ARP(said).psrc, ARP(said).op) == (Link(A, other.outside.mac), "192.0.2.9", 2)
    packet = ping(src="10.1.0.1", dst="10.2.0.1")
    ((link, _, sealed),) = one.come(INSIDE, packet, Link(other.outside.mac, A))
    assert link == Link(other.outside.mac, one.outside.mac)
    ((link, kind, asked),) = other.come(OUTSIDE, sealed, link)
    assert (kind, ARP(asked).pdst, ARP(asked).psrc) == (frames.ARP, "10.2.0.1", "192.0.2.9")
    assert link == Link(b"\xff" * 6, other.inside.mac)
    other.come(INSIDE, bytes(ARP(op=2, hwsrc="02:00:00:00:00:bb", psrc="10.2.0.1")), Link(other.inside.mac, B), frames.ARP)
    assert other.inside.take() == [(Link(B, other.inside.mac), frames.IPV4, packet)]
    for _ in range(MOST_WAITING + 3):
        ((link, _, sealed),) = one.come(INSIDE, ping(src="10.1.0.1", dst="10.2.0.7"), Link(other.outside.mac, A))
        other.come(OUTSIDE, sealed, link)
    assert other.inside.losses.lost == {"unresolved": 3}
    word = bytes(IP(src="192.0.2.1", dst="192.0.2.9") / ICMP(type=3, code=1) / IP(src="192.0.2.9", dst="192.0.2.8"))
    assert other.come(OUTSIDE, word) == []


def test_a_packet_that_waited_for_an_sa_goes_where_its_frame_did() -> None:
    policies = IN_FRONT_OF_A[len(BOTH) :]
    wire = Wire(policies)
    link = Link(B, A, b"\x81\0\0\x05")
    assert wire.come(INSIDE, ping(), link) == []
    wire.host.setkey(BOTH)
    wire.bump.packets_of(wire.host.events)
    ((where, _, sealed),) = wire.outside.take()
    assert where == link
    assert IP(sealed).proto == 50


def test_policies_that_come_later_are_heeded_with_the_next_frame() -> None:
    one, other = Wire(IN_FRONT_OF_A), Wire(BOTH)
    ((_, _, sealed),) = one.come(INSIDE, ping())
    assert other.come(OUTSIDE, sealed) == [(Link(B, A), frames.IPV4, sealed)]
    other.host.setkey(IN_FRONT_OF_B[len(BOTH) :])
    assert other.come(OUTSIDE, sealed) == [(Link(B, A), frames.IPV4, ping())]


class Shown:
    """A watcher that looks at everything and lets no ICMP in."""

    is_open = True

    def __init__(self) -> None:
        self.said: list[str] = []

    def sealed(self, outcomes: Iterable[object], events: Iterable[Event]) -> None:
        self.said += ["sealed" for event in events if isinstance(event, Tapped)][:1]

    def opened(self, packet: bytes, events: Iterable[Event]) -> None:
        self.said += ["opened" for event in events if isinstance(event, Tapped)][:1]

    def lets_in(self, outcome: object) -> bool:
        return False


def test_captures_and_the_filter_see_what_passes() -> None:
    one, other = both()
    for wire in (one, other):
        wire.stack.tap.is_open = True
        wire.bump.watcher = Shown()
    ((_, _, sealed),) = one.come(INSIDE, ping())
    assert other.come(OUTSIDE, sealed) == []
    assert [wire.bump.watcher.said for wire in (one, other)] == [["sealed"], ["opened"]]  # type: ignore[union-attr]
    assert other.come(OUTSIDE, bytes(IP(src="192.0.2.7", dst="192.0.2.9") / TCP())) != []
