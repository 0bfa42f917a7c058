"""Checks: what must be true at every moment of a run, and at its end. They read what happens, and share no code with what they check.

    packets in = the sum of outcomes, at every node         what counters say = what was seen
    nothing that policy hides is readable outside           no sequence number and no IV leaves twice under one SPI
    what an SA did never goes back, and no SA accepted      whatever was sent and did not arrive, has a Reason
    more than its peer sent                                 or a link to blame

A node hands over tags beside its packets (sim.node), so a loss is laid at the door where it happened.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from koura.reasons import BYPASSED, DELIVERED, FORWARDED, FRAG_TIMEOUT, HELD_FRAGMENT
from koura.sadb import hot
from koura.sadb.association import Association
from koura.saindex import Protocol
from koura.sim.node import Node
from koura.sim.parts import Seen, What
from koura.sim.scene import NATT_PORT, Scene
from koura.sim.workload import Parcel, Workload
from koura.sim.world import Box, Frame
from koura.traffic.outcome import Bypass, Deliver, Discard, Forward, Held, Outcome, Punt

EVERY_STEPS = 16
NEVER_LESS = (
    hot.SEQUENCE_LAST, hot.SEQUENCE_END, hot.WINDOW_TOP, hot.WINDOW_SEEN, hot.ACCEPTED, hot.PACKETS, hot.OCTETS, hot.USED_FIRST_NS,
    hot.USED_LAST_NS, hot.SOFT_TOLD, hot.FAILED_REPLAY, hot.FAILED_ICV, hot.FAILED_OTHER, hot.STATE,
)  # fmt: skip
_TOO_LARGE = ("pmtu.", "too big")


class Broken(Exception):
    """A check does not hold: a sentence for a person."""


class Checks:
    """All of them, for one run. `why`: for each packet of the workload, what may have ended it."""

    def __init__(self, scene: Scene, workload: Workload) -> None:
        self._scene, self._workload = scene, workload
        self.why: dict[int, set[str]] = defaultdict(set)
        self._arrived: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._counted: dict[str, Counter[str]] = defaultdict(Counter)
        self._fragments: dict[str, set[int]] = defaultdict(set)
        self._numbers: set[tuple[str, bytes]] = set()
        self._ivs: set[tuple[str, bytes]] = set()
        self._past: dict[tuple[str, int, int], list[int]] = {}
        self._steps: Counter[str] = Counter()

    # -- as it happens -------------------------------------------------------------------------------------------------

    def seen(self, seen: Seen) -> None:
        """Something happened at a node."""
        match seen.what:
            case What.ARRIVED:
                self._arrived[seen.node] += 1
            case What.DROPPED:
                self._blame(seen.tags, f"{seen.node}: {seen.note}")
            case What.INBOUND | What.OUTBOUND | What.RELEASED:
                assert seen.outcome is not None
                self._outcome(seen, seen.outcome)
            case What.EMITTED:
                self._number(seen.node, seen.packet)

    def frame(self, frame: Frame) -> None:
        """A packet was put onto a link."""
        if not frame.fates:
            self._blame(frame.tags, f"lost on {frame.link.name}")
        elif "damaged" in frame.fates:
            self._blame(frame.tags, f"damaged on {frame.link.name}")
        if frame.link.is_outside and not frame.is_strange and self._scene.plan.is_secret and self._workload.marks[True] in frame.packet:
            raise Broken(f"readable on {frame.link.name}: a packet of {len(frame.packet)} octets that policy protects")

    def step(self, box: Box) -> None:
        """Something happened to a box, and is over."""
        if not isinstance(box, Node):
            return
        name, counters = box.name, box.stack.counters
        if self._arrived[name] != self._outcomes[name]:
            raise Broken(f"{name}: {self._arrived[name]} packets arrived, {self._outcomes[name]} have an outcome")
        for word in (DELIVERED.name, FORWARDED.name, BYPASSED.name):
            if self._counted[name][word] != counters[word]:
                raise Broken(f"{name}: counter {word} says {counters[word]}, seen were {self._counted[name][word]}")
        self._steps[name] += 1
        if self._steps[name] % EVERY_STEPS == 0:
            self.node(box)

    def node(self, node: Node) -> None:
        """The dearer checks of one node."""
        for word, count in self._counted[node.name].items():
            if node.stack.counters[word] < count:
                raise Broken(f"{node.name}: counter {word} says {node.stack.counters[word]}, seen were {count}")
        for sa in (*node.stack.sadb, *node.stack.sadb.grace):
            self._association(node, sa)

    def _outcome(self, seen: Seen, outcome: Outcome) -> None:
        name = seen.node
        if seen.what is What.INBOUND:
            self._outcomes[name] += 1
        self._counted[name][_word(outcome)] += 1
        if isinstance(outcome, Held):
            if outcome.reason is HELD_FRAGMENT:
                self._fragments[name] |= seen.tags
            return
        self._fragments[name] -= seen.tags
        if isinstance(outcome, Discard):
            if outcome.reason is FRAG_TIMEOUT:
                self._blame(self._fragments[name], f"{name}: {FRAG_TIMEOUT.name}")
            self._blame(seen.tags, f"{name}: {outcome.reason.name}")
        elif isinstance(outcome, Forward):
            for packet in outcome.packets:
                self._number(name, packet)

    def _blame(self, tags: Iterable[int], what: str) -> None:
        for tag in tags:
            self.why[tag].add(what)

    def _number(self, name: str, packet: bytes) -> None:
        """SPI and number of a packet that its maker puts on the wire, and the IV behind them."""
        found = _protected(packet)
        if found is None:
            return
        protocol, dst, body = found
        number = (name, dst + body[:8] if protocol is Protocol.ESP else dst + body[4:12])
        if number in self._numbers:
            raise Broken(f"{name}: {protocol.name} number {number[1][-4:].hex()} left twice under SPI {number[1][-8:-4].hex()}")
        self._numbers.add(number)
        if protocol is Protocol.ESP and self._has_iv(name, body):
            iv = (name, dst + body[:4] + body[8:16])
            if iv in self._ivs:
                raise Broken(f"{name}: IV {body[8:16].hex()} left twice under SPI {body[:4].hex()}")
            self._ivs.add(iv)

    def _has_iv(self, name: str, body: bytes) -> bool:
        spi = int.from_bytes(body[:4], "big")
        node = self._scene.a if name == self._scene.a.name else self._scene.b
        sa = next((sa for sa in node.stack.sadb if sa.agreement.spi == spi and sa.agreement.index.protocol is Protocol.ESP), None)
        return sa is not None and sa.agreement.encryption is not None and sa.agreement.encryption.iv_octets > 0

    def _association(self, node: Node, sa: Association) -> None:
        words = [int(word) for word in sa.hot.words[: hot.SPARE]]
        key = (node.name, sa.slot, sa.epoch)
        past = self._past.get(key)
        if past is not None:
            for offset in NEVER_LESS:
                if words[offset] < past[offset]:
                    raise Broken(f"{node.name}: word {offset} of SPI {sa.agreement.spi:#x} went from {past[offset]} to {words[offset]}")
        self._past[key] = words
        if any(sa.hot.words[hot.SPARE : hot.RING]):
            raise Broken(f"{node.name}: spare words of SPI {sa.agreement.spi:#x} are used")
        if words[hot.SEQUENCE_LAST] > words[hot.SEQUENCE_END]:
            raise Broken(f"{node.name}: SPI {sa.agreement.spi:#x} sent {words[hot.SEQUENCE_LAST]}, granted are {words[hot.SEQUENCE_END]}")
        self._compare(node, sa, words)

    def _compare(self, node: Node, sa: Association, words: list[int]) -> None:
        """A receiver against its sender: nothing beyond what was sent, and with a window nothing accepted twice."""
        sender = self._scene.b if node is self._scene.a else self._scene.a
        if node not in (self._scene.a, self._scene.b) or sa.agreement.index.protocol is Protocol.IPCOMP:
            return
        peer = next((p for p in sender.stack.sadb if p.agreement.spi == sa.agreement.spi), None)
        if peer is None or not words[hot.ACCEPTED]:
            return
        last = int(peer.hot.words[hot.SEQUENCE_LAST])
        if words[hot.WINDOW_TOP] > last:
            raise Broken(f"{node.name}: SPI {sa.agreement.spi:#x} accepted number {words[hot.WINDOW_TOP]}, sent were {last}")
        if sa.agreement.checked_packets and words[hot.ACCEPTED] > last - sa.agreement.sequence:
            raise Broken(f"{node.name}: SPI {sa.agreement.spi:#x} accepted {words[hot.ACCEPTED]} packets, sent were {last}")

    # -- at the end ----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Safety: every loss is explained. Liveness: once links are calm, what is sent arrives."""
        for node in self._scene.nodes:
            self.node(node)
        for parcel in self._workload.parcels.values():
            self._parcel(parcel)
        for sender, receiver, data in self._workload.transfers:
            if not (sender.is_done and receiver.is_done):
                raise Broken(f"a transfer of {len(data)} octets did not end: {len(receiver.data)} arrived")
            if receiver.data != data:
                raise Broken(f"a transfer of {len(data)} octets was altered")

    def _parcel(self, parcel: Parcel) -> None:
        if parcel.arrivals:
            return
        why = self.why.get(parcel.tag, set())
        if not why:
            raise Broken(f"{parcel} did not arrive, and nothing explains it")
        if parcel.is_calm and not any(word in text for text in why for word in _TOO_LARGE):
            raise Broken(f"{parcel} did not arrive though all was calm: {', '.join(sorted(why))}")


def _word(outcome: Outcome) -> str:
    match outcome:
        case Forward():
            return FORWARDED.name
        case Deliver():
            return DELIVERED.name
        case Bypass():
            return BYPASSED.name
        case Punt() | Held() | Discard():
            return outcome.reason.name


def _protected(packet: bytes) -> tuple[Protocol, bytes, bytes] | None:
    """The outermost ESP or AH of a packet that is no later fragment: protocol, destination, octets from its header on."""
    if packet[0] >> 4 == 4:
        if int.from_bytes(packet[6:8], "big") & 0x1FFF:
            return None
        protocol, dst, body = packet[9], packet[16:20], packet[(packet[0] & 15) * 4 :]
    else:
        protocol, dst, body = packet[6], packet[24:40], packet[40:]
        if protocol == 44:
            if int.from_bytes(body[2:4], "big") & 0xFFF8:
                return None
            protocol, body = body[0], body[8:]
    if protocol == 17 and NATT_PORT in (int.from_bytes(body[0:2], "big"), int.from_bytes(body[2:4], "big")) and any(body[8:12]):
        protocol, body = int(Protocol.ESP), body[8:]
    if protocol == Protocol.ESP and len(body) >= 16:
        return Protocol.ESP, dst, body
    return (Protocol.AH, dst, body) if protocol == Protocol.AH and len(body) >= 12 else None

