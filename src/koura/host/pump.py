"""The pump: bursts from attachments through the stack and out again. One loop, no thread, nothing waits.

    protected.receive -> stack.outbound -> Forward, Bypass -> out            TooBig -> an ICMP to the host's own socket
    unprotected.receive -> stack.inbound -> Deliver -> protected.send        Punt: an IKE daemon's socket has its own copy

A packet in transit that came in fragments goes on in fragments no larger: the kernel would cut IPv4 to the link (but not with DF), and
no IPv6. What the first link does not take whole (the stack had not heard how much that is) is cut where that may be done; else the
sender in clear is told. Either way the stack knows from then on.
What came in clear and stays so (an ICMP error for the engine's ears, IP in IP of others) the kernel has delivered itself.
What was held comes back as Released events, what the stack makes itself as Emit. Not here: who opens attachments (daemon.network),
routes that lead packets here (host.routes), and PF_KEY, whose events go to `tell`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from koura.address import nearest
from koura.attachment import Attachment, Losses
from koura.host.clock import Clock
from koura.host.entropy import System
from koura.host.nexthops import NextHops
from koura.host.raw import numbered
from koura.host.xdp import Rings
from koura.notices import PathMtu
from koura.stack import Results, Stack
from koura.traffic import icmp
from koura.traffic.fragments import split
from koura.traffic.outcome import FORWARDED, LOCAL, Bypass, Deliver, Emit, Event, Forward, Origin, Outcome, Released, Tapped, TooBig

_UDP = 17
_FRAGMENT = 44


class Sender(Protocol):
    """Where whole packets leave. refused: longer than the first link takes."""

    name: str
    losses: Losses
    refused: list[bytes]

    def send(self, packets: list[bytes]) -> None: ...


class Out(Sender, Protocol):
    """The way out for all packets that no other Sender owns."""

    def mtu(self, dst: bytes) -> int: ...


class Watcher(Protocol):
    """Who looks at single packets: captures, and the packet filter at the host's own input."""

    @property
    def is_open(self) -> bool: ...
    def sealed(self, outcomes: Iterable[Outcome], events: Iterable[Event]) -> None: ...
    def opened(self, packet: bytes, events: Iterable[Event]) -> None: ...
    def lets_in(self, outcome: Deliver) -> bool: ...


@dataclass(slots=True)
class Ends:
    """What a pump is between. `udp`: by (is IPv4, port), for packets whose UDP header has that source port."""

    protected: Attachment
    unprotected: list[Attachment]
    out: Out
    udp: dict[tuple[bool, int], Sender] = field(default_factory=dict)
    local: frozenset[bytes] = frozenset()
    raw_descriptors: tuple[tuple[bool, int], ...] = ()  # (is IPv4, where whole packets leave)
    native: dict[bool, Attachment] = field(default_factory=dict)  # ESP in UDP by native I/O, by is IPv4
    native_esp: dict[bool, Attachment] = field(default_factory=dict)  # raw ESP likewise
    more_queues: tuple[int, ...] = ()  # of the protected side, for native I/O
    rings: tuple[Rings, ...] = ()  # AF_XDP sockets, for native I/O
    next_hops: NextHops | None = None  # of what leaves by them


class Pump:
    """One protected side with its unprotected ones. `tell(events)`: what is not about packets."""

    def __init__(self, stack: Stack, clock: Clock, ends: Ends, tell: Callable[[Iterable[Event]], None]) -> None:
        self._stack = stack
        self._clock = clock
        self._ends = ends
        self._tell = tell
        self._dice = System()
        self.watcher: Watcher | None = None
        self.place_of: Callable[[Deliver], Attachment | None] = lambda _outcome: None  # the interface behind an SA (M22)
        self.interface: Callable[[str], Attachment | None] = lambda _name: None  # one of those by its name

    @property
    def _is_watched(self) -> bool:
        return self.watcher is not None and self.watcher.is_open

    def local_changed(self) -> None:
        """`ends.local` is another set now."""

    def outbound_ready(self, _events: int = 0) -> None:
        """The protected side has packets."""
        packets = self._ends.protected.receive()
        start = 0
        while start < len(packets):
            origin = self._origin(packets[start])
            end = start + 1
            while end < len(packets) and self._origin(packets[end]) == origin and not self._is_watched:
                end += 1
            burst = packets[start:end]
            if origin is LOCAL:
                burst = [numbered(packet) for packet in burst]
            results = self._stack.outbound(burst, self._clock.now(), origin)
            self._went(results)
            start = end

    def inbound_ready(self, attachment: Attachment) -> None:
        """An unprotected side has packets."""
        packets = attachment.receive()
        if self._is_watched:
            for packet in packets:
                self._came(packet, self._stack.inbound([packet], self._clock.now()))
        elif packets:
            self._came(b"", self._stack.inbound(packets, self._clock.now()))

    def _went(self, results: Results) -> None:
        self.went(results.outcomes, results.events)

    def went(self, outcomes: tuple[Outcome, ...], events: tuple[Event, ...]) -> None:
        """A burst, one packet while somebody looks, is on its way out."""
        self._leave(outcomes)
        if self.watcher is not None and self.watcher.is_open:
            self.watcher.sealed(outcomes, events)
            events = unseen(events)
        self.happened(events)

    def _came(self, packet: bytes, results: Results) -> None:
        """The same for what came in."""
        self._deliver(results.outcomes)
        events = results.events
        if self.watcher is not None and self.watcher.is_open:
            self.watcher.opened(packet, events)
            events = unseen(events)
        self.happened(events)

    def happened(self, events: Iterable[Event]) -> None:
        """A burst is done: its events to whoever keeps the stack, who hands them to `packets_of` like those of every other door."""
        self._tell(events)

    def packets_of(self, events: Iterable[Event]) -> None:
        """What of the stack's events is packets: held ones that may go on, ICMP and the like of its own making."""
        for event in events:
            if isinstance(event, Released):
                (self._leave if event.is_outbound else self._deliver)((event.outcome,))
            elif isinstance(event, Emit):
                self._send([event.packet])
            elif isinstance(event, TooBig):
                self._say_too_big(event)

    def _origin(self, packet: bytes) -> Origin:
        """Of this host, or in transit."""
        src = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
        return LOCAL if src in self._ends.local else FORWARDED

    def _leave(self, outcomes: Iterable[Outcome]) -> None:
        leaving = [outcome for outcome in outcomes if isinstance(outcome, Forward | Bypass)]
        refused = self._send([packet for outcome in leaving for packet in outcome.packets])
        for packet in refused:
            is_clear = any(packet is one for outcome in leaving if isinstance(outcome, Bypass) for one in outcome.packets)
            self._too_long(packet, is_clear=is_clear)

    def _deliver(self, outcomes: Iterable[Outcome]) -> None:
        watcher = self.watcher
        ready: list[bytes] = []
        for outcome in outcomes:
            if isinstance(outcome, Deliver) and outcome.history and (watcher is None or watcher.lets_in(outcome)):
                place = self.place_of(outcome)
                packets = self._onward(outcome) if outcome.fragment_octets else (outcome.packet,)
                if place is None:
                    ready += packets
                else:
                    place.send(list(packets))
        if ready:
            self._ends.protected.send(ready)

    def _onward(self, outcome: Deliver) -> tuple[bytes, ...]:
        """What came in fragments, in fragments again if it goes on."""
        if dst_of(outcome.packet) in self._ends.local:
            return (outcome.packet,)
        return split(outcome.packet, outcome.fragment_octets, self._dice.below(1 << 32))

    def _send(self, packets: list[bytes]) -> list[bytes]:
        """By the socket that owns the UDP port of a packet, else raw; those that are too long for their first link."""
        refused: list[bytes] = []
        plain: list[bytes] = []
        for packet in packets:
            owner = self._owner(packet) if self._ends.udp else None
            if owner is not None:
                owner.send([packet])
                refused += _taken(owner)
            else:
                plain.append(packet)
        if plain:
            self._ends.out.send(plain)
            refused += _taken(self._ends.out)
        return refused

    def _too_long(self, packet: bytes, *, is_clear: bool) -> None:
        """The kernel refused a packet that the stack let go, protected or in clear."""
        out, dst = self._ends.out, dst_of(packet)
        mtu_octets = out.mtu(dst)
        pieces: tuple[bytes, ...] = ()
        if 0 < mtu_octets < len(packet):
            lasts_s = self._stack.settings.limits.pmtu_timeout_s
            self.happened(self._stack.notice(PathMtu(dst, mtu_octets, lasts_s), self._stack.latest))
            if not packet[6] & 0x40 if packet[0] >> 4 == 4 else not is_clear and packet[6] != _FRAGMENT:
                pieces = split(packet, mtu_octets, self._dice.below(1 << 32))
            elif is_clear:
                self._say_too_long(packet, mtu_octets)
        out.send(list(pieces))
        lost = len(_taken(out)) + (not pieces)
        if lost:
            out.losses.lose("EMSGSIZE", lost)

    def _say_too_long(self, packet: bytes, mtu_octets: int) -> None:
        """To the sender of a packet in clear: this host, or another that we forward for, under the policy for such a message."""
        if self._origin(packet) is LOCAL:
            self._say_too_big(TooBig(packet, mtu_octets))
            return
        src = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
        source = nearest(self._ends.local, src)
        message = icmp.too_big(packet, mtu_octets, source) if source else None
        if message is not None:
            self._went(self._stack.outbound_by_reference(numbered(message), self._stack.latest, LOCAL))

    def _owner(self, packet: bytes) -> Sender | None:
        if packet[0] >> 4 == 4:
            if packet[9] != _UDP or packet[6] & 0x3F or packet[7]:
                return None
            at = (packet[0] & 0xF) * 4
            return self._ends.udp.get((True, int.from_bytes(packet[at : at + 2], "big")))
        return self._ends.udp.get((False, int.from_bytes(packet[40:42], "big"))) if packet[6] == _UDP else None

    def _say_too_big(self, event: TooBig) -> None:
        """The host's own sender learns the size as from a router: the kernel keeps its path MTU. RFC 4301 §8.2.1."""
        message = icmp.too_big(event.packet, event.mtu_octets, dst_of(event.packet))
        if message is not None:
            (self.interface(event.interface) or self._ends.protected).send([message])


def dst_of(packet: bytes) -> bytes:
    """Where a packet goes."""
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]


def _taken(sender: Sender) -> list[bytes]:
    """What it refused, which is nobody else's now."""
    refused, sender.refused = sender.refused, []
    return refused


def unseen(events: Iterable[Event]) -> tuple[Event, ...]:
    """Without those that the watcher has shown with their packet."""
    return tuple(event for event in events if not isinstance(event, Tapped))
