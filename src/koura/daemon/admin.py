"""control.sock and status.sock in the keeper: one request at a time for each connection, checked before anybody acts on it.

Who may what: control.sock is for root and for the user whose daemon it is; anyone else who can open it, and everyone at status.sock,
may ask what only reads. What the keeper knows itself (clients, adopt, reload, down) is answered here, the rest by the engine.
"""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from koura import control
from koura.control import Value, Verb
from koura.daemon.peer import Credentials, Peer
from koura.errors import Errno, Malformed, Refused
from koura.host.loop import Loop

MAX_DESCRIPTORS = 4
LOAD_OCTETS = 1 << 28  # of a file that comes as a descriptor
_Arguments = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that may be done."""

    verb: Verb
    arguments: _Arguments
    descriptor: int | None
    by: Credentials


class Admin(Peer):
    """One connection. `sockets`: those whose policies it set; they end with it."""

    def __init__(self, loop: Loop, end: socket.socket, is_privileged: bool, calls: "Calls") -> None:
        super().__init__(loop, end, calls.gone)
        self.credentials = Credentials.of(end)
        self.sockets: dict[int, None] = {}
        self._is_privileged = is_privileged
        self._calls = calls
        self._is_busy = False
        self._replies: deque[bytes] = deque()

    def look(self) -> None:
        while self.is_open and not self._is_busy and self.has_room:
            try:
                octets, descriptors, _, _ = socket.recv_fds(self.socket, control.MESSAGE_OCTETS, MAX_DESCRIPTORS)
            except BlockingIOError:
                return
            except OSError:
                octets, descriptors = b"", []
            if not octets:
                self.end()
                return
            self._ask(octets, descriptors)

    def reply(self, messages: Iterable[Mapping[str, Value]]) -> None:
        """The answer to what was asked; then the next."""
        self._is_busy = False
        for message in messages:
            self.send(control.write(message))

    def reply_written(self, messages: Iterable[bytes]) -> None:
        """The same, for messages that the engine wrote."""
        self._is_busy = False
        for octets in messages:
            self.send(octets)
        self.look()

    def _ask(self, octets: bytes, descriptors: list[int]) -> None:
        self._is_busy = True
        try:
            verb, arguments = control.request(octets)
            if not self._is_privileged and not verb.only_reads and not (verb.name == "sysctl" and "value" not in arguments):
                raise Refused(Errno.EPERM, f"{verb.name}: this needs the control socket and the daemon's own user, or root")
            descriptor = self._descriptor(verb, descriptors)
            if verb.name == "load" and descriptor is not None:
                arguments["text"] = _text(descriptor)
            if verb.name == "load" and "text" not in arguments:
                raise Refused(Errno.EINVAL, "load: neither a text nor a descriptor of a file")
            self._calls.asked(self, Asked(verb, arguments, descriptor, self.credentials))
        except Refused as error:
            self.reply([control.refused(error)])
        except Malformed as error:
            self.reply([control.refused(Refused(Errno.EINVAL, str(error)))])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _descriptor(self, verb: Verb, descriptors: list[int]) -> int | None:
        """The one descriptor that came along; it is closed when the request is done. Raises Refused."""
        if len(descriptors) > 1 or (descriptors and not verb.takes_descriptor):
            raise Refused(Errno.EINVAL, f"{verb.name}: {len(descriptors)} descriptors came along")
        return descriptors[0] if descriptors else None


def _text(descriptor: int) -> str:
    """A file that came as a descriptor, whole. Raises Refused."""
    size = os.fstat(descriptor).st_size
    if size > LOAD_OCTETS:
        raise Refused(Errno.EMSGSIZE, f"load: a file of {size} octets; the most is {LOAD_OCTETS}")
    try:
        return os.pread(descriptor, size, 0).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(Errno.EINVAL, "load: this descriptor cannot be read as text") from error


@dataclass(frozen=True, slots=True)
class Calls:
    """What a connection needs of the keeper. `asked` raises Refused."""

    asked: Callable[[Admin, Asked], None]
    gone: Callable[[Peer], None]
