"""The service manager's side: what it is told, and the unit that starts us."""

import configparser
import os
import shlex
import socket
from pathlib import Path

import pytest

from koura.cli import up
from koura.daemon.notify import Notifier

UNIT = Path(__file__).parents[3] / "packaging" / "koura.service"


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_manager_hears_and_children_do_not_inherit_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool
) -> None:
    name = f"koura-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if is_abstract else str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if is_abstract else str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "3000000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        notifier = Notifier()
        assert notifier.watchdog_s == 1.5
        assert "NOTIFY_SOCKET" not in os.environ and "WATCHDOG_USEC" not in os.environ
        notifier.tell("READY=1", "STATUS=here")
        assert manager.recv(100) == b"READY=1\nSTATUS=here"
        notifier.reloading()
        first, second = manager.recv(100).split(b"\n")
        assert first == b"RELOADING=1" and int(second.removeprefix(b"MONOTONIC_USEC=")) > 0


@pytest.mark.parametrize(("variable", "value"), [("NOTIFY_SOCKET", "/nowhere/at/all"), ("WATCHDOG_USEC", "soon")])
def test_a_manager_that_is_not_there_is_nobodys_trouble(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    notifier = Notifier()
    notifier.tell("READY=1")
    assert notifier.watchdog_s == 0


def test_another_processs_watchdog_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert Notifier().watchdog_s == 0


def test_the_unit_starts_what_there_is() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    assert service["Type"] == "notify", "Debian 12's systemd knows no notify-reload"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    program, verb, *arguments = shlex.split(service["ExecStart"])
    assert (Path(program).name, verb) == ("koura", "up")
    context = up.command.make_context("koura up", arguments)
    assert context.params["files"] == (Path("/etc/koura/setkey.conf"),)
    assert service["RestartPreventExitStatus"].split() == ["64", "65", "77"], "trying again helps with none of these"
    assert service["StateDirectory"] == "koura", "ProtectSystem=strict leaves /var/lib read-only: the ledger could not be written"
    assert "network-pre.target" in unit["Unit"]["Before"].split(), "the policies stand before there is a network"
