"""Raw ESP by AF_XDP between two namespaces: taken before the kernel's own way, and by that where it cannot be had."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.daemon.ends import is_fast
from koura.daemon.launch import Running
from koura.host.xdp import NoXdp, Program
from tests.live.kit.namespaces import pair, why_not
from tests.live.test_host import SAS, _policies, run

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]
TRIES = 10


def no_xdp() -> str:
    """Why this machine cannot; '' where it can."""
    if not is_fast():
        return "the fast path was not built here"
    try:
        Program().close()
    except NoXdp as error:
        return str(error)
    return ""


@contextmanager
def daemons(folder: Path, xdp: str) -> Iterator[tuple[str, str]]:
    with ExitStack() as stack:
        hosts = stack.enter_context(pair("kx"))
        for us, host in enumerate(hosts, 1):
            conf, toml = folder / f"{us}.conf", folder / f"{us}.toml"
            conf.write_text(SAS + _policies(us, 3 - us))
            toml.write_text(f'[host]\nxdp = ["{xdp}"]\n')
            arguments = ("-f", str(conf), "-c", str(toml), "-q")
            stack.enter_context(Running(folder / str(us), *arguments, prefix=("ip", "netns", "exec", host)))
        yield hosts


def answers(hosts: tuple[str, str], folder: Path, size: int = 56) -> None:
    """A ping is answered; one that is not at first is sent again."""
    command = ["ip", "netns", "exec", hosts[0], "ping", "-n", "-c", "1", "-W", "2", "-s", str(size), "-I", "10.77.1.1", "10.77.2.1"]
    for _ in range(TRIES):
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return
    pytest.fail("\n".join(str(stat(folder, us)) for us in (1, 2)))


def stat(folder: Path, us: int) -> dict[str, dict[str, int]]:
    with Control(folder / str(us)) as control:
        return dict(control.ask("stat", protocol="", nonzero=False, json=True)["counters"]["attachments"])


@pytest.mark.skipif(bool(no_xdp()), reason=no_xdp())
def test_esp_is_taken_before_the_kernel_sees_it_and_by_the_next_engine_too(tmp_path: Path) -> None:
    with daemons(tmp_path, "v0") as hosts:
        assert "xdp" in run(hosts[1], "ip", "link", "show", "v0")
        for size in (56, 1400, 6000):  # the last one goes in fragments of the outer packet, which the kernel puts together
            answers(hosts, tmp_path, size)
        assert stat(tmp_path, 2)["xdp/v0/0"]["received"] > 0
        with Control(tmp_path / "2") as control:
            drivers = control.ask("stat", protocol="", nonzero=False, json=True)["drivers"]
            assert (drivers["xdp/v0/0"], drivers["raw4/51"]) == ("native, AF_XDP, generic mode", "packet by packet")
            os.kill(int(str(control.ask("version")["engine"])), signal.SIGKILL)
        answers(hosts, tmp_path)
        assert stat(tmp_path, 2)["xdp/v0/0"]["received"] > 0
        run(hosts[0], "ping", "-q", "-n", "-c", "5000", "-f", "-s", "1000", "-I", "10.77.1.1", "10.77.2.1")  # round the ring, and more
        answers(hosts, tmp_path)


@pytest.mark.skipif(bool(no_xdp()), reason=no_xdp())
def test_the_program_goes_with_the_daemon(tmp_path: Path) -> None:
    with pair("ky") as hosts:
        (tmp_path / "k.toml").write_text('[host]\nxdp = ["v0"]\n')
        with Running(tmp_path / "d", "-c", str(tmp_path / "k.toml"), prefix=("ip", "netns", "exec", hosts[0])):
            assert "xdp" in run(hosts[0], "ip", "link", "show", "v0")
        assert "xdp" not in run(hosts[0], "ip", "link", "show", "v0")


def test_where_it_cannot_be_had_raw_sockets_serve(tmp_path: Path) -> None:
    with daemons(tmp_path, "absent0") as hosts:
        answers(hosts, tmp_path)
        assert not any(name.startswith("xdp/") for name in stat(tmp_path, 2))
