"""Outer headers through the doors: TOS, both halves of ECN, TTL, ID; whom a tunnel packet comes from. R36, R37, M28, S5."""

import pytest

from koura.reasons import TUNNEL_ECN, TUNNEL_SOURCE
from koura.wire import ipv4, ipv6
from tests.unit.stack.kit import Host, discards
from tests.unit.traffic.kit import A6, B6, INNER_A, INNER_A6, INNER_B, INNER_B6, B

NOT_ECT, ECT1, ECT0, CE = range(4)
DSCP = 0xB8


def tunnel(outer: int, more: str = "") -> str:
    a, b = ("192.0.2.1", "192.0.2.2") if outer == 4 else ("2001:db8::a", "2001:db8::b")
    request = f"any -P out ipsec esp/tunnel/{a}-{b}/require;"
    return (f"spdadd 10.0.1.0/24 10.0.2.0/24 {request} spdadd 2001:db8:1::/64 2001:db8:2::/64 {request}"
            f'add {a} {b} esp 0x1000 -m tunnel {more} -E null "-" -A hmac-sha2-256 0x{bytes(32).hex()};')  # fmt: skip


def inner(family: int, tos: int) -> bytes:
    if family == 4:
        return ipv4.write(ipv4.Header(INNER_A, INNER_B, 200, 17, tos), b"payload!")
    return ipv6.write(ipv6.Header(INNER_A6, INNER_B6, 200, 17, tos), b"payload!")


def tos_of(packet: bytes) -> int:
    return ipv4.read(packet)[0].tos if packet[0] >> 4 == 4 else ipv6.read(packet)[0].traffic_class


def marked(packet: bytes, tos: int) -> bytes:
    """The packet as a router on the way left it."""
    if packet[0] >> 4 == 4:
        header, payload = ipv4.read(packet)
        return ipv4.write(ipv4.Header(header.src, header.dst, header.protocol, header.ttl - 3, tos), payload)
    header6, payload = ipv6.read(packet)
    return ipv6.write(ipv6.Header(header6.src, header6.dst, header6.next_header, header6.hop_limit - 3, tos), payload)


@pytest.mark.covers("R37", "S5", "R39")
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("value", [0, 1, 2, -1])
def test_ingress_follows_the_sysctl_of_the_outer_family(outer: int, family: int, value: int) -> None:
    host = Host(tunnel(outer))
    host.tune("net.inet.ipsec.ecn" if outer == 4 else "net.inet6.ipsec6.ecn", value)
    host.tune("net.inet6.ipsec6.ecn" if outer == 4 else "net.inet.ipsec.ecn", 0 if value else 1)
    for ecn in range(4):
        expected = {0: 0, 1: ECT0 if ecn == CE else ecn, 2: ecn, -1: ecn}[value]
        assert tos_of(host.forwarded(inner(family, DSCP | ecn))) == DSCP | expected


@pytest.mark.covers("R37", "S5")
@pytest.mark.reason("tunnel.ecn")
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("value", [0, 1, 2, -1])
def test_egress_follows_rfc_6040_but_for_minus_one(outer: int, family: int, value: int) -> None:
    host = Host(tunnel(outer))
    host.tune("net.inet.ipsec.ecn" if outer == 4 else "net.inet6.ipsec6.ecn", value)
    dropped = 0
    for inside in range(4):
        for outside in range(4):
            sealed = marked(host.forwarded(inner(family, DSCP | inside)), DSCP | outside)
            table = {(CE, ECT0): CE, (CE, ECT1): CE, (ECT1, ECT0): ECT1}
            if value != -1 and (outside, inside) == (CE, NOT_ECT):
                dropped += 1
                discards(host, host.receive(sealed), TUNNEL_ECN, dropped)
                continue
            expected = inside if value == -1 else table.get((outside, inside), inside)
            assert host.delivered(sealed) == inner(family, DSCP | expected)
    assert host.stack.report.read("ipsec" if outer == 4 else "ipsec6")["in_inval"] == dropped


@pytest.mark.covers("R36", "M28")
def test_ttl_and_id_are_of_the_outer_header_alone() -> None:
    host = Host(tunnel(4))
    host.tune("net.inet.ip.ttl", 33)
    sealed = host.forwarded(inner(4, 0))
    assert ipv4.read(sealed)[0].ttl == 33
    assert host.delivered(marked(sealed, 0)) == inner(4, 0), "the inner TTL is as it was"
    ids = {ipv4.read(host.forwarded(inner(4, 0)))[0].identification for _ in range(8)}
    assert len(ids) > 4
    host = Host(tunnel(6))
    host.tune("net.inet6.ip6.hlim", 44)
    sealed = host.forwarded(inner(4, 0))
    assert (ipv6.read(sealed)[0].hop_limit, ipv6.read(sealed)[0].flow_label) == (44, 0)


@pytest.mark.reason("tunnel.source")
@pytest.mark.parametrize("outer", [4, 6])
def test_a_tunnel_packet_from_elsewhere_where_that_is_checked(outer: int) -> None:
    host = Host(tunnel(outer))
    sealed = host.forwarded(inner(4, 0))
    if outer == 4:
        header, payload = ipv4.read(sealed)
        moved = ipv4.write(ipv4.Header(b"\xc6\x33\x64\1", B, header.protocol), payload)
    else:
        header6, payload = ipv6.read(sealed)
        moved = ipv6.write(ipv6.Header(A6[:-1] + b"\xee", B6, header6.next_header), payload)
    assert host.delivered(moved) == inner(4, 0)
    host.tune("net.koura.check_tunnel_source", 1)
    again = host.forwarded(inner(4, 0))
    assert host.delivered(again) == inner(4, 0)
    discards(host, host.receive(moved), TUNNEL_SOURCE)


@pytest.mark.covers("R7", "R2", "R50")
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("family", [4, 6])
def test_any_family_goes_through_any_tunnel(outer: int, family: int) -> None:
    host = Host(tunnel(outer))
    sealed = host.forwarded(inner(family, 0))
    assert sealed[0] >> 4 == outer
    assert host.delivered(sealed) == inner(family, 0)
