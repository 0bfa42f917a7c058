"""Scenarios of FreeBSD's, NetBSD's and their clients' tests that no recorded case holds, through the doors."""

from dataclasses import replace

import pytest

from koura.notices import KeySocketOpened
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.pfkey.offers import Proposal
from koura.reasons import AH_ICV, AH_REPLAY, ESP_ICV, ESP_REPLAY, POLICY_IN_EXTRA, POLICY_IN_MISSING, SA_NONE_OUT, Ending
from koura.settings import KeySettings, Settings
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.outcome import Deliver
from koura.wire import ipv4, ipv6
from tests.unit.stack.kit import GCM, SHA, SOCKET, Host, discards
from tests.unit.traffic.kit import A6, B6, INNER_A, INNER_B, A, B, datagram

C = b"\xc0\0\x02\3"
NULL_ENCRYPTION = 11


def plain_in(outer_src: bytes, outer_dst: bytes, inner: bytes) -> bytes:
    """IP in IP."""
    return ipv4.write(ipv4.Header(outer_src, outer_dst, 4), inner)


@pytest.mark.covers("M3", "S1")
def test_one_spi_serves_two_protocols_and_two_destinations() -> None:
    """T97."""
    host = Host(f"add 192.0.2.1 192.0.2.2 esp 0x1000 {GCM}; add 192.0.2.1 192.0.2.2 ah 0x1000 {SHA};"
                f"add 192.0.2.1 192.0.2.3 esp 0x1000 {GCM};"
                "spdadd 0.0.0.0/0 192.0.2.2 any -P out ipsec esp/transport//require ah/transport//require;"
                "spdadd 0.0.0.0/0 192.0.2.3 any -P out ipsec esp/transport//require;")  # fmt: skip
    for dst in (B, C):
        assert host.delivered(host.forwarded(datagram(A, dst))) == datagram(A, dst)


@pytest.mark.covers("M3", "S1", "S42", "R57")
def test_two_peers_use_the_well_known_cpi() -> None:
    """T37: CPI 2 is found with the source, at the receiver and at each sender."""
    host = Host("add 192.0.2.1 192.0.2.2 ipcomp 2 -C deflate; add 192.0.2.3 192.0.2.2 ipcomp 2 -C deflate;"
                "spdadd 0.0.0.0/0 192.0.2.2 any -P out ipsec ipcomp/transport//use;")  # fmt: skip
    for src in (A, C):
        sealed = host.forwarded(datagram(src, B, 400))
        assert sealed[22:24] == (2).to_bytes(2, "big")
        outcome = host.receive(sealed)
        assert isinstance(outcome, Deliver)
        assert (outcome.packet, outcome.history[0].src) == (datagram(src, B, 400), src)


@pytest.mark.covers("S42")
def test_an_agreed_cpi_goes_out_and_the_well_known_one_is_taken() -> None:
    host = Host("add 192.0.2.1 192.0.2.2 ipcomp 0x1234 -C deflate; spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec ipcomp/transport//use;")
    sealed = host.forwarded(datagram(A, B, 400))
    assert sealed[22:24] == bytes.fromhex("1234")
    assert host.delivered(sealed) == datagram(A, B, 400)
    well_known = ipv4.write(ipv4.read(sealed)[0], sealed[20:22] + bytes.fromhex("0002") + sealed[24:])
    assert host.delivered(well_known) == datagram(A, B, 400)


@pytest.mark.covers("M21")
@pytest.mark.parametrize(
    ("script", "is_taken"),
    [
        ("", False),
        ("add 192.0.2.1 192.0.2.2 ipcomp 0x3000 -m transport -C deflate;", False),
        ("add 192.0.2.1 192.0.2.2 ipcomp 0x3000 -m tunnel -C deflate;", True),
        ("add 192.0.2.3 192.0.2.2 ipcomp 0x3000 -m tunnel -C deflate;", False),
        ("add 192.0.2.1 192.0.2.2 ipcomp 0x3000 -C deflate;", False),
        ("add 192.0.2.1 192.0.2.2 ipcomp 0x3000 -C deflate;"
         "spdadd 10.0.1.0/24 10.0.2.0/24 any -P in ipsec ipcomp/tunnel/192.0.2.1-192.0.2.2/use;", True),
        ("add 192.0.2.1 192.0.2.2 ipcomp 0x3000 -C deflate; spdadd 10.0.1.0/24 10.0.2.0/24 any -P in ipsec ipcomp/transport//use;", False),
    ],
    ids=("no SA", "transport", "tunnel", "another peer's", "any", "any, used as a tunnel", "any, used in transport"),
)  # fmt: skip
def test_plain_ip_in_ip_is_what_a_peers_tunnel_did_not_compress(script: str, is_taken: bool) -> None:
    """T178."""
    packet = plain_in(A, B, datagram(INNER_A, INNER_B))
    assert Host(script).delivered(packet) == (datagram(INNER_A, INNER_B) if is_taken else packet)


@pytest.mark.covers("M21")
def test_of_several_compressing_tunnels_between_two_gateways_the_policy_of_the_inner_packet_says_which_it_came_by() -> None:
    """Plain IP in IP has no CPI; a policy of level unique takes it from its own SA all the same."""
    way = "ipcomp/tunnel/192.0.2.1-192.0.2.2"
    host = Host(
        "add 192.0.2.1 192.0.2.2 ipcomp 0x3000 -m tunnel -u 7 -C deflate; add 192.0.2.1 192.0.2.2 ipcomp 0x3001 -m tunnel -u 8 -C deflate;"
        f"spdadd 10.8.0.0/16 10.9.0.0/16 any -P in ipsec {way}/unique:7; spdadd 10.0.1.0/24 10.0.2.0/24 any -P in ipsec {way}/unique:8;"
    )
    outcome = host.receive(plain_in(A, B, datagram(INNER_A, INNER_B)))
    assert isinstance(outcome, Deliver)
    assert [applied.reqid for applied in outcome.history] == [8]


@pytest.mark.covers("R34", "R35", "S6")
@pytest.mark.parametrize(
    ("cleartos", "offsetmask", "change", "is_taken"),
    [
        (1, 0, "tos", True), (0, 0, "tos", False), (1, 0, "df", True), (1, 0x4000, "df", False), (1, 0x1FFF, "df", True),
        (0, 0xFFFF, "ttl", True),
    ],
)  # fmt: skip
def test_what_ah_covers_of_the_header_is_the_operators_to_say(cleartos: int, offsetmask: int, change: str, is_taken: bool) -> None:
    """T39: on the way a router changes one field."""
    host = Host(f"add 192.0.2.1 192.0.2.2 ah 0x1000 {SHA}; spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec ah/transport//require;")
    host.tune("net.inet.ipsec.ah_cleartos", cleartos)
    host.tune("net.inet.ipsec.ah_offsetmask", offsetmask)
    header, payload = ipv4.read(host.forwarded(datagram(A, B, is_df=True)))
    changed = {"tos": replace(header, tos=0x10), "df": replace(header, is_df=False), "ttl": replace(header, ttl=9)}[change]
    outcome = host.receive(ipv4.write(changed, payload))
    if is_taken:
        assert isinstance(outcome, Deliver)
    else:
        discards(host, outcome, AH_ICV)


@pytest.mark.covers("S10")
@pytest.mark.parametrize(("kind", "number", "algorithms"), [("esp", 50, GCM), ("ah", 51, SHA)])
def test_over_ipv6_the_header_stands_behind_hop_by_hop_and_before_destination_options(kind: str, number: int, algorithms: str) -> None:
    """T38."""
    host = Host(f"add 2001:db8::a 2001:db8::b {kind} 0x1000 {algorithms}; spdadd ::/0 ::/0 any -P out ipsec {kind}/transport//require;")
    padded = bytes.fromhex("0104 00000000")
    body = bytes((60, 0)) + padded + bytes((17, 0)) + padded + ipv6.read(datagram(A6, B6))[1]
    packet = ipv6.write(ipv6.Header(A6, B6, 0), body)
    sealed = host.forwarded(packet)
    assert (sealed[6], sealed[40]) == (0, number), "hop-by-hop first, then the new header"
    if kind == "ah":
        assert sealed[48] == 60
    assert host.delivered(sealed) == packet


@pytest.mark.covers("R28")
def test_of_three_sas_the_oldest_or_the_newest_sends_until_it_goes() -> None:
    """T82."""
    spis = (0x1001, 0x1002, 0x1003)
    script = "".join(f"add 192.0.2.1 192.0.2.2 esp {spi:#x} {GCM};" for spi in spis)
    for value, order in ((1, spis), (0, spis[::-1])):
        host = Host(script + "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec esp/transport//require;")
        host.tune("net.key.preferred_oldsa", value)
        host.tune("net.koura.acquire_hold", 0)
        for spi in order:
            assert host.forwarded(datagram(A, B))[20:24] == spi.to_bytes(4, "big")
            host.setkey(f"delete 192.0.2.1 192.0.2.2 esp {spi:#x};")
        discards(host, host.send(datagram(A, B)), SA_NONE_OUT)


@pytest.mark.covers("R52", "S12", "M26")
@pytest.mark.parametrize("history", [0, 1])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("text", ["esp/tunnel/{a}-{b}/use ah/transport/{a}-{b}/require", "ah/tunnel/{a}-{b}/require"])
def test_ah_under_a_tunnel_satisfies_a_policy_that_requires_it(text: str, family: int, history: int) -> None:
    """T69: the BUG of the manual page, both checks, both families; and a forged inner packet without AH."""
    a, b = ("192.0.2.1", "192.0.2.2") if family == 4 else ("2001:db8::a", "2001:db8::b")
    requests = text.format(a=a, b=b)
    net = ("10.0.1.0/24", "10.0.2.0/24")
    host = Host(f"add {a} {b} esp 0x1000 {GCM}; add {a} {b} ah 0x1001 {SHA};"
                f"spdadd {net[0]} {net[1]} any -P out ipsec {requests}; spdadd {net[0]} {net[1]} any -P in ipsec {requests};")  # fmt: skip
    host.tune("net.inet.ipsec.check_policy_history", history)
    packet = datagram(INNER_A, INNER_B)
    assert host.delivered(host.forwarded(packet)) == packet
    assert not isinstance(host.receive(packet), Deliver)
    if family == 4:
        assert host.delivered(plain_in(A, B, packet)) != packet, "in plain IP in IP it is another packet, and stays in it"


OUTSIDE = "spdadd 192.0.2.1 192.0.2.2 any -P in ipsec ah/transport//{level};"
INSIDE = "spdadd 10.0.1.0/24 10.0.2.0/24 any -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;"


@pytest.mark.covers("R53", "R54")
@pytest.mark.reason("policy.in.extra", "policy.in.missing")
@pytest.mark.parametrize(
    ("policies", "reason"),
    [
        (INSIDE + OUTSIDE.format(level="require"), None), (INSIDE + OUTSIDE.format(level="use"), None),
        (INSIDE, POLICY_IN_EXTRA), (INSIDE + OUTSIDE.format(level="unique:7"), POLICY_IN_EXTRA),
        (INSIDE.replace("esp/", "ah/") + OUTSIDE.format(level="require"), POLICY_IN_MISSING),
    ],
    ids=("both", "outside in use", "none outside", "another reqid outside", "another inside"),
)  # fmt: skip
def test_two_policies_account_for_a_tunnel_and_for_what_protects_its_packets(policies: str, reason: Ending | None) -> None:
    """The manual page's example of two policies, from a peer that applies both."""
    sas = f"add 192.0.2.1 192.0.2.2 esp 0x1000 {GCM}; add 192.0.2.1 192.0.2.2 ah 0x1001 {SHA};"
    peer = Host(sas + "spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require ah/transport//require;")
    host = Host(sas + policies)
    outcome = host.receive(peer.forwarded(datagram(INNER_A, INNER_B)))
    if reason is None:
        assert isinstance(outcome, Deliver)
        assert outcome.packet == datagram(INNER_A, INNER_B)
    else:
        discards(host, outcome, reason)


@pytest.mark.reason("esp.replay", "ah.replay", "esp.icv", "ah.icv")
@pytest.mark.parametrize(("kind", "algorithms", "replayed", "forged"), [("esp", GCM, ESP_REPLAY, ESP_ICV), ("ah", SHA, AH_REPLAY, AH_ICV)])
def test_the_switches_of_test_builds(kind: str, algorithms: str, replayed, forged) -> None:  # type: ignore[no-untyped-def]
    """T111, T112."""
    host = Host(f"add 192.0.2.1 192.0.2.2 {kind} 0x1000 -r 4 {algorithms};"
                f"spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec {kind}/transport//require;")  # fmt: skip
    host.tune("net.inet.ipsec.test_replay", 1)
    assert isinstance(host.receive(host.forwarded(datagram(A, B))), Deliver)
    discards(host, host.receive(host.forwarded(datagram(A, B))), replayed)
    host.tune("net.inet.ipsec.test_replay", 0)
    host.tune("net.inet.ipsec.test_integrity", 1)
    discards(host, host.receive(host.forwarded(datagram(A, B))), forged)


@pytest.mark.covers("S16", "R19")
def test_acquire_goes_to_whoever_registered_for_its_satype() -> None:
    host = Host("spdadd 192.0.2.1 192.0.2.2 any -P out ipsec ah/transport//require;")
    host.notice(KeySocketOpened(2, "freebsd", 0, True))
    host.stack.control(2, Message(Type.REGISTER, SaType.ESP, 1).write(FREEBSD), host.at)

    def told() -> set[int]:
        results = host.stack.outbound([datagram(A, B)], host.at)
        messages = [(event.socket, Message.read(event.octets, FREEBSD)) for event in results.events if hasattr(event, "octets")]
        return {socket for socket, message in messages if message.type == Type.ACQUIRE}

    assert told() == {SOCKET}
    host.later(60)
    host.tune("net.koura.register_all", 1)
    assert told() == {SOCKET, 2}


@pytest.mark.covers("S19", "S44")
def test_what_acquire_proposes() -> None:
    host = Host("spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require;")
    host.send(datagram(A, B))
    (message,) = host.hear(Type.ACQUIRE)
    proposal = message.find(Proposal, Ext.PROPOSAL)
    assert proposal is not None
    assert proposal.combinations
    for one in proposal.combinations:
        assert one.encrypt not in (0, NULL_ENCRYPTION)
        assert (one.hard.add_s, one.soft.add_s, one.hard.use_s, one.soft.use_s) == (86400, 69120, 36000, 28800)


@pytest.mark.covers("S33", "M5", "M6")
def test_the_spd_cache_answers_and_counts_within_one_generation() -> None:
    settings = Settings(key=KeySettings(spdcache_maxentries=9, spdcache_threshold=2))
    host = Host("spdadd 192.0.2.1 192.0.2.2 udp -P out none;", Stack(Seeded(1), settings))

    def counted() -> tuple[int, int]:
        read = host.stack.report.read("ipsec")
        return read["spdcache_hits"], read["spdcache_misses"]

    host.send(datagram(A, B))
    assert counted() == (0, 0), "too few policies for a cache"
    host.setkey("spdadd 192.0.2.1 192.0.2.3 udp -P out discard;")
    for _ in range(3):
        host.send(datagram(A, B))
    assert counted() == (2, 1)
    host.setkey("spdadd 192.0.2.1 192.0.2.4 udp -P out discard;")
    host.send(datagram(A, B))
    assert counted() == (2, 2), "another generation"
    for port in range(40):
        host.send(datagram(A, B, dport=port))
    host.send(datagram(A, B))
    assert counted() == (2, 43), "sixteen answers are kept, the oldest of more has gone"
