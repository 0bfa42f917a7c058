"""The keeper, with engines that the test plays: what they are told, and what becomes of clients when they end."""

import errno
import json
import socket
import struct
from collections.abc import Iterator

import pytest

from koura.daemon import child, keeper
from koura.daemon.child import Birth, Child
from koura.daemon.clients import Calls, Client, Opened
from koura.daemon.engine import ANSWER
from koura.daemon.keeper import Keeper
from koura.daemon.records import Kind, Reader, Record, pack, unpack, write
from koura.host.loop import Loop
from koura.settings import Settings

REQUEST = struct.pack("<BBBBHHII", 2, 9, 0, 0, 2, 0, 5, 77)


class Played:
    """An engine's end of the link."""

    def __init__(self, end: socket.socket, incarnation: int) -> None:
        self.socket = end
        self.incarnation = incarnation
        self._reader = Reader()
        end.setblocking(False)

    def heard(self) -> list[Record]:
        """What the keeper said since."""
        try:
            octets = self.socket.recv(1 << 20)
        except BlockingIOError:
            return []
        return [record for step in self._reader.feed(octets) for record in step]

    def say(self, *records: Record) -> None:
        self.socket.send(write(records))

    def end(self) -> None:
        self.socket.close()


class Scene:
    """A keeper, its engines in the order they were born, and one client."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engines: list[Played] = []
        self.failed = self.ready = 0
        monkeypatch.setattr(child, "start", self._start)
        monkeypatch.setattr(child, "reap", lambda _child, is_wanted: 9)
        monkeypatch.setattr(keeper, "log", lambda *_: None)
        monkeypatch.setattr(keeper, "RETRY_S", 0)
        self.loop = Loop()
        self.keeper = Keeper(self.loop, Settings(), self._ready, self._failed)
        self.keeper.start()

    def _start(self, birth: Birth) -> Child:
        ours, theirs = socket.socketpair()
        self.engines.append(Played(theirs, birth.incarnation))
        return Child(1, ours)

    def _ready(self) -> None:
        self.ready += 1

    def _failed(self) -> None:
        self.failed += 1

    @property
    def engine(self) -> Played:
        return self.engines[-1]

    def turn(self) -> None:
        for _ in range(3):
            self.loop.soon(lambda: None)
            self.loop.turn()

    def be_ready(self) -> list[Record]:
        """The last engine says READY; what it was told before and then."""
        told = self.engine.heard()
        self.engine.say(Record(Kind.READY))
        self.turn()
        return told + self.engine.heard()

    def client(self) -> tuple[Client, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.settimeout(10)
        calls = Calls(self.keeper.request, self.keeper.reopened, self.keeper.pull, self.keeper.closed)  # type: ignore[arg-type]
        made = Client(self.loop, ours, self.keeper.next_number(), Opened("freebsd", 77, 0, True), calls)
        self.keeper.opened(made)
        made.begin()
        return made, theirs


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(monkeypatch)
    yield made
    made.loop.close()


def kinds(records: list[Record]) -> list[int]:
    return [record.kind for record in records]


def test_an_engine_is_told_what_was_kept_then_clients_then_what_waits(scene: Scene) -> None:
    scene.be_ready()
    client, program = scene.client()
    scene.engine.say(Record(Kind.KEEP, 0, pack((b"a", b"1"))), Record(Kind.KEEP, 0, pack((b"b", b"2"))), Record(Kind.DROP, 0, b"a"))
    program.send(REQUEST)
    scene.turn()
    scene.engine.end()
    scene.turn()
    told = scene.be_ready()
    assert kinds(told) == [Kind.RESTORE, Kind.RESTORE, Kind.START, Kind.OPENED, Kind.REQUEST]
    assert [unpack(record.body)[0] for record in told[:2]] == [b"settings", b"b"]
    assert (told[3].number, told[4].body) == (client.number, REQUEST)
    assert (scene.engine.incarnation, scene.keeper.restarts) == (1, 1)


def test_a_step_that_an_engine_did_not_finish_was_never_said(scene: Scene) -> None:
    scene.be_ready()
    client, program = scene.client()
    program.send(REQUEST)
    scene.turn()
    step = write((Record(Kind.ANSWER, client.number, ANSWER.pack(0, 0)), Record(Kind.KEEP, 0, pack((b"a", b"1")))))
    scene.engine.socket.send(step[:-1])
    scene.engine.end()
    scene.turn()
    told = scene.be_ready()
    assert b"a" not in [unpack(record.body)[0] for record in told if record.kind == Kind.RESTORE]
    assert Kind.REQUEST in kinds(told), "it is asked again"


def test_a_step_that_was_finished_holds_though_its_engine_ended(scene: Scene) -> None:
    scene.be_ready()
    client, program = scene.client()
    program.send(REQUEST)
    scene.turn()
    scene.engine.say(
        Record(Kind.ANSWER, client.number, ANSWER.pack(0, 0)), Record(Kind.KEEP, 0, pack((b"a", b"1"))),
        Record(Kind.DELIVER, client.number, b"\2 reply"),
    )  # fmt: skip
    scene.engine.end()
    scene.turn()
    told = scene.be_ready()
    assert program.recv(100) == b"\2 reply"
    assert b"a" in [unpack(record.body)[0] for record in told if record.kind == Kind.RESTORE]
    assert Kind.REQUEST not in kinds(told), "it was done"


def test_a_request_that_two_engines_ended_over_is_refused(scene: Scene) -> None:
    _, program = scene.client()
    program.send(REQUEST)
    scene.turn()
    for _ in range(2):
        assert Kind.REQUEST in kinds(scene.be_ready())
        scene.engine.end()
        scene.turn()
    assert struct.unpack("<BBBBHHII", program.recv(100)) == (2, 9, 5, 0, 2, 0, 5, 77), "EIO"
    assert Kind.REQUEST not in kinds(scene.be_ready())
    program.send(REQUEST)
    scene.turn()
    assert kinds(scene.engine.heard()) == [Kind.REQUEST], "the next one is a new matter"


def test_a_control_call_is_asked_again_and_given_up_likewise(scene: Scene) -> None:
    answers: list[bytes] = []
    scene.be_ready()
    scene.keeper.call({"do": "stat"}, answers.extend)
    for _ in range(2):
        scene.engine.end()
        scene.turn()
        scene.be_ready()
    assert [json.loads(answer)["errno"] for answer in answers] == ["EIO"]


def test_engines_that_end_before_they_are_ready_are_not_born_for_ever(scene: Scene) -> None:
    for _ in range(keeper.MOST_STILLBORN):
        assert scene.failed == 0
        scene.engine.end()
        scene.turn()
    assert (scene.failed, len(scene.engines)) == (1, keeper.MOST_STILLBORN)


def test_where_no_engine_can_be_forked_it_is_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.be_ready()
    start = child.start

    def refuse(birth: Birth) -> Child:
        monkeypatch.setattr(child, "start", start)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(child, "start", refuse)
    scene.engine.end()
    scene.turn()
    assert len(scene.engines) == 2
    assert Kind.START in kinds(scene.be_ready())


def test_a_client_that_went_while_it_was_served_is_told_nothing(scene: Scene) -> None:
    scene.be_ready()
    client, program = scene.client()
    program.send(REQUEST)
    scene.turn()
    scene.engine.heard()
    program.close()
    scene.engine.say(Record(Kind.ANSWER, client.number, ANSWER.pack(22, 0) + b"why"), Record(Kind.DELIVER, client.number, b"\2"))
    scene.turn()
    assert kinds(scene.engine.heard()) == [Kind.CLOSED]
    assert scene.keeper.clients == ()
