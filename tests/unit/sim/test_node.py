"""A node is an IP host as others know it, with a stack in it."""

import pytest

from koura.address import Prefix, parse
from koura.moment import Moment
from koura.sim import ip
from koura.sim.node import Node
from koura.sim.parts import Interface, Route
from koura.traffic.fragments import split
from koura.wire import icmp, ipv4
from koura.wire.summary import summarise

AT = Moment.of_s(1_800_000_000)
A, B, FAR = parse("10.0.0.1"), parse("10.0.0.2"), parse("10.9.0.1")
A6, B6, FAR6 = parse("2001:db8::1"), parse("2001:db8::2"), parse("2001:db8:9::1")
PAIRS = pytest.mark.parametrize(("a", "b"), [(A, B), (A6, B6)], ids=["v4", "v6"])
SCRIPT = """
add 10.0.0.1 10.0.0.2 esp 0x1001 -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;
add 10.0.0.2 10.0.0.1 esp 0x1002 -E aes-gcm-16 0x100102030405060708090a0b0c0d0e0f10111213;
spdadd 10.0.0.1 10.0.0.2 any -P {here} ipsec esp/transport//require;
spdadd 10.0.0.2 10.0.0.1 any -P {there} ipsec esp/transport//require;
"""


def host(mtu_octets: int = 1500) -> Node:
    return Node("b", [Interface("eth0", ((B, 24), (B6, 64)), mtu_octets)])


def router(mtu_octets: int = 1500) -> Node:
    near = Interface("near", ((B, 24), (B6, 64)))
    far = Interface("far", ((parse("10.9.0.2"), 24), (parse("2001:db8:9::2"), 64)), mtu_octets)
    return Node("r", [near, far], is_forwarding=True)


@PAIRS
def test_an_echo_is_answered_whole_and_in_fragments(a: bytes, b: bytes) -> None:
    node = host(1280)
    ping = ip.echo(a, b, 7, 1, bytes(3000))
    answers = [sent for piece in split(ping, 1280, 5) for sent in node.receive(piece, AT)]
    assert len(answers) == 3
    assert all(len(sent.packet) <= 1280 and summarise(sent.packet).is_fragment for sent in answers)


@PAIRS
def test_a_datagram_is_recorded_and_answered(a: bytes, b: bytes) -> None:
    node = host()
    node.bind(53, lambda datagram: datagram.payload[::-1])
    [answer] = node.receive(ip.datagram(a, b, 1000, 53, b"query"), AT, frozenset((4,)))
    assert [(d.src, d.sport, d.payload, d.tags) for d in node.datagrams] == [(a, 1000, b"query", frozenset((4,)))]
    assert answer.packet.endswith(b"yreuq")
    assert answer.tags == frozenset((4,))


@PAIRS
def test_a_closed_port_is_unreachable_unless_that_is_off(a: bytes, b: bytes) -> None:
    node = host()
    asked = ip.datagram(a, b, 1000, 9, b"anybody?")
    [answer] = node.receive(asked, AT)
    assert summarise(answer.packet).dport == (icmp.PORT_UNREACHABLE if len(a) == 4 else icmp.PORT_UNREACHABLE6)
    node.answers_closed_ports = False
    assert node.receive(asked, AT) == ()


@pytest.mark.parametrize(("a", "far"), [(A, FAR), (A6, FAR6)], ids=["v4", "v6"])
def test_a_router_counts_hops_and_says_when_they_are_used_up(a: bytes, far: bytes) -> None:
    node = router()
    asked = ip.datagram(a, far, 1000, 9, b"far")
    [onward] = node.receive(asked, AT)
    assert (onward.interface, summarise(onward.packet).ttl) == ("far", 63)
    for _ in range(62):
        hopped = ip.hop(asked)
        assert hopped is not None
        asked = hopped
    last = ip.hop(asked)
    assert last is not None
    [error] = node.receive(last, AT)
    assert (error.interface, summarise(error.packet).sport) == ("near", icmp.TIME_EXCEEDED if len(a) == 4 else icmp.TIME_EXCEEDED6)


def test_a_router_cuts_or_says_the_size() -> None:
    node = router(1280)
    assert len(node.receive(ip.datagram(A, FAR, 1, 9, bytes(1400)), AT)) == 2
    for asked, word in ((ip.datagram(A, FAR, 1, 9, bytes(1400), is_df=True), 0), (ip.datagram(A6, FAR6, 1, 9, bytes(1400)), 0)):
        [error] = node.receive(asked, AT)
        summary = summarise(error.packet)
        assert error.interface == "near"
        assert icmp.read(error.packet[summary.offset :]).rest == 1280 + word


def test_a_router_without_a_route_says_so_and_a_host_forwards_nothing() -> None:
    [error] = router().receive(ip.datagram(A, parse("10.77.0.1"), 1, 9, b"x"), AT)
    assert summarise(error.packet).sport == icmp.UNREACHABLE
    assert host().receive(ip.datagram(A, FAR, 1, 9, b"x"), AT) == ()


def test_the_longest_prefix_is_the_route() -> None:
    node = router()
    node.add_route(Prefix(parse("10.9.0.128"), 25), "near")
    assert node.send_udp(parse("10.9.0.129"), 1, 2, b"x", AT)[0].interface == "near"
    assert node.send_udp(FAR, 1, 2, b"x", AT)[0].interface == "far"


def test_a_host_learns_a_path_mtu_from_a_router() -> None:
    node = Node("a", [Interface("eth0", ((A, 24),))], routes=[Route(Prefix(bytes(4), 0), "eth0")])
    big = ip.datagram(A, FAR, 1, 9, bytes(1400), is_df=True)
    assert len(node.send(big, AT)) == 1
    [error] = router(1280).receive(big, AT)
    node.receive(error.packet, AT)
    assert node.path_mtu == {FAR: 1280}
    assert node.send(big, AT) == ()
    assert len(node.send_udp(FAR, 1, 9, bytes(1400), AT)) == 2


@pytest.mark.covers("R1", "R41")
def test_two_hosts_speak_esp_from_a_script() -> None:
    """The program behind the port sees nothing of it."""
    a, b = Node("a", [Interface("eth0", ((A, 24),))]), host()
    assert a.setkey(SCRIPT.format(here="out", there="in"), AT) == ((), ())
    assert b.setkey(SCRIPT.format(here="in", there="out"), AT) == ((), ())
    b.bind(53, lambda datagram: datagram.payload.upper())
    a.bind(1000)
    [asked] = a.send_udp(B, 1000, 53, b"clear words", AT)
    assert ipv4.read(asked.packet)[0].protocol == 50
    assert b"clear" not in asked.packet
    [answer] = b.receive(asked.packet, AT)
    assert a.receive(answer.packet, AT) == ()
    assert [d.payload for d in a.datagrams] == [b"CLEAR WORDS"]


def test_ike_on_port_4500_reaches_its_socket() -> None:
    node = host()
    node.bind(4500, lambda _: b"\0\0\0\0answer")
    [answer] = node.receive(ip.datagram(A, B, 4500, 4500, b"\0\0\0\0question"), AT)
    assert answer.packet.endswith(b"answer")
    assert [d.payload for d in node.datagrams] == [b"\0\0\0\0question"]
