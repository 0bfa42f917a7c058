"""The daemon as it runs: processes, sockets, signals. Every daemon is the test's own, in its own directory, as the test's user."""

import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.daemon.launch import DidNotStart, Running
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.pfkey.numbers import SaType, Type

pytestmark = pytest.mark.live

CONF = """
flush; spdflush;
add 10.0.0.1 10.0.0.2 esp 0x1000 -m tunnel -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;
add 10.0.0.2 10.0.0.1 esp 0x1001 -r 8 -E aes-gcm-16 0x100102030405060708090a0b0c0d0e0f10111213;
spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/10.0.0.1-10.0.0.2/unique;
spdadd 10.2.0.0/16 10.1.0.0/16 any -P in ipsec esp/tunnel/10.0.0.2-10.0.0.1/require;
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "setkey.conf"
    path.write_text(CONF)
    return path


@pytest.fixture
def daemon(tmp_path: Path, conf: Path) -> Iterator[Running]:
    with Running(tmp_path / "koura", "-f", str(conf)) as running:
        yield running


class Key:
    """A plain PF_KEY client."""

    def __init__(self, directory: Path, hello: str = "") -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.socket.connect(str(directory / "pfkey.sock"))
        if hello:
            self.socket.send(b"\0koura " + hello.encode())
            assert self.socket.recv(200) == b"\0koura ok"

    def send(self, kind: Type, satype: SaType = SaType.UNSPEC, seq: int = 7) -> None:
        self.socket.send(Message(kind, satype, seq, os.getpid()).write(FREEBSD))

    def receive(self) -> Message:
        return Message.read(self.socket.recv(1 << 16), FREEBSD)

    def ask(self, kind: Type, satype: SaType = SaType.UNSPEC) -> Message:
        self.send(kind, satype)
        return self.receive()

    def dump(self, kind: Type) -> list[Message]:
        self.send(kind)
        found = [self.receive()]
        while found[-1].seq and not found[-1].errno:
            found.append(self.receive())
        return found


def engine_of(daemon: Running) -> int:
    with Control(daemon.directory) as control:
        return int(str(control.ask("version")["engine"]))


def kill_engine(daemon: Running) -> None:
    """And wait until another one serves."""
    before = engine_of(daemon)
    os.kill(before, signal.SIGKILL)
    with Control(daemon.directory) as control:
        control.ask("sysctl", name="net.inet.ipsec.dfbit")  # answered by an engine, whichever
        while control.ask("version")["engine"] in (0, before):
            pass


def test_it_serves_what_the_file_says(daemon: Running) -> None:
    key = Key(daemon.directory)
    assert [message.satype for message in key.dump(Type.DUMP)] == [SaType.ESP, SaType.ESP]
    assert len(key.dump(Type.X_SPDDUMP)) == 2


def test_kill_9_of_the_engine_costs_no_client_its_socket_and_no_policy_its_place(daemon: Running) -> None:
    key = Key(daemon.directory)
    assert key.ask(Type.REGISTER, SaType.ESP).errno == 0
    sas, policies = key.dump(Type.DUMP), key.dump(Type.X_SPDDUMP)
    kill_engine(daemon)
    assert key.dump(Type.DUMP) == sas
    assert key.dump(Type.X_SPDDUMP) == policies
    assert key.ask(Type.REGISTER, SaType.ESP).errno == 17, "it is registered still: EEXIST"


def test_a_bad_file_ends_the_start_with_65_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "bad.conf"
    path.write_text("spdadd 10.0.0.0/8 10.0.0.0/8 any -P out none;\nadd 10.0.0.1 10.0.0.2 esp 0x1000 -E aes-gcm-16 0x00;\n")
    with pytest.raises(DidNotStart) as caught, Running(tmp_path / "koura", "-f", str(path)):
        pass
    assert caught.value.status == 65
    assert f"{path}:2:" in caught.value.said and "Traceback" not in caught.value.said
    assert not (tmp_path / "koura" / "pfkey.sock").exists()


def test_a_short_message_is_answered_with_its_errno(daemon: Running) -> None:
    plain = Key(daemon.directory)
    plain.socket.send(b"\2\7")
    assert plain.socket.recv(100) == struct.pack("<BBBBHHII", 2, 7, 22, 0, 2, 0, 0, 0)
    acked = Key(daemon.directory, "dialect=linux acks=1")
    acked.socket.send(b"\2\7")
    head = acked.socket.recv(200)
    assert struct.unpack(">BBHI", head[:8]) == (0, 1, 0, 90), "EMSGSIZE in Linux's numbers"


def test_two_daemons_side_by_side_and_not_two_in_one_directory(tmp_path: Path, daemon: Running) -> None:
    with Running(tmp_path / "other") as other:
        assert Key(other.directory).ask(Type.DUMP).errno == 2, "no SAs: ENOENT"
        assert len(Key(daemon.directory).dump(Type.DUMP)) == 2
    with pytest.raises(DidNotStart) as caught, Running(daemon.directory):
        pass
    assert caught.value.status == 1
    assert f"pid {daemon.pid}" in caught.value.said
    assert len(Key(daemon.directory).dump(Type.DUMP)) == 2
