"""What a start that is refused closes: written down with each good load, read back whole or not at all."""

from pathlib import Path

import pytest

from koura.address import Prefix
from koura.daemon import closed
from koura.daemon.closed import Closed, NotKept
from koura.daemon.config import HostConfig
from koura.daemon.journal import Written
from koura.moment import Moment
from koura.saindex import Direction
from koura.settings import FamilySettings, Settings
from koura.spd.policy import Action, Policy
from koura.spd.selector import Selector

HERE, THERE = Prefix(bytes((10, 0, 0, 0)), 8), Prefix(bytes((10, 1, 0, 0)), 16)


def _written(number: int, direction: Direction = Direction.OUTBOUND, socket: int | None = None, interface: str = "") -> Written:
    policy = Policy(direction, Action.DISCARD, selector=Selector(direction, HERE, THERE), interface=interface)
    return Written(number, policy, (0, -number), Moment(number), 0, 0, socket)


def test_what_was_remembered_is_recalled(tmp_path: Path) -> None:
    assert closed.recall(tmp_path) is None
    host = HostConfig("koura7", 1400, ((bytes((10, 0, 0, 1)), 8),), (4500, 4501), False)
    kept = Closed(host, Settings(v6=FamilySettings(def_policy=0)), (_written(1), _written(2, Direction.INBOUND)))
    closed.remember(tmp_path, kept)
    assert closed.recall(tmp_path) == kept
    assert (tmp_path / closed.NAME).stat().st_mode & 0o777 == 0o600
    closed.remember(tmp_path, Closed(host, Settings(), ()))
    assert closed.recall(tmp_path) is None
    closed.remember(tmp_path, Closed(host, Settings(), ()))


@pytest.mark.parametrize("octets", [b"", b"{", b"[1]", b"\xff", b'[["koura0"]]'])
def test_what_is_damaged_is_refused(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / closed.NAME).write_bytes(octets)
    with pytest.raises(NotKept, match="damaged"):
        closed.recall(tmp_path)


def test_a_folder_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotKept):
        closed.remember(tmp_path / "none", Closed(HostConfig(), Settings(), (_written(1),)))
    (tmp_path / closed.NAME).mkdir()
    with pytest.raises(NotKept):
        closed.recall(tmp_path)


def test_sockets_and_interfaces_policies_close_nothing_and_defaults_do() -> None:
    many = [_written(1), _written(2, socket=7), _written(3, interface="ipsec0"), _written(4), _written(5, Direction.INBOUND)]
    assert closed.ordered(many, Direction.OUTBOUND) == [many[3].policy, many[0].policy]
    (whole,) = closed.undecided(Settings(v6=FamilySettings(def_policy=0)))
    assert whole.dst == Prefix(bytes(16), 0)
