"""What a supervisor asks of an engine, and the engine behind a control socket. The codec is `koura.control`.

One connection, one question at a time. A daemon that went away is looked for again at the next question; what was told before is
told again then, because a new daemon knows nothing of it.
"""

import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from koura import address, control
from koura.control import Value
from koura.errors import Errno, Malformed, Refused
from koura.host.sockdiag import Place
from koura.intercept.caller import Caller

PATIENCE_S = 10.0
DIALECT = "linux"


class Engine(Protocol):
    """Every call raises Refused: the errno that the program gets. `owner_uid`: whose engine it is."""

    owner_uid: int

    def adopt(self, descriptor: int, caller: Caller) -> None:
        """Serve this end of a pair as a key socket of the caller's."""

    def set_policy(self, cookie: int, level: int, policy: bytes, caller: Caller) -> None:
        """A socket's own policy, as the octets of ipsec_set_policy(3)."""

    def get_policy(self, cookie: int, level: int, direction: int) -> bytes:
        """The same octets back; type entrust where none is set (M33)."""

    def where(self, cookie: int, protocol: int, place: Place | None, listener: int = 0) -> None:
        """Where a socket is; listener: whose policies it inherited by accept(2) (M32)."""

    def encapsulation(self, cookie: int, kind: int, port: int) -> None:
        """UDP_ENCAP of a socket; port 0: not bound yet."""

    def gone(self, cookie: int) -> None:
        """The socket was closed."""


class ControlEngine:
    """The engine of a directory, through its control.sock."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "control.sock"
        self._connection: socket.socket | None = None
        self.owner_uid = -1

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def connect(self) -> None:
        """Raises OSError."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            made.settimeout(PATIENCE_S)
            made.connect(os.fspath(self._path))
            credentials = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            made.close()
            raise
        self.owner_uid = struct.unpack("=iii", credentials)[1]
        self._connection = made

    def adopt(self, descriptor: int, caller: Caller) -> None:
        request: dict[str, Value] = {"do": "adopt", "pid": caller.process, "uid": caller.uid, "dialect": DIALECT,
                                     "command": caller.command, "is_privileged": caller.is_privileged(self.owner_uid)}  # fmt: skip
        self._ask(request, descriptor)

    def set_policy(self, cookie: int, level: int, policy: bytes, caller: Caller) -> None:
        self._ask({"do": "socket-policy", "socket": cookie, "level": level, "policy": policy.hex(), "dialect": DIALECT,
                   "pid": caller.process, "is_privileged": caller.is_privileged(self.owner_uid)})  # fmt: skip

    def get_policy(self, cookie: int, level: int, direction: int) -> bytes:
        reply = self._ask({"do": "socket-policy-get", "socket": cookie, "level": level, "direction": direction, "dialect": DIALECT})
        try:
            return bytes.fromhex(str(reply.get("policy", "")))
        except ValueError as error:
            raise Refused(Errno.EIO, "the daemon's answer has no policy") from error

    def where(self, cookie: int, protocol: int, place: Place | None, listener: int = 0) -> None:
        request: dict[str, Value] = {"do": "socket-where", "socket": cookie, "protocol": protocol}
        if place is not None:
            request["local"] = _end(place.local, place.port)
            if place.remote_port:
                request["remote"] = _end(place.remote, place.remote_port)
        if listener:
            request["listener"] = listener
        self._ask(request)

    def encapsulation(self, cookie: int, kind: int, port: int) -> None:
        self._ask({"do": "encapsulation", "socket": cookie, "kind": kind, "port": port})

    def gone(self, cookie: int) -> None:
        self._ask({"do": "socket-gone", "socket": cookie})

    def _ask(self, request: Mapping[str, Value], descriptor: int | None = None) -> Mapping[str, Value]:
        """One question, one answer. Raises Refused; ENETDOWN where no daemon answers."""
        octets = control.write(request)
        for is_last in (False, True):
            try:
                if self._connection is None:
                    self.connect()
                return control.result(control.read(self._exchange(octets, descriptor)))
            except Malformed as error:
                raise Refused(Errno.EIO, str(error)) from error
            except TimeoutError as error:
                self.close()
                raise Refused(Errno.ENETDOWN, f"the engine at {self._path} does not answer") from error
            except OSError as error:
                self.close()
                if is_last:
                    raise Refused(Errno.ENETDOWN, f"no engine at {self._path}: {error.strerror}") from error
        raise AssertionError("unreachable")

    def _exchange(self, octets: bytes, descriptor: int | None) -> bytes:
        assert self._connection is not None
        socket.send_fds(self._connection, [octets], [] if descriptor is None else [descriptor])
        reply = self._connection.recv(control.MESSAGE_OCTETS)
        if not reply:
            raise ConnectionResetError(104, "connection closed")
        return reply


def _end(packed: bytes, port: int) -> list[Value]:
    return [address.show(packed) if packed else "", port]
