"""IPv4 options, IPv6 extension headers, TOS and ECN through every kind of SA, with a Linux kernel at the other end.

UDP goes to a server in the peer, which says what its kernel gave it beside the data, and answers with the same headers: what is compared
is what two kernels saw, neither of them ours. A capture of the wire shows where the headers stand, and that nothing was in clear.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapReader

from tests.live.kit.capture import Capture
from tests.live.kit.namespaces import why_not
from tests.live.linux_peer import account, headers, matrix, peer, rig
from tests.live.linux_peer.matrix import Case
from tests.live.linux_peer.rig import Rig

_WHY_NOT = why_not() or peer.why_not()
pytestmark = [
    pytest.mark.live, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT), pytest.mark.xdist_group("linux-headers"),
]  # fmt: skip
CASES = headers.CASES
ECN = ("net.inet.ipsec.ecn=1", "net.inet6.ipsec6.ecn=1")
ECT0, CE, EF = 2, 3, 0xB8
PROTECTED = "ip proto 50 or ip proto 51 or ip6 proto 50 or ip6 proto 51"
MARK_ALL = """table netdev marks {
 chain in { type filter hook ingress device kt0 priority 0; meta l4proto { 50, 51 } jump mark_it; ip6 nexthdr 51 jump mark_it; }
 chain mark_it { ip ecn set ce; ip6 ecn set ce; }
}
table inet marks {
 chain out { type filter hook postrouting priority 400; oifname "kt0" meta l4proto { 50, 51 } jump mark_it; ip6 nexthdr 51 jump mark_it; }
 chain mark_it { ip ecn set ce; ip6 ecn set ce; }
}
"""
UNMARK = "delete table inet marks; delete table netdev marks"


TRIALS = [(case, name) for case in CASES for name in headers.trials(case)]


@dataclass(frozen=True)
class Told:
    """What came of it. found: what is wrong, by case and trial; wire: what was captured meanwhile."""

    rig: Rig
    found: dict[tuple[str, str], str]
    wire: Path


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("peer")
    with rig.running(folder, CASES, sysctls=ECN) as running:
        headers.prepare(running)
        with Capture(running.namespace, rig.TAP, folder / "wire.pcap") as capture:
            found = {(case.name, name): wrong for case in CASES for name, wrong in headers.tell(running, case).items()}
        yield Told(running, found, capture.file)


@pytest.mark.covers("R41", "S10", "S40")
@pytest.mark.parametrize(("case", "name"), TRIALS, ids=[f"{case.name}: {name}" for case, name in TRIALS])
def test_both_kernels_see_the_headers_that_were_sent(told: Told, case: Case, name: str) -> None:
    assert told.found[case.name, name] == ""


@pytest.mark.covers("R7", "S10")
def test_on_the_wire_all_is_protected_and_options_stand_in_the_header_that_routers_read(told: Told) -> None:
    outside: dict[tuple[int, bool, bool], int] = {}
    for frame in PcapReader(str(told.wire)):
        packet = frame.payload
        if isinstance(packet, IP):
            assert packet.proto in (50, 51), packet.summary()
            is_tunnel = packet.src in matrix.OUTER[4]
            key = (4, is_tunnel, bool(packet.options))
        elif isinstance(packet, IPv6):
            kinds = _chain(bytes(packet))
            if kinds[-1] == 58:  # neighbour discovery, and what kernels say to all
                continue
            assert kinds[-1] in (50, 51), packet.summary()
            key = (6, packet.src in matrix.OUTER[6], len(kinds) > 1)
        else:
            continue
        outside[key] = outside.get(key, 0) + 1
    assert {key for key in outside if key[1]} == {(4, True, False), (6, True, False)}, "a tunnel's own header has no options"
    assert outside[4, False, True] >= 2 * 7 * 3
    assert outside[6, False, True] >= 2 * 4 * 3, "hop-by-hop and routing headers stand in front of ESP and AH"


def _chain(packet: bytes) -> list[int]:
    """The headers of an IPv6 packet up to the first that is none of options or routes."""
    kinds, at = [packet[6]], 40
    while kinds[-1] in (0, 43, 60):
        kinds.append(packet[at])
        at += packet[at + 1] * 8 + 8
    return kinds


@pytest.mark.covers("R34", "R37", "R39", "S5", "M39")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tos_goes_both_ways_and_congestion_marked_on_the_way_arrives(told: Told, case: Case, tmp_path: Path) -> None:
    """DSCP and ECN inside and, of tunnels, outside; then a router on the way marks all protected packets."""
    running = told.rig
    marked = EF | ECT0
    with Capture(running.namespace, rig.TAP, tmp_path / "tos.pcap", PROTECTED) as capture:
        (answer,) = running.ask(case, {"tos": marked})
    assert answer == {"peer": {"tos": marked}, "us": {"tos": marked}}, account.show(running.look())
    outer = [frame.payload for frame in PcapReader(str(capture.file))]
    assert [one.tos if isinstance(one, IP) else one.tc for one in outer] == [marked, marked]
    rules = tmp_path / "marks.nft"
    rules.write_text(MARK_ALL)
    assert running.run("nft", "-f", str(rules)).returncode == 0
    try:
        (answer,) = running.ask(case, {"tos": marked})
        assert answer == {"peer": {"tos": EF | CE}, "us": {"tos": EF | CE}}, account.show(running.look())
        if case.mode == "tunnel" and case.steps[0].suite is matrix.GCM:
            running.look()
            (answer,) = running.ask(case, {"tos": EF, "patience": 1})
            assert answer == {"silence": True}
            assert _is_counted(running, "koura.tunnel.ecn")
    finally:
        running.run("nft", UNMARK)


def _is_counted(running: Rig, name: str) -> bool:
    """Whether it is, now or a little later: the peer may be slow."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if running.look().get(name):
            return True
    return False
