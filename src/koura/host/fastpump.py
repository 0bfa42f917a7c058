"""The pump with native hands: bursts go from TUN to UDP and back inside koura.fast._io; Python sees what the engine does not answer.

Same rules as host.pump, whose ways out it uses for all that the reference answered. Raw IP sockets are read as there.
"""

from collections.abc import Callable, Iterable
from typing import Any

from koura.fast import drivers
from koura.fast.path import FastPath
from koura.host.clock import Clock
from koura.host.pump import Ends, Pump
from koura.host.raw import IPPROTO_ESP
from koura.host.udp import Udp, whole
from koura.stack import Stack
from koura.traffic.outcome import FORWARDED, LOCAL, Event
from koura.wire import ipv6


class FastPump(Pump):
    """One TUN with virtio headers, ESP in UDP beside it. The stack has a fast path, and `ends` says which sockets there are."""

    def __init__(self, stack: Stack, clock: Clock, ends: Ends, tell: Callable[[Iterable[Event]], None]) -> None:
        super().__init__(stack, clock, ends, tell)
        fast = stack.fast_path
        assert isinstance(fast, FastPath)
        self._fast = fast
        self._io: Any = drivers.hands(fast.engine, ends.protected.fileno())
        for is_ipv4, attachment in ends.native.items():
            assert isinstance(attachment, Udp)
            self._io.use_udp(is_ipv4, attachment.fileno(), attachment.port)
        for is_ipv4, one in ends.native_esp.items():
            self._io.use_esp(is_ipv4, one.fileno())
        for is_ipv4, descriptor in ends.raw_descriptors:
            self._io.use_raw(is_ipv4, descriptor)
        self._is_local_known = self._io.set_local(())

    def local_changed(self) -> None:
        """`ends.local` is another set now."""
        self._is_local_known = self._io.set_local(tuple(self._ends.local))

    def outbound_ready(self, _events: int = 0) -> None:
        at = self._clock.now()
        is_on = self._stack.begin_burst(at) and self._is_local_known
        count, first = self._io.read(), 0
        while first < count:
            done, is_forwarded = self._io.seal(first, count, at.ns) if is_on else (0, False)
            first += done
            if not done:
                packet = self._io.packet(first)
                origin = self._origin(packet) if not is_on else FORWARDED if is_forwarded else LOCAL
                results = self._stack.outbound_by_reference(packet, at, origin)
                self._leave(results.outcomes)
                self.happened(results.events)
                is_on = self._stack.begin_burst(at) and self._is_local_known
                first += 1
        self._fast.settle()

    def datagrams_ready(self, is_ipv4: bool) -> None:
        """A UDP socket has trains of datagrams."""
        at = self._clock.now()
        is_on = self._stack.begin_burst(at)
        count, first = self._io.receive(is_ipv4), 0
        while first < count:
            done = self._io.open(first, count, at.ns) if is_on else 0
            first += done
            if not done:
                results = self._stack.inbound_by_reference(whole(*self._io.datagram(first)), at)
                self._deliver(results.outcomes)
                self.happened(results.events)
                is_on = self._stack.begin_burst(at)
                first += 1
        self._fast.settle()

    def esp_ready(self, is_ipv4: bool) -> None:
        """A raw socket has ESP."""
        at = self._clock.now()
        is_on = self._stack.begin_burst(at)
        count, first = self._io.receive_esp(is_ipv4), 0
        opening = self._io.open_whole if is_ipv4 else self._io.open
        while first < count:
            done = opening(first, count, at.ns) if is_on else 0
            first += done
            if not done:
                results = self._stack.inbound_by_reference(self._whole_esp(first, is_ipv4), at)
                self._deliver(results.outcomes)
                self.happened(results.events)
                is_on = self._stack.begin_burst(at)
                first += 1
        self._fast.settle()

    def _whole_esp(self, number: int, is_ipv4: bool) -> bytes:
        if is_ipv4:
            return bytes(self._io.packet(number))
        src, _, dst, _, traffic_class, octets = self._io.datagram(number)
        return ipv6.write(ipv6.Header(src, dst, IPPROTO_ESP, 64, traffic_class), octets)

    def counts(self) -> dict[str, int]:
        """What the hands moved: packets taken from the TUN, sent, received, delivered, lost."""
        io = self._io
        return {"taken": io.taken, "sent": io.sent, "received": io.received, "delivered": io.delivered, "lost": io.lost}
