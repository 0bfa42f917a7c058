"""Frames read and written, what counts as the link's own business, and what neighbours say while they pass."""

import random

import pytest
from scapy.contrib.ospf import OSPF_Hdr
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Solicit
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from koura.address import parse
from koura.host import frames, neighbours
from koura.host.frames import Link
from koura.host.neighbours import Neighbours

ONE, TWO, OWN = "02:00:00:00:00:01", "02:00:00:00:00:02", bytes.fromhex("02000000000f")
ONE_OCTETS, TWO_OCTETS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def test_a_frame_is_parted_and_put_together_again_with_all_its_tags() -> None:
    for layers, kind in (
        (Ether(src=ONE, dst=TWO) / IP(), frames.IPV4), (Ether(src=ONE, dst=TWO) / Dot1Q(vlan=5, prio=3) / IPv6(), frames.IPV6),
        (Ether(src=ONE, dst=TWO) / Dot1AD(vlan=7) / Dot1Q(vlan=5) / ARP(), frames.ARP),
        (Ether(src=ONE, dst=TWO, type=0x88CC) / b"x", 0x88CC),
    ):  # fmt: skip
        octets = bytes(layers)
        read = frames.read(octets)
        assert read is not None
        link, found, at = read
        assert (found, link.src, link.dst) == (kind, ONE_OCTETS, TWO_OCTETS)
        assert link.front(found) + octets[at:] == octets
        assert link.back() == Link(ONE_OCTETS, TWO_OCTETS, link.tags)
        for end in range(at):
            assert frames.read(octets[:end]) is None
    assert frames.read(bytes(12) + b"\x81\0\0\1" * 5 + b"\x08\0") is None


CONTROL: tuple[Packet, ...] = (
    IPv6(hlim=255) / ICMPv6ND_NS(tgt="fe80::1"), IPv6(hlim=255) / ICMPv6ND_NA(tgt="fe80::1"), IPv6(hlim=255) / ICMPv6ND_RS(),
    IPv6(hlim=1, src="fe80::1", dst="ff02::16") / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2(),
    IP(dst="224.0.0.1", ttl=1, proto=2) / Raw(bytes(8)), IP(dst="239.1.2.3", ttl=1, proto=2) / Raw(bytes(8)),
    IP(dst="224.0.0.5", proto=89) / OSPF_Hdr(), IPv6(dst="ff02::5", nh=89) / Raw(bytes(16)),
    IP(dst="224.0.0.18", proto=112) / Raw(bytes(8)),
    IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67) / BOOTP() / DHCP(),
    IP() / UDP(sport=67, dport=68) / BOOTP(), IPv6(src="fe80::1", dst="ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit(),
)  # fmt: skip
OTHERS: tuple[Packet, ...] = (
    IPv6(hlim=64) / ICMPv6ND_NS(tgt="fe80::1"), IPv6(hlim=255) / ICMPv6EchoRequest(), IP() / ICMP(), IP() / TCP(),
    IP() / UDP(sport=68, dport=53),
    IPv6(hlim=64) / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / ICMPv6MLReport2(), IP(dst="10.0.0.1", proto=89) / Raw(bytes(8)),
    IPv6(dst="2001:db8::1", nh=89) / Raw(bytes(16)), IPv6(src="2001:db8::1") / UDP(sport=546, dport=547) / DHCP6_Solicit(),
    IP(frag=3) / UDP(sport=68, dport=67) / BOOTP(), IP(dst="224.0.0.251") / UDP(sport=5353, dport=5353) / b"mdns",
)  # fmt: skip


@pytest.mark.parametrize("packet", CONTROL, ids=lambda packet: packet.summary()[:40])
def test_what_keeps_the_link_going_is_control(packet: Packet) -> None:
    assert frames.is_control(bytes(packet))


@pytest.mark.parametrize("packet", OTHERS, ids=lambda packet: packet.summary()[:40])
def test_all_else_is_not(packet: Packet) -> None:
    assert not frames.is_control(bytes(packet))


def test_any_octets_are_looked_at_without_a_fault() -> None:
    dice = random.Random(4301)
    for packet in (*CONTROL, *OTHERS):
        whole = bytes(packet)
        for end in range(len(whole)):
            frames.is_control(whole[:end])
            frames.trimmed(whole[:end])
            Neighbours().learn(frames.IPV6, whole[:end])
            neighbours.asked(frames.IPV6, whole[:end])
    for _ in range(2000):
        noise = bytes((dice.choice((0x45, 0x60, 0)),)) + dice.randbytes(dice.randrange(120))
        frames.is_control(noise)
        frames.trimmed(noise)
        frames.read(noise)
        for kind in (frames.ARP, frames.IPV6):
            Neighbours().learn(kind, noise)
            neighbours.asked(kind, noise)


def test_the_padding_of_a_short_frame_goes() -> None:
    for packet in (bytes(IP() / UDP() / b"x"), bytes(IPv6() / UDP() / b"x")):
        assert frames.trimmed(packet + bytes(20)) == packet
        assert frames.trimmed(packet) == packet
        assert frames.trimmed(packet[:-1]) == packet[:-1]
    assert frames.trimmed(b"\x45\0\0\3" + bytes(30)) == b"\x45\0\0\3" + bytes(30)


def test_stations_are_learned_from_what_they_say() -> None:
    known = Neighbours()
    request = bytes(ARP(op=1, hwsrc=ONE, psrc="192.0.2.1", pdst="192.0.2.2"))
    assert known.learn(frames.ARP, request + bytes(18)) == parse("192.0.2.1")
    assert known.get(parse("192.0.2.1")) == ONE_OCTETS
    assert known.get(parse("192.0.2.2")) is None
    assert neighbours.asked(frames.ARP, request) == parse("192.0.2.2")
    known.learn(frames.ARP, bytes(ARP(op=2, hwsrc=TWO, psrc="192.0.2.1", pdst="192.0.2.9")))
    assert known.get(parse("192.0.2.1")) == TWO_OCTETS
    asks = IPv6(src="fe80::1", dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt="fe80::2") / ICMPv6NDOptSrcLLAddr(lladdr=ONE)
    says = IPv6(src="fe80::3", dst="fe80::1", hlim=255) / ICMPv6ND_NA(tgt="fe80::2") / ICMPv6NDOptDstLLAddr(lladdr=TWO)
    assert known.learn(frames.IPV6, bytes(asks)) == parse("fe80::1")
    assert neighbours.asked(frames.IPV6, bytes(asks)) == parse("fe80::2")
    assert known.learn(frames.IPV6, bytes(says)) == parse("fe80::2")
    assert neighbours.asked(frames.IPV6, bytes(says)) == b""


def test_nobody_and_groups_are_no_stations() -> None:
    known = Neighbours()
    assert known.learn(frames.ARP, bytes(ARP(op=1, hwsrc=ONE, psrc="0.0.0.0", pdst="192.0.2.2"))) == b""
    assert known.learn(frames.ARP, bytes(ARP(op=1, hwsrc="03:00:00:00:00:01", psrc="192.0.2.1"))) == b""
    probe = IPv6(src="::", dst="ff02::1:ff00:2", hlim=255) / ICMPv6ND_NS(tgt="fe80::2")
    assert known.learn(frames.IPV6, bytes(probe)) == b""
    far = IPv6(src="fe80::1", dst="fe80::2", hlim=254) / ICMPv6ND_NA(tgt="fe80::2") / ICMPv6NDOptDstLLAddr(lladdr=TWO)
    assert known.learn(frames.IPV6, bytes(far)) == b""


def test_who_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MOST", 3)
    known = Neighbours()
    for last in (1, 2, 3, 1, 4):
        known.learn(frames.ARP, bytes(ARP(op=1, hwsrc=ONE, psrc=f"192.0.2.{last}")))
    assert [known.get(parse(f"192.0.2.{last}")) is not None for last in (1, 2, 3, 4)] == [True, False, True, True]


@pytest.mark.parametrize("source", ["fe80::1", "::"])
def test_an_own_address_is_answered_for(source: str) -> None:
    link = Link(b"\xff" * 6, ONE_OCTETS, b"\x81\0\0\5")
    request = bytes(ARP(op=1, hwsrc=ONE, psrc="192.0.2.1", pdst="192.0.2.9"))
    to, said = neighbours.answer(frames.ARP, request, link, OWN)
    arp = ARP(said)
    assert (arp.op, arp.psrc, arp.pdst, arp.hwsrc, arp.hwdst) == (2, "192.0.2.9", "192.0.2.1", "02:00:00:00:00:0f", ONE)
    assert to == Link(ONE_OCTETS, OWN, b"\x81\0\0\5")
    asks = bytes(IPv6(src=source, dst="ff02::1:ff00:9", hlim=255) / ICMPv6ND_NS(tgt="2001:db8::9"))
    to, said = neighbours.answer(frames.IPV6, asks, link, OWN)
    answer = IPv6(said)
    is_nobody = source == "::"
    assert (answer.src, answer.dst, answer.hlim) == ("2001:db8::9", "ff02::1" if is_nobody else source, 255)
    assert (answer[ICMPv6ND_NA].S, answer[ICMPv6ND_NA].O, answer[ICMPv6ND_NA].tgt) == (int(not is_nobody), 1, "2001:db8::9")
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == "02:00:00:00:00:0f"
    assert to.dst == (bytes.fromhex("333300000001") if is_nobody else ONE_OCTETS)
    sum_there = answer[ICMPv6ND_NA].cksum
    del answer[ICMPv6ND_NA].cksum
    assert IPv6(bytes(answer))[ICMPv6ND_NA].cksum == sum_there


def test_questions_are_those_of_rfc_826_and_4861() -> None:
    link, kind, said = neighbours.question(parse("192.0.2.7"), parse("192.0.2.9"), OWN)
    arp = ARP(said)
    assert (kind, link.dst, arp.op, arp.psrc, arp.pdst) == (frames.ARP, b"\xff" * 6, 1, "192.0.2.9", "192.0.2.7")
    link, kind, said = neighbours.question(parse("2001:db8::12:3456"), parse("2001:db8::9"), OWN)
    asks = IPv6(said)
    assert (kind, link.dst.hex(), asks.dst) == (frames.IPV6, "3333ff123456", "ff02::1:ff12:3456")
    assert asks[ICMPv6ND_NS].tgt == "2001:db8::12:3456"
    assert asks[ICMPv6NDOptSrcLLAddr].lladdr == "02:00:00:00:00:0f"
