"""Host mode against a real Linux kernel: its own ESP, AH and IPComp at the other end of a wire. docs/interop.md has the same as a table."""

from collections.abc import Iterator

import pytest

from tests.live.kit.namespaces import why_not
from tests.live.linux_peer import matrix, peer, rig
from tests.live.linux_peer.matrix import Case
from tests.live.linux_peer.rig import Rig

_WHY_NOT = why_not() or peer.why_not()
pytestmark = [
    pytest.mark.live, pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT), pytest.mark.xdist_group("linux-peer"),
]  # fmt: skip
CASES = matrix.cases()


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig.running(tmp_path_factory.mktemp("peer"), CASES) as running:
        yield running


@pytest.mark.covers("R41", "M21")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_linux_answers_through_every_kind_of_sa(wire: Rig, case: Case) -> None:
    for what in ("ping", "ping -s 8000"):
        assert wire.measure(case, what) == ""


@pytest.mark.covers("R41")
@pytest.mark.parametrize("case", [case for case in CASES if case.is_typical], ids=lambda case: case.name)
def test_tcp_and_udp_run_both_ways(wire: Rig, case: Case) -> None:
    for what in rig.MEASURES[2:]:
        assert wire.measure(case, what) == ""


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if not case.is_typical], ids=lambda case: case.name)
def test_tcp_and_udp_run_both_ways_everywhere(wire: Rig, case: Case) -> None:
    test_tcp_and_udp_run_both_ways(wire, case)
