"""A rootless program behind a NAT, on a port that nobody chose: the gateway follows it, also when the mapping changes; keepalives."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from koura.client import Control
from koura.daemon.launch import Running, short
from tests.live.kit import nat
from tests.live.kit.street import Street, street
from tests.live.test_rootless import NOBODY, PATHS, PATIENCE_S, USER, _python, _why_not

WHY_NOT = _why_not() or nat.why_not()
pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]


def _sas(far: str, ways: tuple[str, str]) -> str:
    """far: the client's address and port, as this side has them."""
    address = far.partition("[")[0]
    return (
        f"add {far} 192.0.2.2[4500] esp-udp 0x1001 -m tunnel -u 1 -r 64 -E aes-gcm-16 0x{1:040x};\n"
        f"add 192.0.2.2[4500] {far} esp-udp 0x1002 -m tunnel -u 1 -r 64 -E aes-gcm-16 0x{2:040x};\n"
        f"spdadd 10.9.0.5 10.77.9.0/24 any -P {ways[0]} ipsec esp/tunnel/{address}-192.0.2.2/unique:1;\n"
        f"spdadd 10.77.9.0/24 10.9.0.5 any -P {ways[1]} ipsec esp/tunnel/192.0.2.2-{address}/unique:1;\n"
    )


@dataclass(frozen=True, slots=True)
class Site:
    street: Street
    gateway: Running
    folder: Path

    def start(self, *words: str, more: str = "") -> "subprocess.Popen[str]":
        """`koura up --rootless` as nobody, with any port that is free."""
        (self.folder / "client.toml").write_text(f"[rootless]\nport = 0\n{more}")
        files = ("-f", str(self.folder / "client.conf"), "-c", str(self.folder / "client.toml"))
        env = ["env", f"PYTHONPATH={PATHS}", f"XDG_STATE_HOME={self.folder / 'memory'}"]
        line = ["ip", "netns", "exec", self.street.clients[0], *env, *USER, _python(), "-m", "koura", "up", "--rootless", *files]
        return subprocess.Popen([*line, "--", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def natt(self) -> dict[str, int]:
        with Control(self.gateway.directory) as control:
            counters: Any = control.ask("stat", protocol="natt", json=True)["counters"]
        return dict(counters["natt"])

    def says(self) -> str:
        with Control(self.gateway.directory) as control:
            return f"{control.ask('stat', nonzero=True)['text']}\n{self.gateway.said}"

    def until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline, self.says()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="koura-rootless-", dir=short())))
        folder.chmod(0o755)  # nobody reads there
        (folder / "memory").mkdir()
        os.chown(folder / "memory", NOBODY, NOBODY)
        made = stack.enter_context(street("ko", 1))
        made.see(1, 41001)
        (folder / "client.conf").write_text(_sas("10.88.1.2[4500]", ("out", "in")))
        (folder / "gateway.conf").write_text(_sas("192.0.2.1[4500]", ("in", "out")))
        (folder / "gateway.toml").write_text("[host]\n")
        words = ("-f", str(folder / "gateway.conf"), "-c", str(folder / "gateway.toml"))
        gateway = stack.enter_context(Running(folder / "gw", *words, prefix=("ip", "netns", "exec", made.server)))
        yield Site(made, gateway, folder)


@pytest.mark.covers("M12", "S26")
def test_the_gateway_follows_from_port_to_port_and_to_another_address(site: Site) -> None:
    before = site.natt()["moved"]
    with site.start("ping", "-n", "-i", "0.05", "-w", str(PATIENCE_S), "10.77.9.1") as running:
        assert running.stdout is not None
        replies = (line for line in running.stdout if "bytes from 10.77.9.1" in line)
        try:
            assert next(replies, ""), site.says()
            for port, address in ((42001, "192.0.2.1"), (42002, "192.0.2.3")):
                moved = site.natt()["moved"]
                site.street.see(1, port, address)
                site.until(lambda moved=moved: site.natt()["moved"] > moved)  # type: ignore[misc]
                assert all(next(replies, "") for _ in range(40)), site.says()  # more than what was under way
        finally:
            running.terminate()
    assert site.natt()["moved"] >= before + 3, "from the file's port to the first one that was seen, and twice from there"


@pytest.mark.covers("S41")
def test_a_program_that_says_nothing_keeps_its_mapping(site: Site) -> None:
    site.street.see(1, 43001)  # the NAT still had the last program at its port
    with site.start("cat", more="keepalive = 1\n") as running:
        before = site.natt()["keepalives_in"]
        site.until(lambda: site.natt()["keepalives_in"] >= before + 2)
        assert running.stdin is not None
        running.stdin.close()
        assert running.wait(PATIENCE_S) == 0
