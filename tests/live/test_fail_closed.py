"""Nothing that policy protects leaves in clear, whoever dies; seen on the wire by tcpdump, while a ping flood runs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.daemon.launch import DidNotStart, Running
from tests.live.kit.namespaces import pair, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

# No replay windows: the SAs of a daemon that was killed begin anew with number 1.
GCM = "-E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f1011121314"
BACK = "-E aes-gcm-16 0xf102030405060708090a0b0c0d0e0f1011121314"
SAS = f"""
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -u 1 {GCM};
add 192.0.2.2 192.0.2.1 esp 0x1002 -m tunnel -u 1 {BACK};
"""
WAIT_S = 20.0


def _policies(us: int, them: int) -> str:
    return f"""
spdadd 10.77.{us}.0/24 10.77.{them}.0/24 any -P out ipsec esp/tunnel/192.0.2.{us}-192.0.2.{them}/require;
spdadd 10.77.{them}.0/24 10.77.{us}.0/24 any -P in ipsec esp/tunnel/192.0.2.{them}-192.0.2.{us}/require;
"""


def run(host: str, *words: str, check: bool = True) -> str:
    return subprocess.run(["ip", "netns", "exec", host, *words], check=check, capture_output=True, text=True).stdout


@dataclass(slots=True)
class Two:
    """Two hosts; a daemon of each."""

    hosts: tuple[str, str]
    folder: Path
    daemons: dict[int, Running]

    def start(self, us: int, script: str = "", *more: str) -> None:
        them = 3 - us
        conf, toml = self.folder / f"{us}.conf", self.folder / f"{us}.toml"
        conf.write_text(script or SAS + _policies(us, them))
        toml.write_text("[host]\n")
        arguments = ("-f", str(conf), "-c", str(toml), "-q", *more)
        self.daemons[us] = Running(self.folder / str(us), *arguments, prefix=("ip", "netns", "exec", self.hosts[us - 1]))
        self.daemons[us].start()

    def engine(self, us: int) -> int:
        with Control(self.folder / str(us)) as control:
            return int(str(control.ask("version")["engine"]))

    def ping(self, *more: str) -> str:
        return run(self.hosts[0], "ping", "-n", "-c", "1", "-W", "1", "-I", "10.77.1.1", *more, "10.77.2.1", check=False)

    def answers(self) -> bool:
        return " 0% packet loss" in self.ping()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    with pair("kf") as hosts:
        for number, host in enumerate(hosts, 1):  # without us everything would go in clear, and be answered
            run(host, "ip", "route", "add", f"10.77.{3 - number}.0/24", "via", f"192.0.2.{3 - number}")
        made = Two(hosts, tmp_path, {})
        try:
            yield made
        finally:
            for daemon in made.daemons.values():
                daemon.stop()


@contextmanager
def _captured(host: str, file: Path) -> Iterator[None]:
    """What passes the wire, in both directions."""
    command = ["ip", "netns", "exec", host, "tcpdump", "-n", "-i", "v0", "--immediate-mode", "-U", "-w", str(file), "-Z", "root"]
    capture = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert capture.stderr is not None
    while "listening on" not in capture.stderr.readline():
        assert capture.poll() is None
    try:
        yield
    finally:
        capture.terminate()
        capture.communicate()


def _seen(file: Path, expression: str) -> list[str]:
    done = subprocess.run(["tcpdump", "-n", "-r", str(file), *expression.split()], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@contextmanager
def _flood(host: str) -> Iterator[None]:
    """Pings as fast as they go, answered or not."""
    command = ["ip", "netns", "exec", host, "ping", "-n", "-q", "-f", "-I", "10.77.1.1", "10.77.2.1"]
    flood = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        flood.terminate()
        flood.wait()


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_packet_leaves_in_clear_from_the_first_one_on_whoever_dies(two: Two, tmp_path: Path) -> None:
    """From READY on; engine killed, keeper killed, both down for a while, started again: under a flood, on the wire only ESP."""
    file = tmp_path / "wire.pcap"
    two.start(2)
    two.start(1)
    with _captured(two.hosts[0], file), _flood(two.hosts[0]):
        assert two.answers()
        before = two.engine(1)
        os.kill(before, signal.SIGKILL)
        _until(two.answers)
        assert two.engine(1) != before
        two.daemons[1].signal(signal.SIGKILL)
        two.daemons[1].stop()
        assert not two.answers()
        two.start(1)
        _until(two.answers)
        assert not _seen(file, "net 10.77.0.0/16")
    assert two.daemons[1].stop() == 0
    assert len(_seen(file, "esp")) > 20
    routes = run(two.hosts[0], "ip", "rule") + run(two.hosts[0], "nft", "list", "tables")
    assert "19311" not in routes
    assert "koura" not in routes


def test_killed_daemons_leave_it_closed_both_ways(two: Two, tmp_path: Path) -> None:
    """Keepers of both are killed: no packet of the policies passes the wire, and what comes in clear is dropped and counted."""
    file = tmp_path / "wire.pcap"
    two.start(2)
    two.start(1)
    assert two.answers()
    with _captured(two.hosts[0], file):
        for daemon in two.daemons.values():
            daemon.signal(signal.SIGKILL)
            daemon.stop()
        assert not two.answers()
        assert not _seen(file, "net 10.77.0.0/16")
        two.ping("-m", str(0x4B6F))  # past our routes, as a stranger on the wire would send it
    assert _seen(file, "src 10.77.1.1 and icmp")
    assert not _seen(file, "src 10.77.2.1")
    drops = [line for line in run(two.hosts[1], "nft", "list", "ruleset").splitlines() if "10.77.1.0" in line and "drop" in line]
    assert drops
    assert "packets 0" not in drops[0]


def _down(two: Two, us: int) -> subprocess.CompletedProcess[str]:
    command = ["ip", "netns", "exec", two.hosts[us - 1], sys.executable, "-m", "koura", "down", "--socket", str(two.folder / str(us))]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_down_cleans_up_behind_a_daemon_that_was_killed(two: Two) -> None:
    two.start(1)
    two.daemons[1].signal(signal.SIGKILL)
    two.daemons[1].stop()
    left = run(two.hosts[0], "ip", "link")
    assert "koura0" in left
    done = _down(two, 1)
    assert done.returncode == 0, done.stderr
    assert "koura0" in done.stdout
    assert "koura0" not in run(two.hosts[0], "ip", "link")
    assert "19311" not in run(two.hosts[0], "ip", "rule") + run(two.hosts[0], "ip", "-6", "rule")
    assert "blackhole" not in run(two.hosts[0], "ip", "route", "show", "table", "all")
    assert "koura" not in run(two.hosts[0], "nft", "list", "tables")
    again = _down(two, 1)
    assert again.returncode == 1


def test_a_bad_file_at_the_start_leaves_the_last_policies_closed(two: Two, tmp_path: Path) -> None:
    file = tmp_path / "wire.pcap"
    two.start(1)
    two.daemons[1].signal(signal.SIGKILL)
    two.daemons[1].stop()
    with _captured(two.hosts[0], file):
        with pytest.raises(DidNotStart) as ended:
            two.start(1, "spdadd 10.0.0.0/8 bogus;\n")
        assert ended.value.status == 65
        assert not two.answers()
    assert not _seen(file, "net 10.77.0.0/16")
    assert "drop" in run(two.hosts[0], "nft", "list", "table", "inet", "koura")


def test_a_bad_file_at_the_first_start_leaves_nothing(two: Two) -> None:
    with pytest.raises(DidNotStart):
        two.start(1, "spdadd 10.0.0.0/8 bogus;\n")
    assert "koura0" not in run(two.hosts[0], "ip", "link")


def test_a_bad_file_after_a_stop_closes_what_the_last_good_one_protected(two: Two, tmp_path: Path) -> None:
    """Stopped in order, so that nothing stands; then a script with a fault, then a koura.toml with one: closed both ways, and said."""
    file = tmp_path / "wire.pcap"
    closed = "what the last good file protected stays closed; koura down opens it"
    other = "spdadd 10.99.0.0/16 10.98.0.0/16 any -P out discard;\n"
    two.start(2)
    two.start(1, SAS + _policies(1, 2) + other)
    assert two.daemons[1].stop() == 0 and two.daemons[2].stop() == 0
    assert two.answers(), "nothing is protected, nothing is closed"
    with _captured(two.hosts[0], file):
        for number in (1, 2):
            with pytest.raises(DidNotStart) as ended:
                two.start(number, "spdadd 10.0.0.0/8 bogus;\n")
            assert ended.value.status == 65
            assert closed in ended.value.said, ended.value.said
        assert not two.answers()
        two.ping("-m", str(0x4B6F))  # past our blackholes, as a stranger on the wire would send it
    assert _seen(file, "src 10.77.1.1 and icmp") and not _seen(file, "src 10.77.2.1")
    assert _down(two, 1).returncode == 0 and _down(two, 2).returncode == 0
    assert two.answers(), "koura down opened it"
    (two.folder / "1.toml").write_text("[hots]\n")
    bad = Running(two.folder / "1", "-c", str(two.folder / "1.toml"), prefix=("ip", "netns", "exec", two.hosts[0]))
    with pytest.raises(DidNotStart) as ended:
        bad.start()
    assert closed in ended.value.said and "did you mean host?" in ended.value.said
    assert not two.answers()
    two.start(2)
    two.start(1)
    assert two.answers(), "a good start adopts it"
    assert "10.98.0.0/16" not in run(two.hosts[0], "ip", "route", "show", "table", "19311")


def test_adopted_routes_that_no_policy_wants_any_more_go_and_the_others_never_do(two: Two, tmp_path: Path) -> None:
    """A policy between addresses of ours has a source of its own: adopting it must not take it away for a moment."""
    host = "spdadd 192.0.2.1 192.0.2.2 any -P out discard;\n"
    two.start(1, "spdadd 10.99.0.0/16 10.98.0.0/16 any -P out discard;\n" + host)
    two.daemons[1].signal(signal.SIGKILL)
    two.daemons[1].stop()
    file = tmp_path / "wire.pcap"
    with _captured(two.hosts[0], file):
        flood = subprocess.Popen(["ip", "netns", "exec", two.hosts[0], "ping", "-q", "-f", "192.0.2.2"], stdout=subprocess.DEVNULL)
        two.start(1, host)
        flood.terminate()
        flood.wait()
    table = run(two.hosts[0], "ip", "route", "show", "table", "19311")
    assert "10.98.0.0/16" not in table
    assert "192.0.2.2 dev koura0" in table
    assert not _seen(file, "icmp and dst 192.0.2.2")


def test_two_daemons_cannot_both_be_in_host_mode_here(two: Two) -> None:
    two.start(1)
    with ExitStack() as stack:
        toml = two.folder / "other.toml"
        toml.write_text('[host]\ninterface = "koura1"\nports = [4501]\n')
        other = Running(two.folder / "other", "-c", str(toml), prefix=("ip", "netns", "exec", two.hosts[0]))
        with pytest.raises(DidNotStart) as ended:
            stack.enter_context(other)
    assert "another daemon is in host mode" in ended.value.said


def test_without_the_guard_nothing_is_in_nftables(two: Two) -> None:
    two.start(1, "", "--no-inbound-guard")
    assert "koura" not in run(two.hosts[0], "nft", "list", "tables")
