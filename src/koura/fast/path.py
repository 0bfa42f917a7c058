"""The fast path of a stack: bursts to the engine, what it does not know to the reference, and what that decided back to the engine.

    outbound, inbound   as many outcomes as the engine has answers for, in order; fewer means: ask the reference for the next packet
    learn_*             what the reference made of a packet becomes a flow, if the engine can repeat it
    settle              what the engine counted goes where the reference counts

Nothing here decides: a flow is learned from the same functions that the reference asks (bundle.choose, pmtu.room, entry).
"""

from typing import Any

from koura.entropy import Pooled
from koura.fast import drivers
from koura.fast.learn import facts_of, may_seal, outer_header
from koura.moment import Moment
from koura.reasons import BYPASSED, DELIVERED, FORWARDED, POLICY_OUT_DISCARD, Discarded
from koura.sadb.association import Association
from koura.sadb.hot import UNLIMITED
from koura.saindex import Protocol, SaIndex
from koura.spd.entry import Entry
from koura.spd.policy import Action
from koura.spd.selector import Flow
from koura.traffic import bundle, pmtu
from koura.traffic.inbound import Inbound
from koura.traffic.outbound import Outbound
from koura.traffic.outcome import Applied, Bypass, Deliver, Discard, Forward, Origin, Outcome
from koura.traffic.plane import Plane

_Verdict = tuple[Entry | None, tuple[Applied, ...], bool]  # the policy, the history, whether it skips the packet filter
_FlowFacts = tuple[int | None, bool, int, int]  # place of the SA, whether it wraps, room in octets, deadline in ns
_ECHO = {1: (0, 8), 58: (128, 129)}
_LARGEST_ROOM = 65535
_NEGATIVES = 65536


class FastPath:
    """One stack's. `plane`, `outbound`, `inbound`: what the reference works on."""

    def __init__(self, plane: Plane, outbound: Outbound, inbound: Inbound, pool: Pooled, log2_sets: int = 13) -> None:
        self._plane, self._out, self._in = plane, outbound, inbound
        self._burst = drivers.engine(pool, log2_sets)
        self._cells: dict[tuple[bytes, bytes, int], int] = {}
        self._cell_values: list[int] = []
        self._cell_room = 0
        self._places: dict[int, tuple[int, Association, object]] = {}  # slot -> place, the SA, its agreement
        self._by_place: dict[int, Association] = {}
        self._free: list[int] = []
        self._known_not: dict[tuple[object, ...], int] = {}
        self._verdicts: dict[tuple[object, ...], int] = {}
        self._generation = -1
        self._settings = plane.settings
        self._is_on = False
        self._ports: frozenset[int] = frozenset()
        plane.sadb.relation_changed = self._relation_changed

    @property
    def engine(self) -> Any:
        """The engine itself, for native I/O (koura.fast._io)."""
        return self._burst

    # -- bursts --------------------------------------------------------------------------------------------------------

    def outbound(self, packets: list[bytes], start: int, origin: Origin, at: Moment) -> list[Outcome]:
        """Outcomes for packets[start:], ending before the first that is the reference's."""
        if not self.begin() or origin.fragment_octets:
            return []
        found = self._burst.outbound(packets, start, _tag(origin), at.ns)
        return [self._sent(kind, octets) for kind, octets, _ in found]

    def inbound(self, packets: list[bytes], start: int, at: Moment) -> list[Outcome]:
        """The same for packets that arrived."""
        if not self.begin():
            return []
        found = self._burst.inbound(packets, start, at.ns)
        return [Deliver(octets, verdict[1], 0, verdict[2]) for _, octets, verdict in found]

    @staticmethod
    def _sent(kind: int, octets: bytes) -> Outcome:
        if kind == drivers.FORWARD:
            return Forward((octets,))
        return Bypass((octets,)) if kind == drivers.BYPASS else Discard(POLICY_OUT_DISCARD)

    def begin(self) -> bool:
        """Whether the engine may answer now; flows of an older generation are forgotten."""
        plane = self._plane
        generation = plane.generation + plane.spd.generation
        if generation != self._generation:
            self.settle()
            self._forget_sas(plane.settings is not self._settings)
            self._settings = plane.settings
            self._generation = generation
            self._burst.begin(generation)
            self._verdicts.clear()
            settings = plane.settings
            self._ports = plane.ports | plane.sadb.udp_ports()
            is_known = self._burst.configure(settings, sorted(self._ports))
            # The SPD's own cache counts every question: then every packet asks.
            is_asked = settings.key.spdcache_maxentries and len(plane.spd) >= settings.key.spdcache_threshold
            self._is_on = bool(is_known) and not (settings.test_replay or settings.test_integrity or is_asked)
        return self._is_on and not plane.tap.is_open and plane.filter.rule is None

    # -- learning ------------------------------------------------------------------------------------------------------

    def learn_outbound(self, packet: bytes, origin: Origin, at: Moment) -> None:
        """Remember what the reference made of a packet just now, if the engine can do the same."""
        shape = self._burst.shape(packet) if self._is_on and not origin.fragment_octets else None
        if shape is None or (shape[2] in _ECHO and shape[3] not in _ECHO[shape[2]]):
            return
        key = (*shape, _tag(origin))
        if self._known_not.get(key) == self._age():
            return
        plane = self._plane
        flow = _flow(shape)
        entry = self._out.entry(flow, packet, origin)
        action = self._out.action(entry, packet[0] >> 4)
        if action is Action.DISCARD:
            self._put(True, key, drivers.DISCARD, (entry, (), False), (None, False, 0, UNLIMITED))
            return
        if entry is None or action is not Action.IPSEC:
            self._put(True, key, drivers.BYPASS, (entry, (), False), (None, False, 0, UNLIMITED))
            return
        try:
            chosen = bundle.choose(entry.policy, flow, plane.sadb, plane.settings)
        except Discarded:  # A tunnel that leads nowhere.
            self._note_not(key)
            return
        if chosen.missing or len(chosen.steps) != 1 or not self._learn_step(key, packet, entry, chosen.steps[0], at):
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
        destination = step.outer[1] if step.outer is not None else key[1]
        mtu = plane.paths.mtu(destination, step.sa, at)
        room, deadline = _LARGEST_ROOM, UNLIMITED
        if mtu is not None:
            room = pmtu.room((step,), 20 if packet[0] >> 4 == 4 else 40, mtu, plane.settings)
            deadline = plane.paths.until_ns(step.sa, at) or UNLIMITED
        self._put(True, key, drivers.FORWARD, (entry, (), False), (place, step.outer is not None, room, deadline))
        return True

    def learn_inbound(self, packet: bytes, outcome: Outcome, at: Moment) -> None:
        """The same for a packet that arrived, in clear or through one ESP SA."""
        if not self._is_on or not isinstance(outcome, Deliver) or outcome.fragment_octets or len(outcome.history) > 1:
            return
        shape, inner = self._burst.shape(packet), self._burst.shape(outcome.packet)
        if shape is None or inner is None:
            return
        key: tuple[Any, ...] = (*inner, 0)
        place = None
        if outcome.history:
            applied = outcome.history[0]
            sa = self._plane.sadb.by_spi(applied.dst, applied.protocol, applied.spi)
            place = self._place_of(sa) if sa is not None and applied.protocol is Protocol.ESP else None
            if place is None:
                return
            key = (*inner, int(applied.was_tunnel) << 63 | place << 32 | self._burst.serial(place))
        entry = self._in.entry(_flow(inner))
        self._put(False, key, drivers.DELIVER, (entry, outcome.history, outcome.skips_filter), (place, False, 0, UNLIMITED))

    def _put(self, is_outbound: bool, key: tuple[Any, ...], kind: int, verdict: _Verdict, facts: _FlowFacts) -> None:
        """Into the table. What lies in its place is settled first, so that no count is lost."""
        name = (id(verdict[0]), *verdict[1:])
        number = self._verdicts.get(name)
        if number is None:
            number = self._verdicts[name] = self._burst.add_verdict(verdict)
        if not self._burst.put_flow(is_outbound, key, kind, number, facts):
            self.settle()
            self._burst.put_flow(is_outbound, key, kind, number, facts)

    def _place_of(self, sa: Association) -> int | None:
        """Where the engine knows this SA, told anew if its agreement or its relation changed; None: it does not take it."""
        known = self._places.get(sa.slot)
        cell = self._cell_of(sa.agreement.index)
        current = (sa.epoch, sa.agreement, self._cell_values[cell])
        if known is not None and known[2] == current:
            return known[0]
        facts = facts_of(sa, self._plane.settings, (cell, self._cell_values[cell]))
        window = sa.window
        if facts is None or window is None:
            return None
        if known is not None:
            self.settle()
        free = known[0] if known is not None else self._free.pop() if self._free else None
        place: int | None = self._burst.put_sa(free, facts, sa.hot.words, window.ring if window.packets else None)
        if place is None:
            return None
        self._places[sa.slot] = (place, sa, current)
        self._by_place[place] = sa
        return place

    def _forget_sas(self, is_all: bool) -> None:
        """Drop what the engine holds of SAs that have gone; of all where tunables changed."""
        for slot, (place, sa, _) in list(self._places.items()):
            if sa.is_usable and not is_all:
                continue
            self._burst.drop_sa(place)
            self._free.append(place)
            del self._places[slot], self._by_place[place]

    def _cell_of(self, index: SaIndex) -> int:
        pair = (index.src, index.dst, int(index.protocol))
        cell = self._cells.get(pair)
        if cell is None:
            cell = self._cells[pair] = len(self._cell_values)
            self._cell_values.append(0)
            if cell >= self._cell_room:
                self._cell_room = max(64, 2 * self._cell_room)
                self._burst.set_cells(self._cell_room)
            self._burst.set_cell(cell, 0)
        return cell

    def _relation_changed(self, index: SaIndex) -> None:
        pair = (index.src, index.dst, int(index.protocol))
        cell = self._cells.get(pair)
        if cell is not None:
            self._cell_values[cell] += 1
            self._burst.set_cell(cell, self._cell_values[cell])
        if index.protocol is Protocol.ESP and self._plane.sadb.udp_ports() - self._ports:
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
        flows, sas, tap = self._burst.settled()
        for (entry, _, _), kind, is_ipv6, packets, octets, last_ns in flows:
            self._count(kind, is_ipv6, packets)
            if entry is not None:
                entry.packets += packets
                entry.octets += octets
                entry.last_used = max(entry.last_used, Moment(last_ns))
        self._count_sas(sas)
        enc = self._plane.tap
        enc.out_packets += tap[0]
        enc.out_octets += tap[1]
        enc.in_packets += tap[2]
        enc.in_octets += tap[3]

    def _count(self, kind: int, is_ipv6: bool, packets: int) -> None:
        counters = self._plane.tally.counters
        ending = {
            drivers.FORWARD: FORWARDED, drivers.BYPASS: BYPASSED, drivers.DELIVER: DELIVERED, drivers.DISCARD: POLICY_OUT_DISCARD,
        }[kind]  # fmt: skip
        counters.add(ending.name, packets)
        if kind == drivers.DISCARD:
            counters.add(f"{'ipsec6' if is_ipv6 else 'ipsec'}.{ending.bsd.removeprefix('ips_')}", packets)

    def _count_sas(self, sas: list[tuple[int, int, int, int, int]]) -> None:
        counters = self._plane.tally.counters
        for place, sealed, sealed_octets, opened, opened_octets in sas:
            encryption = self._by_place[place].agreement.encryption
            assert encryption is not None
            for name, packets, octets_name, octets in (
                ("esp.output", sealed, "esp.obytes", sealed_octets), ("esp.input", opened, "esp.ibytes", opened_octets),
            ):  # fmt: skip
                if packets:
                    counters.add(name, packets)
                    counters.add(octets_name, octets)
            counters.add(f"esp.hist.{encryption.name}", sealed + opened)


def _flow(shape: tuple[Any, ...]) -> Flow:
    """What policy sees of a packet that the engine takes: there is no AH in it."""
    return Flow(*shape)


def _tag(origin: Origin) -> int:
    """What of an origin policy looks at."""
    return origin.socket << 1 | origin.is_forwarded
