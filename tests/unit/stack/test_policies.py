"""What policy does with a packet, through the doors: actions, defaults, levels, sockets, both directions, both families. R20-R29."""

import pytest

from koura.address import Prefix
from koura.errors import Bug
from koura.moment import Moment
from koura.notices import LocalAddresses, SocketAccepted, SocketBound, SocketGone, SocketPolicy
from koura.reasons import (
    BYPASSED,
    DELIVERED,
    FORWARDED,
    POLICY_IN_CLEAR,
    POLICY_IN_DISCARD,
    POLICY_IN_EXTRA,
    POLICY_IN_MISSING,
    POLICY_IN_ORDER,
    POLICY_IN_SELECTOR,
    POLICY_OUT_DISCARD,
    SA_ENDPOINTS,
    SA_NONE_OUT,
)
from koura.saindex import Direction
from koura.spd.language import parse
from koura.spd.policy import Action, Policy
from koura.spd.selector import Selector
from koura.traffic.fragments import split
from koura.traffic.outcome import Bypass, Deliver, Forward, Held, Origin
from koura.wire import icmp, ipv4, ipv6
from koura.wire.summary import summarise
from tests.unit.stack.kit import GCM, SHA, Host, discards
from tests.unit.traffic.kit import A6, B6, INNER_A, INNER_B, A, B, datagram

ENDS = {4: ("192.0.2.1", "192.0.2.2", A, B, "0.0.0.0/0"), 6: ("2001:db8::a", "2001:db8::b", A6, B6, "::/0")}
TREE = {4: "net.inet.ipsec", 6: "net.inet6.ipsec6"}
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def rule(family: int, direction: str, text: str, upper: str = "any") -> str:
    a, b, *_ = ENDS[family]
    src, dst = (a, b) if direction == "out" else (b, a)
    return f"spdadd {src} {dst} {upper} -P {direction} {text};"


def sas(family: int, kind: str = "esp", spi: int = 0x1000, more: str = "") -> str:
    """An SA each way; the same keys, so that one host opens what it sent with addresses the other way round."""
    a, b, *_ = ENDS[family]
    algorithms = {"esp": GCM, "ah": SHA, "ipcomp": "-C deflate"}[kind]
    return f"add {a} {b} {kind} {spi} {more} {algorithms}; add {b} {a} {kind} {spi + 1} {more} {algorithms};"


def segment(src: bytes, dst: bytes) -> bytes:
    """A TCP SYN without options."""
    body = bytes.fromhex("0457 08ae 00000001 00000000 5002 ffff 0000 0000")
    return ipv4.write(ipv4.Header(src, dst, 6), body) if len(src) == 4 else ipv6.write(ipv6.Header(src, dst, 6), body)


def pair(family: int) -> tuple[bytes, bytes]:
    return ENDS[family][2], ENDS[family][3]


@FAMILIES
@pytest.mark.covers("R2", "R26", "S7")
@pytest.mark.reason("policy.out.discard", "policy.in.discard", "ok.bypassed", "ok.delivered")
def test_def_policy_decides_for_its_own_family_only(family: int) -> None:
    host = Host()
    a, b = pair(family)
    assert host.send(datagram(a, b)) == Bypass((datagram(a, b),))
    assert host.receive(datagram(b, a)) == Deliver(datagram(b, a))
    assert (host.count(BYPASSED), host.count(DELIVERED)) == (1, 1)
    host.tune(f"{TREE[family]}.def_policy", 0)
    discards(host, host.send(datagram(a, b)), POLICY_OUT_DISCARD)
    discards(host, host.receive(datagram(b, a)), POLICY_IN_DISCARD)
    other_a, other_b = pair(10 - family)
    assert isinstance(host.send(datagram(other_a, other_b)), Bypass)
    section = host.stack.report.read("ipsec" if family == 4 else "ipsec6")
    assert (section["out_polvio"], section["in_polvio"]) == (1, 1)
    other = host.stack.report.read("ipsec6" if family == 4 else "ipsec")
    assert (other["out_polvio"], other["in_polvio"]) == (0, 0)


@FAMILIES
@pytest.mark.covers("R21", "R17")
@pytest.mark.reason("policy.out.discard", "policy.in.discard")
def test_discard_none_and_a_rule_before_another(family: int) -> None:
    a, b = pair(family)
    host = Host("".join(rule(family, way, "none", "tcp") + rule(family, way, "discard") for way in ("out", "in")))
    discards(host, host.send(datagram(a, b)), POLICY_OUT_DISCARD)
    discards(host, host.receive(datagram(b, a)), POLICY_IN_DISCARD)
    assert isinstance(host.send(segment(a, b)), Bypass)
    assert isinstance(host.receive(segment(b, a)), Deliver)
    assert isinstance(host.send(datagram(a, a)), Bypass), "no policy names this destination"


@FAMILIES
@pytest.mark.covers("R5", "R7", "R24", "R25")
@pytest.mark.reason("ok.forwarded", "policy.in.clear", "sa.none.out")
@pytest.mark.parametrize("kind", ["esp", "ah"])
def test_use_goes_clear_without_an_sa_and_require_does_not(family: int, kind: str) -> None:
    a, b = pair(family)
    host = Host(rule(family, "out", f"ipsec {kind}/transport//use") + rule(family, "in", f"ipsec {kind}/transport//use"))
    host.tune("net.koura.acquire_hold", 0)
    assert isinstance(host.send(datagram(a, b)), Bypass)
    assert isinstance(host.receive(datagram(b, a)), Deliver)
    host.setkey("spdflush;" + "".join(rule(family, way, f"ipsec {kind}/transport//require") for way in ("out", "in")))
    discards(host, host.send(datagram(a, b)), SA_NONE_OUT)
    discards(host, host.receive(datagram(b, a)), POLICY_IN_CLEAR)
    section = host.stack.report.read("ipsec" if family == 4 else "ipsec6")
    assert (section["out_nosa"], section["out_inval"]) == (2, 1), "the packet that went clear had no SA either"
    host.setkey(sas(family, kind))
    assert summarise(host.forwarded(datagram(a, b))).protocol == {"esp": 50, "ah": 51}[kind]
    assert host.count(FORWARDED) == 1


@FAMILIES
@pytest.mark.covers("R22", "R23", "R39")
@pytest.mark.parametrize("kind", ["esp", "ah"])
@pytest.mark.parametrize("mode", ["trans", "net"])
def test_the_level_default_asks_the_variable_of_protocol_mode_and_family(family: int, kind: str, mode: str) -> None:
    a, b = pair(family)
    ends = "" if mode == "trans" else f"{ENDS[family][0]}-{ENDS[family][1]}"
    request = f"ipsec {kind}/{'transport' if mode == 'trans' else 'tunnel'}/{ends}/default"
    host = Host(rule(family, "out", request))
    host.tune("net.koura.acquire_hold", 0)
    assert host.stack.read(f"{TREE[family]}.{kind}_{mode}_deflev") == "1"
    assert isinstance(host.send(datagram(a, b)), Bypass)
    host.tune(f"{TREE[10 - family]}.{kind}_{mode}_deflev", 2)
    assert isinstance(host.send(datagram(a, b)), Bypass), "the other family's variable does not matter"
    host.tune(f"{TREE[family]}.{kind}_{mode}_deflev", 2)
    discards(host, host.send(datagram(a, b)), SA_NONE_OUT)


@pytest.mark.covers("R28")
def test_unique_takes_the_sa_of_its_reqid_and_no_other() -> None:
    host = Host(rule(4, "out", "ipsec esp/transport//unique:7") + f"add 192.0.2.1 192.0.2.2 esp 0x1000 {GCM};")
    assert isinstance(host.send(datagram(A, B)), Held)
    host.setkey(f"add 192.0.2.1 192.0.2.2 esp 0x1007 -u 7 {GCM};")
    assert host.forwarded(datagram(A, B))[20:24] == (0x1007).to_bytes(4, "big")


@FAMILIES
@pytest.mark.covers("M4", "S39", "S11", "R3", "R6", "R57")
@pytest.mark.reason("policy.in.missing", "policy.in.order", "policy.in.extra")
def test_a_bundle_of_three_and_what_is_wrong_with_others(family: int) -> None:
    a, b, src, dst, _ = ENDS[family]
    protections = "ipcomp/transport//use esp/transport//require ah/transport//require"
    host = Host(rule(family, "out", "ipsec " + protections) + sas(family, "ipcomp", 0x3000) + sas(family) + sas(family, "ah", 0x2000))
    sealed = host.forwarded(datagram(src, dst, 400))
    assert summarise(sealed).protocol == 51
    assert len(sealed) < 400, "it was compressed"
    assert host.stack.report.read("ipsec" if family == 4 else "ipsec6")["out_bundlesa"] == 2
    mirror = f"spdadd {a} {b} any -P in ipsec {{}};"
    host.setkey(mirror.format(protections))
    assert host.delivered(sealed) == datagram(src, dst, 400)
    refusals = (
        ("ipcomp/transport//use ah/transport//require esp/transport//require", POLICY_IN_ORDER),
        ("esp/transport//require", POLICY_IN_EXTRA),
        ("ipcomp/transport//use esp/transport//require esp/transport//require ah/transport//require", POLICY_IN_MISSING),
    )
    for text, reason in refusals:
        host.setkey("spdflush;" + rule(family, "out", "ipsec " + protections) + mirror.format(text))
        discards(host, host.receive(host.forwarded(datagram(src, dst, 400))), reason)


@pytest.mark.covers("R54", "S11")
@pytest.mark.reason("policy.in.selector")
def test_an_sa_that_a_policy_names_carries_only_what_the_policy_covers() -> None:
    tunnel = "esp/tunnel/192.0.2.1-192.0.2.2/require"
    host = Host(
        f"spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec {tunnel}; add 192.0.2.1 192.0.2.2 esp 0x1000 -m tunnel {GCM};"
        f"spdadd 10.0.1.0/24 10.0.2.0/24 any -P in ipsec {tunnel};"
    )
    host.notice(LocalAddresses(frozenset((A, B))))
    fine = datagram(INNER_A, INNER_B)
    assert host.delivered(host.forwarded(fine)) == fine
    discards(host, host.receive(host.forwarded(datagram(b"\x0a\x09\0\1", INNER_B))), POLICY_IN_SELECTOR)


@pytest.mark.covers("R52", "R53", "R54", "S12")
@FAMILIES
def test_the_policy_of_the_manual_page_takes_its_own_packets(family: int) -> None:
    """esp/tunnel/A-B/use ah/transport/A-B/require: the BUGS section of 2007, through both doors."""
    a, b, *_ = ENDS[family]
    request = f"ipsec esp/tunnel/{a}-{b}/use ah/transport/{a}-{b}/require"
    host = Host(f"spdadd 10.0.1.0/24 10.0.2.0/24 any -P out {request}; spdadd 10.0.1.0/24 10.0.2.0/24 any -P in {request};"
                + sas(family) + sas(family, "ah", 0x2000))  # fmt: skip
    inner = datagram(INNER_A, INNER_B)
    sealed = host.forwarded(inner)
    assert summarise(sealed).protocol == 51
    assert host.delivered(sealed) == inner
    discards(host, host.receive(inner), POLICY_IN_CLEAR)


@pytest.mark.covers("R18", "R20", "R27", "M8", "M31", "M33")
@pytest.mark.reason("policy.out.discard", "policy.in.discard", "policy.in.clear")
def test_a_sockets_own_policy_goes_before_the_spd_and_entrust_gives_way() -> None:
    host = Host(rule(4, "out", "discard") + rule(4, "in", "discard"))
    host.notice(SocketBound(9, 17, b"", 2222))
    mine = Origin(socket=9)
    discards(host, host.send(datagram(A, B), mine), POLICY_OUT_DISCARD)
    for text in ("out bypass", "in bypass"):
        host.notice(SocketPolicy(9, parse(text), True))
    assert isinstance(host.send(datagram(A, B), mine), Bypass)
    assert isinstance(host.receive(datagram(B, A)), Deliver)
    discards(host, host.send(datagram(A, B)), POLICY_OUT_DISCARD, 2)
    discards(host, host.receive(datagram(B, A, dport=3333)), POLICY_IN_DISCARD)
    host.notice(SocketPolicy(9, parse("in ipsec esp/transport//require"), True))
    discards(host, host.receive(datagram(B, A)), POLICY_IN_CLEAR)
    for text in ("out entrust", "in entrust"):
        host.notice(SocketPolicy(9, parse(text)))
    discards(host, host.send(datagram(A, B), mine), POLICY_OUT_DISCARD, 3)
    discards(host, host.receive(datagram(B, A)), POLICY_IN_DISCARD, 2)


@pytest.mark.covers("M32", "R20")
def test_an_accepted_socket_has_copies_of_its_listeners_policies() -> None:
    host = Host(rule(4, "out", "discard"))
    host.notice(SocketPolicy(9, parse("out bypass"), True))
    host.notice(SocketAccepted(9, 10))
    host.notice(SocketGone(9))
    assert isinstance(host.send(datagram(A, B), Origin(socket=10)), Bypass)
    discards(host, host.send(datagram(A, B), Origin(socket=9)), POLICY_OUT_DISCARD)


@pytest.mark.reason("sa.endpoints")
def test_a_tunnel_whose_ends_are_of_two_families_leads_nowhere() -> None:
    """PF_KEY refuses such a request; a socket's policy, which carries its own addresses, need not have passed there."""
    host = Host()
    policy = parse("out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require")
    (request,) = policy.requirements
    object.__setattr__(request, "src", bytes(4))
    host.stack.spd.set_socket(9, policy, host.at)
    discards(host, host.send(datagram(A, B), Origin(socket=9)), SA_ENDPOINTS)


@pytest.mark.covers("M9")
def test_the_smaller_priority_goes_first_whatever_came_first() -> None:
    host = Host("spdadd 192.0.2.1 192.0.2.2 any -P out prio low none; spdadd 192.0.2.1 192.0.2.2 udp -P out prio high discard;")
    discards(host, host.send(datagram(A, B)), POLICY_OUT_DISCARD)


@pytest.mark.covers("M10")
def test_a_policy_that_expires_no_longer_decides() -> None:
    host = Host()
    every = Prefix(bytes(4), 0)
    host.stack.spd.add(Policy(Direction.OUTBOUND, Action.DISCARD, Selector(Direction.OUTBOUND, every, every), lifetime_s=10), host.at)
    discards(host, host.send(datagram(A, B)), POLICY_OUT_DISCARD)
    host.later(11)
    assert isinstance(host.send(datagram(A, B)), Bypass)


@pytest.mark.covers("S8")
def test_a_rule_with_ports_holds_for_forwarded_packets_and_for_every_fragment() -> None:
    tunnel = "esp/tunnel/192.0.2.1-192.0.2.2/require"
    host = Host(f"spdadd 10.0.1.0/24 10.0.2.0/24[2222] udp -P out ipsec {tunnel}; add 192.0.2.1 192.0.2.2 esp 0x1000 {GCM};"
                f"spdadd 10.0.1.0/24 10.0.2.0/24[2222] udp -P in ipsec {tunnel};")  # fmt: skip
    whole = datagram(INNER_A, INNER_B, 1400)
    outcomes = [host.send(piece, Origin(is_forwarded=True)) for piece in split(whole, 576, 0)]
    assert [type(outcome) for outcome in outcomes] == [Held, Held, Forward]
    assert isinstance(outcomes[-1], Forward)
    assert len(outcomes[-1].packets) == 3, "cut again as it came"
    arrived = [host.receive(sealed) for sealed in outcomes[-1].packets]
    assert arrived[-1] == Deliver(whole, arrived[-1].history, 572, True)  # type: ignore[union-attr]


@pytest.mark.covers("S9", "R42")
@pytest.mark.reason("policy.out.discard")
def test_icmp_type_and_code_select_and_zero_is_a_number() -> None:
    host = Host("spdadd 192.0.2.1 192.0.2.2 icmp 0,0 -P out discard; spdadd 2001:db8::a 2001:db8::b icmp6 1,0 -P out discard;")
    def ping(kind: int, code: int = 0) -> bytes:
        return icmp.packet(A, B, icmp.Message(kind, code, 1, b"data"))
    discards(host, host.send(ping(0)), POLICY_OUT_DISCARD)
    assert isinstance(host.send(ping(8)), Bypass)
    assert isinstance(host.send(ping(0, 1)), Bypass)
    discards(host, host.send(icmp.packet(A6, B6, icmp.Message(1, 0, 0, bytes(48)))), POLICY_OUT_DISCARD, 2)
    assert isinstance(host.send(icmp.packet(A6, B6, icmp.Message(1, 4, 0, bytes(48)))), Bypass)


def test_time_never_runs_backwards() -> None:
    host = Host()
    with pytest.raises(Bug):
        host.stack.advance(Moment(0))


