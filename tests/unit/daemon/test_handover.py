"""Descriptors to an engine: everything that stands gets there, in its order, however much it is; and before packets are read."""

import json
import os
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from koura.daemon import codec, handover
from koura.daemon import engine as engines
from koura.daemon.engine import Engine
from koura.daemon.handover import Handover
from koura.daemon.records import Kind, Record, pack, write
from koura.host import memory
from koura.host.clock import Clock
from koura.host.loop import Loop
from koura.host.memory import Shared
from koura.settings import Settings
from koura.spd.policy import Scope
from koura.stack import Stack

MANY = 700  # more than any socket's buffer holds


class Scene:
    """A keeper's side, and an engine's end that the test reads."""

    def __init__(self, stack: ExitStack) -> None:
        self.loop = Loop()
        stack.callback(self.loop.close)
        self.stack = stack
        self.handover = Handover(self.loop)
        stack.callback(self.handover.close)
        self.said: list[Mapping[str, Any]] = []
        self.names: list[str] = []
        self.renew()

    def renew(self) -> None:
        self.end = self.stack.enter_context(self.handover.renew())

    def stand(self, name: str) -> None:
        """Something of this name: a file whose first octets are the name."""
        descriptor = os.memfd_create(name)
        os.write(descriptor, name.encode())
        self.handover.stand(name, {"do": "tunnel", "name": name}, descriptor)

    def take(self) -> None:
        """Read all there is, and what comes then; the files must be those that were meant."""
        arrival = select.poll()
        arrival.register(self.end, select.POLLIN)
        while arrival.poll(0):
            assert handover.take(self.end, self._taken)
            self.loop.soon(lambda: None)
            self.loop.turn()

    def _taken(self, said: Mapping[str, Any], descriptors: list[int]) -> None:
        self.said.append(said)
        for descriptor in descriptors:
            self.names.append(os.pread(descriptor, 100, 0).decode())
            os.close(descriptor)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(stack)


def test_everything_that_stands_gets_to_each_engine_in_its_order(scene: Scene) -> None:
    names = [f"n{number}" for number in range(MANY)]
    for name in names:
        scene.stand(name)
    for _ in range(2):
        scene.renew()
        scene.handover.ready()
        assert scene.handover.hand({"do": "after"})
        scene.take()
        assert scene.names == names
        assert [said["do"] for said in scene.said] == ["tunnel"] * MANY + ["all", "after"]
        scene.said, scene.names = [], []
    for name in names:
        scene.handover.fall(name)


def test_what_falls_before_it_was_sent_is_not_sent_and_its_name_may_stand_anew(scene: Scene) -> None:
    for number in range(MANY):
        scene.stand(f"n{number}")
    scene.handover.ready()
    last = f"n{MANY - 1}"
    for name in (f"n{MANY - 2}", last):
        scene.handover.fall(name, {"do": "tunnel-gone", "name": name})
    scene.stand(last)
    scene.take()
    told = [(said["do"], said.get("name")) for said in scene.said if said.get("name") in (f"n{MANY - 2}", last)]
    assert told[-1] == ("tunnel", last) and ("tunnel", f"n{MANY - 2}") not in told
    assert len({said["name"] for said in scene.said if said["do"] == "tunnel"}) == MANY - 1
    for number in range(MANY):
        if number != MANY - 2:
            scene.handover.fall(f"n{number}")


def test_what_is_handed_once_waits_for_its_turn_with_a_descriptor_of_its_own(scene: Scene) -> None:
    for number in range(MANY):
        scene.stand(f"n{number}")
    scene.handover.ready()
    once = os.memfd_create("once")
    os.write(once, b"once")
    assert scene.handover.hand({"do": "capture"}, once)
    os.close(once)
    scene.take()
    assert scene.names[-1] == "once" and len(scene.names) == MANY + 1
    for number in range(MANY):
        scene.handover.fall(f"n{number}")


def test_an_engine_that_ended_leaves_nothing_open_and_gets_nothing(scene: Scene) -> None:
    assert not scene.handover.hand({"do": "early"}), "there is none yet"
    for number in range(MANY):
        scene.stand(f"n{number}")
    scene.handover.ready()
    once = os.memfd_create("once")
    before = len(os.listdir("/proc/self/fd"))
    assert scene.handover.hand({"do": "capture"}, once)
    scene.end.close()
    scene.loop.turn()
    assert not scene.handover.hand({"do": "late"})
    assert len(os.listdir("/proc/self/fd")) == before - 2, "both ends"
    os.close(once)
    for number in range(MANY):
        scene.handover.fall(f"n{number}")


def test_where_the_kernel_takes_no_more_descriptors_now_it_is_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [OSError(109, "Too many references")] * 3
    send = socket.send_fds

    def refuse(*given: Any) -> int:
        if refusals:
            raise refusals.pop()
        return send(*given)

    monkeypatch.setattr(socket, "send_fds", refuse)
    monkeypatch.setattr(handover, "RETRY_S", 0)
    scene.stand("one")
    scene.handover.ready()
    while refusals:
        scene.loop.turn()
    scene.take()
    assert scene.names == ["one"]
    scene.handover.fall("one")


class Packets:
    """In place of what moves packets: notes which tunnels there were when it began."""

    known: tuple[str, ...] = ()

    def __init__(self, _loop: Loop, stack: Stack, *_: object) -> None:
        self.stack = stack
        self.pump = self

    def packets_of(self, _events: object) -> None:
        """None of these is a packet."""

    def begin(self, *_: object) -> None:
        entries = self.stack.spd.entries(Scope.INTERFACE)
        Packets.known = tuple(sorted({entry.policy.interface for entry in entries}))


def test_an_engine_has_all_tunnels_before_it_reads_packets(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears that it may begin before it has looked at what was handed."""
    monkeypatch.setattr(engines, "Packets", Packets)
    ours, theirs = socket.socketpair()
    ends: list[int] = []
    for number in range(3):
        ends += os.pipe()
        said = {"do": "tunnel", "name": f"ipsec{number}", "index": 10 + number, "reqid": 100 + number, "is_native": False}
        scene.handover.stand(f"{number}", {**said, "local": "192.0.2.1", "remote": "192.0.2.2"}, ends[-2])
    with ours, theirs:
        engine = Engine(scene.loop, theirs, Shared(memory.create()), Clock(), 0, handed=os.dup(scene.end.fileno()))
        ours.send(write([Record(Kind.RESTORE, 0, pack((b"settings", codec.write(Settings())))), Record(Kind.START)]))
        scene.loop.turn()
        ours.send(write([Record(Kind.CALL, 1, json.dumps({"do": "begin"}).encode())]))
        scene.handover.ready()
        scene.loop.turn()
        assert Packets.known == ("ipsec0", "ipsec1", "ipsec2")
        assert engine is not None
    for number in range(3):
        scene.handover.fall(f"{number}")
    for descriptor in ends[1::2]:
        os.close(descriptor)
