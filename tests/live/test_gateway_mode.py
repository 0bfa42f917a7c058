"""Hosts behind two gateways: what routers do along the way, fragments, many tunnels, and changes while traffic flows.

Each way the gateways may protect it: ESP raw and in UDP, IPv4 and IPv6 outside, by the fast path and by the reference.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.kit import gateways, namespaces
from tests.live.kit.capture import Capture
from tests.live.kit.clear import others_than_protected
from tests.live.kit.gateways import run
from tests.live.kit.namespaces import ip
from tests.live.kit.sited import Site, Way, ping, site

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(namespaces.why_not()), reason=namespaces.why_not())]

WAYS = (Way(4, False, True), Way(6, True, False))
MORE_WAYS = (Way(4, True, True), Way(6, False, False), Way(4, False, False), Way(6, True, True), Way(4, True, False), Way(6, False, True))
HOSTS = {4: ("10.77.1.2", "10.77.2.2"), 6: ("fd00:77:1::2", "fd00:77:2::2")}
NEAR = {4: ("10.77.1.1", "10.77.2.1"), 6: ("fd00:77:1::1", "fd00:77:2::1")}
ONCE = ("-c", "1", "-W", "30")  # of one ping -W is the patience; of more it would not be
CLOSED = {4: "10.77.2.99", 6: "fd00:77:2::99"}


@pytest.fixture(scope="module", params=[*WAYS, *(pytest.param(way, marks=pytest.mark.slow) for way in MORE_WAYS)], ids=str)
def between(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with gateways.row("km", has_v6=True) as row, site(row, request.param, tmp_path_factory.mktemp("gateways")) as made:
        ip("-n", row.gateway_b, "route", "add", "unreachable", CLOSED[4])
        ip("-n", row.gateway_b, "-6", "route", "add", "unreachable", CLOSED[6])
        yield made


@pytest.mark.parametrize("version", [4, 6])
def test_the_path_has_the_gateways_as_its_hops(between: Site, version: int, tmp_path: Path) -> None:
    """RFC 4301 §5.1.2: each gateway forwards, so each takes one off; the tunnel between them is one link. Errors come secured, too."""
    row, (_, target) = between.row, HOSTS[version]
    with Capture(row.gateway_a, "wan", tmp_path / "wan.pcap"):
        said = ping(row.host_a, *ONCE, target)
        assert "ttl=62" in said, between.counters()
        for hops, hop in enumerate(NEAR[version], 1):
            said = ping(row.host_a, *ONCE, "-t", str(hops), target)
            assert re.search(f"From {hop} icmp_seq=1 Time (to live )?exceeded", said), said + between.counters()
        assert "ttl=62" in ping(row.host_a, *ONCE, "-t", "3", target), between.counters()
    assert others_than_protected(tmp_path / "wan.pcap") == []


@pytest.mark.parametrize("version", [4, 6])
def test_what_cannot_be_reached_is_told(between: Site, version: int, tmp_path: Path) -> None:
    """By the far gateway, and by the host itself; through the tunnel."""
    row, (source, target) = between.row, HOSTS[version]
    with Capture(row.gateway_a, "wan", tmp_path / "wan.pcap"):
        said = ping(row.host_a, *ONCE, CLOSED[version])
        assert re.search(f"From {NEAR[version][1]} icmp_seq=1 Destination", said), said + between.counters()
        (refused,) = between.ask(row.host_a, "tcp", source, target, "0")
        assert "refused" in str(refused["why"]), between.counters()
    assert others_than_protected(tmp_path / "wan.pcap") == []


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_pass_both_ways(between: Site, version: int) -> None:
    """What hosts cut, on their side of either gateway: put together for policy, sealed in pieces, and cut again for the other side."""
    for one, (source, target) in ((between.row.host_a, HOSTS[version]), (between.row.host_b, HOSTS[version][::-1])):
        for answer in between.ask(one, "sizes", source, target, "1500:0", "3000:0", "9000:0", "65000:0"):
            assert answer["end"] == "answered", f"{answer}\n{between.counters()}"


def test_no_route_of_the_gateways_own_is_taken(between: Site) -> None:
    """What the near gateway itself sends to the far net goes the same way."""
    assert "ttl=63" in ping(between.row.gateway_a, *ONCE, "-I", NEAR[4][0], HOSTS[4][1]), between.counters()
    assert "19311" in run(between.row.gateway_a, "ip", "rule")
