"""koura.toml read again: what is made so at once, what waits for a restart, and that the command line wins as at the start."""

import dataclasses
from pathlib import Path

import pytest

from koura import control
from koura.daemon import configfile, reload
from koura.daemon.config import BadConfig, Config

FIRST = """
[daemon]
file = "a.conf"
[host]
mtu = 1500
ports = [4500]
[[tunnel]]
name = "ipsec0"
reqid = 1
local = "192.0.2.1"
remote = "192.0.2.2"
[sysctl]
"net.inet.ipsec.dfbit" = 1
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    for name in ("a.conf", "b.conf", "c.conf"):
        (tmp_path / name).write_text("")
    (tmp_path / "koura.toml").write_text(FIRST)
    return tmp_path / "koura.toml"


def start(toml: Path, *options: str, files: tuple[Path, ...] = ()) -> Config:
    """As `koura up -c koura.toml -o ... -f ...`."""
    read = configfile.read_file(toml.parent, toml, options, has_scripts=bool(files))
    return dataclasses.replace(read, files=files or read.files)


def changed(toml: Path, *pairs: tuple[str, str]) -> None:
    text = toml.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    toml.write_text(text)


def test_a_file_that_is_the_same_changes_nothing(toml: Path) -> None:
    running = start(toml)
    assert reload.read(running) == reload.Fresh(running)


def test_scripts_tunnels_and_tunables_are_taken(toml: Path) -> None:
    running = start(toml)
    changed(toml, ('"a.conf"', '["b.conf", "c.conf"]'), ("reqid = 1", "reqid = 2"))
    changed(toml, ('dfbit" = 1', 'dfbit" = 2\n[limits]\nassociations = 77'))
    fresh = reload.read(running)
    assert [path.name for path in fresh.config.files] == ["b.conf", "c.conf"]
    assert [one.reqid for one in fresh.config.tunnels] == [2]
    assert set(fresh.tunables) == {("net.inet.ipsec.dfbit", "2"), ("net.koura.limits.associations", "77")}
    assert fresh.restart == ()
    assert reload.read(fresh.config) == reload.Fresh(fresh.config), "and once"


def test_what_waits_for_a_restart_is_named_until_it_is_taken_back(toml: Path) -> None:
    running = start(toml)
    more = '\n"net.key.spdcache.maxentries" = 64\n[enc]\n[pfkey]\nmode = "0660"\n'
    changed(toml, ("mtu = 1500\nports = [4500]", "mtu = 1400\nports = []\nguard = false"), ("dfbit\" = 1", f"dfbit\" = 1{more}"))
    fresh = reload.read(running)
    assert fresh.restart == ("pfkey.mode", "host.mtu", "host.ports", "host.guard", "[enc]", "net.key.spdcache.maxentries")
    assert reload.read(fresh.config).restart == fresh.restart
    assert fresh.config.host == running.host
    toml.write_text(FIRST)
    assert reload.read(fresh.config).restart == ()


def test_a_table_that_goes_and_bumps_that_come(toml: Path) -> None:
    running = start(toml)
    toml.write_text('[[bump]]\ninside = "a"\noutside = "b"\n')
    assert reload.read(running).restart == ("[host]", "[[bump]]")
    assert reload.read(running).tunables == (("net.inet.ipsec.dfbit", "0"),), "what the file no longer says is as it was without it"


def test_the_command_line_wins(toml: Path) -> None:
    running = start(toml, "net.inet.ipsec.dfbit=0", files=(toml.parent / "c.conf",))
    changed(toml, ("a.conf", "b.conf"), ('dfbit" = 1', 'dfbit" = 2'))
    fresh = reload.read(running)
    assert fresh.tunables == ()
    assert [path.name for path in fresh.config.files] == ["c.conf"]


def test_what_is_wrong_refuses_all_of_it(toml: Path) -> None:
    running = start(toml)
    changed(toml, ("mtu = 1500", "mtu = 15"), ("a.conf", "nowhere.conf"))
    with pytest.raises(BadConfig) as refused:
        reload.read(running)
    assert len(refused.value.faults) == 2


def test_without_a_file_there_is_nothing_to_read_again(tmp_path: Path) -> None:
    config = configfile.read(tmp_path)
    assert reload.read(config) == reload.Fresh(config)


def test_a_long_answer_goes_in_parts() -> None:
    reply = {"ok": True, "diff": [f"+ {number:0100}" for number in range(20_000)], "added": 20_000, "restart": ["host.mtu"]}
    parts = reload.parted(reply)
    assert len(parts) > 1
    assert dict(reload.whole(tuple(control.write(part) for part in parts)))["diff"] == reply["diff"]
