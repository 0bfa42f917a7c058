"""setkey, the Python clients and per-socket policies against a daemon that runs."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.client import Keys, Refused, aio, connect, index, sa
from koura.daemon.launch import Running
from koura.errors import Errno
from koura.ipsec import IpsecError, inherit, policy
from koura.spd.policy import Scope

pytestmark = pytest.mark.live
RELATION = index("192.0.2.1", "192.0.2.2", "esp", "tunnel")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path / "koura") as running:
        yield running


def setkey(daemon: Running, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from koura.cli.setkey import main; main()", *arguments]
    environment = {**os.environ, "KOURA_SOCKET": str(daemon.directory)}
    return subprocess.run(command, input=text, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_setkey_from_standard_input_and_back_again(daemon: Running) -> None:
    text = """flush; spdflush;
    add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -r 128 -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;
    spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique;
    add 192.0.2.1 192.0.2.2 esp 0x1001 -E null;
    """
    ran = setkey(daemon, "-c", text=text)
    assert (ran.returncode, ran.stdout) == (0, "The result of line 4: File exists.\n")
    assert "there is an SA with SPI 0x1001 to this destination already" in ran.stderr
    script = setkey(daemon, "-D", "--script").stdout + setkey(daemon, "-DP", "--script").stdout
    assert "unique#" in script
    assert setkey(daemon, "-F").returncode == setkey(daemon, "-FP").returncode == 0
    assert setkey(daemon, "-D").stdout == "No SAD entries.\n"
    assert setkey(daemon, "-c", text=script).stdout == ""
    assert setkey(daemon, "-D", "--script").stdout + setkey(daemon, "-DP", "--script").stdout == script


@pytest.mark.covers("M30")
def test_the_monitor_and_the_endless_dump_end_by_a_signal(daemon: Running) -> None:
    environment = {**os.environ, "KOURA_SOCKET": str(daemon.directory)}
    command = [sys.executable, "-c", "from koura.cli.setkey import main; main()"]
    monitor = subprocess.Popen([*command, "-x"], stdout=subprocess.PIPE, text=True, env=environment)
    assert monitor.stdout is not None
    seen = ""
    while "X_PROMISC" not in seen:
        seen += monitor.stdout.readline()
    assert setkey(daemon, "-F").returncode == 0
    while "type=9(FLUSH)" not in seen:
        seen += monitor.stdout.readline()
    monitor.send_signal(signal.SIGINT)
    assert monitor.wait(60) == -signal.SIGINT
    endless = subprocess.Popen([*command, "-D", "-l"], stdout=subprocess.PIPE, text=True, env=environment)
    assert endless.stdout is not None
    assert endless.stdout.readline() == "time p   s spi      ltime   src -> dst\n"
    endless.send_signal(signal.SIGINT)
    assert endless.wait(60) == -signal.SIGINT


def test_the_clients(daemon: Running) -> None:
    with connect(daemon.directory) as engine:
        engine.add(sa(RELATION, 0x1001, Keys("aes-gcm-16", bytes(20))))
        with pytest.raises(Refused) as refused:
            engine.add(sa(RELATION, 0x1002, Keys("des-cbc", bytes(8))))
        assert "weak" in refused.value.why
        assert [entry.agreement.spi for entry in engine.dump()] == [0x1001]

    async def several() -> list[int]:
        async with await aio.connect(daemon.directory, "linux") as engine:
            return [entry.agreement.spi async for entry in engine.dump()]

    assert asyncio.run(several()) == [0x1001]


@pytest.mark.covers("R18", "R20", "R44", "M31", "M32", "M33")
def test_policies_of_sockets(daemon: Running) -> None:
    directory = daemon.directory
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener, connect(directory) as engine:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        given = policy(listener, "out ipsec esp/transport//require", directory=directory)
        assert given.policies.get("out") == "out ipsec esp/transport//require"
        assert given.policies.get("in") == "in entrust"
        with policy(listener, "out bypass", "in bypass", directory=directory) as inner:
            assert (inner.get("out"), inner.get("in")) == ("out bypass", "in bypass")
            assert len(list(engine.spddump(Scope.SOCKET))) == 2
        assert (inner.get("out"), inner.get("in")) == ("out ipsec esp/transport//require", "in entrust")
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            with accepted:
                heir = inherit(listener, accepted, directory=directory)
                assert heir.get("out") == "out ipsec esp/transport//require"
                assert client.getsockname()[1]
                heir.close()
        with pytest.raises(IpsecError):
            policy(listener, "out ipsec esp", directory=directory)
        with pytest.raises(OSError, match="discard") as refused:
            policy(listener, "out discard", directory=directory)
        assert refused.value.errno == Errno.EINVAL.linux
        given.policies.close()
        # They end with their connection, which the daemon sees in its own time.
        assert any(not list(engine.spddump(Scope.SOCKET)) for _ in range(1000))
