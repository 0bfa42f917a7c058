"""traffic/verify: the history against the requests, enumerated against the obvious oracle, and the cases of the manual page."""

from dataclasses import replace
from itertools import product

import pytest

from koura.address import Prefix, parse
from koura.reasons import POLICY_IN_CLEAR, POLICY_IN_EXTRA, POLICY_IN_MISSING, POLICY_IN_ORDER, Discarded, Ending
from koura.saindex import Direction, Mode, Protocol
from koura.settings import Settings
from koura.spd.policy import Action, Level, Policy, Requirement
from koura.spd.selector import Flow, Selector
from koura.traffic import verify
from koura.traffic.outcome import Applied
from tests.oracles import history as oracle

A, B, C, INNER_A, INNER_B = (parse(text) for text in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "10.0.1.1", "10.0.2.1"))
A6, B6 = parse("2001:db8::a"), parse("2001:db8::b")
ESP, AH, IPCOMP = Protocol.ESP, Protocol.AH, Protocol.IPCOMP
STRICT, RELAXED = Settings(), Settings(check_policy_history=0)


def policy(*requirements: Requirement, family: int = 4) -> Policy:
    everything = Prefix(bytes(4 if family == 4 else 16), 0)
    return Policy(Direction.INBOUND, Action.IPSEC, Selector(Direction.INBOUND, everything, everything), requirements)


def transport(protocol: Protocol, level: Level = Level.REQUIRE, reqid: int = 0, src: bytes = b"", dst: bytes = b"") -> Requirement:
    return Requirement(protocol, Mode.TRANSPORT, level, reqid, src, dst)


def tunnel(protocol: Protocol, level: Level = Level.REQUIRE, reqid: int = 0, src: bytes = A, dst: bytes = B) -> Requirement:
    return Requirement(protocol, Mode.TUNNEL, level, reqid, src, dst)


def came(protocol: Protocol, mode: Mode, src: bytes = A, dst: bytes = B, reqid: int = 0, was_tunnel: bool | None = None) -> Applied:
    return Applied(protocol, mode, mode is Mode.TUNNEL if was_tunnel is None else was_tunnel, 0x1000, src, dst, reqid)


def reason(rule: Policy, history: tuple[Applied, ...], src: bytes = A, settings: Settings = STRICT) -> Ending | None:
    try:
        verify.check(rule, history, Flow(src, B if len(src) == 4 else B6, 17, 1, 2), settings)
    except Discarded as end:
        return end.reason
    return None


def test_small_policies_and_histories_against_the_oracle() -> None:
    """Every policy of up to three requests and every history of up to three entries over a small palette."""
    requests = [
        transport(ESP), transport(ESP, Level.USE), transport(AH, reqid=7), tunnel(ESP), tunnel(ESP, Level.USE, src=C),
        tunnel(AH, Level.USE), transport(IPCOMP),
    ]  # fmt: skip
    entries = [
        came(ESP, Mode.TRANSPORT), came(AH, Mode.TRANSPORT, reqid=7), came(ESP, Mode.TUNNEL), came(ESP, Mode.TUNNEL, src=C),
        came(ESP, Mode.ANY), came(AH, Mode.ANY, was_tunnel=True), came(IPCOMP, Mode.TRANSPORT),
    ]  # fmt: skip
    compared = accepted = 0
    for asked in (row for count in (1, 2, 3) for row in product(requests, repeat=count)):
        rule = policy(*asked)
        needed = tuple(row.level is not Level.USE for row in asked)
        for history in (row for count in (0, 1, 2, 3) for row in product(entries, repeat=count)):
            if len(asked) == 3 and len(history) == 3 and compared % 7:  # one in seven of the largest combinations
                compared += 1
                continue
            compared += 1
            is_fine = oracle.allows(rule, needed, history, A)
            accepted += is_fine
            assert (reason(rule, history) is None) == is_fine, (asked, history)
    assert accepted > 300


@pytest.mark.covers("R52", "R53", "R54", "S12", "M26")
@pytest.mark.parametrize("settings", [STRICT, RELAXED])
@pytest.mark.parametrize(("src", "dst"), [(A, B), (A6, B6)])
@pytest.mark.parametrize("inner", [INNER_A, parse("2001:db8:1::1")])
def test_the_policy_of_the_manual_page_accepts_ah_around_an_esp_tunnel(settings: Settings, src: bytes, dst: bytes, inner: bytes) -> None:
    rule = policy(tunnel(ESP, Level.USE, src=src, dst=dst), transport(AH, src=src, dst=dst), family=4 if len(inner) == 4 else 6)
    history = (came(AH, Mode.TRANSPORT, src, dst), came(ESP, Mode.TUNNEL, src, dst))
    assert reason(rule, history, inner, settings) is None
    assert reason(rule, (), inner, settings) is POLICY_IN_CLEAR
    assert reason(rule, history[1:], inner, settings) is POLICY_IN_MISSING


@pytest.mark.covers("R52", "S12")
@pytest.mark.parametrize("settings", [STRICT, RELAXED])
@pytest.mark.parametrize("inner", [INNER_A, parse("2001:db8:1::1")])
@pytest.mark.parametrize("mode", [Mode.TUNNEL, Mode.ANY])
def test_an_ah_tunnel_satisfies_require_for_every_family(settings: Settings, inner: bytes, mode: Mode) -> None:
    rule = policy(tunnel(AH), family=4 if len(inner) == 4 else 6)
    assert reason(rule, (came(AH, mode, was_tunnel=True),), inner, settings) is None


@pytest.mark.covers("S11")
@pytest.mark.reason("policy.in.order", "policy.in.missing", "policy.in.extra", "policy.in.clear")
def test_each_fault_has_its_own_reason() -> None:
    rule = policy(transport(ESP), transport(AH))
    esp, ah = came(ESP, Mode.TRANSPORT), came(AH, Mode.TRANSPORT)
    assert reason(rule, (ah, esp)) is None
    assert reason(rule, (esp, ah)) is POLICY_IN_ORDER
    assert reason(rule, (ah,)) is POLICY_IN_MISSING
    assert reason(rule, (ah, esp, esp)) is POLICY_IN_EXTRA
    assert reason(rule, ()) is POLICY_IN_CLEAR


def test_a_tunnel_from_another_gateway_or_with_another_reqid_is_refused() -> None:
    assert reason(policy(tunnel(ESP)), (came(ESP, Mode.TUNNEL, src=C),), INNER_A) is POLICY_IN_MISSING
    assert reason(policy(tunnel(ESP)), (came(ESP, Mode.TUNNEL, dst=C),), INNER_A) is POLICY_IN_MISSING
    assert reason(policy(tunnel(ESP, reqid=9)), (came(ESP, Mode.TUNNEL, reqid=7),), INNER_A) is POLICY_IN_MISSING
    assert reason(policy(tunnel(ESP, Level.USE)), (came(ESP, Mode.TUNNEL, src=C),), INNER_A) is POLICY_IN_EXTRA


def test_one_peer_cannot_speak_for_another_with_its_own_transport_sa() -> None:
    assert reason(policy(transport(ESP)), (came(ESP, Mode.TRANSPORT, src=A),), A) is None
    assert reason(policy(transport(ESP)), (came(ESP, Mode.TRANSPORT, src=C),), A) is POLICY_IN_MISSING


def test_mode_any_satisfies_what_the_packet_showed() -> None:
    assert reason(policy(transport(ESP)), (came(ESP, Mode.ANY),)) is None
    assert reason(policy(transport(ESP)), (came(ESP, Mode.ANY, was_tunnel=True),)) is POLICY_IN_MISSING
    assert reason(policy(tunnel(ESP)), (came(ESP, Mode.ANY, was_tunnel=True),)) is None
    assert reason(policy(tunnel(ESP)), (came(ESP, Mode.ANY),)) is POLICY_IN_MISSING


@pytest.mark.covers("M21")
def test_ipcomp_may_be_missing_whatever_its_level() -> None:
    rule = policy(transport(IPCOMP), transport(ESP))
    assert reason(rule, (came(ESP, Mode.TRANSPORT), came(IPCOMP, Mode.TRANSPORT))) is None
    assert reason(rule, (came(ESP, Mode.TRANSPORT),)) is None
    assert reason(policy(tunnel(IPCOMP)), ()) is None


@pytest.mark.covers("M21")
def test_an_esp_sa_of_mode_any_around_a_tunnel_that_compressed_nothing() -> None:
    rule = policy(tunnel(IPCOMP), transport(ESP, src=A, dst=B))
    assert reason(rule, (came(ESP, Mode.ANY, was_tunnel=True),), INNER_A) is None
    assert reason(rule, (came(ESP, Mode.TUNNEL),), INNER_A) is POLICY_IN_MISSING
    assert reason(rule, (came(ESP, Mode.ANY, src=C, was_tunnel=True),), INNER_A) is POLICY_IN_MISSING


@pytest.mark.covers("M26")
def test_without_history_only_the_protocols_count() -> None:
    """FreeBSD's default: neither order nor mode nor endpoints nor reqid; observed fact 3."""
    rule = policy(tunnel(ESP, reqid=9), transport(AH))
    assert reason(rule, (came(ESP, Mode.TRANSPORT, src=C), came(AH, Mode.TUNNEL)), INNER_A, RELAXED) is None
    assert reason(rule, (came(AH, Mode.TUNNEL),), INNER_A, RELAXED) is POLICY_IN_MISSING
    assert reason(rule, (came(IPCOMP, Mode.TUNNEL),), INNER_A, RELAXED) is POLICY_IN_CLEAR
    assert reason(policy(transport(IPCOMP)), (), A, RELAXED) is None


@pytest.mark.covers("R22", "R23", "R24", "R25")
@pytest.mark.parametrize("value", [0, 1, 2, 3])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", ["esp_trans_deflev", "esp_net_deflev", "ah_trans_deflev", "ah_net_deflev"])
def test_the_default_level_follows_its_own_variable(name: str, family: int, value: int) -> None:
    """All eight variables: 2 demands, 1 does not; 0 counts as require and 3 as use, as FreeBSD 13 does. The others do not matter."""
    side = replace(STRICT.of(family), **{name: value})
    settings = replace(STRICT, v4=side) if family == 4 else replace(STRICT, v6=side)
    for protocol, mode in product((ESP, AH), (Mode.TRANSPORT, Mode.TUNNEL)):
        make = transport if mode is Mode.TRANSPORT else tunnel
        is_own = name == f"{protocol.name.lower()}_{'trans' if mode is Mode.TRANSPORT else 'net'}_deflev"
        for side_family in (4, 6):
            expected = POLICY_IN_CLEAR if is_own and side_family == family and value in (0, 2) else None
            assert reason(policy(make(protocol, Level.DEFAULT), family=side_family), (), A, settings) is expected


def test_a_socket_policy_follows_the_variables_of_the_packets_family() -> None:
    settings = replace(STRICT, v6=replace(STRICT.v6, esp_trans_deflev=2))
    rule = Policy(Direction.INBOUND, Action.IPSEC, None, (transport(ESP, Level.DEFAULT),))
    assert reason(rule, (), A, settings) is None
    assert reason(rule, (), A6, settings) is POLICY_IN_CLEAR
