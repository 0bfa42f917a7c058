"""Raw ESP by AF_XDP between two namespaces: taken and sent past the kernel's own way, and by that where it cannot be had."""

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
from koura.host import xdp
from koura.host.xdp import NoXdp, Program
from tests.live.kit.namespaces import pair, why_not
from tests.live.test_host import ONE, SAS, TWO, _policies, run

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


def answers(hosts: tuple[str, str], folder: Path, size: int = 56, ends: tuple[str, str] = ("10.77.1.1", "10.77.2.1")) -> None:
    """A ping is answered; one that is not at first is sent again."""
    command = ["ip", "netns", "exec", hosts[0], "ping", "-n", "-c", "1", "-W", "2", "-s", str(size), "-I", *ends]
    for _ in range(TRIES):
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return
    pytest.fail("\n".join(str(stat(folder, us)) for us in (1, 2)))


def stat(folder: Path, us: int) -> dict[str, dict[str, int]]:
    with Control(folder / str(us)) as control:
        return dict(control.ask("stat", protocol="", nonzero=False, json=True)["counters"]["attachments"])


def counts(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    """What came and went by AF_XDP, at both ends."""
    return stat(folder, 1)["xdp/v0/0"], stat(folder, 2)["xdp/v0/0"]


@pytest.mark.skipif(bool(no_xdp()), reason=no_xdp())
def test_esp_is_taken_before_the_kernel_sees_it_and_by_the_next_engine_too(tmp_path: Path) -> None:
    with daemons(tmp_path, "v0") as hosts:
        assert "xdp" in run(hosts[1], "ip", "link", "show", "v0")
        for size in (56, 1400, 6000):  # the last one goes in fragments of the outer packet, which the kernel puts together
            answers(hosts, tmp_path, size)
        before = counts(tmp_path)
        run(hosts[0], "ping", "-q", "-n", "-c", "500", "-f", "-s", "1000", "-I", ONE, TWO)
        answers(hosts, tmp_path, ends=(ONE, TWO))
        for was, now in zip(before, counts(tmp_path), strict=True):
            assert min(now[name] - was[name] for name in ("received", "sent")) > 400, (was, now)
        assert stat(tmp_path, 2)["xdp/v0/0"]["received"] > 0
        with Control(tmp_path / "2") as control:
            drivers = control.ask("stat", protocol="", nonzero=False, json=True)["drivers"]
            assert (drivers["xdp/v0/0"], drivers["raw4/51"]) == ("native, AF_XDP, generic mode", "packet by packet")
            os.kill(int(str(control.ask("version")["engine"])), signal.SIGKILL)
        answers(hosts, tmp_path)
        assert stat(tmp_path, 2)["xdp/v0/0"]["received"] > 0
        before = counts(tmp_path)
        run(hosts[0], "ping", "-q", "-n", "-c", "5000", "-f", "-s", "1000", "-I", "10.77.1.1", "10.77.2.1")  # round the rings, and more
        answers(hosts, tmp_path)
        for was, now in zip(before, counts(tmp_path), strict=True):
            assert min(now[name] - was[name] for name in ("received", "sent")) > 4000, (was, now)


@pytest.mark.skipif(bool(no_xdp()), reason=no_xdp())
def test_what_leaves_follows_its_neighbour_its_route_and_its_interface(tmp_path: Path) -> None:
    """Each time something else leads to the peer than before, and nothing else does: a packet that went the old way would not arrive."""
    with daemons(tmp_path, "v0") as hosts:
        near, far = hosts

        def is_followed() -> None:
            before = counts(tmp_path)[0]["sent"]
            for _ in range(200):
                answers(hosts, tmp_path)
                if counts(tmp_path)[0]["sent"] > before:
                    return
            pytest.fail(f"nothing leaves by AF_XDP: {counts(tmp_path)}")

        is_followed()
        run(far, "ip", "link", "set", "v0", "address", "02:00:00:00:77:02")
        run(near, "ip", "neigh", "replace", "192.0.2.2", "lladdr", "02:00:00:00:77:02", "dev", "v0", "nud", "reachable")
        is_followed()
        run(near, "ip", "neigh", "del", "192.0.2.2", "dev", "v0")
        is_followed()
        for host in hosts:  # by way of an address that only ARP knows
            run(host, "ip", "addr", "add", f"198.51.100.{1 + hosts.index(host)}/24", "dev", "v0")
        run(near, "ip", "route", "add", "192.0.2.2/32", "via", "198.51.100.2")
        is_followed()
        run(near, "ip", "link", "add", "v1", "type", "veth", "peer", "name", "v1", "netns", far)
        for host in hosts:
            run(host, "ip", "link", "set", "v1", "up")
        run(far, "ip", "addr", "add", "203.0.113.2/24", "dev", "v1")
        run(near, "ip", "addr", "add", "203.0.113.1/24", "dev", "v1")
        run(near, "ip", "route", "replace", "192.0.2.2/32", "via", "203.0.113.2", "src", "192.0.2.1")
        run(far, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.v1.rp_filter=0")
        answers(hosts, tmp_path)
        before = counts(tmp_path)[0]["sent"]
        answers(hosts, tmp_path)
        assert counts(tmp_path)[0]["sent"] == before, "v1 has no AF_XDP"
        run(near, "ip", "route", "del", "192.0.2.2/32")
        is_followed()
        for state in ("down", "up"):
            run(near, "ip", "link", "set", "v0", state)
        is_followed()
        run(near, "ip", "link", "del", "v0")
        run(near, "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", far)
        for number, host in enumerate(hosts, 1):
            run(host, "ip", "addr", "add", f"192.0.2.{number}/24", "dev", "v0")
            run(host, "ip", "link", "set", "v0", "up")
        answers(hosts, tmp_path)
        with Control(tmp_path / "1") as control:  # the next engine does without the interface that was deleted
            os.kill(int(str(control.ask("version")["engine"])), signal.SIGKILL)
            answers(hosts, tmp_path)
            assert control.ask("version")["restarts"] == 1


@pytest.mark.skipif(bool(no_xdp()), reason=no_xdp())
def test_the_program_goes_with_the_daemon(tmp_path: Path) -> None:
    with pair("ky") as hosts:
        (tmp_path / "k.toml").write_text('[host]\nxdp = ["v0"]\n')
        with Running(tmp_path / "d", "-c", str(tmp_path / "k.toml"), prefix=("ip", "netns", "exec", hosts[0])):
            assert "xdp" in run(hosts[0], "ip", "link", "show", "v0")
        assert "xdp" not in run(hosts[0], "ip", "link", "show", "v0")


@pytest.mark.skipif(bool(no_xdp()), reason=no_xdp())
def test_one_interface_that_cannot_have_it_takes_it_from_no_other(tmp_path: Path) -> None:
    """An ESP packet that a program hands to nobody would be lost."""
    with daemons(tmp_path, 'v0", "absent0') as hosts:
        answers(hosts, tmp_path)
        assert counts(tmp_path)[1]["received"] > 0


@pytest.mark.skipif(bool(no_xdp()), reason=no_xdp())
def test_an_interface_with_more_queues_than_there_is_room_for_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xdp, "queues_of", lambda _interface: xdp.MOST_SOCKETS + 1)
    program = Program()
    try:
        with pytest.raises(NoXdp, match=r"AF_XDP on v0: it has 9 queues, and room is for 8 of 8 \(ethtool -L v0 combined N\)"):
            program.take("v0")
    finally:
        program.close()


def test_where_it_cannot_be_had_raw_sockets_serve(tmp_path: Path) -> None:
    with daemons(tmp_path, "absent0") as hosts:
        answers(hosts, tmp_path)
        assert not any(name.startswith("xdp/") for name in stat(tmp_path, 2))
