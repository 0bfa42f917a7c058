"""A packet on its way in: what it is, what comes off it, and whether policy takes what is left. RFC 4301 §5.2; processing.md §5, §6.

    1 the IP header is right, fragments put together     6 enc BEFORE, strip the tunnel's header, enc AFTER
    2 for this host? what is it? (demultiplex)           7 note the SA in the history; again from 1
    3 its SA; a larval one: wait for the keys            8 in clear at last: socket's policy, SPD, default (verify)
    4 check, authenticate, commit (xform.input)          9 Deliver: to this host, or to whoever forwards
    5 NAT's checksums repaired

Rules of the file:
- A packet to another host is judged by policy with the history it has: none, or that of the tunnel it came in.
- Fragments meet only fragments that came the same way: same protocols (but for IPComp), endpoints and reqids, whatever the SPI (a
  rekey may fall between two fragments).
- A larval SA's packets wait with the history they have, so that nothing is authenticated twice.
- Once something is stripped nothing is committed that a later refusal would have to take back: the window of an outer SA has
  moved though the inner packet is refused, as RFC 4303 §3.4.3 has it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from koura.errors import Malformed
from koura.moment import Moment
from koura.quick import quick
from koura.reasons import (
    AH_INNER,
    ESP_INNER,
    FRAG_TIMEOUT,
    HELD_FRAGMENT,
    HELD_LARVAL,
    IP_CHECKSUM,
    IP_MALFORMED,
    IPCOMP_INNER,
    POLICY_IN_DISCARD,
    POLICY_IN_SELECTOR,
    PUNTED_IKE,
    SA_LARVAL_LIMIT,
    SA_LARVAL_TIMEOUT,
    SA_NESTING,
    TUNNEL_SOURCE,
    Discarded,
)
from koura.sadb.association import Association, State
from koura.saindex import Direction, Mode, Pair, Protocol
from koura.spd.entry import Entry
from koura.spd.policy import Action
from koura.spd.selector import Flow
from koura.traffic import fragments, icmp, mss, tcpkeys, verify
from koura.traffic.demultiplex import Found, Kind, associate, demultiplex
from koura.traffic.flow import flow_of, is_neighbour_discovery
from koura.traffic.hold import Holds, Waiting
from koura.traffic.outcome import Applied, Deliver, Discard, Held, Outcome, Punt, Released
from koura.traffic.plane import Plane, Seen
from koura.wire import ipv4
from koura.wire.summary import Summary, summarise
from koura.xform import base, natt, place, tunnel

_BEFORE, _AFTER = 1, 2
_IPIP = (4, 41)
_TCP = 6
_PROTECTING = (Protocol.ESP, Protocol.AH, Protocol.IPCOMP)
_INNER = {Protocol.ESP: ESP_INNER, Protocol.AH: AH_INNER, Protocol.IPCOMP: IPCOMP_INNER}
_History = tuple[Applied, ...]
_Spi = tuple[bytes, int, int]  # destination, protocol, SPI


@quick
@dataclass(frozen=True, slots=True)
class _Clear:
    """What is left of a packet, and what came off it: for policy to judge."""

    packet: bytes
    summary: Summary
    history: _History
    fragment_octets: int


class Inbound:
    """The inbound direction, and the packets that wait in it."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._for_keys: Holds[_Spi] = Holds(lambda spi: spi[:2])

    def receive(self, packet: bytes, at: Moment, history: _History = ()) -> Outcome:
        """What becomes of a packet that arrived. Never raises but for a Bug: every end is an outcome, counted here.

        history: what came off it before it had to wait; () for a packet from the network.
        """
        try:
            outcome = self._uncover(packet, history, at)
            if isinstance(outcome, _Clear):
                packet = outcome.packet  # Policy's refusals count under the family of what it was asked about.
                outcome = self._judge(packet, outcome.summary, outcome.history, outcome.fragment_octets, at)
        except Discarded as end:
            self._plane.tally.discarded(end, packet)
            return Discard(end.reason)
        self._plane.tally.ended(outcome)
        return outcome

    def sa_changed(self, changed: Iterable[Pair], at: Moment) -> None:
        """Take up again what waited for keys that are there by now, or for an SA that is gone, between these pairs of addresses."""
        sadb = self._plane.sadb
        ends = dict.fromkeys((dst, protocol) for _, dst, protocol in changed)
        for waiting in self._for_keys.take(ends, lambda key: not _is_larval(sadb.by_spi(key[0], Protocol(key[1]), key[2]))):
            assert isinstance(waiting.came, tuple)
            self._plane.events.append(Released(self.receive(waiting.packet, at, waiting.came), False, waiting.packet))

    def due(self, at: Moment) -> None:
        """End what has waited too long: for keys, or for the other fragments."""
        plane = self._plane
        for waiting in self._for_keys.due(at):
            plane.tally.discarded(Discarded(SA_LARVAL_TIMEOUT), waiting.packet)
            plane.events.append(Released(Discard(SA_LARVAL_TIMEOUT), False))
        for expired in plane.in_fragments.due(at):
            for _ in range(expired.count):
                plane.tally.discarded(Discarded(FRAG_TIMEOUT), expired.first)
                plane.events.append(Released(Discard(FRAG_TIMEOUT), False))

    def next_deadline(self) -> Moment | None:
        """When to call `due`."""
        ends = (self._for_keys.next_deadline(), self._plane.in_fragments.next_deadline())
        return min((end for end in ends if end is not None), default=None)

    # -- the recipe ----------------------------------------------------------------------------------------------------

    def _uncover(self, packet: bytes, history: _History, at: Moment) -> "Outcome | _Clear":
        """Steps 1 to 7: until nothing is left to take off, or the packet waits or goes elsewhere. Raises Discarded."""
        plane = self._plane
        fragment_octets = 0
        while True:
            summary = self._summarise(packet)
            if summary.is_fragment:
                whole = plane.in_fragments.add(packet, at, plane.settings.limits, _way(history))
                if whole is None:
                    return Held(HELD_FRAGMENT)
                packet, fragment_octets = whole.packet, whole.fragment_octets
                summary = self._summarise(packet)
            if not plane.is_ours(summary.dst):
                return _Clear(packet, summary, history, fragment_octets)
            if summary.protocol in _PROTECTING:
                plane.tally.came(summary.protocol)
                whole_octets = fragments.without_atomic(packet, summary)
                if whole_octets is not packet:
                    packet, summary = whole_octets, self._summarise(whole_octets)
            found = demultiplex(packet, summary, plane.ports, plane.sadb, plane.settings)
            if found.kind is Kind.IKE:
                return Punt(packet, PUNTED_IKE) if plane.bridged is None else _Clear(packet, summary, history, fragment_octets)
            if found.kind is Kind.PROTECTED:
                sa = associate(found, plane.sadb, plane.settings)
                if _is_larval(sa):
                    return self._wait(packet, history, found, at)
                if len(history) >= plane.settings.limits.nesting:
                    raise Discarded(SA_NESTING, sa)
                packet, applied = self._undo(found, sa, at)
            else:
                sa_or_none = self._uncompressed(packet, summary)
                if sa_or_none is None:
                    return _Clear(packet, summary, history, fragment_octets)
                parted = place.for_input(packet)
                packet, applied = self._strip(parted, sa_or_none, summary.src, plane.context(at)), _applied(sa_or_none, True, summary.src)
            history = (*history, applied)
            fragment_octets = 0

    def _summarise(self, packet: bytes) -> Summary:
        """Step 1. RFC 1122 §3.2.1.2: a wrong header checksum ends the packet."""
        try:
            summary = summarise(packet)
        except Malformed as fault:
            raise Discarded(IP_MALFORMED) from fault
        if summary.version == 4 and not ipv4.is_checksum_right(packet):
            raise Discarded(IP_CHECKSUM)
        return summary

    def _undo(self, found: Found, sa: Association, at: Moment) -> tuple[bytes, Applied]:
        """Steps 4 to 6: one SA's protection off. Raises Discarded."""
        plane = self._plane
        context = plane.context(at)
        if found.ports:
            plane.tally.came(Protocol.ESP)
        try:
            opened = base.input(sa, found.packet, context)
        except Discarded as end:
            plane.tally.opened(sa, found.packet, end)
            raise
        plane.tally.opened(sa, found.packet)
        mode = sa.agreement.index.mode
        is_tunnel = mode != Mode.TRANSPORT and opened.next_header in _IPIP
        if found.ports and not sa.is_retired:
            is_newest = sa.window is not None and sa.window.packets > 0 and sa.window.top == opened.seq64
            self._note_peer(found, sa, is_tunnel if is_newest else None, at)
        if mode == Mode.TUNNEL and not is_tunnel:
            plane.sadb.use(sa, len(opened.packet), at)  # It authenticated: the SA was used, whatever becomes of the packet.
            raise Discarded(_INNER[found.protocol], sa)
        if is_tunnel:
            packet = self._strip(opened.place, sa, found.src, context)
        else:
            packet = opened.packet
            if sa.agreement.encapsulation is not None:
                packet = natt.repair(sa, packet, context)
            plane.show_inbound(_BEFORE, sa, packet)
            plane.show_inbound(_AFTER, sa, packet)
        plane.sadb.use(sa, len(packet), at)
        return packet, _applied(sa, is_tunnel, found.src)

    def _strip(self, parted: place.Place, sa: Association, src: bytes, context: base.Context) -> bytes:
        """Step 6: enc, the tunnel's header off (ECN), enc."""
        plane = self._plane
        index = sa.agreement.index
        if plane.settings.check_tunnel_source and any(index.src) and src != sa.agreement.comes_from:
            raise Discarded(TUNNEL_SOURCE, sa)
        plane.show_inbound(_BEFORE, sa, parted)
        inner = tunnel.strip(parted, context, sa)
        plane.show_inbound(_AFTER, sa, inner)
        return inner

    def _uncompressed(self, packet: bytes, summary: Summary) -> Association | None:
        """The IPComp tunnel SA for whose peer this plain IP in IP is what did not compress (M21); None: it is a packet like others.

        It carries no CPI: of several SAs between these two the one counts by whose policies this inner packet may come.
        """
        if summary.protocol not in _IPIP or not self._plane.settings.ipcomp_enable:
            return None
        between = self._plane.sadb.between(summary.src, summary.dst, Protocol.IPCOMP)
        found = [sa for sa in between if sa.is_usable and self._is_tunnel(sa, summary.src)]
        if len(found) < 2:
            return found[0] if found else None
        inner = packet[summary.offset : summary.octets]
        try:
            flow = flow_of(summarise(inner), inner)
        except Malformed:
            return found[0]
        named = ((sa, _applied(sa, True, summary.src)) for sa in found)
        spd = self._plane.spd
        fitting = (sa for sa, way in named if spd.named_by(Direction.INBOUND, way) and spd.permits(Direction.INBOUND, way, flow))
        return next(fitting, found[0])

    def _is_tunnel(self, sa: Association, src: bytes) -> bool:
        """Whether an IPComp SA is a tunnel's: by its mode or, where that is `any`, by an inbound policy that uses it as one."""
        if sa.agreement.index.mode != Mode.ANY:
            return sa.agreement.index.mode == Mode.TUNNEL
        named = self._plane.spd.named_by(Direction.INBOUND, _applied(sa, True, src))
        requirements = [requirement for entry in named for requirement in entry.policy.requirements]
        return any((r.protocol, r.mode) == (Protocol.IPCOMP, Mode.TUNNEL) for r in requirements)

    def _note_peer(self, found: Found, sa: Association, is_tunnel: bool | None, at: Moment) -> None:
        """What authenticated came from somewhere else than the SA says: key management is told (natt_roaming).

        is_tunnel: None where the packet is not the newest of the SA, which proves nothing about where the peer is now.
        """
        around = sa.agreement.encapsulation
        assert around is not None
        has_src = any(sa.agreement.index.src)
        if found.ports and (around.sport != found.ports[0] or (has_src and found.src != sa.agreement.comes_from)):
            is_followed = self._plane.keys.moved(sa, Seen(found.src, found.ports[0], is_tunnel is not None, bool(is_tunnel)), at)
            self._plane.tally.counters.add("natt.moved", int(is_followed))

    def _wait(self, packet: bytes, history: _History, found: Found, at: Moment) -> Outcome:
        """Step 3: the keys of a larval SA are on their way. Raises Discarded(SA_LARVAL_LIMIT)."""
        limits = self._plane.settings.limits
        key = (found.dst, int(found.protocol), found.spi)
        waiting = Waiting(packet, history, key, at.ns + limits.larval_hold_ns)
        if not self._for_keys.add(key, waiting, limits.larval_packets):
            raise Discarded(SA_LARVAL_LIMIT)
        return Held(HELD_LARVAL)

    # -- policy --------------------------------------------------------------------------------------------------------

    def _judge(self, packet: bytes, summary: Summary, history: _History, fragment_octets: int, at: Moment) -> Outcome:
        """Steps 8 and 9. Raises Discarded(POLICY_IN_*)."""
        plane = self._plane
        settings = plane.settings
        try:
            flow = flow_of(summary, packet)
        except Malformed as fault:
            raise Discarded(IP_MALFORMED) from fault
        if not history and plane.is_ours(flow.dst):
            self._learn(packet, summary, at)
        entry = self.entry(flow)
        if entry is not None:
            entry.use(len(packet), at)
        action = entry.policy.action if entry is not None else Action.NONE
        if action is Action.DISCARD or (entry is None and settings.of(packet[0] >> 4).def_policy == 0):
            raise Discarded(POLICY_IN_DISCARD)
        if entry is not None and action is Action.IPSEC:
            if history or not is_neighbour_discovery(entry, flow, packet):
                self._verify(entry, history, flow)
        elif settings.check_policy_history and not self._is_permitted(packet, history, flow):
            raise Discarded(POLICY_IN_SELECTOR)
        if plane.sadb.encapsulated.has_shared and history and plane.is_ours(flow.dst):
            plane.latches.came(packet, flow, history, at)
        if plane.sadb.tcp_keys and summary.protocol == _TCP and plane.is_ours(flow.dst):
            packet = tcpkeys.verified(plane, packet, summary, at)
        if settings.mss_clamp and history and summary.protocol == _TCP:
            packet = mss.clamp_back(plane, packet, flow, at)
        skips_filter = bool(history) and not settings.of(packet[0] >> 4).filtertunnel
        return Deliver(packet, history, fragment_octets, skips_filter)

    def _verify(self, entry: Entry, history: _History, flow: Flow) -> None:
        """Hold the history against an ipsec policy, alone or with another one of a tunnel's own packets. Raises Discarded(POLICY_IN_*)."""
        spd, settings = self._plane.spd, self._plane.settings
        for outside, outer, inside in verify.parted(history):
            own = spd.match(Direction.INBOUND, outer)
            if own is None or own is entry or own.policy.action is not Action.IPSEC:
                continue
            if verify.passes(own.policy, outside, outer, settings) and verify.passes(entry.policy, inside, flow, settings):
                return
        verify.check(entry.policy, history, flow, settings)

    def _learn(self, packet: bytes, summary: Summary, at: Moment) -> None:
        """A router's word about the size of packets of ours, if it names an SA we send on (S30, S38)."""
        plane = self._plane
        report = icmp.read_report(packet, summary)
        sa = icmp.associate(report, plane.sadb) if report is not None else None
        if report is not None and sa is not None:
            plane.generation += plane.paths.learn(sa, report, plane.settings, at)

    def entry(self, flow: Flow) -> Entry | None:
        """The policy: of the socket that gets the packet, else the SPD's; None: the default. R27."""
        plane = self._plane
        socket = plane.sockets.find(flow)
        own = plane.spd.socket_policy(socket, Direction.INBOUND) if socket else None
        return own if own is not None else plane.match(Direction.INBOUND, flow)

    def _is_permitted(self, packet: bytes, history: _History, flow: Flow) -> bool:
        """Whether each SA it came through may carry it: no policy names the SA, or one that does covers the packet (S11).

        An ICMP error may come through the SA of the packet it quotes (RFC 4301 §6.2): then that packet, reversed, is covered.
        """
        if all(self._may_carry(applied, flow) for applied in history):
            return True
        reverse = icmp.returning(packet) if self._plane.settings.icmp_through_sa else None
        return reverse is not None and all(self._may_carry(applied, reverse) for applied in history)

    def _may_carry(self, applied: Applied, flow: Flow) -> bool:
        """Where every address is ours, an SA for sending is one for receiving, too: then outbound policies that name it count (replay)."""
        spd = self._plane.spd
        if spd.permits(Direction.INBOUND, applied, flow):
            return True
        is_ours_to_send = self._plane.local is None and spd.named_by(Direction.OUTBOUND, applied)
        return bool(is_ours_to_send) and spd.permits(Direction.OUTBOUND, applied, flow)


def _is_larval(sa: Association | None) -> bool:
    return sa is not None and sa.state is State.LARVAL


def _applied(sa: Association, was_tunnel: bool, src: bytes) -> Applied:
    index = sa.agreement.index
    sa_src = index.src if any(index.src) else src
    return Applied(index.protocol, int(index.mode), was_tunnel, sa.agreement.spi, sa_src, index.dst, index.reqid)


def _way(history: _History) -> tuple[tuple[int, bytes, bytes, int], ...]:
    """How a fragment came, as far as its companions must have come the same way.

    IPComp is left out, and whether an SA of mode any took a header off: of two fragments one may have compressed and the other not
    (RFC 3173 §2.2), and plain IP in IP is then what such an SA sees (verify, rule 4).
    """
    seen = (applied for applied in history if applied.protocol is not Protocol.IPCOMP)
    return tuple((int(applied.protocol), applied.src, applied.dst, applied.reqid) for applied in seen)
