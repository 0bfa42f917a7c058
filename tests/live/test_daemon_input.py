"""What nobody should send, at the daemon's real sockets: it answers or ends the connection, and serves the others as before."""

import json
import os
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.control import VERBS
from koura.daemon.launch import Running
from koura.errors import Refused

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("input") / "koura") as running:
        with Control(running.directory) as control:
            engine = control.ask("version")["engine"]
        yield running
        with Control(running.directory) as control:
            assert control.ask("version")["engine"] == engine, "no engine died of any of it"
            assert control.ask("clients")["clients"] == []


def connect(daemon: Running, name: str) -> socket.socket:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end.settimeout(30)
    end.connect(str(daemon.directory / name))
    return end


def test_random_octets_at_the_pfkey_socket_are_answered_with_an_errno(daemon: Running) -> None:
    dice = random.Random(7)
    with connect(daemon, "pfkey.sock") as end:
        for n in range(300):
            octets = bytes((2,)) + dice.randbytes(dice.randrange(0, 200)) if n else b"\0koura\xff\xfe"
            end.send(octets)
            reply = end.recv(1 << 17)
            assert reply[0] == 0 or reply[2] != 0, f"message {n} of seed 7: {octets.hex()}"


def test_messages_of_every_size_are_answered(daemon: Running) -> None:
    with connect(daemon, "pfkey.sock") as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for octets in (1, 15, 16, 65536, 65544, 200_000):
            end.send((struct.pack("<BBBBHHII", 2, 9, 0, 0, octets // 8 & 0xFFFF, 0, 1, 1) + bytes(octets))[:octets])
            assert end.recv(1 << 20)[2] in (0, 22, 55)


def test_odd_requests_at_the_control_socket_are_refused(daemon: Running) -> None:
    odd: list[bytes] = [b"\xff", b"[]", b"{}", b'{"do": 3}', b'{"do": "sysctl"}', b"[" * 60_000, b'{"do": "load"}', b'{"do": "adopt"}']
    for name, verb in VERBS.items():
        if name not in ("down", "version", "clients", "reload", "sysctl-list", "stat"):
            odd.append(json.dumps({"do": name} | dict.fromkeys(verb.required)).encode())
            odd.append(json.dumps({"do": name, "colour": 1}).encode())
    for key, value in (("socket", -1), ("socket", 1 << 70), ("protocol", -5), ("local", [[], {}]), ("remote", [None])):
        odd.append(json.dumps({"do": "socket-where", "socket": 5, "protocol": 17, "local": ["", 1]} | {key: value}).encode())
    with connect(daemon, "control.sock") as end:
        for octets in odd:
            end.send(octets)
            reply = json.loads(end.recv(1 << 17))
            assert isinstance(reply["ok"], bool), octets
            assert reply["ok"] or reply["errno"] in ("EINVAL", "EOPNOTSUPP", "EPROTOTYPE"), octets


def test_descriptors_that_nobody_wants_are_closed_and_refused(daemon: Running) -> None:
    before = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    with Control(daemon.directory) as control, open(os.devnull, "rb") as file:
        for verb, arguments in (("version", {}), ("adopt", {"pid": 1, "uid": 1, "dialect": "linux"}), ("load", {})):
            try:
                control.ask(verb, file.fileno(), **arguments)  # type: ignore[arg-type]
            except Refused:
                continue
        connections = 1
        assert len(os.listdir(f"/proc/{daemon.pid}/fd")) <= before + connections


def test_connections_that_come_and_go_leave_nothing(daemon: Running, tmp_path: Path) -> None:
    before = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    for n in range(200):
        with connect(daemon, ("pfkey.sock", "control.sock", "status.sock")[n % 3]) as end:
            if n % 2:
                end.send(b"\2\7")
    with Control(daemon.directory) as control:
        while control.ask("clients")["clients"]:
            continue
    assert len(os.listdir(f"/proc/{daemon.pid}/fd")) <= before + 3
