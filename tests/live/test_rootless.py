"""Rootless mode as user nobody: a page behind a gateway is read through ESP in UDP, by a program that has no other way out."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import pytest

import koura
from koura.daemon.launch import Running, short
from tests.live.kit.namespaces import ip, pair, pings, why_not
from tests.live.kit.users import NOBODY, why_no_others

PATIENCE_S = 60
PAGE = "what only the protected network has\n" * 5000


def _why_not() -> str:
    if why := why_not() or why_no_others():
        return why
    if shutil.which("setpriv") is None or shutil.which("curl") is None:
        return "no setpriv(1) or curl(1) here (Debian: util-linux, curl)"
    if not _python():
        return f"nobody cannot run {sys.executable} with Koura's packages, nor a system Python of the same version"
    tried = _as_nobody(["unshare", "-Urn", "true"])
    return "" if tried.returncode == 0 else f"no user namespaces for users: {tried.stderr.strip()}"


USER = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
PATHS = os.pathsep.join(str(Path(module.__file__).parents[1]) for module in (koura, click) if module.__file__)


def _as_nobody(words: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*USER, "sh", "-c", 'exec "$@"', "sh", *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": PATHS},
    )  # fmt: skip


@cache
def _python() -> str:
    """An interpreter that nobody may run, with what Koura needs; "" if there is none."""
    ours = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for one in (sys.executable, ours):
        if _as_nobody([one, "-c", "import json, click, pyroute2, cryptography.x509, koura.cli.main"]).returncode == 0:
            return one
    return ""


pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(_why_not()), reason=_why_not())]

OUT, BACK = (f"-E aes-gcm-16 0x{first}02030405060708090a0b0c0d0e0f1011121314" for first in ("01", "f1"))
# Says which signals it gets, in their order.
SIGNALLED = """
import signal, sys
wanted = {signal.SIGUSR2, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
print("here", flush=True)
for _ in range(2):
    print(signal.Signals(signal.sigwait(wanted)).name, flush=True)
sys.exit(9)
"""
SAS = f"""
add 192.0.2.1[4500] 192.0.2.2[4500] esp-udp 0x1001 -m tunnel -u 1 -r 32 {OUT};
add 192.0.2.2[4500] 192.0.2.1[4500] esp-udp 0x1002 -m tunnel -u 1 -r 32 {BACK};
"""


def _policies(out: str, back: str) -> str:
    return f"""
spdadd 10.9.0.5 10.8.0.0/24 any -P {out} ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:1;
spdadd 10.8.0.0/24 10.9.0.5 any -P {back} ipsec esp/tunnel/192.0.2.2-192.0.2.1/unique:1;
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A client's namespace, the gateway's, and the client's file."""

    client: str
    gateway: str
    file: Path
    folder: Path

    def up(self, *words: str, toml: str = "", hide: str = "", before: str = "") -> "subprocess.CompletedProcess[str]":
        """`koura up --rootless` as nobody in the client's namespace; with a directory hidden, or something done around it."""
        before = f"mount -t tmpfs none {hide}" if hide else before
        around = ["unshare", "-cm", "--keep-caps", "sh", "-c", f'{before}; exec "$@"', "sh"] if before else []
        command = self.words(*words, toml=toml, around=around)
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL)

    def words(self, *words: str, toml: str = "", around: list[str] | None = None) -> list[str]:
        config = self.folder / f"client{len(list(self.folder.iterdir()))}.toml"
        config.write_text(toml)
        command = [_python(), "-m", "koura", "up", "--rootless", "-f", str(self.file), "-c", str(config), "--", *words]
        env = ["env", f"PYTHONPATH={PATHS}", f"XDG_STATE_HOME={self.folder / 'memory'}"]
        return ["ip", "netns", "exec", self.client, *env, *USER, *(around or []), *command]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """client 192.0.2.1 -- 192.0.2.2 gateway 10.8.0.1 -- 10.8.0.2 server."""
    server = f"krs{os.getpid()}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="koura-rootless-", dir=short())))
        folder.chmod(0o755)  # nobody reads there
        (folder / "memory").mkdir()
        os.chown(folder / "memory", NOBODY, NOBODY)
        client, gateway = stack.enter_context(pair("kr"))
        stack.callback(subprocess.run, ["ip", "netns", "del", server], check=False, capture_output=True)
        ip("netns", "add", server)
        ip("-n", server, "link", "set", "lo", "up")
        ip("-n", server, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", gateway)
        for host, name, address in ((server, "v0", "10.8.0.2/24"), (gateway, "v1", "10.8.0.1/24")):
            ip("-n", host, "addr", "add", address, "dev", name)
            ip("-n", host, "link", "set", name, "up")
        ip("-n", server, "route", "add", "default", "via", "10.8.0.1")
        subprocess.run(["ip", "netns", "exec", gateway, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        pages = folder / "pages"
        pages.mkdir()
        (pages / "page").write_text(PAGE)
        web = subprocess.Popen(
            ["ip", "netns", "exec", server, sys.executable, "-u", "-m", "http.server", "-b", "10.8.0.2", "-d", str(pages), "80"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        stack.callback(lambda: (web.terminate(), web.communicate()))
        assert web.stdout is not None and "Serving" in web.stdout.readline()
        conf, toml, mine = folder / "gateway.conf", folder / "gateway.toml", folder / "client.conf"
        conf.write_text(SAS + _policies("in", "out"))
        toml.write_text("[host]\n")
        mine.write_text(SAS + _policies("out", "in"))
        prefix = ("ip", "netns", "exec", gateway)
        stack.enter_context(Running(folder / "gw", "-f", str(conf), "-c", str(toml), prefix=prefix))
        yield Site(client, gateway, mine, folder)


@pytest.mark.parametrize("device", ["auto", "veth"])
def test_curl_reads_a_page_behind_the_gateway(site: Site, device: str) -> None:
    done = site.up("curl", "-sS", "--max-time", "20", "http://10.8.0.2/page", toml=f'[rootless]\ndevice = "{device}"\n')
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == PAGE


def test_numbers_go_on_from_one_run_to_the_next(site: Site) -> None:
    """The gateway's replay window is that of the runs before; the second finds it where the first left it."""
    for _ in range(2):
        assert "3 received" in site.up("ping", *pings(), "10.8.0.2").stdout


def test_who_has_no_place_to_remember_is_told(site: Site) -> None:
    words = ["XDG_STATE_HOME=/nowhere" if word.startswith("XDG_STATE_HOME=") else word for word in site.words("true")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    said = r"koura: /nowhere/koura/rootless-\w+: .*: numbers start again at every run; --state DIR remembers them\n"
    assert re.fullmatch(said, done.stderr)


def test_without_dev_net_tun_a_veth_serves(site: Site) -> None:
    done = site.up("sh", "-c", "ip -d link show koura0; curl -sS --max-time 20 http://10.8.0.2/page | head -c 4", hide="/dev/net")
    assert done.returncode == 0
    assert "veth" in done.stdout
    assert done.stdout.endswith(PAGE[:4])


def test_what_is_missing_is_said_in_one_line(site: Site) -> None:
    no_tun = site.up("true", toml='[rootless]\ndevice = "tun"\n', hide="/dev/net")
    assert (no_tun.returncode, no_tun.stderr) == (77, "koura: /dev/net/tun: No such file or directory\n")
    shut = site.up("true", before="echo 0 >/proc/sys/user/max_user_namespaces")
    assert shut.returncode == 77
    assert shut.stderr.startswith("koura: user namespaces are closed: /proc/sys/user/max_user_namespaces is 0")
    assert shut.stderr.count("\n") == 1


def test_the_program_is_who_it_was_and_has_no_other_way_out(site: Site) -> None:
    """Its user is the same, it has no right in its namespace, and what no policy protects goes nowhere."""
    script = "id -u; ip link set koura0 down 2>&1; ping -c 1 -W 1 192.0.2.2 2>&1; ping -c 1 -W 5 10.8.0.2"
    done = site.up("sh", "-c", script)
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"{NOBODY}\nRTNETLINK answers: Operation not permitted\n")
    assert "Network is unreachable" in done.stdout
    assert "1 received" in done.stdout


def test_exit_status_and_signals_are_the_programs(site: Site) -> None:
    assert site.up("sh", "-c", "exit 7").returncode == 7
    assert site.up("sh", "-c", "kill -USR1 $$").returncode == -signal.SIGUSR1
    assert site.up("/no/such/program").returncode == 127
    with subprocess.Popen(site.words(_python(), "-c", SIGNALLED), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for number, said in ((signal.SIGUSR2, "here"), (signal.SIGTERM, "SIGUSR2")):
            assert running.stdout.readline() == f"{said}\n"
            running.send_signal(number)
        assert running.stdout.read() == "SIGTERM\n"
        assert running.wait(PATIENCE_S) == 9


def test_commands_inside_find_its_engine(site: Site) -> None:
    script = f"{_python()} -m koura sysctl net.inet.ipsec.dfbit && {_python()} -m koura down && sleep 60"
    done = site.up("sh", "-c", script)
    assert done.returncode == -signal.SIGTERM  # the daemon ends, and the program with it
    assert "net.inet.ipsec.dfbit" in done.stdout


def test_a_refused_file_starts_nothing(site: Site, tmp_path: Path) -> None:
    site.file.with_name("bad.conf").write_text("add 192.0.2.1 nonsense;")
    words = [word.replace("client.conf", "bad.conf") for word in site.words("echo", "started")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (65, "")
