"""What an engine writes down, so that another can go on: SAs, policies, key sockets' registrations, tunables, what the host said.

Each thing has a key and is written whole when it changes; the keeper holds the last of each and understands none. What packets
change is not written here: it lies in memory that the keeper holds as well (host.memory), where the next engine finds it.

    settings            all tunables            sa/ORDER      an SA, with its keys
    counts              last policy id, ...     policy/ID     an SPD entry or a socket's policy
    socket/NUMBER       registrations           notice/N      a port that is encapsulated, a bound socket
    site                what the configuration file owns (daemon.site)
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from koura.daemon import codec
from koura.errors import Refused
from koura.moment import Moment
from koura.notices import EncapsulationPort, KeySocketGone, Notice, SocketBound, SocketGone
from koura.quick import quick
from koura.sadb import hot
from koura.sadb.association import Association, Left, State, leave
from koura.settings import DAEMON, Settings
from koura.spd.entry import Entry
from koura.spd.policy import Policy
from koura.stack import Stack

Change = tuple[bytes, bytes | None]  # key, and the value; None: it is no more


@dataclass(frozen=True, slots=True)
class _Counts:
    last_id: int
    last_order: int
    last_reqid: int


@quick
@dataclass(frozen=True, slots=True)
class Written:
    """An Entry in plain fields, as it is written down."""

    id: int
    policy: Policy
    order: tuple[int, int]
    created: Moment
    packets: int
    octets: int
    socket: int | None


@dataclass(frozen=True, slots=True)
class _KeySocket:
    registered: frozenset[int]
    is_promiscuous: bool


class Journal:
    """Watches one stack. `take` gives what changed since the last time, in an order that can be replayed."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._sas: dict[Association, None] = {}
        self._entries: dict[Entry, None] = {}
        self._settings = stack.settings
        self._sockets: dict[int, tuple[frozenset[int], bool]] = {}
        self._notices: dict[bytes, Notice] = {}
        self._others: list[Change] = []
        stack.sadb.noted = self._note_sa
        stack.spd.noted = self._note_entry

    def take(self) -> list[Change]:
        """What changed."""
        changes = self._others
        self._others = []
        if self._stack.settings is not self._settings:
            self._settings = self._stack.settings
            changes.append((b"settings", codec.write(self._settings)))
        if self._sas:
            for sa in self._sas:
                changes.append((b"sa/%d" % sa.order, codec.write(leave(sa)) if self._stack.sadb.holds(sa) else None))
            self._sas.clear()
        if self._entries:
            for entry in self._entries:
                changes.append((b"policy/%d" % entry.id, _written(entry) if self._stack.spd.get(entry.id) is entry else None))
            changes.append((b"counts", codec.write(_Counts(*self._stack.spd.counts))))
            self._entries.clear()
        return changes

    def keep(self, key: bytes, value: bytes | None) -> None:
        """Something of the engine's own."""
        self._others.append((key, value))

    def note_socket(self, socket: int) -> None:
        """A client spoke: its registrations may have changed."""
        standing = self._stack.server.standing(socket)
        if standing != self._sockets.get(socket, (frozenset(), False)):
            self._sockets[socket] = standing
            self._others.append((b"socket/%d" % socket, codec.write(_KeySocket(*standing))))

    def note(self, notice: Notice) -> None:
        """The host said this to the stack."""
        match notice:
            case SocketBound(socket, protocol):
                self._put(b"notice/bound/%d/%d/%d" % (socket, protocol, len(notice.remote)), notice)
            case SocketGone(socket):
                for key in [key for key in self._notices if key.startswith(b"notice/bound/%d/" % socket)]:
                    self._put(key, None)
            case KeySocketGone(socket):
                if self._sockets.pop(socket, None) is not None:
                    self._others.append((b"socket/%d" % socket, None))
            case _:
                pass

    def note_port(self, socket: int, port: int, is_on: bool) -> None:
        """A socket asked for ESP in UDP on its port, or no longer does."""
        self._put(b"notice/port/%d/%d" % (port, socket), EncapsulationPort(port) if is_on else None)

    def has_port(self, port: int) -> bool:
        """Whether any socket wants ESP in UDP there."""
        return any(key.startswith(b"notice/port/%d/" % port) for key in self._notices)

    def ports_of(self, socket: int) -> list[int]:
        """Where a socket wants it."""
        keys = [key.split(b"/") for key in self._notices if key.startswith(b"notice/port/")]
        return [int(port) for _, _, port, owner in keys if int(owner) == socket]

    def _put(self, key: bytes, notice: Notice | None) -> None:
        if notice is None:
            self._notices.pop(key, None)
        else:
            self._notices[key] = notice
        self._others.append((key, None if notice is None else codec.write(notice)))

    def _note_sa(self, sa: Association) -> None:
        self._sas[sa] = None

    def _note_entry(self, entry: Entry) -> None:
        self._entries[entry] = None

    def resumed_socket(self, socket: int, value: bytes) -> None:
        """A client's registrations as another engine wrote them; its socket is open again."""
        standing = codec.read(_KeySocket, value)
        self._stack.server.resume(socket, standing.registered, standing.is_promiscuous)
        self._sockets[socket] = (standing.registered, standing.is_promiscuous)

    def resume(self, kept: Mapping[bytes, bytes], standing: Iterable[Left], at: Moment) -> list[str]:
        """Into the empty stack: policies, SAs and notices that another engine wrote down. What could not be had again, in sentences.

        standing: the SAs (lefts).
        """
        stack = self._stack
        if b"counts" in kept:
            counts = codec.read(_Counts, kept[b"counts"])
            entries = sorted((_entry(value, at) for value in _below(kept, b"policy/")), key=lambda entry: entry.order)
            stack.spd.resume(entries, (counts.last_id, counts.last_order, counts.last_reqid))
        for key, value in kept.items():
            if key.startswith(b"notice/"):
                notice: Notice
                if key.startswith(b"notice/port/"):
                    notice = codec.read(EncapsulationPort, value)
                else:
                    notice = codec.read(SocketBound, value)
                self._notices[key] = notice
                stack.notice(notice, at)
        failed = []
        for left in standing:
            words = stack.arena.adopt(left.slot).words
            if left.state is not State.LARVAL and words[hot.EPOCH] != left.epoch:
                failed.append(f"SPI {left.agreement.spi:#x}: its counters are lost")
                self._others.append((b"sa/%d" % left.order, None))
                continue
            try:
                stack.sadb.resume(left, at, stack.settings.key.larval_lifetime_s)
            except Refused as error:
                failed.append(f"SPI {left.agreement.spi:#x}: {error.why}")
                self._others.append((b"sa/%d" % left.order, None))
        return failed


def lefts(kept: Mapping[bytes, bytes]) -> list[Left]:
    """The SAs that were written down, oldest first."""
    return sorted((codec.read(Left, value) for value in _below(kept, b"sa/")), key=lambda left: left.order)


def settings(kept: Mapping[bytes, bytes]) -> Settings:
    """The tunables that were written down."""
    return codec.read(Settings, kept[b"settings"]) if b"settings" in kept else DAEMON


def _below(kept: Mapping[bytes, bytes], prefix: bytes) -> Iterator[bytes]:
    return (value for key, value in kept.items() if key.startswith(prefix))


def _written(entry: Entry) -> bytes:
    return codec.write(
        Written(
            entry.id, entry.policy, entry.order, entry.created, entry.packets, entry.octets, entry.socket,
        )
    )  # fmt: skip


def _entry(value: bytes, at: Moment) -> Entry:
    kept = codec.read(Written, value)
    entry = Entry(kept.id, kept.policy, kept.order, kept.created, kept.packets, kept.octets, kept.socket)
    # Its last use is not known to the second: it lies idle from now on.
    entry.last_used = at
    return entry


