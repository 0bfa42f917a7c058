"""Key management as traffic sees it: what is missing is asked for (ACQUIRE), what moved is told, what expired is delivered.

The glue between the SAD's suppression (sadb.acquire), the PF_KEY server that speaks to key managers, and the events of the stack.
It fulfils the protocol of traffic.plane. Not here: messages (pfkey.tell), packets that wait (traffic.hold).
"""

from collections.abc import Iterable
from dataclasses import replace

from koura.moment import Moment
from koura.notices import PeerMoved
from koura.pfkey.server import Server
from koura.pfkey.sockets import Delivery
from koura.pfkey.tell import Mapping, Wanted
from koura.sadb.acquire import Acquires
from koura.sadb.agreement import Agreement
from koura.sadb.association import Association
from koura.sadb.database import Database as Sadb
from koura.saindex import SaIndex
from koura.settings import Settings
from koura.spd.entry import Entry
from koura.spd.selector import Flow
from koura.traffic.bundle import Missing
from koura.traffic.outcome import Event, ToKeySocket


class KeyManagement:
    """What the stack knows of its key managers: the ACQUIREs under way, and the server to reach them by."""

    def __init__(self, sadb: Sadb, settings: Settings, acquires_from: int = 0) -> None:
        self._sadb = sadb
        self.settings = settings
        self._acquires = Acquires(acquires_from)
        self._server: Server | None = None
        self._events: list[Event] = []

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

    def moved(self, sa: Association, src: bytes, sport: int, at: Moment) -> None:
        """A packet that authenticated came from elsewhere: key managers are told, and with natt_roaming the SAs follow. RFC 3947 §5.2."""
        self.deliver(self._peer.tell.mapping(Mapping(sa, src, sport)))
        around = sa.agreement.encapsulation
        if self.settings.natt_roaming and around is not None:
            self.peer_moved(PeerMoved(sa.agreement.index.src, around.sport, src, sport))

    # -- what key managers and the host say ----------------------------------------------------------------------------

    def settled(self, seq: int, index: SaIndex) -> None:
        """A key manager made an SA of this relation, under the number of an ACQUIRE or another."""
        self._acquires.settled(seq, index)

    def failed(self, seq: int) -> None:
        """A key manager gave this ACQUIRE up: the relation is left alone for its time."""
        self._acquires.failed(seq)

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
