"""Key management as traffic sees it: what is missing is asked for (ACQUIRE), what moved is told, what expired is delivered.

The glue between the SAD's suppression (sadb.acquire), the PF_KEY server that speaks to key managers, and the events of the stack.
It fulfils the protocol of traffic.plane. Not here: messages (pfkey.tell), packets that wait (traffic.hold).
"""

from collections.abc import Iterable
from dataclasses import replace

from koura.moment import NS_PER_S, Moment
from koura.notices import PeerMoved
from koura.pfkey.server import Asked, Server
from koura.pfkey.sockets import Delivery
from koura.pfkey.tell import Mapping, Wanted
from koura.sadb.acquire import Acquires
from koura.sadb.agreement import Agreement, Encapsulation
from koura.sadb.association import Association
from koura.sadb.database import Database as Sadb
from koura.saindex import SaIndex
from koura.settings import Settings
from koura.spd.entry import Entry
from koura.spd.selector import Flow
from koura.traffic.bundle import Missing
from koura.traffic.outcome import Event, ToKeySocket
from koura.traffic.plane import Seen

_MOST_TOLD = 4096  # SAs whose news of a moved peer is not repeated within a second


class KeyManagement:
    """What the stack knows of its key managers: the ACQUIREs under way, and the server to reach them by."""

    def __init__(self, sadb: Sadb, settings: Settings, acquires_from: int = 0) -> None:
        self._sadb = sadb
        self.settings = settings
        self._acquires = Acquires(acquires_from)
        self._server: Server | None = None
        self._events: list[Event] = []
        self._told: dict[tuple[int, int], tuple[tuple[bytes, int], int]] = {}

    @property
    def asked(self) -> Asked:
        """For the server."""
        return Asked(self.settled, self.failed, self.ask)

    def connect(self, server: Server, events: list[Event]) -> None:
        """The server is built with our callbacks, so it comes second; `events` is the stack's list."""
        self._server, self._events = server, events

    # -- what traffic says ---------------------------------------------------------------------------------------------

    def acquire(self, missing: Missing, flow: Flow, entry: Entry, at: Moment) -> None:
        """An SA is missing: ACQUIRE, unless one went out lately. pfkey.md §7."""
        settings = self.settings
        is_held = missing.is_needed and bool(settings.acquire_hold)
        seq = self._acquires.ask(missing.index, at, settings.key, settings.limits.acquires, is_held=is_held)
        if seq is not None:
            self.deliver(self._peer.tell.acquire(Wanted(missing.index, seq, entry)))

    def moved(self, sa: Association, seen: Seen, at: Moment) -> bool:
        """A packet that authenticated came from elsewhere: key managers are told, and with natt_roaming the SAs follow. RFC 3947 §5.2.

        Only the newest packet of a checked window moves anything (RFC 7296 §2.23: not without protection against replays). In
        transport mode the peer's address is the packet's own, and what comes from another one is another host's: only ports move.
        """
        told = (seen.src, seen.sport)
        before = self._told.get((sa.slot, sa.epoch))
        if before is None or before[0] != told or at.ns - before[1] >= NS_PER_S:
            if len(self._told) >= _MOST_TOLD:
                self._told.clear()
            self._told[sa.slot, sa.epoch] = told, at.ns
            self.deliver(self._peer.tell.mapping(Mapping(sa, *told)))
        index = sa.agreement.index
        is_elsewhere = any(index.src) and seen.src != index.src
        follows = bool(self.settings.natt_roaming) and seen.is_newest and (seen.is_tunnel or not is_elsewhere)
        if follows:
            for one in self._of_peer(sa):
                self._sadb.follow(one, _seen_at(one, one.agreement.index.src == index.src, seen, is_elsewhere))
        return follows

    def _of_peer(self, sa: Association) -> list[Association]:
        """The SAs to and from the peer of an inbound one: those that were made with its address and port, and of those for sending
        the ones with its reqid, where there are any. Several peers may be behind one address (RFC 3948 §5)."""
        index, around = sa.agreement.index, sa.agreement.encapsulation
        assert around is not None
        port = around.home[0]
        siblings = [one for one in self._sadb.between(index.src, index.dst, index.protocol) if _has(one, 0, port)]
        reverse = [one for one in self._sadb.between(index.dst, index.src, index.protocol) if _has(one, 1, port)]
        same = [one for one in reverse if one.agreement.index.reqid == index.reqid]
        return [one for one in siblings if one.agreement.index.reqid == index.reqid] + (same or reverse)

    # -- what key managers and the host say ----------------------------------------------------------------------------

    def settled(self, seq: int, index: SaIndex) -> None:
        """A key manager made an SA of this relation, under the number of an ACQUIRE or another."""
        self._acquires.settled(seq, index)

    def failed(self, seq: int) -> None:
        """A key manager gave this ACQUIRE up: the relation is left alone for its time."""
        self._acquires.failed(seq)

    def ask(self, index: SaIndex, at: Moment) -> int | None:
        """A client wants an ACQUIRE for this relation: its number, unless one went out lately."""
        return self._acquires.ask(index, at, self.settings.key, self.settings.limits.acquires)

    def peer_moved(self, moved: PeerMoved) -> None:
        """SAs in UDP to and from a peer take its new address and port; one whose SPI is taken there stays where it is."""
        for sa in self._sadb:
            agreement = _followed(sa.agreement, moved)
            index = agreement.index
            if agreement == sa.agreement:
                continue
            if index.dst != sa.agreement.index.dst and self._sadb.has_spi(index.dst, index.protocol, agreement.spi, index.src):
                continue
            self._sadb.renew(sa, agreement)

    def deliver(self, deliveries: Iterable[Delivery]) -> None:
        """Messages for key sockets become events of the stack."""
        self._events += [ToKeySocket(delivery.socket, delivery.octets) for delivery in deliveries]

    # -- time ----------------------------------------------------------------------------------------------------------

    def due(self, at: Moment) -> None:
        """Forget ACQUIREs that nobody answered."""
        self._acquires.due(at)

    def next_deadline(self) -> Moment | None:
        """When to call `due`."""
        return self._acquires.next_deadline()

    @property
    def _peer(self) -> Server:
        assert self._server is not None, "connect comes first"
        return self._server


def _has(sa: Association, end: int, port: int) -> bool:
    """Whether an SA was made with this UDP port as its source (0) or destination (1)."""
    around = sa.agreement.encapsulation
    return around is not None and around.home[end] == port


def _seen_at(sa: Association, is_inbound: bool, seen: Seen, is_elsewhere: bool) -> Encapsulation:
    around = sa.agreement.encapsulation
    assert around is not None
    peer = seen.src if is_elsewhere else b""
    if is_inbound:
        return replace(around, sport=seen.sport, peer=peer, agreed=around.home)
    return replace(around, dport=seen.sport, peer=peer, agreed=around.home)


def _followed(agreement: Agreement, moved: PeerMoved) -> Agreement:
    """The agreement with the moved peer where it was; the same one if that peer is not in it."""
    around, index = agreement.encapsulation, agreement.index
    if around is None:
        return agreement
    if (index.dst, around.dport) == (moved.old, moved.old_port):
        return replace(
            agreement, index=replace(index, dst=moved.new), encapsulation=replace(around, dport=moved.new_port),
        )  # fmt: skip
    if (index.src, around.sport) == (moved.old, moved.old_port):
        return replace(
            agreement, index=replace(index, src=moved.new), encapsulation=replace(around, sport=moved.new_port),
        )  # fmt: skip
    return agreement
