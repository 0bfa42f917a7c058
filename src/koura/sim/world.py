"""World: boxes, links between them, and virtual time. One seed is one run.

The queue holds what is going to happen, by time and then by order of asking; `run` takes one thing after the other. Time stands
still while a thing happens, and jumps to the next. After each, whoever watches sees the box that it happened to, so that a check
holds at every moment and not at the end only.

    world.put(box, sents)   onto the links -> arrivals in the queue -> box.receive -> sents ...
    world.wake(box)         its next deadline in the queue -> box.advance -> sents ...
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from koura.entropy import Entropy
from koura.errors import Bug
from koura.moment import Moment
from koura.sim.link import End, Link
from koura.sim.parts import NO_TAGS, Sent, Tags

MAX_STEPS = 1_000_000


class Box(Protocol):
    """Whatever stands at the end of a link: a node, a NAT."""

    @property
    def name(self) -> str: ...

    def receive(self, packet: bytes, at: Moment, tags: Tags = NO_TAGS) -> tuple[Sent, ...]: ...

    def advance(self, at: Moment) -> tuple[Sent, ...]: ...

    def next_deadline(self) -> Moment | None: ...


@dataclass(frozen=True, slots=True)
class Frame:
    """A packet put onto a link. fates: what came of it, a word for each packet that will come out; () where it is lost."""

    at: Moment
    link: Link
    sender: End
    packet: bytes
    tags: Tags
    fates: tuple[str, ...]
    is_strange: bool = False  # nobody in this world sent it: it was put there by an attacker


class World:
    """Everything there is. `watch_frame` sees each packet on each link, `watch_step` each box after something happened to it."""

    def __init__(self, dice: Entropy, start: Moment) -> None:
        self.at = start
        self.boxes: dict[str, Box] = {}
        self.links: list[Link] = []
        self.watch_frame: list[Callable[[Frame], None]] = []
        self.watch_step: list[Callable[[Box], None]] = []
        self.steps = 0
        self._dice = dice
        self._ends: dict[End, Link] = {}
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._asked = 0
        self._wakes: dict[str, int] = {}

    # -- building ------------------------------------------------------------------------------------------------------

    def add(self, box: Box) -> None:
        """One more box; its name is its own."""
        assert box.name not in self.boxes, box.name
        self.boxes[box.name] = box
        self.wake(box)

    def connect(self, link: Link) -> None:
        """One more link between two boxes that are there."""
        for end in (link.near, link.far):
            assert end.box in self.boxes, end
            assert end not in self._ends, end
            self._ends[end] = link
        self.links.append(link)

    # -- what is going to happen ---------------------------------------------------------------------------------------

    def later(self, after_ns: int, action: Callable[[], None]) -> None:
        """Do it then."""
        self._asked += 1
        heapq.heappush(self._queue, (self.at.ns + after_ns, self._asked, action))

    def put(self, box: Box, sents: Iterable[Sent]) -> None:
        """Something happened to a box: what it sends goes onto its links (an interface without a link leads nowhere)."""
        for sent in sents:
            end = End(box.name, sent.interface)
            link = self._ends.get(end)
            if link is not None:
                self._carry(link, end, sent.packet, sent.tags)
        self.wake(box)
        for watch in self.watch_step:
            watch(box)

    def inject(self, link: Link, sender: End, packet: bytes) -> None:
        """An attacker puts a packet onto a link, as if it came from that end."""
        self._see(Frame(self.at, link, sender, packet, NO_TAGS, ("",), True))
        self._arrive(link.delay_ns, link.other(sender), packet, NO_TAGS)

    def wake(self, box: Box) -> None:
        """Note when the box wants to be called."""
        deadline = box.next_deadline()
        if deadline is None:
            return
        ns = max(deadline.ns, self.at.ns)
        known = self._wakes.get(box.name)
        if known is None or ns < known:
            self._wakes[box.name] = ns
            self.later(ns - self.at.ns, lambda: self._advance(box, ns))

    # -- what happens --------------------------------------------------------------------------------------------------

    def run(self, until: Moment) -> None:
        """Let everything happen up to and with this moment; then it is this moment."""
        while self._queue and self._queue[0][0] <= until.ns:
            ns, _, action = heapq.heappop(self._queue)
            self.at = Moment(ns)
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise Bug(f"{MAX_STEPS} steps, and no end")
            action()
        self.at = until

    def _advance(self, box: Box, ns: int) -> None:
        if self._wakes.get(box.name) != ns:
            return
        del self._wakes[box.name]
        sents = box.advance(self.at)
        deadline = box.next_deadline()
        if deadline is not None and deadline <= self.at:
            raise Bug(f"{box.name} was told that it is {self.at.ns}, and still waits for {deadline.ns}")
        self.put(box, sents)

    def _carry(self, link: Link, sender: End, packet: bytes, tags: Tags) -> None:
        arrivals = link.carry(packet, self._dice)
        self._see(Frame(self.at, link, sender, packet, tags, tuple(arrival.note for arrival in arrivals)))
        for arrival in arrivals:
            self._arrive(arrival.after_ns, link.other(sender), arrival.packet, tags)

    def _arrive(self, after_ns: int, end: End, packet: bytes, tags: Tags) -> None:
        box = self.boxes[end.box]

        def arrive() -> None:
            self.put(box, box.receive(packet, self.at, tags))

        self.later(after_ns, arrive)

    def _see(self, frame: Frame) -> None:
        for watch in self.watch_frame:
            watch(frame)
