"""The engine's packets where it is a bump in the wire: pairs of inherited sockets in its loop, between them the pump."""

import select
import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import groupby
from typing import Any

from koura.daemon.ends import End, Kind, still_there
from koura.fast import drivers
from koura.host import xdp
from koura.host.bridge import Side
from koura.host.bump import INSIDE, OUTSIDE, Bump, Pair
from koura.host.clock import Clock
from koura.host.fastbump import FastBump
from koura.host.loop import Loop
from koura.moment import Moment
from koura.stack import Stack
from koura.traffic.outcome import Event

DRAIN_ROUNDS = 256  # more than any socket's queue has bursts; who sends without end is not waited for
MEASURE_S = 1.0


class Bridges:
    """What moves packets for one engine; as daemon.packets.Packets."""

    def __init__(self, loop: Loop, stack: Stack, clock: Clock, opened: tuple[End, ...], tell: Callable[[Iterable[Event]], None]) -> None:
        self._loop = loop
        make = FastBump if stack.fast_path is not None and drivers.has_bump_hands() else Bump
        self.pump = make(stack, clock, tuple(_pairs(opened)), tell)
        self._arrivals: dict[int, Callable[[int], None]] = {}
        self._has_begun = False

    def begin(self) -> None:
        """Read packets from now on: every policy of the start is there. Until then they wait in the kernel."""
        if self._has_begun:
            return
        self._has_begun = True
        self._measure()
        for pair in self.pump.pairs:
            for number in (OUTSIDE, INSIDE):
                arrived = partial(_arrived, self.pump, pair, number)
                self._loop.watch(pair.side(number).fileno(), arrived)
                if number == OUTSIDE:
                    self._arrivals[pair.outside.fileno()] = arrived

    def _measure(self) -> None:
        self.pump.measure()
        self._loop.after_s(MEASURE_S, self._measure)

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
        """A bump's addresses are its policies' business."""

    def paths(self, asked: Mapping[str, Any], at: Moment) -> None:
        """It measures its interfaces itself."""

    def drivers(self) -> dict[str, str]:
        """How each side is read and written, by the names of `losses`."""
        found: dict[str, str] = {}
        for pair in self.pump.pairs:
            for number in (INSIDE, OUTSIDE):
                found[pair.side(number).name] = self.pump.driver(pair, number)
        return found

    def losses(self) -> dict[str, dict[str, int]]:
        """What each side moved and lost."""
        found: dict[str, dict[str, int]] = {}
        for pair in self.pump.pairs:
            for number in (INSIDE, OUTSIDE):
                losses = pair.side(number).losses
                moved = found[pair.side(number).name] = {"received": losses.received, "sent": losses.sent, **losses.lost}
                if isinstance(self.pump, FastBump):
                    for name, count in self.pump.counts(pair, number).items():
                        moved[name] = moved.get(name, 0) + count
        return found


def _pairs(opened: tuple[End, ...]) -> Iterable[Pair]:
    """Two ends of one number are a pair; a third one is by which frames leave."""
    for _, both in groupby(opened, key=lambda end: end.number):
        ends = {end.kind: end for end in both}
        inside, outside = ends[Kind.INSIDE], ends[Kind.OUTSIDE]
        leaving = ends.get(Kind.LEAVING)
        rings = still_there(xdp.leaving, leaving) if leaving is not None else None
        yield Pair(_side(inside), _side(outside), frozenset(inside.own), inside.passes_control, leaving=rings)


def _side(end: End) -> Side:
    return Side(end.name, socket.socket(fileno=end.descriptor))


def _arrived(pump: Bump, pair: Pair, number: int, _events: int) -> None:
    pump.ready(pair, number)
