"""Dumps from end to end: a program's key socket, the keeper and a real engine, in one loop that the test turns."""

import errno
import fcntl
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from koura.daemon import child, keeper
from koura.daemon.child import Birth, Child
from koura.daemon.clients import Calls, Client, Opened
from koura.daemon.engine import Engine
from koura.daemon.keeper import Keeper
from koura.host.loop import Loop
from koura.host.memory import Shared
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.pfkey.numbers import Type
from koura.setkey import parse, run
from koura.settings import Settings

SIOCOUTQ = 0x5411
PID = 77
TURNS = 10_000
SA = "add 10.0.0.1 10.0.0.2 esp 0x1001 -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;\n"


class Scene:
    """A daemon without its processes, and a program with a key socket."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(child, "start", self._start)
        monkeypatch.setattr(child, "reap", lambda _child, is_wanted: 9)
        monkeypatch.setattr(keeper, "log", lambda *_: None)
        self.loop = Loop()
        self.links: list[socket.socket] = []
        self.keeper = Keeper(self.loop, Settings(), lambda: None, lambda: None)
        self.keeper.start()
        ours, self.program = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        calls = Calls(self.keeper.request, self.keeper.reopened, self.keeper.pull, self.keeper.closed)  # type: ignore[arg-type]
        self.client = Client(self.loop, ours, self.keeper.next_number(), Opened("freebsd", PID, 0, True), calls)
        self.keeper.opened(self.client)
        self.client.begin()

    def _start(self, birth: Birth) -> Child:
        ours, theirs = socket.socketpair()
        Engine(self.loop, theirs, Shared(birth.memory), birth.clock, birth.incarnation)
        self.links.append(theirs)
        return Child(1, ours)

    def kill_engine(self) -> None:
        """Its end of the link is closed; what it had not said is never said."""
        self.loop.forget(self.links[-1].fileno())
        self.links[-1].close()

    def turn(self) -> None:
        """Do what is ready, wait for nothing."""
        self.loop.soon(lambda: None)
        self.loop.turn()

    def is_readable(self) -> bool:
        return bool(select.select([self.program], [], [], 0)[0])

    def unanswered(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self.program, SIOCOUTQ, bytes(4)))[0])

    def send(self, kind: Type, seq: int) -> None:
        self.program.send(Message(kind, seq=seq, pid=PID).write(FREEBSD))

    def receive(self) -> Message:
        """The next message."""
        for _ in range(TURNS):
            if self.is_readable():
                return Message.read(self.program.recv(1 << 20), FREEBSD)
            self.turn()
        raise AssertionError("no message came")

    def load(self, script: str) -> None:
        def ask(octets: bytes) -> run.Answered:
            self.program.send(octets)
            return run.Answered(self.receive().errno)

        assert not list(run.run(parse.parse(script), ask))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(monkeypatch)
    yield made
    made.program.close()
    made.loop.close()


def policies(count: int) -> str:
    return "".join(f"spdadd 10.1.{n >> 8}.{n & 255} 10.2.0.0/16 any -P out none;\n" for n in range(count))


@pytest.mark.parametrize("kind", [Type.DUMP, Type.X_SPDDUMP])
def test_a_program_sees_its_request_or_the_first_part_of_its_dump_and_never_neither(scene: Scene, kind: Type) -> None:
    """A poll that is held until one of them is so (koura run) must never find the request taken and nothing to read."""
    scene.load(SA + policies(1))
    scene.send(kind, seq=9)
    for _ in range(TURNS):
        assert scene.unanswered() or scene.is_readable(), "the request is taken and nothing can be read"
        if scene.is_readable():
            break
        scene.turn()
    found = scene.receive()
    assert (found.type, found.errno, found.seq) == (kind, 0, 0)


def test_a_dump_that_was_asked_of_an_engine_that_ended_is_made_by_the_next(scene: Scene) -> None:
    scene.load(policies(3))
    scene.send(Type.X_SPDDUMP, seq=9)
    scene.client.look()
    scene.kill_engine()
    assert [(found.errno, found.seq) for found in (scene.receive() for _ in range(3))] == [(0, 2), (0, 1), (0, 0)]
    assert not scene.is_readable()


def test_of_all_requests_only_the_dump_under_way_ends_with_an_error_when_its_engine_ends(scene: Scene) -> None:
    """Its first dump was read to the end and its other request was answered: neither is told of again."""
    count = 2_000
    scene.load(policies(count))
    for seq in (7, 9):
        scene.send(Type.X_SPDDUMP, seq=seq)
        first = scene.receive()
        assert first.seq == count - 1
        scene.send(Type.GET, seq=8)
        if seq == 7:
            found = [scene.receive() for _ in range(count)]
            assert [message.type for message in found].count(Type.GET) == 1
            assert not scene.is_readable()
    for _ in range(TURNS):
        if not scene.unanswered():
            break
        scene.turn()
    scene.kill_engine()
    rest = [scene.receive()]
    while rest[-1].type == Type.GET or not rest[-1].errno:
        rest.append(scene.receive())
    scene.send(Type.REGISTER, seq=10)
    assert scene.receive().seq == 10, "nothing else was left of what was before"
    ended = [(message.type, message.seq) for message in rest if message.errno == errno.EINTR]
    assert ended == [(Type.X_SPDDUMP, 9)] and len(rest) < count
