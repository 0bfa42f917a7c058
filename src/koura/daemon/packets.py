"""The engine's packets: attachments of inherited descriptors in its loop, between them the pump."""

import select
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from koura import address
from koura.attachment import Attachment
from koura.daemon import ends
from koura.daemon.ends import End
from koura.host import tun, udpcopy
from koura.host.clock import Clock
from koura.host.fastpump import FastPump
from koura.host.loop import Loop
from koura.host.pump import Pump, Sender
from koura.host.tun import Tun
from koura.moment import Moment
from koura.notices import LocalAddresses, PathMtu
from koura.stack import Stack
from koura.traffic.outcome import Event

ONE_BY_ONE = "packet by packet"
DRAIN_ROUNDS = 256  # more than any socket's queue has bursts; who sends without end is not waited for


class Packets:
    """What moves packets for one engine. `tell(events)`: what is not about packets; `moved`: after each burst."""

    def __init__(self, loop: Loop, stack: Stack, clock: Clock, opened: tuple[End, ...], tell: Callable[[Iterable[Event]], None]) -> None:
        self._stack = stack
        self._ends = ends.attach(opened)
        self._paths: dict[bytes, int] = {}
        self.pump = Pump(stack, clock, self._ends, tell) if not opened[0].is_native else FastPump(stack, clock, self._ends, tell)
        self._arrivals: dict[int, Callable[[int], None]] = {}
        self._loop = loop
        self._has_begun = self._is_deleted = False
        self.log: Callable[[str], None] = lambda _line: None

    def begin(self) -> None:
        """Read packets from now on: every policy of the start is there. Until then they wait in the kernel."""
        if self._has_begun:
            return
        self._has_begun = True
        loop = self._loop
        if isinstance(self.pump, FastPump):
            loop.poll_by(self.pump.poll)
            for number, descriptor in enumerate(self._ends.more_queues, 1):
                tun.watch(loop, descriptor, partial(_queue, self.pump, number), self._gone)
            if self._ends.next_hops is not None:
                loop.watch(self._ends.next_hops.fileno(), self.pump.hops_changed)
            for number, ring in enumerate(self._ends.rings):
                self._arrivals[ring.descriptor] = partial(_frames, self.pump, number)
            for is_ipv4, one in self._ends.native.items():
                self._arrivals[one.fileno()] = partial(_trains, self.pump, is_ipv4)
            for is_ipv4, one in self._ends.native_esp.items():
                self._arrivals[one.fileno()] = partial(_esp, self.pump, is_ipv4)
        for one in self._ends.unprotected:
            if isinstance(one, udpcopy.Copies4 | udpcopy.Copies6):
                one.is_wanted = self._stack.encapsulates
            self._arrivals[one.fileno()] = partial(_arrived, self.pump, one)
        if isinstance(self._ends.protected, Tun):
            tun.watch(loop, self._ends.protected.fileno(), self.pump.outbound_ready, self._gone)
        else:
            loop.watch(self._ends.protected.fileno(), self.pump.outbound_ready)
        for descriptor, arrived in self._arrivals.items():
            loop.watch(descriptor, arrived)

    def _gone(self) -> None:
        """Somebody deleted the interface; its blackholes stay."""
        if not self._is_deleted:
            self._is_deleted = True
            self.log(f"{self._ends.protected.name} was deleted by somebody else: nothing passes until koura down, and up")

    def drain(self) -> None:
        """What has arrived by now is received before whatever comes next: an SA that is deleted opens its last packets first."""
        waiting = select.poll()
        for descriptor in self._arrivals:
            waiting.register(descriptor, select.POLLIN)
        for _ in range(DRAIN_ROUNDS):
            ready = waiting.poll(0)
            if not ready:
                return
            for descriptor, events in ready:
                self._arrivals[descriptor](events)

    def addresses(self, asked: Mapping[str, Any], at: Moment) -> None:
        """Which addresses are this host's."""
        ours = frozenset(address.parse(text) for text in asked["addresses"])
        self._ends.local = ours
        self.pump.local_changed()
        self.pump.happened(self._stack.notice(LocalAddresses(ours), at))

    def paths(self, asked: Mapping[str, Any], at: Moment) -> None:
        """How large packets may be on the first link: `default`, and towards some destinations, 0 where nothing is said any more.

        is_whole: these are all; else those that changed.
        """
        told = {address.parse(text): int(octets) for text, octets in asked["paths"].items()} | {b"": int(asked["default"])}
        if asked["is_whole"]:
            told |= dict.fromkeys(self._paths.keys() - told.keys(), 0)
        for destination, octets in told.items():
            if self._paths.get(destination, 0) == octets:
                continue
            self._stack.notice(PathMtu(destination, octets), at)
            if octets:
                self._paths[destination] = octets
            else:
                del self._paths[destination]

    def drivers(self) -> dict[str, str]:
        """How each attachment is read and written, by the names of `losses`."""
        given = self._ends
        if not isinstance(self.pump, FastPump):
            return {one.name: ONE_BY_ONE for one in (given.protected, *given.unprotected)}
        return {
            given.protected.name: f"native, super packets, {1 + len(given.more_queues)} queues",
            **{one.name: "native, trains of datagrams" for one in given.native.values()},
            **{one.name: "native, 64 packets a call" for one in given.native_esp.values()},
            **{ring.name: "native, AF_XDP, generic mode" for ring in given.rings},
            **{one.name: ONE_BY_ONE for one in given.unprotected},
        }

    def losses(self) -> dict[str, dict[str, int]]:
        """What each attachment moved and lost; under "native" what native I/O did, for all that it serves."""
        ends: tuple[Attachment | Sender, ...] = (
            self._ends.protected, *self._ends.native.values(), *self._ends.unprotected, self._ends.out
        )  # fmt: skip
        found = {one.name: {"received": one.losses.received, "sent": one.losses.sent, **one.losses.lost} for one in ends}
        if isinstance(self.pump, FastPump):
            found |= self.pump.frames()
            found["native"] = self.pump.counts()
        return found


def _queue(pump: FastPump, number: int, _events: int) -> None:
    pump.queue_ready(number)


def _frames(pump: FastPump, number: int, _events: int) -> None:
    pump.frames_ready(number)


def _trains(pump: FastPump, is_ipv4: bool, _events: int) -> None:
    pump.datagrams_ready(is_ipv4)


def _esp(pump: FastPump, is_ipv4: bool, _events: int) -> None:
    pump.esp_ready(is_ipv4)


def _arrived(pump: Pump, attachment: Any, _events: int) -> None:
    pump.inbound_ready(attachment)
