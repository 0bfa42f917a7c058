"""Stack: one IPsec stack as one object. It owns all state; seven doors lead in; nothing in it knows sockets, clocks or chance.

    outbound(packets, at, origin)   packets about to leave            -> an outcome each, and events
    inbound(packets, at)            packets that arrived              -> an outcome each, and events
    control(socket, octets, at)     a PF_KEY message of a client      -> errno of its send(), and events
    notice(n, at)                   what only the host knows          -> events
    tune(name, text), read(name)    the sysctl tree
    advance(at)                     time went by                      -> events
    next_deadline()                 when to call advance at the latest

Rules: time never runs backwards; between two calls nothing changes; the same calls with the same entropy give the same results.
Packets in are the sum of outcomes. A packet that was Held is told of again as a Released event.

Example, a packet through an empty stack:

    >>> from koura import Stack
    >>> from koura.moment import Moment
    >>> from koura.sim.entropy import Seeded
    >>> stack = Stack(Seeded(1))
    >>> packet = bytes.fromhex("4500001c0000000040116ecf0a0000010a00000200070007000869e1")
    >>> stack.outbound([packet], Moment.of_s(0)).outcomes[0].packets == (packet,)
    True
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from koura.crypto import registry as registries
from koura.crypto.driver import Support
from koura.crypto.registry import Registry
from koura.enc.filter import Filter, Rule
from koura.enc.tap import Tap
from koura.entropy import Entropy, Pooled
from koura.errors import Bug, Refused
from koura.moment import Moment
from koura.notices import (
    Bridged,
    EncapsulationPort,
    Granted,
    InterfacePolicies,
    KeySocketGone,
    KeySocketOpened,
    LocalAddresses,
    Notice,
    PathMtu,
    PeerMoved,
    SendDummy,
    SocketAccepted,
    SocketBound,
    SocketGone,
    SocketPolicy,
)
from koura.pfkey import dialect as dialects
from koura.pfkey.server import Parts, Server
from koura.pfkey.sockets import Delivery
from koura.quick import quick
from koura.sadb import sequence
from koura.sadb.association import Makings
from koura.sadb.database import Database as Sadb
from koura.sadb.hot import Arena
from koura.sadb.ledger import Ledger
from koura.settings import Settings
from koura.spd.database import Database as Spd
from koura.stack.keymanagement import KeyManagement
from koura.stats.counters import Counters
from koura.stats.report import Report
from koura.sysctl import tree
from koura.traffic.inbound import Inbound
from koura.traffic.keepalives import Keepalives
from koura.traffic.outbound import Outbound
from koura.traffic.outcome import LOCAL, Event, Origin, Outcome
from koura.traffic.plane import Plane
from koura.traffic.tally import Tally


@quick
@dataclass(frozen=True, slots=True)
class Results:
    """One outcome for each packet, in order, and what else happened."""

    outcomes: tuple[Outcome, ...]
    events: tuple[Event, ...] = ()


@quick
@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a client's send(): errno in its own numbers, 0 for taken; events hold the replies. refused: why it was not done."""

    errno: int
    events: tuple[Event, ...] = ()
    refused: Refused | None = None


class Fast(Protocol):
    """A fast path: identical to the reference for what it takes, and it takes nothing before it knows that it can.

    Bursts: outcomes for packets[start:], in order; fewer than there are packets means that the next one is the reference's, and what
    that made of it may be learned. `settle` brings its counts to where they are read.
    """

    def outbound(self, packets: list[bytes], start: int, origin: Origin, at: Moment) -> list[Outcome]: ...

    def inbound(self, packets: list[bytes], start: int, at: Moment) -> list[Outcome]: ...

    def learn_outbound(self, packet: bytes, origin: Origin, at: Moment) -> None: ...

    def learn_inbound(self, packet: bytes, outcome: Outcome, at: Moment) -> None: ...

    def describe(self) -> str:
        """Its drivers, or `off` and why."""
        ...

    def settle(self) -> None: ...

    def begin(self) -> bool: ...


MakeFast = Callable[[Plane, Outbound, Inbound, Pooled], Fast]


# Notices that leave every flow's fate as it was; a changed SA has a generation of its own.
_NO_NEWS_FOR_FLOWS = (Granted, KeySocketOpened, KeySocketGone, PeerMoved, SendDummy)


def _support(settings: Settings) -> Support:
    """crypto_support as the drivers' registry knows it (M40): above 0 hardware, below software."""
    return Support((settings.crypto_support > 0) - (settings.crypto_support < 0))


class Stack:
    """One stack. `has_ledger`: SAs send nothing until numbers are granted to them (notice Granted). `rule`: the filter on enc0.

    ledger: what is known of keys from before; who has one also has_ledger.

    arena: where the hot blocks live, if not in memory of its own; then who has it says when blocks may be used again (`quiesce`).
    acquires_from: the number before its first ACQUIRE's.
    fast: makes the fast path (koura.fast.path.FastPath); it and the reference then draw from one pool of entropy.
    """

    def __init__(
        self,
        entropy: Entropy,
        settings: Settings | None = None,
        registry: Registry | None = None,
        *,
        has_ledger: bool = False,
        ledger: Ledger | None = None,
        rule: Rule | None = None,
        fast: MakeFast | None = None,
        arena: Arena | None = None,
        acquires_from: int = 0,
    ) -> None:
        pool = entropy if isinstance(entropy, Pooled) else Pooled(entropy) if fast is not None else None
        entropy = pool if pool is not None else entropy
        self._settings = settings if settings is not None else Settings()
        known = registry if registry is not None else registries.default()
        self.arena = arena if arena is not None else Arena()
        self._owns_arena = arena is None
        makings = Makings(
            known, self.arena, entropy, has_ledger or ledger is not None, self._settings.ipcomp_level, ledger, _support(self._settings)
        )
        self.sadb = Sadb(makings, lambda: self._settings.limits)
        self.spd = Spd(self._settings.limits.policies)
        self.counters = Counters()
        self.report = Report(self.counters)
        self.tap = Tap()
        self.filter = Filter(rule)
        self._keys = KeyManagement(self.sadb, self._settings, acquires_from)
        self.server = Server(Parts(self.sadb, self.spd, entropy, known), self._settings, self._keys.asked)
        self._plane = Plane(
            self.sadb, self.spd, Tally(self.counters), self._settings, entropy, self._keys, self.tap, self.filter
        )
        self._keys.connect(self.server, self._plane.events)
        self._outbound = Outbound(self._plane)
        self._inbound = Inbound(self._plane)
        self._keepalives = Keepalives(self._plane)
        self._fast = fast(self._plane, self._outbound, self._inbound, pool) if fast is not None and pool is not None else None
        if self._fast is not None:
            self.report.states["fast"] = self._describe_fast
        self._at = Moment(0)

    def encapsulates(self, port: int) -> bool:
        """Whether a socket or an SA has ESP in UDP on this port."""
        return port in self._plane.ports or port in self.sadb.encapsulated.ports()

    @property
    def fast_path(self) -> Fast | None:
        """The fast path, if there is one."""
        return self._fast

    def _describe_fast(self) -> str:
        if self.sadb.tcp_keys:
            return "off while there are TCP-MD5 keys"
        return self._fast.describe() if self._fast is not None else "off"

    # -- packets -------------------------------------------------------------------------------------------------------

    def outbound(self, packets: Iterable[bytes], at: Moment, origin: Origin = LOCAL) -> Results:
        """Packets about to leave: one outcome each."""
        self._tick(at)
        if self._fast is not None and not self.sadb.tcp_keys:
            outcomes = self._fast_outbound(self._fast, list(packets), origin, at)
        else:
            outcomes = [self._outbound.send(packet, origin, at) for packet in packets]
        return Results(tuple(outcomes), self._plane.take_events())

    def inbound(self, packets: Iterable[bytes], at: Moment) -> Results:
        """Packets that arrived: one outcome each."""
        self._tick(at)
        if self._fast is not None and not self.sadb.tcp_keys:
            outcomes = self._fast_inbound(self._fast, list(packets), at)
        else:
            outcomes = [self._inbound.receive(packet, at) for packet in packets]
        return Results(tuple(outcomes), self._plane.take_events())

    def begin_burst(self, at: Moment) -> bool:
        """For native I/O that hands bursts to the fast path's engine itself: whether that may answer now."""
        self._tick(at)
        return self._fast is not None and not self.sadb.tcp_keys and self._fast.begin()

    def outbound_by_reference(self, packet: bytes, at: Moment, origin: Origin) -> Results:
        """A packet that the engine did not answer; the fast path learns from it, and its staging is left alone."""
        self._tick(at)
        outcome = self._outbound.send(packet, origin, at)
        if self._fast is not None:
            self._fast.learn_outbound(packet, origin, at)
        return Results((outcome,), self._plane.take_events())

    def inbound_by_reference(self, packet: bytes, at: Moment) -> Results:
        """The same for a packet that arrived."""
        self._tick(at)
        outcome = self._inbound.receive(packet, at)
        if self._fast is not None:
            self._fast.learn_inbound(packet, outcome, at)
        return Results((outcome,), self._plane.take_events())

    def _fast_outbound(self, fast: Fast, packets: list[bytes], origin: Origin, at: Moment) -> list[Outcome]:
        """The fast path as far as it goes, the reference for one packet, and so on."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(packets):
            answered = fast.outbound(packets, len(outcomes), origin, at)
            outcomes += answered
            if not answered:
                packet = packets[len(outcomes)]
                outcomes.append(self._outbound.send(packet, origin, at))
                fast.learn_outbound(packet, origin, at)
        fast.settle()
        return outcomes

    def _fast_inbound(self, fast: Fast, packets: list[bytes], at: Moment) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while len(outcomes) < len(packets):
            answered = fast.inbound(packets, len(outcomes), at)
            outcomes += answered
            if not answered:
                packet = packets[len(outcomes)]
                outcomes.append(self._inbound.receive(packet, at))
                fast.learn_inbound(packet, outcomes[-1], at)
        fast.settle()
        return outcomes

    # -- key management ------------------------------------------------------------------------------------------------

    def control(self, socket: int, octets: bytes, at: Moment) -> Answer:
        """A PF_KEY message of a client whose socket was opened by a notice."""
        self._tick(at)
        answer = self.server.receive(socket, octets, at)
        self._keys.deliver(answer.deliveries)
        self._sas_changed(at)
        return Answer(answer.errno, self._plane.take_events(), answer.refused)

    def has_dump(self, socket: int) -> bool:
        """Whether `pull` has something for this socket."""
        return self.server.has_dump(socket)

    def dumps(self, socket: int) -> int:
        """How many of its dumps are not at their ends."""
        return self.server.dumps(socket)

    def pull(self, socket: int, room_octets: int, at: Moment) -> tuple[bytes, ...]:
        """The next messages of the socket's dumps that fit."""
        self._tick(at)
        return self.server.pull(socket, room_octets, at)

    def overheard(self, socket: int, pulled: tuple[bytes, ...]) -> tuple[Event, ...]:
        """What promiscuous sockets hear of messages that were pulled."""
        self._keys.deliver(self.server.overheard(socket, pulled))
        return self._plane.take_events()

    # -- what the host knows -------------------------------------------------------------------------------------------

    def notice(self, notice: Notice, at: Moment) -> tuple[Event, ...]:
        """Take note of it. Raises Refused for a socket's policy that may not be, with nothing changed."""
        self._tick(at)
        plane = self._plane
        plane.generation += not isinstance(notice, _NO_NEWS_FOR_FLOWS)
        match notice:
            case Granted(slot, epoch, sequence_end, iv_count, iv_from):
                sa = self.sadb.by_handle(slot, epoch)
                if sa is not None:
                    if sa.awaits_grant:
                        self.sadb.relation_changed(sa, sa.agreement.index)  # from now on it serves
                    sequence.grant(sa, sequence_end, iv_count, iv_from)
                    self._outbound.granted(slot, epoch, at)
            case SocketPolicy(socket, policy, is_privileged):
                self.spd.set_socket(socket, policy, at, is_privileged)
            case SocketBound():
                plane.sockets.bind(notice)
            case SocketAccepted(listener, socket):
                self.spd.socket_accepted(listener, socket, at)
            case SocketGone(socket):
                self.spd.socket_gone(socket)
                plane.sockets.gone(socket)
            case PathMtu(destination, mtu_octets, 0):
                plane.paths.tell(destination, mtu_octets)
            case PathMtu(destination, mtu_octets, lasts_s):
                plane.paths.refused(destination, mtu_octets, at.after_s(lasts_s), plane.settings.limits.pmtu_entries)
            case PeerMoved():
                self._keys.peer_moved(notice)
                self._sas_changed(at)
            case KeySocketOpened(socket, name, pid, is_privileged):
                self.server.opened(socket, dialects.DIALECTS[name], pid, is_privileged)
            case KeySocketGone(socket):
                self.server.closed(socket)
            case LocalAddresses(addresses):
                plane.local = addresses
            case Bridged(addresses, prefixes):
                plane.local, plane.bridged = addresses, prefixes
            case EncapsulationPort(port, is_on):
                plane.ports = plane.ports | {port} if is_on else plane.ports - {port}
            case SendDummy(dst, spi, octets):
                self._outbound.send_dummy(dst, spi, octets, at)
            case InterfacePolicies(name, index, policies):
                # An interface's number stands where other policies have their priority, as in FreeBSD's messages.
                gone, come = self.spd.of_interface(name, (replace(policy, priority=index) for policy in policies), at)
                for entries, is_added in ((gone, False), (come, True)):
                    for entry in entries:
                        self._deliver(self.server.tell.announce(entry, is_added))
        return plane.take_events()

    # -- tunables ------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """All tunables at this moment."""
        return self._settings

    @property
    def latest(self) -> Moment:
        """The last moment it was told: for who has news in the middle of a burst."""
        return self._at

    def tune(self, name: str, text: str) -> tree.Change:
        """Set one tunable from text, as sysctl(8) does. Raises Refused, with nothing changed."""
        change = tree.set_value(self._settings, name, text, self.report)
        self._settings = self._plane.settings = change.settings
        self._keys.settings = change.settings
        self.sadb.tune(change.settings.ipcomp_level, _support(change.settings))
        self.server.tune(change.settings)
        self.spd.limit = change.settings.limits.policies
        if not change.settings.delete_grace_ns:
            self.sadb.grace.end_all()
        self.spd.generation += 1
        return change

    def read(self, name: str) -> str:
        """One tunable, as text. Raises Refused(ENOENT)."""
        return tree.read(self._settings, name, self.report)

    # -- time ----------------------------------------------------------------------------------------------------------

    def advance(self, at: Moment) -> tuple[Event, ...]:
        """Do what is due: lifetimes, larval SAs, policies, waiting packets, fragments, path MTUs."""
        self._tick(at)
        for expired in self.sadb.due(at):
            self._deliver(self.server.tell.expire(expired.sa, expired.is_hard))
        for entry in self.spd.due(at):
            self._deliver(self.server.tell.policy_expire(entry))
        self._keys.due(at)
        self._plane.paths.due(at)
        self._outbound.due(at)
        self._inbound.due(at)
        self._keepalives.due(at)
        self._sas_changed(at)
        if self._owns_arena:
            self.quiesce()
        return self._plane.take_events()

    def quiesce(self) -> None:
        """No worker holds a block of an SA that has gone: they may be used again, unless a dump shows them still."""
        if not self.server.is_dumping:
            self.sadb.quiesce()

    def next_deadline(self) -> Moment | None:
        """When to call `advance` at the latest; None: nothing is due."""
        ends = (
            self.sadb.next_deadline(), self.spd.next_deadline(), self._keys.next_deadline(), self._plane.paths.next_deadline(),
            self._outbound.next_deadline(), self._inbound.next_deadline(), self._keepalives.next_deadline(self._at),
        )  # fmt: skip
        return min((end for end in ends if end is not None), default=None)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _tick(self, at: Moment) -> None:
        if at < self._at:
            raise Bug(f"time runs backwards: {at.ns} after {self._at.ns}")
        self._at = at

    def _sas_changed(self, at: Moment) -> None:
        """Whoever waits for an SA or its keys looks again, if there is anything new."""
        changed = self.sadb.take_changed()
        if changed:
            self._outbound.sa_changed(changed, at)
            self._inbound.sa_changed(changed, at)

    def _deliver(self, deliveries: Iterable[Delivery]) -> None:
        self._keys.deliver(deliveries)

