"""One request of a key socket and its replies, as a pure computation: octets out, octets in, whoever moves them. docs/daemon.md.

    HELLO          what a client says first: its dialect, and that it wants acknowledgements
    Exchange       one request: `feed` takes every message that arrives and says whether it belonged to the request
    read_ack       the engine's acknowledgement of one request: the errno of its send(), and why it was refused

A reply is known by the type, seq and pid of the request. Whatever else arrives meanwhile - somebody's changes, ACQUIRE, EXPIRE - is
not consumed, and is the caller's.
"""

import struct
from dataclasses import dataclass, field

from koura.errors import Errno, KouraError, Refused
from koura.pfkey.dialect import Dialect
from koura.pfkey.message import Message
from koura.pfkey.numbers import HEADER_OCTETS, Type

OURS = 0  # the first octet of messages that are not PF_KEY's
_HELLO = b"\0koura"
_ACK, _LOSS = 1, 2
_NOTE = struct.Struct(">BBHI")
_DUMPS = (Type.DUMP, Type.X_SPDDUMP)
MESSAGE_OCTETS = 1 << 20


class Lost(KouraError):
    """Messages of other clients or of the engine were not read in time and are lost; `count` of them."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} messages came faster than they were read, and are lost")
        self.count = count


@dataclass(frozen=True, slots=True)
class Ack:
    """errno: that of send(), in the dialect's own numbers; why: the reason, also of a refusal that comes as a message."""

    errno: int
    why: str


def hello(dialect: Dialect) -> bytes:
    """The first message of a connection."""
    return _HELLO + f" dialect={dialect.name} acks=1".encode()


def check_hello(answer: bytes) -> None:
    """Raises Refused(EINVAL) where the engine did not take it."""
    if not answer.startswith(_HELLO):
        raise Refused(Errno.EPROTONOSUPPORT, "what answers there is no key socket of ours")
    word, _, why = answer[len(_HELLO) :].decode("utf-8", "replace").strip().partition(" ")
    if word != "ok":
        raise Refused(Errno.EINVAL, f"the engine refuses the connection: {why}")


def read_ack(octets: bytes) -> Ack | Lost:
    """A message of the engine's own, whose first octet is 0."""
    if len(octets) < _NOTE.size:
        return Ack(0, "")
    _, kind, _, number = _NOTE.unpack_from(octets)
    return Lost(number) if kind == _LOSS else Ack(number, octets[_NOTE.size :].decode("utf-8", "replace"))


def unwrapped(octets: bytes) -> bytes:
    """What somebody else got, without the base header that promiscuous mode puts before it; any other message as it is."""
    is_wrapped = len(octets) >= 2 * HEADER_OCTETS and octets[1] == Type.X_PROMISC
    return octets[HEADER_OCTETS:] if is_wrapped else octets


def errno_of(number: int, dialect: Dialect) -> Errno:
    """The error that a dialect calls by this number; EIO for one that we do not know."""
    return next((one for one in Errno if dialect.errno(one) == number), Errno.EIO)


@dataclass(slots=True)
class Exchange:
    """One request on its way. `replies` fill up as they come; a dump's are taken out by its reader."""

    request: Message
    dialect: Dialect
    octets: bytes = b""
    ack: Ack | None = None
    replies: list[Message] = field(default_factory=list)
    is_done: bool = False
    refused: Refused | None = None

    def __post_init__(self) -> None:
        self.octets = self.octets or self.request.write(self.dialect)

    @property
    def is_dump(self) -> bool:
        return self.request.type in _DUMPS

    def acknowledged(self, ack: Ack) -> None:
        """The engine took or refused the request; replies follow unless send() itself failed."""
        self.ack = ack
        if ack.errno:
            self.refused = Refused(errno_of(ack.errno, self.dialect), ack.why or "the message is malformed")
            self.is_done = True

    def feed(self, octets: bytes) -> bool:
        """Take one PF_KEY message; False if it belongs to somebody else. Raises Malformed for octets that are none."""
        if self.ack is None or self.is_done or len(octets) < HEADER_OCTETS or not self._is_reply(octets):
            return False
        reply = Message.read(octets, self.dialect)
        if reply.errno:
            error = errno_of(reply.errno, self.dialect)
            self.refused = Refused(error, self.ack.why or f"refused: {error.name}")
            self.is_done = True
            return True
        self.replies.append(reply)
        self.is_done = not self.is_dump or reply.seq == 0
        return True

    def _is_reply(self, octets: bytes) -> bool:
        head = struct.unpack_from("<4BHHII", octets)
        kind, seq, pid = head[1], head[6], head[7]
        if kind != self.dialect.types.theirs(self.request.type) or pid != self.request.pid:
            return False
        return self.is_dump or seq == self.request.seq

    def check(self) -> None:
        """Raises Refused if the request was refused."""
        if self.refused is not None:
            raise self.refused
