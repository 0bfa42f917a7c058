"""The PF_KEY server: requests of clients in, replies and broadcasts out; pure. RFC 2367; pfkey.md §4, §5.

    receive: octets -> checks (rules) -> handler (sa_requests, policy_requests, here) -> deliveries
    pull:    a dump's next messages, as many as the reader has room for (dump)
    acquire, expire, policy_expire, mapping, announce: what the stack tells key management (tell)

A Refused becomes the error reply to the sender, a Malformed the errno of send(); nothing has changed then. Octets of a request are
never trusted further than their windows. Not here: sockets and rights to open them (host, daemon), what SAs and policies mean.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from koura.crypto.registry import Registry
from koura.entropy import Entropy
from koura.errors import Errno, Malformed, Refused
from koura.moment import Moment
from koura.pfkey import announce, message, rules, values
from koura.pfkey.dialect import FREEBSD, Dialect
from koura.pfkey.message import Message
from koura.pfkey.numbers import HEADER_OCTETS, PF_KEY_V2, SaType, Type
from koura.pfkey.policy_requests import PolicyRequests
from koura.pfkey.relations import Ask, Relations
from koura.pfkey.request import Request
from koura.pfkey.sa_requests import SaRequests
from koura.pfkey.sockets import Audience, Delivery, KeySocket, Outgoing, Sockets
from koura.pfkey.statistics import Statistics
from koura.pfkey.tell import Tell
from koura.quick import quick
from koura.sadb.database import Database as Sad
from koura.saindex import SaIndex
from koura.settings import Settings
from koura.spd.database import Database as Spd

Reply = tuple[Outgoing, Audience] | None


@quick
@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one send(): its errno in the client's own numbers (0: taken), and messages for sockets, in order.

    refused: why the request was not done, in either way; None: it was.
    """

    errno: int
    deliveries: tuple[Delivery, ...] = ()
    refused: Refused | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What a server stands on."""

    sad: Sad
    spd: Spd
    entropy: Entropy
    registry: Registry


@dataclass(frozen=True, slots=True)
class Asked:
    """What keeps count of ACQUIREs: `settled(seq, relation)` hears of every SA that was made, `failed(seq)` of each that was given up;
    `ask(relation, at)` gives the number of one that a client wants to be sent, None if one went out lately."""

    settled: Callable[[int, SaIndex], None]
    failed: Callable[[int], None]
    ask: Ask


class Server:
    """One PF_KEY server."""

    def __init__(self, parts: Parts, settings: Settings, asked: Asked) -> None:
        self.statistics = Statistics()
        self._settings = settings
        self._registry = parts.registry
        self._failed = asked.failed
        self._sockets = Sockets(self.statistics)
        self._sas = SaRequests(parts.sad, settings, parts.entropy, asked.settled)
        self._policies = PolicyRequests(parts.spd, settings)
        self._relations = Relations(parts.sad, parts.spd, asked.ask)
        self.tell = Tell(self._sockets, settings)
        sas, policies = self._sas, self._policies
        self._handlers: dict[int, Callable[[Request], Reply]] = {
            Type.GETSPI: sas.getspi, Type.UPDATE: sas.update, Type.ADD: sas.add, Type.DELETE: sas.delete, Type.GET: sas.get,
            Type.FLUSH: sas.flush, Type.DUMP: sas.dump, Type.ACQUIRE: self._acquire, Type.REGISTER: self._register,
            Type.X_SPDADD: policies.add, Type.X_SPDSETIDX: policies.add, Type.X_SPDUPDATE: policies.update,
            Type.X_SPDDELETE: policies.delete, Type.X_SPDDELETE2: policies.delete_id, Type.X_SPDGET: policies.get,
            Type.X_SPDFLUSH: policies.flush, Type.X_SPDDUMP: policies.dump, Type.X_MIGRATE: self._relations.migrate,
        }  # fmt: skip

    # -- sockets -------------------------------------------------------------------------------------------------------

    def opened(self, socket: int, dialect: Dialect = FREEBSD, pid: int = 0, is_privileged: bool = True, *, is_deaf: bool = False) -> None:
        """A client opened key socket number `socket`. is_deaf: it only asks, and no message is ever written to it."""
        self._sockets.open(KeySocket(socket, dialect, pid, is_privileged, is_deaf=is_deaf))

    def standing(self, socket: int) -> tuple[frozenset[int], bool]:
        """What a socket registered for, and whether it is promiscuous; nothing for one that is not open."""
        known = self._sockets.get(socket)
        return (frozenset(known.registered), known.is_promiscuous) if known is not None else (frozenset(), False)

    def resume(self, socket: int, registered: frozenset[int], is_promiscuous: bool) -> None:
        """An open socket stands again as it stood with another server."""
        known = self._sockets.get(socket)
        if known is not None:
            known.registered = set(registered)
            self._sockets.be_promiscuous(known, is_promiscuous)

    def closed(self, socket: int) -> None:
        """It is gone, with its registrations and unread dumps; larval SAs stay until their timer."""
        self._sockets.close(socket)

    def tune(self, settings: Settings) -> None:
        """Tunables changed."""
        self._settings = self._sas.settings = self._policies.settings = self.tell.settings = settings

    @property
    def is_dumping(self) -> bool:
        """Whether any dump is unread, which may still show SAs that are gone."""
        return any(known.dumps for known in self._sockets)

    def has_dump(self, socket: int) -> bool:
        """Whether `pull` would have something for this socket, given room."""
        return self.dumps(socket) > 0

    def dumps(self, socket: int) -> int:
        """How many dumps this socket asked for and has not read to their ends."""
        known = self._sockets.get(socket)
        return len(known.dumps) if known is not None else 0

    def pull(self, socket: int, room_octets: int, at: Moment) -> tuple[bytes, ...]:
        """The next messages of the socket's dumps that fit into `room_octets`; () when none fits or none is left."""
        known = self._sockets.get(socket)
        found: list[bytes] = []
        while known is not None and known.dumps:
            dump = known.dumps[0]
            messages = dump.take(room_octets)
            found += messages
            room_octets -= sum(map(len, messages))
            if not dump.is_done:
                break
            known.dumps.pop(0)
        for octets in found:
            self.statistics.in_one += 1
            self.statistics.gave(octets[1], len(octets))
        return tuple(found)

    def overheard(self, socket: int, messages: tuple[bytes, ...]) -> tuple[Delivery, ...]:
        """What promiscuous sockets get of messages that were pulled for this socket."""
        known = self._sockets.get(socket)
        if known is None or not self._sockets.has_promiscuous:
            return ()
        dialect = known.dialect
        told = (Outgoing.written(Message.read(octets, dialect), dialect, octets) for octets in messages)
        return tuple(delivery for outgoing in told for delivery in self._sockets.overheard(outgoing))

    # -- requests ------------------------------------------------------------------------------------------------------

    def receive(self, socket: int, octets: bytes, at: Moment) -> Answer:
        """One message that a client sent. A socket that is not open gets EINVAL."""
        sender = self._sockets.get(socket)
        if sender is None:
            return Answer(Errno.EINVAL.bsd, (), Refused(Errno.EINVAL, "the socket is not open"))
        dialect = sender.dialect
        try:
            head = self._head(octets, dialect)
        except Refused as error:
            return Answer(dialect.errno(error.errno), (), error)
        try:
            return Answer(0, self._deliver(self._serve(sender, head, octets, at), sender))
        except Refused as error:
            return Answer(0, self._refuse(sender, head, octets, error.errno), error)
        except Malformed as error:
            self.statistics.out_dupext += "twice" in error.why
            self.statistics.out_invexttype += "twice" not in error.why
            refused = Refused(Errno.EINVAL, str(error))
            if dialect.answers_malformed:
                return Answer(0, self._refuse(sender, head, octets, Errno.EINVAL), refused)
            return Answer(dialect.errno(Errno.EINVAL), (), refused)

    def take(self, socket: int, said: Message, at: Moment) -> Refused | None:
        """The same for who is alone here and wants no answer, only why it was refused: what needs no octets has none made."""
        sender = self._sockets.get(socket)
        dialect = sender.dialect if sender is not None else FREEBSD
        is_heard = sender is None or not all(one.is_deaf for one in self._sockets)
        if is_heard or sender is None or not values.is_plain(said, dialect, self._settings.limits.message_octets):
            return self.receive(socket, said.write(dialect), at).refused
        try:
            self._serve_checked(Request(sender, b"", said, {one.ext: one for one in said.extensions}, {}, at))
        except Refused as error:
            return error
        return None

    def _head(self, octets: bytes, dialect: Dialect) -> Message:
        """Checks 1 and 2. Raises Refused with the errno of send()."""
        stats = self.statistics
        stats.took(octets[1] if len(octets) > 1 else 0, len(octets))
        if len(octets) < HEADER_OCTETS:
            stats.out_tooshort += 1
            raise Refused(dialect.length_mismatch, "shorter than a base header")
        if len(octets) > self._settings.limits.message_octets:
            stats.out_nomem += 1
            raise Refused(Errno.ENOBUFS, f"messages have at most {self._settings.limits.message_octets} octets")
        try:
            return message.header(octets, dialect)
        except Malformed as error:
            stats.out_invlen += 1
            raise Refused(dialect.length_mismatch, error.why) from error

    def _serve(self, sender: KeySocket, head: Message, octets: bytes, at: Moment) -> Reply:
        """Checks 3 to 10, then the handler. Raises Refused or Malformed."""
        dialect, stats = sender.dialect, self.statistics
        if head.version != PF_KEY_V2:
            stats.out_invver += 1
            raise Refused(Errno.EINVAL, f"PF_KEY version 2, not {head.version}")
        if not dialect.types.has_theirs(head.type):
            stats.out_invmsgtype += 1
            raise Refused(dialect.unknown_type, "no such message type")
        if head.type == Type.X_PROMISC:
            return self._promisc(sender, head, octets)
        if head.reserved and dialect.is_lenient:
            raise Refused(Errno.EINVAL, "sadb_msg_reserved is not 0")
        said, windows = rules.read_extensions(octets, head, dialect)
        return self._serve_checked(Request(sender, octets, head, said, windows, at))

    def _serve_checked(self, request: Request) -> Reply:
        """Checks 6 to 10, then the handler: of a message whose extensions are values."""
        sender, head, stats = request.socket, request.head, self.statistics
        dialect = sender.dialect
        try:
            rules.check_satype(head, dialect)
        except Refused:
            stats.out_invsatype += 1
            raise
        if not sender.is_privileged:
            raise Refused(Errno.EPERM, "this needs the network privilege")
        handler = self._handlers.get(head.type)
        if handler is None or head.type in rules.ONLY_FROM_US:
            stats.out_invmsgtype += 1
            raise Refused(dialect.unknown_type, "clients do not send this message")
        try:
            rules.check_addresses(request.values, dialect)
        except Refused:
            stats.out_invaddr += 1
            raise
        rules.check_required(head.type, request.values)
        return handler(request)

    def _deliver(self, reply: Reply, sender: KeySocket) -> tuple[Delivery, ...]:
        if reply is None:
            return ()
        outgoing, audience = reply
        return self._sockets.deliver(outgoing, audience, sender)

    def _refuse(self, sender: KeySocket, head: Message, octets: bytes, errno: Errno) -> tuple[Delivery, ...]:
        """The error reply, to the sender only: the request with its errno set; Linux: its base header alone."""
        dialect = sender.dialect
        failed = replace(head, errno=dialect.errno(errno))
        if dialect.has_bare_errors:
            written = failed.head(dialect, HEADER_OCTETS)
        else:
            written = octets[:2] + bytes((failed.errno,)) + octets[3:]
        return self._sockets.deliver(Outgoing.written(failed, dialect, written), Audience.ONE, sender)

    # -- messages that are about sockets -------------------------------------------------------------------------------

    def _register(self, request: Request) -> Reply:
        """REGISTER. Satype 0 gets the list and no registration. EEXIST where it is registered already."""
        socket, head = request.socket, request.head
        if head.satype != SaType.UNSPEC:
            if head.satype in socket.registered:
                raise Refused(Errno.EEXIST, "registered for this satype already")
            socket.registered.add(head.satype)
        lacking = frozenset(name for name, _ in self._registry.lacks())

        def make(dialect: Dialect) -> Message:
            lists = announce.supported(dialect, self._settings, lacking)
            return Message(head.type, head.satype, head.seq, head.pid, extensions=tuple(one for one in lists if one.algorithms))

        return Outgoing(head.type, head.satype, make), Audience.REGISTERED

    def _promisc(self, sender: KeySocket, head: Message, octets: bytes) -> Reply:
        """X_PROMISC: satype 1 on, 0 off, and everybody is told; with a whole message behind the base header, that goes to all sockets."""
        dialect = sender.dialect
        if not sender.is_privileged:
            raise Refused(Errno.EPERM, "this needs the network privilege")
        if len(octets) > HEADER_OCTETS:
            embedded = octets[HEADER_OCTETS:]
            try:
                inner = Message.read(embedded, dialect)
            except Malformed as error:
                raise Refused(Errno.EINVAL, f"no message inside: {error}") from error
            return Outgoing.written(inner, dialect, embedded), Audience.ALL
        mode = dialect.satypes.theirs(head.satype)
        if mode not in (0, 1):
            raise Refused(Errno.EINVAL, "promiscuous mode is 1 or 0")
        self._sockets.be_promiscuous(sender, mode == 1)
        return Outgoing.written(replace(head, errno=0), dialect, octets[:2] + b"\0" + octets[3:]), Audience.ALL

    def _acquire(self, request: Request) -> Reply:
        """ACQUIRE from a client: a key manager gives up (base only), or asks us to ask the others."""
        if not request.values:
            if request.head.seq and request.head.errno:
                self._failed(request.head.seq)
            return None
        return self._relations.relay(request, self.tell)
