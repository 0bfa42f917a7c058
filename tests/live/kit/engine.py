"""An engine for tests of interception: a stack in a thread of this process behind a control.sock, where tests can look into it.

It does what `koura up` does for the verbs that a supervisor uses, and keeps the same rule on key sockets: peek the request, queue
the replies, then take the request off. `delay_s` makes it slow, as a busy machine would.
"""

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from koura import Stack, address, control
from koura.control import Value
from koura.errors import Malformed, Refused
from koura.host.sockdiag import Place
from koura.moment import Moment
from koura.notices import (
    EncapsulationPort,
    KeySocketGone,
    KeySocketOpened,
    SocketAccepted,
    SocketBound,
    SocketGone,
    SocketPolicy,
)
from koura.pfkey import policy as policies
from koura.pfkey.dialect import DIALECTS
from koura.saindex import Direction, Mode, Protocol
from koura.sim.entropy import Seeded
from koura.spd.policy import Action, Policy
from koura.traffic.outcome import Event, Outcome, Released, ToKeySocket

CLOSE_ME = b"close meclose me"  # A "request" upon which the engine hangs up.


class Engine:
    """A stack behind DIR/control.sock. `told`: every request, in order; `adopted`: what was said of each key socket."""

    def __init__(self, directory: Path, seed: int = 1) -> None:
        self.directory = directory
        self.stack = Stack(Seeded(seed))
        self.told: list[dict[str, Value]] = []
        self.adopted: list[dict[str, Value]] = []
        self.sent: list[bytes] = []
        self.released: list[Outcome] = []
        self.places: dict[int, Place] = {}
        self.delay_s = 0.0
        self._ahead_ns = 0
        self.changed = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._keys: dict[int, socket.socket] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(os.fspath(directory / "control.sock"))
        self._listener.listen()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._end, self._stop = socket.socketpair()
        self._selector.register(self._end, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._loop)

    def __enter__(self) -> "Engine":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def wait(self, condition: Callable[[], bool], patience_s: float = 60.0) -> bool:
        """Until `condition()` holds, looked at after each thing that was told."""
        with self.changed:
            return bool(self.changed.wait_for(condition, patience_s))

    def _at(self) -> Moment:
        return Moment(time.monotonic_ns() + self._ahead_ns)

    # -- what a test does in place of the host -----------------------------------------------------------------------------

    def jump(self, seconds: float) -> None:
        """So much time goes by at once, for the stack."""
        with self.changed:
            self._ahead_ns += round(seconds * 1e9)
            self._events(self.stack.advance(self._at()))

    def mend_ipcomp_policies(self) -> None:
        """Make the policies name the SAs that iked made: compression in a tunnel, ESP around that in transport.

        Portable iked installs esp/tunnel, which none of these SAs is: on Linux such a policy finds no SA either.
        """
        with self.changed:
            for entry in self.stack.spd.entries():
                (tunnel,) = entry.policy.requirements
                compressed = replace(tunnel, protocol=Protocol.IPCOMP)
                sealed = replace(tunnel, mode=Mode.TRANSPORT)
                self.stack.spd.replace(replace(entry.policy, requirements=(compressed, sealed)), self._at())

    def outbound(self, packet: bytes) -> Outcome:
        with self.changed:
            results = self.stack.outbound([packet], self._at())
            self._events((*results.events, *self.stack.advance(self._at())))
            return results.outcomes[0]

    def inbound(self, packet: bytes) -> Outcome:
        with self.changed:
            results = self.stack.inbound([packet], self._at())
            self._events(results.events)
            return results.outcomes[0]

    def _loop(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                with self.changed:
                    key.data(key.fileobj)
                    self.changed.notify_all()

    def _accept(self, listener: socket.socket) -> None:
        made, _ = listener.accept()
        self._selector.register(made, selectors.EVENT_READ, self._request)

    # -- control -----------------------------------------------------------------------------------------------------------

    def _request(self, connection: socket.socket) -> None:
        octets, descriptors, _, _ = socket.recv_fds(connection, control.MESSAGE_OCTETS, 1)
        if not octets:
            self._selector.unregister(connection)
            connection.close()
            return
        try:
            verb, values = control.request(octets)
            self.told.append({"do": verb.name, **values})
            answer = self._do(verb.name, values, descriptors)
        except Refused as error:
            answer = control.refused(error)
        connection.send(control.write(answer))

    def _do(self, verb: str, values: dict[str, Value], descriptors: list[int]) -> dict[str, Value]:
        match verb:
            case "adopt":
                self.adopted.append(values)
                self._open(descriptors[0], str(values["dialect"]), _int(values["pid"]), bool(values.get("is_privileged")))
            case "socket-policy":
                dialect = DIALECTS[str(values["dialect"])]
                try:
                    extension = policies.read(bytes.fromhex(str(values["policy"])), dialect)
                except Malformed as error:
                    raise Refused(policies.Errno.EINVAL, str(error)) from error
                policy = policies.agree(extension, dialect)
                self.stack.notice(SocketPolicy(_int(values["socket"]), policy, bool(values.get("is_privileged"))), self._at())
            case "socket-policy-get":
                direction = Direction(_int(values["direction"]))
                entry = self.stack.spd.socket_policy(_int(values["socket"]), direction)
                policy = entry.policy if entry is not None else Policy(direction, Action.ENTRUST)
                octets = policies.write(policies.describe(policy, entry.id if entry else 0), DIALECTS[str(values["dialect"])])
                return control.accepted(policy=octets.hex())
            case "socket-where":
                self._where(values)
            case "socket-gone":
                self.stack.notice(SocketGone(_int(values["socket"])), self._at())
                self.places.pop(_int(values["socket"]), None)
            case "encapsulation":
                if values.get("port"):
                    self.stack.notice(EncapsulationPort(_int(values["port"]), bool(values["kind"])), self._at())
        return control.accepted()

    def _where(self, values: dict[str, Value]) -> None:
        number = _int(values["socket"])
        if listener := _int(values.get("listener", 0)):
            self.stack.notice(SocketAccepted(listener, number), self._at())
        local, remote = _end(values.get("local")), _end(values.get("remote"))
        self.places[number] = Place(*local, *remote)
        self.stack.notice(SocketBound(number, _int(values["protocol"]), *local, *remote), self._at())

    # -- key sockets -------------------------------------------------------------------------------------------------------

    def _open(self, descriptor: int, dialect: str, pid: int, is_privileged: bool) -> None:
        made = socket.socket(fileno=descriptor)
        made.setblocking(False)
        number = made.fileno()
        self._keys[number] = made
        self.stack.notice(KeySocketOpened(number, dialect, pid, is_privileged), self._at())
        self._selector.register(made, selectors.EVENT_READ, self._message)

    def _message(self, key: socket.socket) -> None:
        number = key.fileno()
        try:
            octets = key.recv(1 << 18, socket.MSG_PEEK)
        except ConnectionResetError:
            octets = b""
        if not octets or octets == CLOSE_ME:
            self._selector.unregister(key)
            self.stack.notice(KeySocketGone(number), self._at())
            del self._keys[number]
            key.close()
            return
        if self.delay_s:
            time.sleep(self.delay_s)
        self.sent.append(octets)
        self._events(self.stack.control(number, octets, self._at()).events)
        while self.stack.server.has_dump(number):
            for part in self.stack.server.pull(number, 1 << 18, self._at()):
                self._deliver(number, part)
        key.recv(1 << 18)

    def _events(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, ToKeySocket):
                self._deliver(event.socket, event.octets)
            elif isinstance(event, Released):
                self.released.append(event.outcome)

    def _deliver(self, number: int, octets: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._keys[number].send(octets)


def _int(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _end(value: Value) -> tuple[bytes, int]:
    if value is None:
        return b"", 0
    assert isinstance(value, list) and isinstance(value[0], str) and isinstance(value[1], int)
    return address.parse(value[0]) if value[0] else b"", value[1]
