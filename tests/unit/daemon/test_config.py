"""koura.toml and the directory."""

import os
import socket
import stat
from pathlib import Path

import pytest

from koura.client import place
from koura.daemon import configfile
from koura.daemon.config import BadConfig
from koura.daemon.house import Door, House, NoHouse

TEXT = """
[daemon]
file = "/etc/koura/setkey.conf"
[pfkey]
path = "/run/pfkey"
mode = "0660"
group = "ipsec"
[sysctl]
"net.inet.ipsec.dfbit" = 2
"net.key.spdcache.maxentries" = 5
"""


def test_everything_it_says() -> None:
    read = configfile.read(Path("/d"), TEXT, "koura.toml", ("net.inet.ipsec.dfbit=1",))
    assert (read.files, read.pfkey, read.pfkey_mode, read.pfkey_group) == (
        (Path("/etc/koura/setkey.conf"),), Path("/run/pfkey"), 0o660, "ipsec",
    )  # fmt: skip
    assert (read.settings.dfbit, read.settings.key.spdcache_maxentries) == (1, 5), "the command line comes last"


def test_the_daemon_starts_without_weak_algorithms() -> None:
    assert configfile.read(Path("/d")).settings.weak_crypto == 0
    assert configfile.read(Path("/d"), more=("net.koura.weak_crypto=1",)).settings.weak_crypto == 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[", "koura.toml"), ("[colour]\n", "colour"), ("[pfkey]\nsize = 1\n", "size"), ("[pfkey]\nmode = 384\n", "mode"),
        ('[pfkey]\nmode = "999"\n', "999"), ('[sysctl]\n"net.nothing" = 1\n', "net.nothing"), ("sysctl = 3\n", "assignments"),
        ('[sysctl]\n"net.inet.ipsec.dfbit" = "x"\n', "invalid integer"), ("daemon = 3\n", "daemon"),
    ],
)  # fmt: skip
def test_a_bad_file_says_what_is_wrong(text: str, word: str) -> None:
    with pytest.raises(BadConfig) as caught:
        configfile.read(Path("/d"), text, "koura.toml")
    assert word in str(caught.value)


def test_where_an_engine_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(place.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert place.directory() == Path("/run/user/7/koura")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert place.directory() == Path("/run/koura")
    monkeypatch.setenv(place.VARIABLE, "/somewhere")
    assert place.directory() == Path("/somewhere")
    assert place.directory("/given") == Path("/given")


def test_a_directory_has_one_daemon(tmp_path: Path) -> None:
    house = House(tmp_path / "k")
    house.take()
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == (0o755 if os.geteuid() == 0 else 0o700)
    with pytest.raises(NoHouse, match=rf"pid {os.getpid()}\)"):
        House(tmp_path / "k").take()
    with house.bind(Door(tmp_path / "k" / "x.sock", 0o640)) as end:
        assert stat.S_IMODE((tmp_path / "k" / "x.sock").stat().st_mode) == 0o640
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other, pytest.raises(ConnectionRefusedError):
            other.connect(str(tmp_path / "k" / "x.sock"))
        end.listen()
    house.close()
    assert sorted(path.name for path in (tmp_path / "k").iterdir()) == ["lock"]
    House(tmp_path / "k").take()


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(NoHouse) as caught:
        House(tmp_path).take()
    assert caught.value.is_forbidden


def test_a_path_that_is_too_long_or_a_group_that_is_not_there_is_told(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.take()
    with pytest.raises(NoHouse, match="too long"):
        house.bind(Door(tmp_path / ("x" * 120)))
    with pytest.raises(NoHouse, match="no group"):
        house.bind(Door(tmp_path / "y.sock", 0o660, "no-such-group-anywhere"))
    house.close()
