"""The pump of a bump in the wire by native I/O: frames from one side through the engine to the other without a Python object each.

Same rules as host.bump, which answers what the engine does not, and sends what is not simply sent. A side that has more than a burst
gets a few of them at one wake-up, as in host.fastpump.
"""

from collections.abc import Callable, Iterable
from typing import Any

from koura.fast import drivers
from koura.fast.path import FastPath
from koura.host import bridge
from koura.host.bump import INSIDE, OUTSIDE, Bump, Pair, Way
from koura.host.clock import Clock
from koura.host.frames import Link
from koura.stack import Stack
from koura.traffic.outcome import FORWARDED, Bypass, Deliver, Event, Forward, Outcome

ROUNDS = 4
_LEFT_HERE = 2  # koura.fast._bump.LEFT_HERE


class FastBump(Bump):
    """All pairs of one stack, which has a fast path."""

    def __init__(self, stack: Stack, clock: Clock, pairs: tuple[Pair, ...], tell: Callable[[Iterable[Event]], None]) -> None:
        super().__init__(stack, clock, pairs, tell)
        fast = stack.fast_path
        assert isinstance(fast, FastPath)
        self._fast = fast
        self._hands: dict[int, Any] = {}  # by the inside's descriptor
        for pair in pairs:
            hands = drivers.bump_hands(fast.engine, pair.inside.fileno(), pair.outside.fileno())
            if hands.set_own(tuple(sorted(pair.own)), pair.inside.mac, pair.outside.mac):
                self._hands[pair.inside.fileno()] = hands
                if pair.leaving is not None:
                    hands.set_leaving(pair.leaving)

    def measure(self) -> None:
        super().measure()
        for pair in self.pairs:
            hands = self._hands.get(pair.inside.fileno())
            if hands is not None:
                hands.set_own(tuple(sorted(pair.own)), pair.inside.mac, pair.outside.mac)
                for number in (INSIDE, OUTSIDE):
                    hands.set_mtu(number, pair.side(number).mtu_octets)
                hands.go_on()

    def driver(self, pair: Pair, number: int) -> str:
        hands = self._hands.get(pair.inside.fileno())
        if hands is None:
            return super().driver(pair, number)
        usual = "native, 64 frames a call"
        if number == INSIDE or pair.leaving is None:
            return usual
        why_not = hands.why_not_leaving()
        return f"{usual}; not by AF_XDP: {why_not}" if why_not else f"{usual}, protected ones leave by AF_XDP"

    def learned(self, pair: Pair, number: int, address: bytes) -> None:
        super().learned(pair, number, address)
        hands, station = self._hands.get(pair.inside.fileno()), pair.known(number).get(address)
        if hands is not None and station is not None:
            hands.put_station(number, address, station)

    def ready(self, pair: Pair, number: int) -> None:
        """A side has frames."""
        hands = self._hands.get(pair.inside.fileno())
        if hands is None:
            super().ready(pair, number)
            return
        self.look()
        answer = self._seal if number == INSIDE else self._open
        done = 0
        while True:
            count, left = hands.read(number)
            if count:
                answer(pair, hands, count)
            for octets, tag in hands.frames():
                frame = bridge.frame_of(octets, tag)
                if frame is None:
                    pair.side(number).losses.lose("unread")
                else:
                    self.frame(pair, number, frame)
            done += 1
            if not left or (left != _LEFT_HERE and done >= ROUNDS):
                break
        self._fast.settle()

    def send(self, way: Way, packet: bytes) -> None:
        """By the reference, which leaves the engine's burst alone."""
        self._way = way
        results = self._stack.outbound_by_reference(packet, self._clock.now(), FORWARDED)
        self.went(packet, results.outcomes, results.events)

    def receive(self, way: Way, packet: bytes) -> None:
        """The same from outside."""
        self._way = way
        results = self._stack.inbound_by_reference(packet, self._clock.now())
        self.came(packet, results.outcomes, results.events)

    def _seal(self, pair: Pair, hands: Any, count: int) -> None:
        first = 0
        while first < count:
            at = self._clock.now()  # the reference may have looked at the clock since
            is_on = self._stack.begin_burst(at)
            done = hands.seal(first, count, at.ns) if is_on else 0
            for number, kind, octets, _ in hands.results():
                outcome = Forward((octets,)) if kind == drivers.FORWARD else Bypass((octets,))
                self._leave(_way(pair, hands, number), hands.packet(number), outcome)
            first += done
            if not done:
                self.send(_way(pair, hands, first), hands.packet(first))
                first += 1

    def _open(self, pair: Pair, hands: Any, count: int) -> None:
        first = 0
        while first < count:
            at = self._clock.now()
            is_on = self._stack.begin_burst(at)
            done = hands.open(first, count, at.ns) if is_on else 0
            for number, _, octets, verdict in hands.results():
                outcome: Outcome = Deliver(octets, verdict[1], 0, verdict[2])
                self._arrive(_way(pair, hands, number), hands.packet(number), outcome)
            first += done
            if not done:
                self.receive(_way(pair, hands, first), hands.packet(first))
                first += 1

    def counts(self, pair: Pair, number: int) -> dict[str, int]:
        """What native I/O moved at a side, and lost."""
        hands = self._hands.get(pair.inside.fileno())
        return {} if hands is None else hands.counts(number)


def _way(pair: Pair, hands: Any, number: int) -> Way:
    front = hands.front(number)
    return Way(pair, Link(front[:6], front[6:12], front[12:-2]))
