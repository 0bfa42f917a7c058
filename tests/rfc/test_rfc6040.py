"""Explicit congestion notification through tunnels: the tables of RFC 6040, whole, for every mix of families."""

import pytest

from koura.reasons import TUNNEL_ECN
from koura.wire import ipv4, ipv6
from tests.unit.stack.kit import Host, discards
from tests.unit.traffic.kit import A6, B6, INNER_A, INNER_A6, INNER_B, INNER_B6, A, B

NOT_ECT, ECT1, ECT0, CE = 0, 1, 2, 3
DSCP = 0x28
KEY = "0x" + bytes(range(20)).hex()
# RFC 6040 §4.2, figure 4: rows are the inner field, columns the outer one, None: drop.
EGRESS = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT0: NOT_ECT, ECT1: NOT_ECT, CE: None},
    ECT0: {NOT_ECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
    ECT1: {NOT_ECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
    CE: {NOT_ECT: CE, ECT0: CE, ECT1: CE, CE: CE},
}
# The tunable's values: 0 forbidden, 1 allowed (the older rule: CE is not copied), 2 RFC 6040 normal mode, -1 the octet copied.
INGRESS = {0: dict.fromkeys(EGRESS, NOT_ECT), 1: {NOT_ECT: NOT_ECT, ECT1: ECT1, ECT0: ECT0, CE: ECT0}, 2: {f: f for f in EGRESS},
           -1: {field: field for field in EGRESS}}  # fmt: skip
FAMILIES = [(outer, inner) for outer in (4, 6) for inner in (4, 6)]


def tunnel(outer: int, ecn: int) -> Host:
    ends = "192.0.2.1 192.0.2.2" if outer == 4 else "2001:db8::a 2001:db8::b"
    pair = ends.replace(" ", "-")
    host = Host(
        f"add {ends} esp 0x1000 -m tunnel -r 0 -E aes-gcm-16 {KEY};"
        f"spdadd 10.0.0.0/8 10.0.0.0/8 any -P out ipsec esp/tunnel/{pair}/require;"
        f"spdadd 2001:db8:1::/48 2001:db8:2::/48 any -P out ipsec esp/tunnel/{pair}/require;"
    )
    host.tune("net.inet.ipsec.ecn" if outer == 4 else "net.inet6.ipsec6.ecn", ecn)
    return host


def inner(family: int, field: int) -> bytes:
    if family == 4:
        return ipv4.write(ipv4.Header(INNER_A, INNER_B, 253, tos=DSCP | field), bytes(16))
    return ipv6.write(ipv6.Header(INNER_A6, INNER_B6, 253, traffic_class=DSCP | field), bytes(16))


def tos(packet: bytes) -> int:
    return packet[1] if packet[0] >> 4 == 4 else (packet[0] << 4 | packet[1] >> 4) & 0xFF


def marked(packet: bytes, field: int) -> bytes:
    """A packet whose field a router changed."""
    if packet[0] >> 4 == 4:
        header, payload = ipv4.read(packet)
        return ipv4.write(ipv4.Header(A, B, header.protocol, tos=DSCP | field), payload)
    header6, payload = ipv6.read(packet)
    return ipv6.write(ipv6.Header(A6, B6, header6.next_header, traffic_class=DSCP | field), payload)


@pytest.mark.covers("R37", "R39", "S5")
@pytest.mark.parametrize(("outer", "family"), FAMILIES)
@pytest.mark.parametrize("value", INGRESS)
def test_4_1_ingress(outer: int, family: int, value: int) -> None:
    host = tunnel(outer, value)
    for field, wanted in INGRESS[value].items():
        assert tos(host.forwarded(inner(family, field))) == DSCP | wanted


@pytest.mark.covers("R37", "R39", "S5")
@pytest.mark.reason("tunnel.ecn")
@pytest.mark.parametrize(("outer", "family"), FAMILIES)
@pytest.mark.parametrize("value", INGRESS)
def test_4_2_egress_for_every_value_but_minus_one(outer: int, family: int, value: int) -> None:
    host = tunnel(outer, value)
    drops = 0
    for within, row in EGRESS.items():
        for without, wanted in row.items():
            packet = inner(family, within)
            arriving = marked(host.forwarded(packet), without)
            if value == -1:
                assert host.delivered(arriving) == packet
            elif wanted is None:
                drops += 1
                discards(host, host.receive(arriving), TUNNEL_ECN, drops)
            else:
                opened = host.delivered(arriving)
                assert tos(opened) == DSCP | wanted, (within, without)
                assert family == 6 or ipv4.is_checksum_right(opened)
    assert drops == (value != -1)
