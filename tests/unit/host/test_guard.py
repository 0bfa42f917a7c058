"""host/guard: what stands in the table for inbound policies, and for outbound ones that name groups."""

from koura.host import guard
from koura.host.routes import MARK
from koura.settings import Settings
from tests.unit.stack.kit import Host

UNICAST = "spdadd 10.0.0.0/8 10.9.0.0/16 any -P out ipsec esp/transport//require;"


def _table(script: str) -> str:
    policies = [entry.policy for entry in Host(script).stack.spd.entries()]
    named = [policy for policy in policies if guard.names_group(policy)]
    rules = (line for number, policy in enumerate(named) for line in guard.rules_of(policy, number, Settings()))
    return guard.compile_rules(guard.Said((), Settings(), ("koura0",), to_groups=tuple(rules)))


def _groups(script: str) -> list[str]:
    chain = _table(script).partition(" chain groups {\n")[2]
    return [line.strip() for line in chain.splitlines() if "daddr" in line and "type" not in line]


def test_without_a_group_in_a_policy_nothing_stands_in_the_output_hook() -> None:
    assert "output" not in _table(UNICAST)


def test_what_a_policy_protects_does_not_go_to_its_group_in_clear() -> None:
    found = _groups(
        f"""{UNICAST}
        spdadd 192.0.2.0/24 239.1.2.3[53] udp -P out none;
        spdadd 192.0.2.0/24 239.0.0.0/8 any -P out ipsec esp/transport//require;
        spdadd 0.0.0.0/0 192.0.2.255 any -P out discard;
        spdadd ::/0 ff02::5 89 -P out ipsec ah/transport//require;
        spdadd 0.0.0.0/0 0.0.0.0/0 any -P out discard;"""
    )
    assert [line.split(" comment")[0] for line in found] == [
        "meta nfproto ipv4 ip saddr 192.0.2.0/24 ip daddr 239.1.2.3/32 meta l4proto 17 th dport 53 accept",
        "meta nfproto ipv4 ip saddr 192.0.2.0/24 ip daddr 239.0.0.0/8 counter drop",
        "meta nfproto ipv4 ip daddr 192.0.2.255/32 counter drop",
        "meta nfproto ipv6 ip6 daddr ff02::5/128 meta l4proto 89 counter drop",
    ]


def test_what_comes_out_of_the_engine_and_neighbour_discovery_pass() -> None:
    chain = _table("spdadd ::/0 ff02::/16 any -P out discard;").partition(" chain groups {\n")[2]
    drop = chain.index("drop")
    for passing in (f"meta mark {MARK:#x} accept", 'oifname { "lo", "koura0" } accept', "icmpv6 type { 133, 134, 135, 136, 137 }"):
        assert chain.index(passing) < drop
