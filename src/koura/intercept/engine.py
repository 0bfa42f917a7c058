"""What a supervisor asks of an engine, and the engine behind a control socket. The codec is `koura.control`.

One connection, one question at a time. What a supervisor tells lives as long as its connection; one that broke (the daemon was
started anew) is made again at the next question, and everything that still holds is told again first.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from koura import address
from koura.client.control import Control, Unreachable
from koura.control import Value
from koura.errors import Errno, Refused
from koura.host.sockdiag import Place
from koura.intercept.caller import Caller

PATIENCE_S = 10.0
DIALECT = "linux"
Question = dict[str, Value]


class Engine(Protocol):
    """Every call raises Refused: the errno that the program gets. `owner_uid`: whose engine it is."""

    owner_uid: int

    def adopt(self, descriptor: int, caller: Caller) -> None:
        """Serve this end of a pair as a key socket of the caller's."""

    def set_policy(self, cookie: int, level: int, policy: bytes, caller: Caller) -> None:
        """A socket's own policy, as the octets of ipsec_set_policy(3)."""

    def get_policy(self, cookie: int, level: int, direction: int) -> bytes:
        """The same octets back; type entrust where none is set (M33)."""

    def where(self, cookie: int, protocol: int, place: Place, listener: int = 0) -> None:
        """Where a socket is; listener: whose policies it inherited by accept(2) (M32)."""

    def encapsulation(self, cookie: int, kind: int, port: int) -> None:
        """UDP_ENCAP of a socket; port 0: not bound yet."""

    def gone(self, cookie: int) -> None:
        """The socket was closed."""


class ControlEngine:
    """The engine of a directory, through its control.sock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.owner_uid = -1
        self._control: Control | None = None
        # What holds, by socket, each in the order it was told: policies by level and direction, then its place and UDP_ENCAP.
        self._standing: dict[int, dict[str, Question]] = {}

    def close(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def connect(self) -> None:
        """Raises Unreachable."""
        made = Control(self.directory, timeout_s=PATIENCE_S)
        self.owner_uid = made.peer_uid
        self._control = made

    def adopt(self, descriptor: int, caller: Caller) -> None:
        self._ask(
            {"do": "adopt", "pid": caller.process, "uid": caller.uid, "dialect": DIALECT, "command": caller.command,
             "is_privileged": caller.is_privileged(self.owner_uid)},
            descriptor,
        )  # fmt: skip

    def set_policy(self, cookie: int, level: int, policy: bytes, caller: Caller) -> None:
        direction = policy[6]
        question: Question = {
            "do": "socket-policy", "socket": cookie, "level": level, "policy": policy.hex(), "dialect": DIALECT,
            "pid": caller.process, "is_privileged": caller.is_privileged(self.owner_uid),
        }  # fmt: skip
        self._tell(cookie, f"policy {level} {direction}", question)

    def get_policy(self, cookie: int, level: int, direction: int) -> bytes:
        reply = self._ask({"do": "socket-policy-get", "socket": cookie, "level": level, "direction": direction, "dialect": DIALECT})
        try:
            return bytes.fromhex(str(reply.get("policy", "")))
        except ValueError as error:
            raise Refused(Errno.EIO, "the daemon's answer has no policy") from error

    def where(self, cookie: int, protocol: int, place: Place, listener: int = 0) -> None:
        question: Question = {"do": "socket-where", "socket": cookie, "protocol": protocol, "local": _end(place.local, place.port)}
        if place.remote_port:
            question["remote"] = _end(place.remote, place.remote_port)
        if listener:
            question["listener"] = listener
        self._tell(cookie, "where", question)

    def encapsulation(self, cookie: int, kind: int, port: int) -> None:
        self._tell(cookie, "encapsulation", {"do": "encapsulation", "socket": cookie, "kind": kind, "port": port})

    def gone(self, cookie: int) -> None:
        self._standing.pop(cookie, None)
        self._ask({"do": "socket-gone", "socket": cookie})

    def _tell(self, cookie: int, what: str, question: Question) -> None:
        """Something that stands until the socket goes."""
        self._ask(question)
        self._standing.setdefault(cookie, {})[what] = question

    def _ask(self, question: Question, descriptor: int | None = None) -> Mapping[str, Value]:
        """One question, one answer. Raises Refused; ENETDOWN where no daemon answers."""
        is_again = self._control is None
        while True:
            try:
                if self._control is None:
                    self.connect()
                    for told in self._all_standing():
                        self._exchange(told, None)
                return self._exchange(question, descriptor)
            except Unreachable as error:
                self.close()
                if is_again:
                    raise Refused(Errno.ENETDOWN, str(error)) from error
                is_again = True

    def _exchange(self, question: Question, descriptor: int | None) -> Mapping[str, Value]:
        assert self._control is not None
        return self._control.ask(str(question["do"]), descriptor, **{key: value for key, value in question.items() if key != "do"})

    def _all_standing(self) -> Iterator[Question]:
        for questions in self._standing.values():
            yield from questions.values()


def _end(packed: bytes, port: int) -> list[Value]:
    return [address.show(packed) if packed else "", port]
