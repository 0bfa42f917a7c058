"""What random worlds found in the stack, each as the smallest case of it."""

import pytest

from koura.address import Prefix, parse
from koura.moment import Moment
from koura.sim import ip
from koura.sim.node import Node
from koura.sim.parts import Interface
from koura.traffic.fragments import split
from koura.wire.summary import summarise

AT = Moment.of_s(1_800_000_000)
A, B = parse("192.0.2.1"), parse("192.0.2.2")
HERE, THERE = parse("10.1.0.1"), parse("10.2.0.1")
SCRIPT = """
add 192.0.2.1 192.0.2.2 ah 0x1001 -m {mode} -A hmac-sha2-256 0x000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f;
add 192.0.2.1 192.0.2.2 ipcomp 0x1001 -m tunnel -C deflate;
spdadd 10.1.0.0/24 10.2.0.0/24 any -P {direction} ipsec ipcomp/tunnel/192.0.2.1-192.0.2.2/require ah/transport//require;
"""


def test_a_router_without_policies_sends_fragments_on_as_they_came() -> None:
    """IPv6: what it put together would not fit the link, and it may not fragment by itself. RFC 8200 §5."""
    near = Interface("near", ((parse("2001:db8::2"), 64),))
    far = Interface("far", ((parse("2001:db8:9::2"), 64),))
    router = Node("r", [near, far], is_forwarding=True)
    whole = ip.datagram(parse("2001:db8::1"), parse("2001:db8:9::1"), 1, 2, bytes(2000))
    sent = [sent for piece in split(whole, 1500, 7) for sent in router.receive(piece, AT)]
    assert [len(one.packet) for one in sent] == [len(piece) for piece in split(whole, 1500, 7)]
    assert all(summarise(one.packet).is_fragment for one in sent)


@pytest.mark.covers("R57")
@pytest.mark.parametrize("mode", ["transport", "any"])
def test_of_two_fragments_in_a_tunnel_one_compresses_and_the_other_does_not(mode: str) -> None:
    """They are of one datagram all the same, also where an SA of mode any sees plain IP in IP for the second. RFC 3173 §2.2."""
    a = Node("a", [Interface("in", ((parse("10.1.0.254"), 24),)), Interface("out", ((A, 24),))], is_forwarding=True)
    b = Node("b", [Interface("in", ((parse("10.2.0.254"), 24),)), Interface("out", ((B, 24),))], is_forwarding=True)
    a.add_route(Prefix(THERE, 24), "out")
    for node, direction in ((a, "out"), (b, "in")):
        assert node.setkey(SCRIPT.format(mode=mode, direction=direction), AT) == ((), ())
    whole = ip.datagram(HERE, THERE, 1, 2, bytes(1500))
    arrived = [
        inner.packet for piece in split(whole, 1500, 0) for outer in a.receive(piece, AT) for inner in b.receive(outer.packet, AT)
    ]
    assert len(arrived) == 2
    assert sum(len(packet) - 20 for packet in arrived) == len(whole) - 20


CTR = """
add 10.0.0.1 10.0.0.2 esp 0x1001 -E aes-ctr 0x000102030405060708090a0b0c0d0e0f10111213
    -A hmac-sha1 0x0102030405060708090a0b0c0d0e0f1011121314;
spdadd 10.0.0.1 10.0.0.2 any -P out ipsec esp/transport//require;
"""


@pytest.mark.covers("M20", "S29")
def test_the_padding_of_aes_ctr_counts_when_a_size_is_told() -> None:
    """It is padded to 16 octets for old receivers, and the largest packet that fits was computed without that."""
    dst = parse("10.0.0.2")
    node = Node("a", [Interface("eth0", ((parse("10.0.0.1"), 24),))])
    assert node.setkey(CTR, AT) == ((), ())
    node.send(ip.datagram(parse("10.0.0.1"), dst, 1, 2, bytes(1472), is_df=True), AT)
    told = node.path_mtu[dst]
    [sent] = node.send(ip.datagram(parse("10.0.0.1"), dst, 1, 2, bytes(told - 28), is_df=True), AT)
    assert 1500 - 16 < len(sent.packet) <= 1500
    assert node.send(ip.datagram(parse("10.0.0.1"), dst, 1, 2, bytes(told - 27), is_df=True), AT) == ()


NATT = "-r 32 -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;"


@pytest.mark.covers("M12")
@pytest.mark.reason("held.larval")
def test_esp_in_udp_waits_for_the_keys_of_a_larval_sa() -> None:
    """GETSPI says nothing of ports: they come with the keys, and were compared with none before that."""
    a, b = (Node(name, [Interface("eth0", ((address, 24),))]) for name, address in (("a", A), ("b", B)))
    policy = "spdadd 192.0.2.1 192.0.2.2 udp -P {} ipsec esp/transport//require;"
    assert a.setkey(f"add 192.0.2.1[4500] 192.0.2.2[4500] esp 0x1001 {NATT}" + policy.format("out"), AT) == ((), ())
    assert b.setkey("getspi 192.0.2.1 192.0.2.2 esp 0x1001;" + policy.format("in"), AT) == ((), ())
    b.bind(7)
    [sent] = a.send_udp(B, 7, 7, b"early", AT)
    assert b.receive(sent.packet, AT) == ()
    assert (b.stack.counters["held.larval"], b.datagrams) == (1, [])
    assert b.setkey(f"update 192.0.2.1[4500] 192.0.2.2[4500] esp 0x1001 {NATT}", AT) == ((), ())
    assert [came.payload for came in b.datagrams] == [b"early"]


@pytest.mark.reason("esp.port")
def test_what_waited_for_keys_and_came_by_another_port_is_refused_then() -> None:
    a, b = (Node(name, [Interface("eth0", ((address, 24),))]) for name, address in (("a", A), ("b", B)))
    policy = "spdadd 192.0.2.1 192.0.2.2 udp -P out ipsec esp/transport//require;"
    assert a.setkey(f"add 192.0.2.1[4501] 192.0.2.2[4500] esp 0x1001 {NATT}" + policy, AT) == ((), ())
    assert b.setkey("getspi 192.0.2.1 192.0.2.2 esp 0x1001;", AT) == ((), ())
    b.bind(7)
    [sent] = a.send_udp(B, 7, 7, b"early", AT)
    assert b.receive(sent.packet, AT) == ()
    assert b.setkey(f"update 192.0.2.1[4500] 192.0.2.2[4500] esp 0x1001 {NATT}", AT) == ((), ())
    assert (b.stack.counters["esp.port"], b.datagrams) == (1, [])
