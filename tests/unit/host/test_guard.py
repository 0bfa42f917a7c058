"""The guard's rules as they are compiled from policies: their order, what they are about, and what they leave alone. Live: tests/live."""

import dataclasses

import pytest

from koura.daemon.config import HostConfig
from koura.host import guard
from koura.host.routes import MARK
from koura.saindex import Direction
from koura.settings import Settings
from tests.unit.stack.kit import Host

SETTINGS = Settings()
UNICAST = "spdadd 10.0.0.0/8 10.9.0.0/16 any -P out ipsec esp/transport//require;"


def said(script: str, settings: Settings = SETTINGS, **more: object) -> guard.Said:
    """What the policies of a script come to; they are numbered as they stand in it."""
    rules: dict[Direction, list[str]] = {Direction.INBOUND: [], Direction.OUTBOUND: []}
    for number, entry in enumerate(Host(script).stack.spd.entries()):
        rules[entry.policy.direction] += guard.rules_of(entry.policy, number, settings)
    inbound, leaving = map(tuple, rules.values())
    return guard.Said(inbound, settings, ("koura0", "ipsec0"), leaving=leaving, **more)  # type: ignore[arg-type]


def chain(name: str, what: guard.Said) -> list[str]:
    """Its lines, but for what every one has in front."""
    rules = guard.compile_rules(what).split(f" chain {name} {{\n")[1].split(" }\n")[0]
    return [line.strip() for line in rules.splitlines()]


def about(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("meta nfproto") and "udp sport" not in line]


def test_what_leaves_past_the_engine_is_dropped_in_the_order_of_policies() -> None:
    what = said(f"""
        spdadd 0.0.0.0/0 192.0.2.2 any -P out none;
        spdadd 0.0.0.0/0 192.0.2.0/24[53] udp -P out discard;
        spdadd ::/0 2001:db8::/64 any -P out discard;
        {UNICAST}""")
    lines = chain("leaving", what)
    assert lines[1:3] == [f"meta mark {MARK:#x} accept", 'oifname { "lo", "koura0", "ipsec0" } accept']
    groups = "fib daddr type != { broadcast, multicast }"
    assert about(lines) == [
        "meta nfproto ipv4 ip daddr 192.0.2.2/32 accept",
        f"meta nfproto ipv4 ip daddr 192.0.2.0/24 meta l4proto 17 th dport 53 {groups} goto past",
        f"meta nfproto ipv4 ip daddr 192.0.2.0/24 {groups} ip frag-off & 0x1fff != 0 goto past",
        "meta nfproto ipv6 ip6 daddr 2001:db8::/64 goto past",
        f"meta nfproto ipv4 ip saddr 10.0.0.0/8 ip daddr 10.9.0.0/16 {groups} goto past",
    ]
    assert chain("past", what) == ["counter drop"]


def test_a_policy_to_use_what_there_is_is_the_engines_business_outbound_and_lets_in_clear_packets_in() -> None:
    what = said("""
        spdadd 10.0.0.0/8 10.0.0.1 any -P in ipsec esp/transport//use;
        spdadd 10.0.0.1 10.0.0.0/8 any -P out ipsec esp/transport//use;""")
    assert about(chain("guard", what)) == ["meta nfproto ipv4 ip saddr 10.0.0.0/8 ip daddr 10.0.0.1/32 accept"]
    assert "goto past" in about(chain("leaving", what))[0]


BOTH, MULTICAST = "fib daddr type != { broadcast, multicast } ", "fib daddr type != multicast "


@pytest.mark.parametrize(
    ("dst", "but"),
    [
        ("0.0.0.0/0", BOTH), ("192.0.2.0/24", BOTH), ("192.0.2.255", ""), ("224.0.0.0/4", ""), ("239.1.2.3", ""),
        ("::/0", MULTICAST), ("ff00::/8", ""), ("ff02::fb", ""), ("2001:db8::/32", ""),
    ],
)  # fmt: skip
def test_broadcasts_and_groups_are_for_policies_that_name_them(dst: str, but: str) -> None:
    everybody = "0.0.0.0/0" if "." in dst else "::/0"
    what = said(f"""
        spdadd {everybody} {dst} any -P in ipsec esp/transport//require;
        spdadd {everybody} {dst} any -P out ipsec esp/transport//require;
        spdadd {everybody} {dst} tcp -P out discard;""")
    (line,) = about(chain("guard", what))
    assert line.endswith(f'{but}counter drop comment "policy 0"')
    assert ("fib" in line) == bool(but)
    for line in about(chain("leaving", what)):
        assert line.endswith(f"{but}goto past")
        assert ("fib" in line) == bool(but)


def test_what_is_to_be_discarded_does_not_come_whoever_it_is_for() -> None:
    what = said("spdadd 0.0.0.0/0 0.0.0.0/0 any -P in discard;")
    assert about(chain("guard", what)) == ['meta nfproto ipv4 counter drop comment "policy 0"']


def test_what_a_policy_protects_does_not_go_to_its_group_in_clear() -> None:
    what = said(f"""{UNICAST}
        spdadd 192.0.2.0/24 239.1.2.3[53] udp -P out none;
        spdadd 192.0.2.0/24 239.0.0.0/8 any -P out ipsec esp/transport//require;
        spdadd 0.0.0.0/0 192.0.2.255 any -P out discard;
        spdadd ::/0 ff02::5 89 -P out ipsec ah/transport//require;""")
    assert about(chain("leaving", what))[1:] == [
        "meta nfproto ipv4 ip saddr 192.0.2.0/24 ip daddr 239.1.2.3/32 meta l4proto 17 th dport 53 accept",
        "meta nfproto ipv4 ip saddr 192.0.2.0/24 ip daddr 239.0.0.0/8 goto past",
        "meta nfproto ipv4 ip daddr 192.0.2.255/32 goto past",
        "meta nfproto ipv6 ip6 daddr ff02::5/128 meta l4proto 89 goto past",
    ]


def test_what_keeps_the_link_going_stands_in_front_unless_it_is_not_to() -> None:
    what = said("spdadd ::/0 ::/0 any -P in discard; spdadd ::/0 ::/0 any -P out discard;")
    assert HostConfig().passes_control == what.passes_control
    for name in ("guard", "leaving"):
        lines = chain(name, what)
        dropped = next(number for number, line in enumerate(lines) if "drop" in line or "goto past" in line)
        for words in ("icmpv6 type { 133", "icmpv6 type { 130", "ip ttl 1 meta l4proto 2", "udp sport { 67,", "udp sport { 546,"):
            (place,) = [number for number, line in enumerate(lines) if words in line]
            assert place < dropped
        strict = "\n".join(chain(name, dataclasses.replace(what, passes_control=False)))
        assert "icmpv6 type { 133" in strict, "neighbour discovery always"
        assert "130" not in strict and "546" not in strict


def test_sockets_that_speak_in_clear_are_known_by_their_port() -> None:
    what = said("", bypass=((17, 500),))
    assert "meta l4proto 17 th dport 500 accept" in chain("guard", what)
    assert "meta l4proto 17 th sport 500 accept" in chain("leaving", what)


def test_a_default_to_discard_ends_both_chains() -> None:
    settings = dataclasses.replace(SETTINGS, v4=dataclasses.replace(SETTINGS.v4, def_policy=0))
    for name, end in (("guard", 'counter drop comment "default"'), ("leaving", "goto past")):
        assert chain(name, said("", settings))[-1] == f"meta nfproto ipv4 {end}"


def test_what_was_marked_and_goes_elsewhere_after_all_loses_the_mark() -> None:
    assert chain("elsewhere", said("")) == [
        "type filter hook prerouting priority -90; policy accept;",
        f"meta mark {MARK:#x} fib daddr type != local meta mark set 0",
    ]
