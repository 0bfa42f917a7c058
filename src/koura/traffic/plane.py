"""Plane: what both directions of one stack work on.

`stack` fills it and hands out the events; `outbound` and `inbound` read it and change what packets change. Settings are replaced
whole by `stack.tune`, so whoever needs two tunables of one moment takes `settings` once.
"""

from dataclasses import dataclass, field
from typing import Protocol

from koura.address import Prefix, is_unspecified, nearest
from koura.enc import tap
from koura.enc.filter import BEFORE, FILTERED, Filter
from koura.enc.tap import Tap
from koura.entropy import Entropy
from koura.moment import Moment
from koura.reasons import ENC_FILTER_IN, ENC_FILTER_OUT, Discarded, Ending
from koura.sadb.association import Association
from koura.sadb.database import Database as Sadb
from koura.saindex import Direction
from koura.settings import Settings
from koura.spd.cache import Cache
from koura.spd.database import Database as Spd
from koura.spd.entry import Entry
from koura.spd.selector import Flow
from koura.traffic.bundle import Missing
from koura.traffic.fragments import Reassembly
from koura.traffic.latches import Latches
from koura.traffic.outcome import Event, Tapped
from koura.traffic.pmtu import Paths
from koura.traffic.sockets import Sockets
from koura.traffic.tally import Tally
from koura.wire import natt
from koura.xform.base import Context
from koura.xform.place import Place


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a peer was seen. is_newest: by the highest number of a checked window; a replayed or late packet proves nothing."""

    src: bytes
    sport: int
    is_newest: bool
    is_tunnel: bool


class KeyManagement(Protocol):
    """What traffic tells key management: pfkey.server behind it, seen from here."""

    def acquire(self, missing: Missing, flow: Flow, entry: Entry, at: Moment) -> None:
        """An SA is missing; whether anybody is told is a matter of suppression (pfkey.md §7)."""
        ...

    def moved(self, sa: Association, seen: Seen, at: Moment) -> bool:
        """A packet that authenticated came from another address or port than the SA's; whether the SA follows. RFC 3947 §5.2."""
        ...


@dataclass(slots=True)
class Plane:
    """Everything but the two directions' own queues."""

    sadb: Sadb
    spd: Spd
    tally: Tally
    settings: Settings
    entropy: Entropy
    keys: KeyManagement
    tap: Tap
    filter: Filter
    answers: Cache = field(default_factory=Cache)
    paths: Paths = field(default_factory=Paths)
    sockets: Sockets = field(default_factory=Sockets)
    local: frozenset[bytes] | None = None
    bridged: tuple[Prefix, ...] | None = None  # a bump in the wire: what it protects besides `local`; None: no bump
    ports: frozenset[int] = frozenset((natt.PORT,))
    events: list[Event] = field(default_factory=list)
    latches: Latches = field(init=False)
    generation: int = 0  # moves with everything but policies and SAs that a flow's fate depends on
    out_fragments: Reassembly = field(default_factory=Reassembly)
    in_fragments: Reassembly = field(default_factory=Reassembly)

    def __post_init__(self) -> None:
        self.latches = Latches(self.sadb)

    def is_ours(self, address: bytes) -> bool:
        """Whether a packet to this address is for this host; multicast and broadcast are the host's to say (LocalAddresses)."""
        if self.local is None or address in self.local:
            return True
        return self.bridged is not None and any(prefix.contains(address) for prefix in self.bridged)

    def match(self, direction: Direction, flow: Flow) -> Entry | None:
        """The SPD's answer, from its cache where that is on (M6), which is counted (S33)."""
        entry, was_known = self.answers.match(self.spd, direction, flow, self.settings.key)
        if was_known is not None:
            section = "ipsec" if len(flow.src) == 4 else "ipsec6"
            self.tally.counters.add(f"{section}.{'spdcache_hits' if was_known else 'spdcache_misses'}")
        return entry

    def context(self, at: Moment) -> Context:
        """What a transform may know besides the packet and the SA."""
        return Context(self.settings, at, self.entropy)

    def own_address(self, towards: bytes, *others: bytes) -> bytes:
        """An address of this host to speak to somebody from: the nearest to his, else the first of the others; b'': none known.

        None that means nothing outside this host or link: who hears it from ::1 does not listen (RFC 4291 §2.5.3).
        """
        near = nearest(self.local or (), towards)
        fit = (address for address in others if len(address) == len(towards) and not is_unspecified(address))
        return near or next(fit, b"")

    def show_outbound(self, stage: int, sa: Association, packet: bytes) -> None:
        """enc(4) on the way out. Raises Discarded(ENC_FILTER_OUT) where the filter refuses."""
        self._show(stage, Direction.OUTBOUND, sa, packet, ENC_FILTER_OUT)

    def show_inbound(self, stage: int, sa: Association, packet: bytes | Place) -> None:
        """enc(4) on the way in. Raises Discarded(ENC_FILTER_IN) where the filter refuses."""
        self._show(stage, Direction.INBOUND, sa, packet, ENC_FILTER_IN)

    def _show(self, stage: int, direction: Direction, sa: Association, shown: bytes | Place, refusal: Ending) -> None:
        """A packet that is parted is put together only for those who look at it."""
        if stage == BEFORE:
            self.tap.count(stage, direction, len(shown) if isinstance(shown, bytes) else shown.octets)
        if not self.tap.is_open and self.filter.rule is None:
            return
        packet = shown if isinstance(shown, bytes) else shown.packet
        enc = self.settings.enc
        spi = sa.agreement.spi
        is_outbound = direction is Direction.OUTBOUND
        mask = enc.out_filter_mask if is_outbound else enc.in_filter_mask
        if self.tap.wants(stage, direction, enc):
            self.events.append(Tapped(is_outbound, stage, spi, tap.flags(sa.agreement), packet))
        if not mask & stage:
            return
        if not self.filter.pass_or_block(stage, direction, packet):
            raise Discarded(refusal, sa)
        if self.tap.wants(FILTERED, direction, enc):
            self.events.append(Tapped(is_outbound, FILTERED, spi, tap.flags(sa.agreement), packet))

    def take_events(self) -> tuple[Event, ...]:
        events = tuple(self.events)
        self.events.clear()
        return events
