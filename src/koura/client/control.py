"""A live engine's control socket, asked and answered one after the other. The messages: koura.control.

    with Control(place.directory()) as control:
        control.ask("sysctl", name="net.inet.ipsec.dfbit")["value"]

What the engine refuses is raised as Refused, with its errno and reason; an engine that is not there as Unreachable.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from koura import control
from koura.client import place
from koura.control import Value
from koura.errors import KouraError, Malformed

_CREDENTIALS = struct.Struct("3i")


class Unreachable(KouraError):
    """No engine answers in a directory; says why and what to do. is_forbidden: there is one, and it is not for us."""

    def __init__(self, why: str, is_forbidden: bool = False) -> None:
        super().__init__(why)
        self.is_forbidden = is_forbidden


class Control:
    """One connection. `only_reads`: to the status socket if the control socket is not for us. `peer_uid`: whose engine it is."""

    def __init__(self, directory: Path, *, only_reads: bool = False, timeout_s: float | None = None) -> None:
        self.directory = directory
        try:
            self._socket = connect(directory / place.CONTROL)
        except Unreachable as error:
            if not (only_reads and error.is_forbidden):
                raise
            self._socket = connect(directory / place.STATUS)
        self._socket.settimeout(timeout_s)
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.peer_uid: int = _CREDENTIALS.unpack(credentials)[1]

    def __enter__(self) -> "Control":
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Its descriptor: socket policies that were set through it live as long as it is open."""
        return self._socket.fileno()

    def ask(self, verb: str, descriptor: int | None = None, **arguments: Value) -> Mapping[str, Value]:
        """One request, and the whole answer: lists that came in parts are one again. Raises Refused, Unreachable."""
        whole: dict[str, Value] = {}
        for part in self.stream(verb, descriptor, **arguments):
            for key, value in part.items():
                before = whole.get(key)
                whole[key] = before + value if isinstance(before, list) and isinstance(value, list) else value
        whole.pop("more", None)
        return whole

    def stream(self, verb: str, descriptor: int | None = None, **arguments: Value) -> Iterator[Mapping[str, Value]]:
        """One request, and its answer as it comes. Raises Refused, Unreachable."""
        message = {"do": verb} | {key: value for key, value in arguments.items() if value is not None}
        try:
            octets = control.write(message)
            socket.send_fds(self._socket, [octets], [descriptor] if descriptor is not None else [])
            while True:
                part = control.result(self._receive())
                yield part
                if part.get("more") is not True:
                    return
        except TimeoutError as error:
            raise Unreachable(f"the engine in {self.directory} does not answer") from error
        except OSError as error:
            raise Unreachable(f"the engine in {self.directory} ended: {os.strerror(error.errno or 0)}") from error

    def wait_closed(self) -> None:
        """Until the engine closes the connection, as it does when it ends."""
        try:
            while self._socket.recv(control.MESSAGE_OCTETS):
                pass
        except ConnectionError:
            return

    def _receive(self) -> dict[str, Value]:
        octets = self._socket.recv(control.MESSAGE_OCTETS)
        if not octets:
            raise Unreachable(f"the engine in {self.directory} ended")
        try:
            return control.read(octets)
        except Malformed as error:
            raise Unreachable(f"what answers in {self.directory} is no engine of ours: {error}") from error


def connect(path: Path) -> socket.socket:
    """A SOCK_SEQPACKET connection. Raises Unreachable with what to do."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        end.connect(str(path))
    except PermissionError as error:
        end.close()
        raise Unreachable(f"{path} is not for this user", is_forbidden=True) from error
    except OSError as error:
        end.close()
        why = "no engine runs there" if isinstance(error, FileNotFoundError | ConnectionRefusedError) else os.strerror(error.errno or 0)
        hint = f"; start one with `koura up --socket {path.parent}`, or say --socket DIR" if "no engine" in why else ""
        raise Unreachable(f"{path}: {why}{hint}") from error
    return end
