"""Link: what joins two boxes, and what it does to packets on the way: lose, double, delay, reorder, damage them, mark congestion.

A link decides the fate of a packet with dice that are handed in. Reordering is delay: some packets take longer than those behind
them. Damage flips one bit, which every checksum and every ICV sees. Not here: when things arrive (world), sizes (node).
"""

from dataclasses import dataclass, replace

from koura.entropy import Entropy
from koura.moment import NS_PER_S
from koura.wire import ipv4

MILLISECOND_NS = NS_PER_S // 1000


@dataclass(frozen=True, slots=True)
class Faults:
    """How often, per thousand packets; late_ns: how much later the delayed ones come."""

    lost: int = 0
    doubled: int = 0
    late: int = 0
    damaged: int = 0
    marked: int = 0
    late_ns: int = 20 * MILLISECOND_NS


CALM = Faults()


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link: a box and its interface."""

    box: str
    interface: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet that comes out at the other end, after a while. note: what happened to it, '' for nothing."""

    after_ns: int
    packet: bytes
    note: str = ""


@dataclass(slots=True)
class Link:
    """Two ends. is_outside: strangers can see and touch what is on it. `faults` may change at any time."""

    name: str
    near: End
    far: End
    delay_ns: int = MILLISECOND_NS
    is_outside: bool = False
    faults: Faults = CALM

    def other(self, end: End) -> End:
        """The end that a packet from `end` comes out at."""
        return self.far if end == self.near else self.near

    def carry(self, packet: bytes, dice: Entropy) -> tuple[Arrival, ...]:
        """What comes out: nothing if it is lost, two if it is doubled."""
        faults = self.faults
        if faults == CALM:
            return (Arrival(self.delay_ns, packet),)
        if dice.below(1000) < faults.lost:
            return ()
        came = [self._one(packet, dice)]
        if dice.below(1000) < faults.doubled:
            came.append(Arrival(self._one(packet, dice).after_ns, packet, "doubled"))
        return tuple(came)

    def _one(self, packet: bytes, dice: Entropy) -> Arrival:
        faults = self.faults
        is_late = dice.below(1000) < faults.late
        after_ns = self.delay_ns + (dice.below(faults.late_ns) if is_late else 0)
        if dice.below(1000) < faults.damaged:
            return Arrival(after_ns, flip(packet, dice.below(8 * len(packet))), "damaged")
        if faults.marked and dice.below(1000) < faults.marked:
            return Arrival(after_ns, mark(packet), "marked")
        return Arrival(after_ns, packet, "late" if is_late else "")


def flip(packet: bytes, bit: int) -> bytes:
    """The packet with one bit the other way."""
    place = bit >> 3
    return packet[:place] + bytes([packet[place] ^ 1 << (bit & 7)]) + packet[place + 1 :]


def mark(packet: bytes) -> bytes:
    """The packet with congestion experienced, if it says that its ends understand that. RFC 3168 §5."""
    if packet[0] >> 4 == 6:
        word = int.from_bytes(packet[:4], "big")
        return (word | 3 << 20).to_bytes(4, "big") + packet[4:] if word >> 20 & 3 else packet
    header, payload = ipv4.read(packet)
    return ipv4.write(replace(header, tos=header.tos | 3), payload) if header.tos & 3 else packet
