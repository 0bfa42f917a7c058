"""The pump with native hands: bursts go from TUN to the wire and back inside koura.fast._io; Python sees what the engine does not answer.

Same rules as host.pump, whose ways out it uses for all that the reference answered. `poll` is the loop's wait: as long as the engine
answers everything that comes, bursts go by without Python, one of each descriptor that is ready by turns; anything else that is ready, or a
timer that is due, ends it. A burst that the engine does not answer whole comes back to Python, which goes on with it packet by packet.

Virtual tunnel interfaces are outlets of the same hands (outlets.pxi): what comes from one is asked about with its own origin, and what
comes in under its SA goes there.

The TUN has several queues, so that a lone packet has not to wait for a bulk of others (tun.QUEUES); the sockets have one each, and where
the daemon is what everybody waits for, that one is kept short by dropping or marking packets (delay.pxi).
"""

import errno
import select
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from koura.fast import drivers
from koura.fast.path import FastPath
from koura.host.clock import Clock
from koura.host.pump import Ends, Pump
from koura.host.raw import IPPROTO_ESP, numbered, summed
from koura.host.udp import Udp, whole
from koura.moment import Moment
from koura.stack import Stack
from koura.traffic.outcome import LOCAL, Applied, Event, Origin
from koura.wire import ipv6

Refer = Callable[[bytes, Moment], None]

ROUNDS = 4
_LEFT_HERE = 2  # koura.fast._io.LEFT_HERE


class FastPump(Pump):
    """One TUN with virtio headers, ESP in UDP beside it. The stack has a fast path, and `ends` says which sockets there are."""

    def __init__(self, stack: Stack, clock: Clock, ends: Ends, tell: Callable[[Iterable[Event]], None]) -> None:
        super().__init__(stack, clock, ends, tell)
        fast = stack.fast_path
        assert isinstance(fast, FastPath)
        self._fast = fast
        self._io: Any = drivers.hands(fast.engine, ends.protected.fileno())
        for descriptor in ends.more_queues:
            self._io.use_queue(descriptor)
        for is_ipv4, attachment in ends.native.items():
            assert isinstance(attachment, Udp)
            self._io.use_udp(is_ipv4, attachment.fileno(), attachment.port)
        for is_ipv4, one in ends.native_esp.items():
            self._io.use_esp(is_ipv4, one.fileno())
        for is_ipv4, descriptor in ends.raw_descriptors:
            self._io.use_raw(is_ipv4, descriptor)
        for ring in ends.rings:
            self._io.use_ring(ring)
        self._ways = {ring.name: int(self._io.use_leaving(ring.leaving)) for ring in ends.rings if ring.leaving is not None}

    def local_changed(self) -> None:
        """`ends.local` is another set now."""
        self._io.set_local(self._ends.local)

    def poll(self, epoll: select.epoll, seconds: float | None) -> list[tuple[int, int]]:
        """The loop's wait. Bursts that the engine answers whole pass here without Python; the rest of what is ready is given back."""
        is_on = self._stack.begin_burst(self._clock.now())
        rest: list[tuple[int, int]] = self._io.turn(epoll.fileno(), -1.0 if seconds is None else seconds, self._clock.anchor_ns, is_on)
        if self._io.is_unsettled:
            self._io.is_unsettled = False
            self._fast.settle()
        self._take_refused()
        self._find_hops()
        return rest

    def _find_hops(self) -> None:
        """Where packets go that leave by AF_XDP."""
        next_hops = self._ends.next_hops
        if next_hops is None:
            return
        for destination in self._io.wanted_hops():
            hop = next_hops.find(destination, self._clock.now().ns)
            self._io.put_hop(destination, hop.life_ns, hop.way, hop.front, hop.most)

    def hops_changed(self, _events: int) -> None:
        """Routes, neighbours or links did."""
        assert self._ends.next_hops is not None
        if self._ends.next_hops.drain():
            self._io.forget_hops()

    def outbound_ready(self, _events: int = 0) -> None:
        """The TUN has packets."""
        self.queue_ready(0)

    def queue_ready(self, queue: int) -> None:
        """One of its queues has."""
        self._rounds(lambda: self._io.read(queue), lambda first, count, at: self._seal(first, count, at, self._refer))

    def datagrams_ready(self, is_ipv4: bool) -> None:
        """A UDP socket has trains of datagrams."""
        self._rounds(
            lambda: self._io.receive(is_ipv4),
            lambda first, count, at: self._open(first, count, at, self._io.open, lambda number: whole(*self._io.datagram(number))),
        )

    def esp_ready(self, is_ipv4: bool) -> None:
        """A raw socket has ESP."""
        opening = self._io.open_whole if is_ipv4 else self._io.open
        packet = self._whole_packet if is_ipv4 else self._whole_esp
        self._rounds(lambda: self._io.receive_esp(is_ipv4), lambda first, count, at: self._open(first, count, at, opening, packet))

    def frames_ready(self, ring: int) -> None:
        """An AF_XDP socket has ESP."""
        self._rounds(
            lambda: self._io.receive_frames(ring),
            lambda first, count, at: self._open(first, count, at, self._io.open_whole, self._whole_packet),
        )

    def outlets(self, outlet_of: Callable[[Applied], int | None]) -> None:
        """Who says which of the TUNs beside the host's gets what came through an SA; None: nobody can."""
        self._fast.outlet_of = outlet_of

    def use_outlet(self, origin: Origin, descriptors: Sequence[int]) -> int:
        """Another TUN, of these queues, whose packets have this origin; its number."""
        return int(self._io.use_outlet(self._fast.tag(origin), descriptors))

    def drop_outlet(self, number: int) -> None:
        self._io.drop_outlet(number)

    def outlet_counts(self, number: int) -> dict[str, int]:
        """What native I/O moved there, and lost, as an attachment counts it: `unread`, or by the error's name."""
        found = dict(self._io.outlet_counts(number))
        lost = {errno.errorcode.get(error, "?"): count for error, count in found.pop("lost", {}).items()}
        return found | lost

    def outlet_ready(self, number: int, queue: int, refer: Refer) -> None:
        """It has packets. refer: to whom the engine leaves one."""
        self._rounds(lambda: self._io.read_outlet(number, queue), lambda first, count, at: self._seal(first, count, at, refer))

    def _rounds(self, take: Callable[[], tuple[int, int, int]], answer: Callable[[int, int, Moment], None]) -> None:
        """Bursts while there are more, but not for ever; what was read is answered whole."""
        done = 0
        while True:
            first, count, left = take()
            if count:
                answer(first, count, self._clock.now())
            done += 1
            if not left or (left != _LEFT_HERE and done >= ROUNDS):
                break
        self._fast.settle()

    def _refer(self, packet: bytes, at: Moment) -> None:
        """A packet of the host's, or in transit, to the reference."""
        origin = self._origin(packet)
        if origin is LOCAL:
            packet = numbered(packet)
        self._went(self._stack.outbound_by_reference(packet, at, origin))

    def _seal(self, first: int, count: int, at: Moment, refer: Refer) -> None:
        is_on = self._stack.begin_burst(at)
        while first < count:
            done = self._io.seal(first, count, at.ns)[0] if is_on else 0
            if self._take_refused():
                is_on = self._stack.begin_burst(at)
            first += done
            if not done:
                refer(self._io.packet(first), at)
                is_on = self._stack.begin_burst(at)
                first += 1

    def _take_refused(self) -> bool:
        """What the kernel refused for its length; whether there was any."""
        refused: Sequence[tuple[bytes, bool]] = self._io.refused()
        for packet, is_clear in refused:
            self._too_long(packet, is_clear=is_clear)
        return bool(refused)

    def _open(self, first: int, count: int, at: Moment, opening: Callable[[int, int, int], int], packet: Callable[[int], bytes]) -> None:
        is_on = self._stack.begin_burst(at)
        while first < count:
            done = opening(first, count, at.ns) if is_on else 0
            first += done
            if not done:
                one = packet(first)
                self._came(one, self._stack.inbound_by_reference(one, at))
                is_on = self._stack.begin_burst(at)
                first += 1

    def _whole_packet(self, number: int) -> bytes:
        return summed(self._io.packet(number))

    def _whole_esp(self, number: int) -> bytes:
        src, _, dst, _, traffic_class, octets = self._io.datagram(number)
        return ipv6.write(ipv6.Header(src, dst, IPPROTO_ESP, 64, traffic_class), octets)

    def counts(self) -> dict[str, int]:
        """What the hands moved, and what was lost: not sent, not taken by the TUN, longer than any packet, with a false virtio header.

        late, marked: dropped, and told of by ECN, because the queue in front of a socket was too long.
        """
        names = ("taken", "sent", "received", "delivered", "unsent", "undelivered", "truncated", "unread", "late", "marked")
        return {name: getattr(self._io, name) for name in names}

    def frames(self) -> dict[str, dict[str, int]]:
        """What came and went by each AF_XDP socket."""
        found = {ring.name: {"received": int(self._io.frames_of(number))} for number, ring in enumerate(self._ends.rings)}
        for name, way in self._ways.items():
            found[name]["sent"] = int(self._io.frames_out(way))
        return found
