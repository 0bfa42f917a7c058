"""The pump of a bump in the wire: frames from one side through the stack to the other. RFC 4301 §3.3.

    inside  -> IP: stack.outbound -> Forward, Bypass -> outside      TooBig -> an ICMP back inside
    outside -> IP: stack.inbound  -> Deliver         -> inside
    what is no IP, and what keeps the link going (frames.is_control), passes as it came

Nothing else passes. Frames keep their VLAN tags and link addresses: a protected packet goes to the station that the clear one went to,
unless its own destination is another and a neighbour (ARP, neighbour discovery) is known to have it. What waited (Held) goes the way
of its frame, which is remembered until then. Not here: sockets (bridge), and who is told of everything else (`tell`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from koura.errors import Malformed
from koura.host import frames, neighbours
from koura.host.bridge import Frame, Side
from koura.host.clock import Clock
from koura.host.frames import Link
from koura.host.neighbours import Neighbours
from koura.host.pump import Watcher, unseen
from koura.host.xdp import Leaving
from koura.notices import Bridged, PathMtu
from koura.stack import Stack
from koura.traffic import icmp
from koura.traffic.fragments import split
from koura.traffic.outcome import (
    FORWARDED,
    Bypass,
    Deliver,
    Discard,
    Emit,
    Event,
    Forward,
    Held,
    Outcome,
    Released,
    TooBig,
)
from koura.traffic.served import served
from koura.wire import ipv4

MOST_WAYS = 4096
MOST_WAITING = 16  # packets for one neighbour that was asked for
INSIDE, OUTSIDE = 0, 1
_LOSSES = "unresolved"
_GONE = "ENODEV"


@dataclass(slots=True)
class Pair:
    """One bump. own: addresses of its own, at which tunnels may end. passes_control: frames.is_control is looked at.

    leaving: by which protected frames leave the outside, where native I/O sends them.
    """

    inside: Side
    outside: Side
    own: frozenset[bytes] = frozenset()
    passes_control: bool = True
    behind: Neighbours = field(default_factory=Neighbours)  # inside
    beyond: Neighbours = field(default_factory=Neighbours)  # outside
    waiting: dict[bytes, list[tuple[Link, bytes]]] = field(default_factory=dict)
    leaving: Leaving | None = None

    def side(self, number: int) -> Side:
        return self.outside if number == OUTSIDE else self.inside

    def known(self, number: int) -> Neighbours:
        return self.beyond if number == OUTSIDE else self.behind


@dataclass(frozen=True, slots=True)
class Way:
    """Where the packet in hand came from."""

    pair: Pair
    link: Link


class Bump:
    """All pairs of one stack. `tell(events)`: what is not about packets."""

    def __init__(self, stack: Stack, clock: Clock, pairs: tuple[Pair, ...], tell: Callable[[Iterable[Event]], None]) -> None:
        self._stack = stack
        self._clock = clock
        self.pairs = pairs
        self._tell = tell
        self.watcher: Watcher | None = None
        self._ways: dict[tuple[bytes, bytes], Way] = {}
        self._way: Way | None = None
        self._generation = -1
        self._mtu = 0

    # -- what the stack is told ----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Before a burst: which addresses policies protect by now."""
        if self._stack.spd.generation != self._generation:
            self._generation = self._stack.spd.generation
            addresses, prefixes = served(self._stack.spd.entries())
            self._stack.notice(Bridged(addresses, prefixes), self._clock.now())

    def measure(self) -> None:
        """How large packets may be outside: the narrowest of all pairs. And the sides' own addresses."""
        for pair in self.pairs:
            pair.inside.look()
            pair.outside.look()
        sizes = [pair.outside.mtu_octets for pair in self.pairs]
        smallest = min((octets for octets in sizes if octets), default=0)
        if smallest and smallest != self._mtu:
            self._mtu = smallest
            self._stack.notice(PathMtu(b"", smallest), self._clock.now())

    def driver(self, pair: Pair, number: int) -> str:
        """How a side is read and written."""
        return "frame by frame"

    # -- frames --------------------------------------------------------------------------------------------------------

    def ready(self, pair: Pair, number: int) -> None:
        """A side has frames."""
        self.look()
        for frame in pair.side(number).receive():
            self.frame(pair, number, frame)

    def frame(self, pair: Pair, number: int, frame: Frame) -> None:
        """One frame that came at a side."""
        for payload in frame.payloads:
            if not frame.is_ip or (pair.passes_control and frames.is_control(payload)):
                self._pass(pair, number, frame, payload)
            elif number == INSIDE:
                self.send(Way(pair, frame.link), payload)
            else:
                self.receive(Way(pair, frame.link), payload)

    def _pass(self, pair: Pair, number: int, frame: Frame, payload: bytes) -> None:
        """To the other side as it came, but for questions about addresses of ours."""
        learned = pair.known(number).learn(frame.kind, payload)
        if learned:
            self.learned(pair, number, learned)
        if pair.own and neighbours.asked(frame.kind, payload) in pair.own:
            side = pair.side(number)
            link, said = neighbours.answer(frame.kind, payload, frame.link, side.mac)
            side.send(link, frame.kind, said)
            return
        pair.side(1 - number).send(frame.link, frame.kind, payload)

    def learned(self, pair: Pair, number: int, address: bytes) -> None:
        """A neighbour spoke at a side: what waited for it goes on."""
        if number == INSIDE and address in pair.waiting:
            self._resolved(pair, address)

    def send(self, way: Way, packet: bytes) -> None:
        """A packet from inside."""
        self._way = way
        results = self._stack.outbound([packet], self._clock.now(), FORWARDED)
        self.went(packet, results.outcomes, results.events)

    def went(self, packet: bytes, outcomes: tuple[Outcome, ...], events: tuple[Event, ...]) -> None:
        """What became of a packet from inside, `self._way` being its way."""
        assert self._way is not None
        self._note_held(packet, outcomes)
        for outcome in outcomes:
            self._leave(self._way, packet, outcome)
        if self._is_watched and self.watcher is not None:
            self.watcher.sealed(outcomes, events)
            events = unseen(events)
        self._happened(events)

    def receive(self, way: Way, packet: bytes) -> None:
        """A packet from outside."""
        self._way = way
        results = self._stack.inbound([packet], self._clock.now())
        self.came(packet, results.outcomes, results.events)

    def came(self, packet: bytes, outcomes: tuple[Outcome, ...], events: tuple[Event, ...]) -> None:
        """What became of a packet from outside."""
        assert self._way is not None
        self._note_held(packet, outcomes)
        for outcome in outcomes:
            self._arrive(self._way, packet, outcome)
        if self._is_watched and self.watcher is not None:
            self.watcher.opened(packet, events)
            events = unseen(events)
        self._happened(events)

    def _happened(self, events: Iterable[Event]) -> None:
        self._tell(events)
        self._way = None

    @property
    def _is_watched(self) -> bool:
        return self.watcher is not None and self.watcher.is_open

    # -- events --------------------------------------------------------------------------------------------------------

    def packets_of(self, events: Iterable[Event]) -> None:
        """What of the stack's events is packets: held ones that may go on, what it makes itself, senders that are to be told a size."""
        for event in events:
            if isinstance(event, Released):
                way = self._ways.get(frames.ends_of(event.packet))
                if way is not None and not isinstance(event.outcome, Held | Discard):
                    (self._leave if event.is_outbound else self._arrive)(way, event.packet, event.outcome)
            elif isinstance(event, TooBig):
                way = self._way or self._ways.get(frames.ends_of(event.packet))
                if way is not None:
                    self._say_too_big(way, event.packet, event.mtu_octets)
            elif isinstance(event, Emit):
                way = self._ways.get(frames.ends_of(event.packet))
                if way is not None:
                    self._put(way, OUTSIDE, event.packet, event.packet)
                else:
                    self.pairs[0].outside.losses.lose(_LOSSES)

    def _note_held(self, packet: bytes, outcomes: Iterable[Outcome]) -> None:
        assert self._way is not None
        if any(isinstance(outcome, Held) for outcome in outcomes):
            self._remember(frames.ends_of(packet), self._way)

    def _remember(self, ends: tuple[bytes, bytes], way: Way) -> None:
        """The oldest goes when there are MOST_WAYS."""
        if self._ways.pop(ends, None) is None and len(self._ways) >= MOST_WAYS:
            del self._ways[next(iter(self._ways))]
        self._ways[ends] = way

    # -- out of a side -------------------------------------------------------------------------------------------------

    def _leave(self, way: Way, came: bytes, outcome: Outcome) -> None:
        """To the outside."""
        if not isinstance(outcome, Forward | Bypass):
            return
        mtu = way.pair.outside.mtu_octets
        for packet in outcome.packets:
            if isinstance(outcome, Forward):
                self._remember(frames.ends_of(packet), way)  # dummies of this SA go there, too
            elif mtu and len(packet) > mtu:
                self._narrow(way, came, packet, mtu)
                continue
            self._put(way, OUTSIDE, came, packet)

    def _narrow(self, way: Way, came: bytes, packet: bytes, mtu: int) -> None:
        """A packet in clear that the outside does not take whole: cut, or its sender is told."""
        if _must_stay_whole(packet):
            way.pair.outside.losses.lose("EMSGSIZE")
            self._say_too_big(way, packet, mtu)
            return
        for piece in split(packet, mtu, 0):
            self._put(way, OUTSIDE, came, piece)

    def _arrive(self, way: Way, came: bytes, outcome: Outcome) -> None:
        """To the inside, in pieces that the link there takes."""
        if not isinstance(outcome, Deliver):
            return
        if outcome.history and self.watcher is not None and not self.watcher.lets_in(outcome):
            return
        packet, mtu = outcome.packet, way.pair.inside.mtu_octets
        if not mtu:
            way.pair.inside.losses.lose(_GONE)
            return
        room = min(mtu, outcome.fragment_octets or mtu)
        if len(packet) <= room:
            self._put(way, INSIDE, came, packet)
        elif outcome.fragment_octets or _was_cut_outside(outcome) or not _must_stay_whole(packet):
            for piece in split(packet, room, self._clock.now().ns & 0xFFFF_FFFF):
                self._put(way, INSIDE, came, piece)
        else:
            way.pair.inside.losses.lose("EMSGSIZE")
            self._complain(way, packet, mtu)

    def _put(self, way: Way, number: int, came: bytes, packet: bytes) -> None:
        """A packet out of a side: to the station that its frame went to or, addressed elsewhere, to the neighbour that has it."""
        pair, link = way.pair, way.link
        target, before = frames.ends_of(packet)[1], frames.ends_of(came)[1]
        if target in pair.own:
            return  # a router's word about our own packets: the stack has heard it
        if number == OUTSIDE and frames.ends_of(packet)[0] in pair.own:
            link = link.by(pair.outside.mac)
        elif before in pair.own:
            link = link.by(pair.inside.mac)
        if target != before:
            station = pair.known(number).get(target)
            if station is not None:
                link = link.to(station)
            elif before in pair.own:
                self._resolve(pair, link, packet)
                return
        pair.side(number).send(link, frames.kind_of(packet), packet)

    def _resolve(self, pair: Pair, link: Link, packet: bytes) -> None:
        """Ask inside who has the destination of a packet that came to an address of ours; it waits for the answer."""
        target = frames.ends_of(packet)[1]
        own = next((one for one in sorted(pair.own) if len(one) == len(target)), b"")
        if not own or (target not in pair.waiting and len(pair.waiting) >= MOST_WAYS):
            pair.inside.losses.lose(_LOSSES)
            return
        waiting = pair.waiting.setdefault(target, [])
        if len(waiting) >= MOST_WAITING:
            pair.inside.losses.lose(_LOSSES)
            del waiting[0]
        waiting.append((link, packet))
        pair.inside.send(*neighbours.question(target, own, pair.inside.mac, link.tags))

    def _resolved(self, pair: Pair, address: bytes) -> None:
        station = pair.behind.get(address)
        if station is not None:
            for link, packet in pair.waiting.pop(address):
                pair.inside.send(link.to(station), frames.kind_of(packet), packet)

    def _say_too_big(self, way: Way, packet: bytes, mtu_octets: int) -> None:
        """The sender inside learns the size as from a router behind the bump. RFC 4301 §8.2.1."""
        message = icmp.too_big(packet, mtu_octets, frames.ends_of(packet)[1])
        if message is not None:
            way.pair.inside.send(way.link.back(), frames.kind_of(message), message)

    def _complain(self, way: Way, packet: bytes, mtu_octets: int) -> None:
        """The sender outside of a packet that does not fit inside learns it, under the policy for that message."""
        try:
            message = icmp.too_big(packet, mtu_octets, frames.ends_of(packet)[1])
        except Malformed:
            return
        if message is None:
            return
        back = replace(way, link=way.link.back())
        results = self._stack.outbound_by_reference(message, self._clock.now(), FORWARDED)
        for outcome in results.outcomes:
            self._leave(back, message, outcome)
        self._tell(tuple(event for event in results.events if not isinstance(event, TooBig)))


def _was_cut_outside(outcome: Deliver) -> bool:
    """What came larger than a link through transport mode alone was cut in its sender's name behind the SA, and may be again."""
    return bool(outcome.history) and not any(applied.was_tunnel for applied in outcome.history)


def _must_stay_whole(packet: bytes) -> bool:
    return packet[0] >> 4 == 6 or ipv4.read(packet)[0].is_df
