"""A start of host mode that cannot be: one line that says what is missing, nothing left behind, and what was protected stays closed."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.daemon.launch import Running
from tests.live.kit.namespaces import pair, why_not

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(shutil.which("nft") is None, reason="no nft(8) here (Debian: nftables)"),
]

CONF = """
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -u 1 -E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f1011121314;
spdadd 10.77.1.0/24 10.77.2.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:1;
spdadd 10.77.2.0/24 10.77.1.0/24 any -P in discard;
"""
PATIENCE_S = 60
TAKE = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind(("", 4500))
print("taken", flush=True)
sys.stdin.read()
"""
HAVE_TUN = """
from koura.host import tun
import sys
held = tun.create("koura0")
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "setkey.conf").write_text(CONF)
    (tmp_path / "koura.toml").write_text('[daemon]\nfile = "setkey.conf"\n[host]\n')
    with pair("khs") as hosts:
        yield hosts[0]


def words(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "koura", "up", "--socket", str(folder / "s"), "-c", str(folder / "koura.toml"), *more]


def start(host: str, folder: Path, *more: str, before: str = "") -> tuple[int, str]:
    """A start that does not succeed: exit status and what was said. before: shell commands in a mount namespace of its own."""
    command = ["ip", "netns", "exec", host, "unshare", "-m", "sh", "-c", f'{before or "true"}; exec "$@"', "sh", *words(folder, *more)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def said(host: str, *command: str) -> str:
    return subprocess.run(["ip", "netns", "exec", host, *command], check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout


def left(host: str) -> list[str]:
    """What of host mode stands."""
    found = ["interface"] * ("koura0" in said(host, "ip", "link"))
    found += ["rule"] * ("19311" in said(host, "ip", "rule"))
    return found + ["guard"] * ("koura" in said(host, "nft", "list", "tables"))


def test_what_is_missing_is_said_in_a_line_and_nothing_is_left(host: str, tmp_path: Path) -> None:
    status, line = start(host, tmp_path, before="mount -t tmpfs none /dev/net")
    assert (status, line) == (1, "koura: there is no /dev/net/tun: load the module tun, or use koura up --rootless with veth\n")
    status, line = start(host, tmp_path, before=f"PATH={tmp_path}")
    assert (status, line) == (1, "koura: nft is not here: install nftables, or start with --no-inbound-guard\n")
    assert left(host) == []


@pytest.mark.parametrize(("holder", "why"), [(TAKE, "UDP port 4500 is another program's"), (HAVE_TUN, "another program has this TUN open")])
def test_what_somebody_else_has_is_named(host: str, tmp_path: Path, holder: str, why: str) -> None:
    command = ["ip", "netns", "exec", host, sys.executable, "-c", holder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None and program.stdin is not None
        assert program.stdout.readline() == "taken\n"
        status, line = start(host, tmp_path)
        program.stdin.close()
    assert status == 1
    assert why in line


def test_places_that_cannot_be_used_are_named(host: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, line = start(host, tmp_path, "--state", str(tmp_path / "file"))
    assert (status, f"{tmp_path}/file cannot be used (it is no directory)" in line) == (65, True)
    (tmp_path / "ro").mkdir()
    mounted = f"mount -t tmpfs -o ro none {tmp_path}/ro"
    status, line = start(host, tmp_path, "--state", str(tmp_path / "ro"), before=mounted)
    assert (status, f"{tmp_path}/ro cannot be used (Read-only file system)" in line) == (65, True)
    assert left(host) == []
    status, line = start(host, tmp_path, "--socket", str(tmp_path / "file"))
    assert (status, f"{tmp_path}/file is no directory" in line) == (1, True)


def test_a_second_daemon_is_refused_and_the_first_one_goes_on(host: str, tmp_path: Path) -> None:
    with Running(tmp_path / "s", "-c", str(tmp_path / "koura.toml"), prefix=("ip", "netns", "exec", host)) as first:
        status, line = start(host, tmp_path)
        assert (status, f"(pid {first.pid})" in line) == (1, True)
        status, line = start(host, tmp_path, "--socket", str(tmp_path / "t"))
        assert (status, "another daemon is in host mode in this network namespace" in line) == (1, True)
        assert left(host) == ["interface", "rule", "guard"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as end:
            end.connect(str(tmp_path / "s" / "status.sock"))
    assert left(host) == []


def test_a_guard_that_is_not_wanted_any_more_does_not_stay(host: str, tmp_path: Path) -> None:
    """The daemon that made it was killed; the next one is to do without."""
    prefix = ("ip", "netns", "exec", host)
    first = Running(tmp_path / "s", "-c", str(tmp_path / "koura.toml"), prefix=prefix)
    with first:
        first.signal(9)
        first.stop()
        assert "guard" in left(host)
        with Running(tmp_path / "s", "-c", str(tmp_path / "koura.toml"), "--no-inbound-guard", prefix=prefix):
            assert left(host) == ["interface", "rule"]
    assert left(host) == []


@pytest.mark.parametrize(("link", "octets"), [(1500, 1400), (1450, 1350), (1300, 1280), (9000, 1400)])
def test_the_interface_is_made_to_fit_the_link_of_the_default_route(host: str, tmp_path: Path, link: int, octets: int) -> None:
    for line in (f"link set v0 mtu {link}", "route add default via 192.0.2.2"):
        said(host, "ip", *line.split())
    for line, wanted in (("[host]\n", octets), ("[host]\nmtu = 1500\n", 1500)):
        (tmp_path / "koura.toml").write_text(line)
        with Running(tmp_path / "s", "-c", str(tmp_path / "koura.toml"), prefix=("ip", "netns", "exec", host)):
            assert f"mtu {wanted} " in said(host, "ip", "link", "show", "koura0")
