"""The fast path of a stack: bursts to the engine, what it does not know to the reference, and what that decided back to the engine.

    outbound, inbound   as many outcomes as the engine has answers for, in order; fewer means: ask the reference for the next packet
    learn_*             what the reference made of a packet becomes a flow, if the engine can repeat it
    settle              what the engine counted goes where the reference counts

A flow of a virtual tunnel interface has a tag of its own, so that it meets no verdict of the host's or of another interface. Out of
which interface an opened packet comes is not the stack's business but its host's: `outlet_of` says it where native I/O delivers.

Nothing here decides: a flow is learned from the same functions that the reference asks (bundle.choose, pmtu.room, entry).
"""

from collections.abc import Callable
from typing import Any, ClassVar

from koura.entropy import Pooled
from koura.fast import drivers, ends
from koura.fast.known import Known
from koura.fast.learn import may_seal, outer_header
from koura.moment import NS_PER_S, Moment
from koura.reasons import AH_NO_SA, BYPASSED, DELIVERED, ESP_NO_SA, FORWARDED, NATT_AMBIGUOUS, POLICY_OUT_DISCARD, Discarded, Ending
from koura.sadb.association import Association
from koura.sadb.hot import UNLIMITED
from koura.saindex import Direction, Protocol, SaIndex
from koura.spd.entry import Entry
from koura.spd.policy import Action
from koura.spd.selector import Flow
from koura.traffic import bundle, latches, pmtu
from koura.traffic.inbound import Inbound
from koura.traffic.outbound import Outbound
from koura.traffic.outcome import Applied, Bypass, Deliver, Discard, Forward, Origin, Outcome
from koura.traffic.plane import Plane

# The policy, the history, whether it skips the packet filter, and what counts the end.
_Verdict = tuple[Entry | None, tuple[Applied, ...], bool, Ending]
_FlowFacts = tuple[int | None, bool, int, int, int]  # place of the SA, whether it wraps, room in octets, deadline in ns, outlet
_NO_SA: _FlowFacts = (None, False, 0, UNLIMITED, 0)
_OF_INTERFACE = 1 << 63  # tags of what comes from virtual tunnel interfaces
_ECHO = {1: (0, 8), 58: (128, 129)}
_LARGEST_ROOM = 65535
_UDP = 17
_NEGATIVES = 65536
_VERDICTS = 1 << 20


class FastPath:
    """One stack's. `plane`, `outbound`, `inbound`: what the reference works on. `names`: only these drivers, where any are named."""

    names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, plane: Plane, outbound: Outbound, inbound: Inbound, pool: Pooled, log2_sets: int = 17) -> None:
        self._plane, self._out, self._in = plane, outbound, inbound
        self._burst = drivers.engine(pool, log2_sets, self.names)
        self._known = Known(self._burst, self.settle)
        self._known_not: dict[tuple[object, ...], int] = {}
        self._verdicts: dict[tuple[object, ...], int] = {}
        self._generation = -1
        self._round = 0
        self._settings = plane.settings
        self._is_on = False
        self._ports: frozenset[int] = frozenset()
        self._interfaces: dict[str, int] = {}  # virtual tunnel interfaces in tags
        self._interface_count = 0
        self.outlet_of: Callable[[Applied], int | None] = lambda _applied: 0  # None: nobody can say now
        plane.sadb.relation_changed = self._relation_changed
        plane.sadb.spi_counted = self._burst.count_spi
        for sa in plane.sadb:
            self._burst.count_spi(sa.agreement.spi, 1)

    @property
    def engine(self) -> Any:
        """The engine itself, for native I/O (koura.fast._io)."""
        return self._burst

    def place_of(self, sa: Association) -> int:
        """Where the engine knows this SA. Raises KeyError where it does not."""
        return self._known.place(sa)

    def describe(self) -> str:
        """The drivers, the preferred first; or what makes it stand aside now."""
        plane, settings = self._plane, self._plane.settings
        for is_so, why in (
            (plane.tap.is_open, "a capture is open on enc0"), (plane.filter.rule is not None, "a packet filter is set on enc0"),
            (settings.test_replay or settings.test_integrity, "test_replay or test_integrity is set"),
            (self._is_asked(), "net.key.spdcache counts every question"),
            (len(self._ports) > drivers.MOST_PORTS, "ESP in UDP on too many ports"),
        ):  # fmt: skip
            if is_so:
                return f"off: {why}"
        return ", ".join(f"{name} {version}" for name, version in drivers.found().items() if not self.names or name in self.names)

    def _is_asked(self) -> bool:
        """The SPD's own cache counts every question: then every packet asks."""
        key = self._plane.settings.key
        return bool(key.spdcache_maxentries) and len(self._plane.spd) >= key.spdcache_threshold

    def tag(self, origin: Origin) -> int:
        """What of an origin policy looks at. An interface's number is good as long as it has policies; none is used twice."""
        if not origin.interface:
            return origin.socket << 1 | origin.is_forwarded
        number = self._interfaces.get(origin.interface)
        if number is None:
            self._interface_count += 1
            number = self._interfaces[origin.interface] = self._interface_count
        return _OF_INTERFACE | number << 1 | origin.is_forwarded

    # -- bursts --------------------------------------------------------------------------------------------------------

    def outbound(self, packets: list[bytes], start: int, origin: Origin, at: Moment) -> list[Outcome]:
        """Outcomes for packets[start:], ending before the first that is the reference's."""
        if not self.begin() or not _may_repeat(origin):
            return []
        found = self._burst.outbound(packets, start, self.tag(origin), at.ns)
        return [self._sent(kind, octets) for kind, octets, _ in found]

    def inbound(self, packets: list[bytes], start: int, at: Moment) -> list[Outcome]:
        """The same for packets that arrived."""
        if not self.begin():
            return []
        found = self._burst.inbound(packets, start, at.ns)
        return [self._came(kind, octets, verdict) for kind, octets, verdict in found]

    @staticmethod
    def _came(kind: int, octets: bytes, verdict: Any) -> Outcome:
        """verdict: a number of koura.fast.ends where policy was not asked."""
        if kind == drivers.DELIVER:
            return Deliver(octets, verdict[1], 0, verdict[2])
        return Discard(verdict[3] if isinstance(verdict, tuple) else ends.BY_NUMBER[verdict])

    @staticmethod
    def _sent(kind: int, octets: bytes) -> Outcome:
        if kind == drivers.FORWARD:
            return Forward((octets,))
        return Bypass((octets,)) if kind == drivers.BYPASS else Discard(POLICY_OUT_DISCARD)

    def begin(self) -> bool:
        """Whether the engine may answer now; SAs that have gone and flows of an older generation are forgotten."""
        plane = self._plane
        self._known.forget_changed()
        generation = plane.generation + plane.spd.generation
        if generation != self._generation or len(self._verdicts) >= _VERDICTS:
            self.settle()
            if plane.settings is not self._settings:
                self._known.forget()
            self._settings = plane.settings
            self._generation = generation
            self._round += 1
            self._burst.begin(self._round)
            self._verdicts.clear()
            settings = plane.settings
            self._ports = plane.ports | plane.sadb.encapsulated.ports()
            self._interfaces = {
                name: number for name, number in self._interfaces.items() if plane.spd.has_policies(Direction.OUTBOUND, name)
            }
            is_known = self._burst.configure(settings, sorted(self._ports))
            self._is_on = bool(is_known) and not (settings.test_replay or settings.test_integrity or self._is_asked())
        return self._is_on and not plane.tap.is_open and plane.filter.rule is None

    # -- learning ------------------------------------------------------------------------------------------------------

    def learn_outbound(self, packet: bytes, origin: Origin, at: Moment) -> None:
        """Remember what the reference made of a packet just now, if the engine can do the same."""
        shape = self._burst.shape(packet) if self._is_on and _may_repeat(origin) else None
        if shape is None or (shape[2] in _ECHO and shape[3] not in _ECHO[shape[2]]):
            return
        key = (*shape, self.tag(origin))
        if self._known_not.get(key) == self._age():
            return
        flow = _flow(shape)
        entry = self._out.entry(flow, packet, origin)
        action = self._out.action(entry, packet[0] >> 4)
        if action is Action.DISCARD or (entry is None and origin.interface):
            self._put(True, key, drivers.DISCARD, (entry, (), False, POLICY_OUT_DISCARD), _NO_SA)
            return
        if entry is None or action is not Action.IPSEC:
            self._put(True, key, drivers.BYPASS, (entry, (), False, BYPASSED), _NO_SA)
            return
        try:
            chosen = self._out.chosen(entry.policy, flow, packet)
        except Discarded as end:  # A tunnel that leads nowhere; or a peer that has said nothing yet, which may change any time.
            if end.reason is not NATT_AMBIGUOUS:
                self._note_not(key)
            return
        is_one = len(chosen.steps) == 1 and not chosen.missing and not self._asks_always(flow)
        if not is_one or not self._learn_step(key, packet, entry, chosen.steps[0], at):
            self._note_not(key)

    def _learn_step(self, key: tuple[Any, ...], packet: bytes, entry: Entry, step: bundle.Step, at: Moment) -> bool:
        """One SA, in tunnel or transport mode."""
        plane = self._plane
        place = self._place_of(step.sa) if may_seal(step.sa.agreement) else None
        if place is None:
            return False
        if step.outer is not None:
            if len(step.outer[0]) != len(step.outer[1]):
                return False
            self._burst.set_outer(place, outer_header(*step.outer))
        self._known.chosen(place, step.requirement.reqid)
        destination = step.outer[1] if step.outer is not None else key[1]
        mtu = plane.paths.mtu(destination, step.sa, at)
        room, deadline = _LARGEST_ROOM, UNLIMITED
        if mtu is not None:
            room = pmtu.room((step,), 20 if packet[0] >> 4 == 4 else 40, mtu, plane.settings)
            deadline = plane.paths.until_ns(step.sa, at) or UNLIMITED
        if plane.sadb.encapsulated.is_shared(key[0], key[1]):
            deadline = min(deadline, at.ns + latches.CHECK_S * NS_PER_S)
        self._put(True, key, drivers.FORWARD, (entry, (), False, FORWARDED), (place, step.outer is not None, room, deadline, 0))
        return True

    def learn_inbound(self, packet: bytes, outcome: Outcome, at: Moment) -> None:
        """The same for a packet that arrived, in clear or through one SA of ESP or AH."""
        if not self._is_on:
            return
        if isinstance(outcome, Discard):
            self._learn_discard(packet, outcome.reason)
        if not isinstance(outcome, Deliver) or outcome.fragment_octets or len(outcome.history) > 1:
            return
        shape, inner = self._burst.shape(packet, True), self._burst.shape(outcome.packet)
        if shape is None or inner is None:
            return
        key: tuple[Any, ...] = (*inner, 0)
        place, deadline, outlet = None, UNLIMITED, 0
        if outcome.history:
            applied = outcome.history[0]
            if applied.reqid in self._plane.spd.tunnels:
                said = self.outlet_of(applied)
                if said is None:
                    return
                outlet = said
            sa = self._plane.sadb.receiving(applied.dst, applied.protocol, applied.spi)
            place = self._place_of(sa) if sa is not None else None
            if place is None or self._asks_always(_flow(inner)):
                return
            if self._plane.sadb.encapsulated.is_shared(applied.dst, applied.src):
                deadline = at.ns + latches.CHECK_S * NS_PER_S
            self._burst.receives(place)
            key = (*inner, int(applied.was_tunnel) << 63 | place << 32 | self._burst.serial(place))
        entry = self._in.entry(_flow(inner))
        verdict = (entry, outcome.history, outcome.skips_filter, DELIVERED)
        self._put(False, key, drivers.DELIVER, verdict, (place, False, 0, deadline, outlet))

    def _asks_always(self, flow: Flow) -> bool:
        """Whether a flow, in either direction, may be one of several that differ in nothing the engine sees: echo of hosts behind a NAT."""
        sadb = self._plane.sadb
        around = sadb.encapsulated
        is_shared = around.has_shared and (around.is_shared(flow.src, flow.dst) or around.is_shared(flow.dst, flow.src))
        return is_shared and not latches.is_told_apart(flow)

    def _learn_discard(self, packet: bytes, reason: Ending) -> None:
        """What ended so will end so again: garbage for an SA, an SPI that no SA has, what policy refuses in clear."""
        shape = self._burst.shape(packet, True)
        if shape is None:
            return
        dst = shape[1]
        if reason in ends.OF_POLICY and self._burst.is_plain(packet):
            verdict = (self._in.entry(_flow(shape)), (), False, reason)
            self._put(False, (*shape, 0), drivers.DISCARD, verdict, _NO_SA)
        elif reason in ends.ABSENT and self._plane.is_ours(dst):
            self._burst.is_ours(dst)
        elif reason in ends.OF_AN_SA and self._plane.is_ours(dst):
            sa = self._plane.sadb.receiving(dst, *_named(shape, packet))
            place = self._place_of(sa) if sa is not None else None
            if place is not None:
                self._burst.receives(place)

    def _put(self, is_outbound: bool, key: tuple[Any, ...], kind: int, verdict: _Verdict, facts: _FlowFacts) -> None:
        """Into the table. What lies in its place is settled first, so that no count is lost."""
        name = (id(verdict[0]), *verdict[1:3], verdict[3].name)
        number = self._verdicts.get(name)
        if number is None:
            number = self._verdicts[name] = self._burst.add_verdict(verdict)
        if not self._burst.put_flow(is_outbound, key, kind, number, facts):
            self.settle()
            self._burst.put_flow(is_outbound, key, kind, number, facts)

    def _place_of(self, sa: Association) -> int | None:
        return self._known.tell(sa, self._plane.settings)

    def _relation_changed(self, sa: Association, index: SaIndex) -> None:
        self._known.changed(sa, index)
        if index.protocol is Protocol.ESP and self._plane.sadb.encapsulated.ports() - self._ports:
            self._generation = -1

    def _age(self) -> int:
        return self._generation << 32 | self._plane.sadb.generation & 0xFFFF_FFFF

    def _note_not(self, key: tuple[object, ...]) -> None:
        if len(self._known_not) >= _NEGATIVES:
            self._known_not.clear()
        self._known_not[key] = self._age()

    # -- settling ------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Bring what the engine counted to where it is read: reasons, ipsecstat, esp, policies, enc0."""
        flows, sas, tap, absent = self._burst.settled()
        for (entry, _, _, ending), is_ipv6, packets, octets, last_ns in flows:
            self._count(ending, is_ipv6, packets)
            if entry is not None:
                entry.packets += packets
                entry.octets += octets
                entry.last_used = max(entry.last_used, Moment(last_ns))
        for row in sas:
            self._count_sa(*row)
        if any(absent):
            counters = self._plane.tally.counters
            for name, packets in ((ESP_NO_SA.name, absent[0] + absent[1]), ("esp.input", absent[0]), (AH_NO_SA.name, absent[2]),
                                  ("ah.input", absent[2])):  # fmt: skip
                if packets:
                    counters.add(name, packets)
        enc = self._plane.tap
        enc.out_packets += tap[0]
        enc.out_octets += tap[1]
        enc.in_packets += tap[2]
        enc.in_octets += tap[3]

    def _count(self, ending: Ending, is_ipv6: bool, packets: int) -> None:
        counters = self._plane.tally.counters
        counters.add(ending.name, packets)
        if ending.bsd.startswith("ips_"):
            counters.add(f"{'ipsec6' if is_ipv6 else 'ipsec'}.{ending.bsd.removeprefix('ips_')}", packets)

    def _count_sa(
        self, place: int, sealed: int, sealed_octets: int, came: int, opened: int, opened_octets: int, failed: tuple[int, ...]
    ) -> None:
        """One SA's; failed: how many ended in each way of koura.fast.ends."""
        counters = self._plane.tally.counters
        sa = self._known.at(place)
        agreement = sa.agreement
        protocol = agreement.index.protocol
        section = "esp" if protocol is Protocol.ESP else "ah"
        row = agreement.encryption or agreement.integrity
        assert row is not None
        for name, count in (
            ("output", sealed), ("obytes", sealed_octets), ("input", came), ("ibytes", opened_octets),
            (f"hist.{row.name}", sealed + opened),
        ):  # fmt: skip
            if count:
                counters.add(f"{section}.{name}", count)
        for number, count in enumerate(failed):
            if count:
                ending = ends.BY_PROTOCOL[protocol][number]
                counters.add(ending.name, count)
                sa.failures[ending.name] = sa.failures.get(ending.name, 0) + count


def _flow(shape: tuple[Any, ...]) -> Flow:
    """What policy sees of a packet that the engine takes: there is no AH in it."""
    return Flow(*shape)


def _may_repeat(origin: Origin) -> bool:
    """Whether a tag can say all of an origin."""
    return not origin.fragment_octets and not (origin.interface and origin.socket)


def _named(shape: tuple[Any, ...], packet: bytes) -> tuple[Protocol, int]:
    """(protocol, SPI) that a packet of this shape shows."""
    start = 20 if len(shape[1]) == 4 else 40
    if shape[2] == Protocol.AH:
        return Protocol.AH, int.from_bytes(packet[start + 4 : start + 8], "big")
    start += 8 if shape[2] == _UDP else 0
    return Protocol.ESP, int.from_bytes(packet[start : start + 4], "big")
