"""A packet on its way out: policy, SAs, transforms, size. RFC 4301 §5.1; processing.md §2.

    1 summary, TCP-MD5, fragments joined      5 sizes: does the protected packet fit, may something be cut (size)
    2 policy: socket's, SPD, default       for each step, the first request innermost:
    3 bypass or discard                    6 enc BEFORE, wrap, enc AFTER
    4 the SAs of its requests (bundle)     7 transform, account, UDP around ESP
      none: ACQUIRE, and wait or go clear  8 cut to the link

Packets of the stack's own making go the same way. What comes out is not looked up again: the host sends it as it is.

Decided here, where others decide otherwise:
- Fragments (a gateway's, or what a host's IP layer cut before it came here) are put together for the policy lookup, so that a rule
  with ports holds for all of them (S8); in a tunnel they are cut again before sealing, so that the far end forwards pieces no
  larger than those the sender made; in clear they leave as they came, in the same sizes.
- TTL and hop limit are the forwarder's: it decrements before it calls (RFC 4301 §5.1.2.1's rule of the encapsulating forwarder).
- Neighbour discovery goes clear under a policy for any protocol (ND would need itself to find the tunnel's end).
- ICMP errors that no ipsec policy covers go the way of the packet they quote, reversed (RFC 4301 §6.2; icmp_through_sa).
"""

from collections.abc import Iterable
from dataclasses import replace

from koura.address import show
from koura.errors import Errno, Malformed, Refused
from koura.moment import NS_PER_S, Moment
from koura.reasons import (
    AH_DISABLED_OUT,
    ESP_DISABLED_OUT,
    FRAG_TIMEOUT,
    HELD_ACQUIRE,
    HELD_FRAGMENT,
    HELD_GRANT,
    IP_MALFORMED,
    IPCOMP_DISABLED_OUT,
    POLICY_OUT_DISCARD,
    SA_ACQUIRE_LIMIT,
    SA_ACQUIRE_TIMEOUT,
    SA_NONE_OUT,
    SA_UNGRANTED,
    Discarded,
)
from koura.sadb import sequence
from koura.sadb.association import Association
from koura.saindex import Direction, Pair, Protocol, SaIndex
from koura.settings import Settings
from koura.spd.entry import Entry
from koura.spd.policy import Action, Policy
from koura.spd.selector import Flow
from koura.traffic import bundle, icmp, size, tcpkeys
from koura.traffic.bundle import Step
from koura.traffic.flow import flow_of, is_neighbour_discovery
from koura.traffic.fragments import split
from koura.traffic.hold import Holds, Waiting
from koura.traffic.outcome import LOCAL, Bypass, Discard, Emit, Forward, Held, Origin, Outcome, Released, Wanted
from koura.traffic.plane import Plane
from koura.wire import ipv4, ipv6
from koura.wire.summary import summarise
from koura.xform import base, esp, natt, place, tunnel

_BEFORE, _AFTER = 1, 2
_TCP = 6


class Outbound:
    """The outbound direction, and the packets that wait in it."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._for_sa: Holds[SaIndex] = Holds(lambda index: index.pair)
        self._for_grant: Holds[tuple[int, int]] = Holds(lambda handle: handle)
        self._sizes = size.Sizes(plane, self._own)

    def send(self, packet: bytes, origin: Origin, at: Moment) -> Outcome:
        """What becomes of a packet that is about to leave. Never raises but for a Bug: every end is an outcome, counted here."""
        try:
            outcome = self._send(packet, origin, at)
        except Discarded as end:
            self._plane.tally.discarded(end, packet)
            if not end.reason.bsd.startswith("ips_") and isinstance(end.association, Association):
                self._plane.tally.event("out_inval", packet)
            return Discard(end.reason)
        self._plane.tally.ended(outcome)
        return outcome

    def send_dummy(self, dst: bytes, spi: int, octets: int, at: Moment) -> None:
        """Emit a dummy packet on an ESP SA of ours, next header 59, to hide how much traffic there is. RFC 4303 §2.6.

        Raises Refused(ESRCH) where there is no usable SA of that name. A dummy that may not go (numbers spent) is counted.
        """
        plane = self._plane
        sa = plane.sadb.by_spi(dst, Protocol.ESP, spi)
        if sa is None or not sa.is_usable:
            raise Refused(Errno.ESRCH, f"no usable ESP SA {spi:#x} to {show(dst)}")
        bare = _empty(sa, plane.settings)
        try:
            packet = esp.dummy(sa, octets, place.for_output(bare), plane.context(at))
        except Discarded as end:
            plane.tally.discarded(end, bare)
            return
        plane.tally.sealed(sa, bare, packet, plane.settings)
        plane.sadb.use(sa, len(packet), at)
        ready = natt.wrap(sa, packet) if sa.agreement.encapsulation is not None else packet
        plane.events += [Emit(piece, "dummy") for piece in self._sizes.cut(ready, sa, at)]

    def sa_changed(self, changed: Iterable[Pair], at: Moment) -> None:
        """Send what waited for an SA that exists by now, between these pairs of addresses; each end is a Released."""
        plane = self._plane
        is_oldest = bool(plane.settings.key.preferred_oldsa)
        for waiting in self._for_sa.take(changed, lambda index: plane.sadb.outbound(index, is_oldest) is not None):
            self._release(waiting, at)

    def granted(self, slot: int, epoch: int, at: Moment) -> None:
        """Send what waited for numbers of this SA."""
        for waiting in self._for_grant.take([(slot, epoch)], lambda _: True):
            self._release(waiting, at)

    def due(self, at: Moment) -> None:
        """End what has waited too long."""
        plane = self._plane
        for holds, reason in ((self._for_sa, SA_ACQUIRE_TIMEOUT), (self._for_grant, SA_UNGRANTED)):
            for waiting in holds.due(at):
                plane.tally.discarded(Discarded(reason), waiting.packet)
                plane.events.append(Released(Discard(reason), True))
        for expired in plane.out_fragments.due(at):
            for _ in range(expired.count):
                plane.tally.discarded(Discarded(FRAG_TIMEOUT), expired.first)
                plane.events.append(Released(Discard(FRAG_TIMEOUT), True))

    def next_deadline(self) -> Moment | None:
        """When to call `due`."""
        ends = (self._for_sa.next_deadline(), self._for_grant.next_deadline(), self._plane.out_fragments.next_deadline())
        return min((end for end in ends if end is not None), default=None)

    def _own(self, packet: bytes, why: str, at: Moment) -> None:
        """Send a packet of the stack's own making under the policy for it; it is no packet that came in, so only its sending is told."""
        if packet[0] >> 4 == 4:
            header, payload = ipv4.read(packet)
            packet = ipv4.write(replace(header, identification=tunnel.identification(self._plane.entropy)), payload)
        try:
            outcome = self._send(packet, LOCAL, at)
        except Discarded as end:
            self._plane.tally.discarded(end, packet)
            return
        if isinstance(outcome, Forward | Bypass):
            self._plane.events += [Emit(ready, why) for ready in outcome.packets]

    def _release(self, waiting: Waiting, at: Moment) -> None:
        assert isinstance(waiting.came, Origin)
        self._plane.events.append(Released(self.send(waiting.packet, waiting.came, at), True, waiting.packet))

    # -- the recipe ----------------------------------------------------------------------------------------------------

    def _send(self, packet: bytes, origin: Origin, at: Moment) -> Outcome:
        plane = self._plane
        try:
            summary = summarise(packet)
        except Malformed as fault:
            raise Discarded(IP_MALFORMED) from fault
        if plane.sadb.tcp_keys and summary.protocol == _TCP and not origin.is_forwarded:
            packet, summary = tcpkeys.signed(plane, packet, summary, at)
        if not self._is_policed(summary.version, origin):
            return Bypass(self._as_it_came(packet, origin))
        if summary.is_fragment:
            whole = plane.out_fragments.add(packet, at, plane.settings.limits, origin)
            if whole is None:
                return Held(HELD_FRAGMENT)
            packet, origin = whole.packet, replace(origin, fragment_octets=whole.fragment_octets)
        try:
            flow = flow_of(summarise(packet) if origin.fragment_octets else summary, packet)
        except Malformed as fault:  # only now: in what was put together, or behind an AH that the packet came with
            raise Discarded(IP_MALFORMED) from fault
        entry = self.entry(flow, packet, origin)
        action = self.action(entry, summary.version)
        if entry is not None:
            entry.use(len(packet), at)
        if action is Action.DISCARD or (entry is None and origin.interface):
            raise Discarded(POLICY_OUT_DISCARD)
        if entry is None or action is not Action.IPSEC or is_neighbour_discovery(entry, flow, packet):
            return Bypass(self._as_it_came(packet, origin))
        return self._protect(packet, flow, entry, origin, at)

    def _is_policed(self, version: int, origin: Origin) -> bool:
        """Whether anything can happen to a packet at all: processing.md §2 step 1."""
        plane = self._plane
        has_own = origin.socket and plane.spd.socket_policy(origin.socket, Direction.OUTBOUND) is not None
        return bool(has_own or origin.interface) or plane.settings.of(version).def_policy == 0 or plane.spd.has_policies(Direction.OUTBOUND)

    def entry(self, flow: Flow, packet: bytes, origin: Origin) -> Entry | None:
        """The policy: the socket's own, else the interface's or the SPD's first match; None: the default. R27, M22."""
        plane = self._plane
        own = plane.spd.socket_policy(origin.socket, Direction.OUTBOUND) if origin.socket else None
        if own is not None:
            return own
        if origin.interface:
            return plane.spd.match(Direction.OUTBOUND, flow, origin.interface)
        entry = plane.match(Direction.OUTBOUND, flow)
        if entry is None and plane.settings.icmp_through_sa and not origin.is_forwarded:
            reverse = icmp.returning(packet)
            if reverse is not None:
                found = plane.match(Direction.OUTBOUND, reverse)
                return found if found is not None and found.policy.action is Action.IPSEC else None
        return entry

    def action(self, entry: Entry | None, version: int) -> Action:
        """What is done under a policy, or by default for an IP version. R26."""
        if entry is not None:
            return entry.policy.action
        return Action.DISCARD if self._plane.settings.of(version).def_policy == 0 else Action.NONE

    def _protect(self, packet: bytes, flow: Flow, entry: Entry, origin: Origin, at: Moment) -> Outcome:
        plane = self._plane
        chosen = self.chosen(entry.policy, flow, packet)
        for missing in chosen.missing:
            plane.tally.event("out_nosa", packet)
            plane.keys.acquire(missing, flow, entry, at)
        wanted = chosen.wanted
        if wanted is not None:
            return self._wait(packet, origin, entry.id, wanted.index, at)
        if not chosen.steps:
            return Bypass(self._as_it_came(packet, origin))
        pieces = self._sizes.fit(packet, chosen.steps, origin, at)
        try:
            return Forward(tuple(ready for piece in pieces for ready in self._apply(piece, chosen.steps, at)))
        except Discarded as end:
            if end.reason is SA_UNGRANTED and isinstance(end.association, Association):
                return self._wait_for_grant(packet, origin, end.association, at)
            raise

    def chosen(self, policy: Policy, flow: Flow, packet: bytes) -> bundle.Bundle:
        """The SAs that a packet under an ipsec policy goes through. Raises Discarded."""
        plane = self._plane
        port = plane.latches.port(packet, flow) if plane.sadb.encapsulated.has_shared else None
        return bundle.choose(policy, flow, plane.sadb, plane.settings, port)

    def _apply(self, packet: bytes, steps: tuple[Step, ...], at: Moment) -> tuple[bytes, ...]:
        """Steps 6 to 8 for one packet. Raises Discarded."""
        plane = self._plane
        context = plane.context(at)
        for number, step in enumerate(steps):
            self._check_enabled(step.sa, plane.settings)
            if step.sa.has_ledger and sequence.draw(step.sa):
                plane.events.append(Wanted(step.sa.slot, step.sa.epoch))
            if number:
                plane.tally.event("out_bundlesa", packet)
            plane.show_outbound(_BEFORE, step.sa, packet)
            if step.outer is not None:
                packet = tunnel.wrap(*step.outer, packet, context, step.sa)
            plane.show_outbound(_AFTER, step.sa, packet)
            bare = packet
            packet = base.output(step.sa, bare, context)
            plane.tally.sealed(step.sa, bare, packet, plane.settings)
            plane.sadb.use(step.sa, len(packet), at)
            if step.sa.agreement.encapsulation is not None:
                packet = natt.wrap(step.sa, packet)
        return self._sizes.cut(packet, steps[-1].sa, at)

    @staticmethod
    def _check_enabled(sa: Association, settings: Settings) -> None:
        """R30-R33."""
        protocol = sa.agreement.index.protocol
        if protocol is Protocol.ESP and not settings.esp_enable:
            raise Discarded(ESP_DISABLED_OUT, sa)
        if protocol is Protocol.AH and not settings.ah_enable:
            raise Discarded(AH_DISABLED_OUT, sa)
        if protocol is Protocol.IPCOMP and not settings.ipcomp_enable:
            raise Discarded(IPCOMP_DISABLED_OUT, sa)

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _wait(self, packet: bytes, origin: Origin, entry_id: int, index: SaIndex, at: Moment) -> Outcome:
        """Hold a packet until its SA exists, as long as a larval SA may live (S31). Raises Discarded where that is off, or full."""
        settings = self._plane.settings
        if not settings.acquire_hold:
            raise Discarded(SA_NONE_OUT)
        deadline_ns = at.ns + settings.key.larval_lifetime_s * NS_PER_S
        if not self._for_sa.add(index, Waiting(packet, origin, entry_id, deadline_ns), settings.limits.hold_packets):
            raise Discarded(SA_ACQUIRE_LIMIT)
        return Held(HELD_ACQUIRE)

    def _wait_for_grant(self, packet: bytes, origin: Origin, sa: Association, at: Moment) -> Outcome:
        """Hold a packet until the ledger grants its SA numbers. Raises Discarded(SA_UNGRANTED) when too many wait."""
        settings = self._plane.settings
        key = (sa.slot, sa.epoch)
        deadline_ns = at.ns + settings.key.larval_lifetime_s * NS_PER_S
        self._plane.events.append(Wanted(*key))
        if not self._for_grant.add(key, Waiting(packet, origin, key, deadline_ns), settings.limits.hold_packets):
            raise Discarded(SA_UNGRANTED, sa)
        return Held(HELD_GRANT)

    def _as_it_came(self, packet: bytes, origin: Origin) -> tuple[bytes, ...]:
        """In clear, in pieces no larger than those it came in."""
        if not origin.fragment_octets:
            return (packet,)
        return split(packet, origin.fragment_octets, self._plane.entropy.below(1 << 32))


def _empty(sa: Association, settings: Settings) -> bytes:
    """An IP header from the SA's source to its destination, and nothing behind it."""
    src, dst = sa.agreement.index.src, sa.agreement.index.dst
    if len(dst) == 4:
        return ipv4.write(ipv4.Header(src, dst, esp.NO_NEXT_HEADER, ttl=settings.ttl), b"")
    return ipv6.write(ipv6.Header(src, dst, esp.NO_NEXT_HEADER, hop_limit=settings.hop_limit), b"")
