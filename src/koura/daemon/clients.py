"""PF_KEY clients in the keeper: requests to the engine one at a time, replies and broadcasts back. docs/daemon.md, Clients.

A request stays in the client's socket until its replies are queued: it is peeked, answered, and only then consumed. So it is never
lost and never done twice, whatever becomes of the engine meanwhile; and a program can tell by SIOCOUTQ that it was answered. The
answer to a dump's request comes together with the first part of the dump.

Besides PF_KEY messages, which begin with the octet 2, there are ours, which begin with 0:

    client, as its first message    \\0koura dialect=linux acks=1
    answer                          \\0koura ok             or  \\0koura EINVAL why
    with acks, before any reply     \\0 1 . . | errno u32 | why         the errno of send(), in the client's own numbers
    with acks, after a loss         \\0 2 . . | count u32 | why

Without acks the errno of a send() that a kernel would have failed comes as a base header with that errno, and a loss as one of
message type 0 with ENOBUFS and the count as its seq. Numbers of ours are big endian.
"""

import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from koura.daemon.peer import Peer
from koura.errors import Errno
from koura.host.loop import Loop
from koura.pfkey import dialect as dialects
from koura.pfkey.dialect import Dialect

HELLO = b"\0koura"
ACK, LOSS = 1, 2
_OURS = struct.Struct(">BBHI")
_HEADER = struct.Struct("<BBBBHHII")
PF_KEY_V2, HEADER_WORDS, HEADER_OCTETS = 2, 2, 16
MESSAGE_OCTETS = 1 << 20  # of a request that we look at; what is longer is cut, and refused for it
PULL_OCTETS = 1 << 16
_LOST = "messages were lost because they were not read"


@dataclass(frozen=True, slots=True)
class Opened:
    """What the engine has to know of a client."""

    dialect: str
    pid: int
    uid: int
    is_privileged: bool
    command: str = ""


@dataclass(slots=True)
class Dialogue:
    """Where a client and the engine are. request: what waits for its answer; failures: engines that ended over it."""

    request: bytes | None = None
    failures: int = 0
    is_answered: bool = False
    dumps: list[bytes] = field(default_factory=list)  # base headers of the requests whose dumps are not at their end
    is_pulling: bool = False


_buffer = bytearray(MESSAGE_OCTETS)


class Client(Peer):
    """One PF_KEY socket. `number` is its name for the engine."""

    def __init__(self, loop: Loop, end: socket.socket, number: int, opened: Opened, calls: "Calls") -> None:
        super().__init__(loop, end, calls.gone)
        self.number = number
        self.opened = opened
        self.talk = Dialogue()
        self.lost = 0
        self.lost_total = 0
        self.has_acks = False
        self._calls = calls
        self._has_spoken = False

    @property
    def dialect(self) -> Dialect:
        return dialects.DIALECTS[self.opened.dialect]

    # -- from the client -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """The next request, if none is under way and its replies would have room."""
        while self.is_open and self.talk.request is None and self.has_room:
            try:
                octets = self.socket.recv_into(_buffer, MESSAGE_OCTETS, socket.MSG_PEEK)
            except BlockingIOError:
                return
            except OSError:
                self.end()
                return
            if octets == 0 and self._has_ended():
                self.end()
                return
            message = bytes(_buffer[:octets])
            if not self._has_spoken and message.startswith(HELLO):
                self._has_spoken = True
                self._consume()
                self._greet(message)
                continue
            self._has_spoken = True
            self.talk = Dialogue(message, dumps=self.talk.dumps, is_pulling=self.talk.is_pulling)
            self._calls.request(self)

    def _has_ended(self) -> bool:
        """Nothing was received: whether that is the end, and not a message without octets, which is a bad request like others."""
        poll = select.poll()
        poll.register(self.socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def _greet(self, message: bytes) -> None:
        words = dict(word.partition("=")[::2] for word in message[len(HELLO) :].decode("ascii", "replace").split())
        name, acks = words.pop("dialect", self.opened.dialect), words.pop("acks", "0")
        if words or name not in dialects.DIALECTS or acks not in ("0", "1"):
            known = ", ".join(dialects.DIALECTS)
            self.send(HELLO + f" EINVAL dialect= one of {known}; acks= 0 or 1; nothing else".encode())
            return
        self.has_acks = acks == "1"
        self.opened = Opened(name, self.opened.pid, self.opened.uid, self.opened.is_privileged, self.opened.command)
        self._calls.reopened(self)
        self.send(HELLO + b" ok")

    # -- from the engine -----------------------------------------------------------------------------------------------

    def answered(self, errno: int, begins: bool, why: str) -> None:
        """What became of the request; begins: a dump. Its replies, or the dump's first part, follow in the same step; `settle` ends it."""
        request = self.talk.request
        assert request is not None, "an answer to no request"
        self.talk.is_answered = True
        if self.has_acks:
            self.send(_OURS.pack(0, ACK, 0, errno) + why.encode())
        elif errno:
            self.send(error(request, errno))
        if begins:
            self.talk.dumps.append(request[:HEADER_OCTETS])

    def deliver(self, octets: bytes) -> None:
        """A reply or a broadcast; one that finds the queue full is lost, unless it answers the request under way."""
        if self.has_room or self.talk.is_answered:
            self.send(octets)
        else:
            self.lost += 1
            self.lost_total += 1

    def settle(self) -> None:
        """All of the answer is queued: take the request out, and look for the next."""
        if not self.is_open or not self.talk.is_answered:
            return
        self._consume()
        self.talk = Dialogue(dumps=self.talk.dumps, is_pulling=self.talk.is_pulling)
        self.pull()
        self.look()

    def pulled(self, messages: tuple[bytes, ...], left: int) -> None:
        """Part of its dumps, of which so many are not at their ends."""
        self.talk.is_pulling = False
        for octets in messages:
            self.send(octets)
        self.talk.dumps = self.talk.dumps[-left:] if left else []
        self.pull()

    def pull(self) -> None:
        """Ask for more of its dumps, if what it got is on its way."""
        if self.talk.dumps and not self.talk.is_pulling and self.queued_octets < PULL_OCTETS and self.is_open:
            self.talk.is_pulling = True
            self._calls.pull(self, PULL_OCTETS)

    def drained(self) -> None:
        if self.lost:
            count, self.lost = self.lost, 0
            if self.has_acks:
                self.send(_OURS.pack(0, LOSS, 0, count) + _LOST.encode())
            else:
                errno = self.dialect.errno(Errno.ENOBUFS)
                self.send(_HEADER.pack(PF_KEY_V2, 0, errno, 0, HEADER_WORDS, 0, count & 0xFFFF_FFFF, 0))
        self.pull()

    def engine_ended(self) -> None:
        """What was pulled is gone with it: each dump ends with an error. The request under way is asked again by the keeper."""
        dumps, self.talk.dumps = self.talk.dumps, []
        self.talk.is_pulling = False
        self.talk.is_answered = False
        for head in dumps:
            self.send(error(head, self.dialect.errno(Errno.EINTR)))

    def _consume(self) -> None:
        try:
            self.socket.recv(1)
        except OSError:
            self.end()


def error(request: bytes, errno: int) -> bytes:
    """A base header like the request's, alone, with an errno; seq 0 if the request was too short to have one."""
    _, kind, _, satype, _, _, seq, pid = _HEADER.unpack(request[:HEADER_OCTETS].ljust(HEADER_OCTETS, b"\0"))
    return _HEADER.pack(PF_KEY_V2, kind, errno & 0xFF, satype, HEADER_WORDS, 0, seq, pid)


@dataclass(frozen=True, slots=True)
class Calls:
    """What a client needs of the keeper."""

    request: Callable[[Client], None]
    reopened: Callable[[Client], None]
    pull: Callable[[Client, int], None]
    gone: Callable[[Peer], None]
