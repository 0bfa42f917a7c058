"""Attack: what a stranger on the outside links can do: keep packets, send them again, change them, make some up.

Nothing here knows a key. What it sends carries no tags: whatever comes of it, no packet of the workload may be delivered for it.
"""

from koura.entropy import Entropy
from koura.sim.link import flip
from koura.sim.plan import pick
from koura.sim.world import Frame, World

KEPT_FRAMES = 200


class Attacker:
    """Listens on the outside links, and strikes when told to."""

    def __init__(self, world: World, dice: Entropy) -> None:
        self._world, self._dice = world, dice
        self._kept: list[Frame] = []
        self.struck = 0
        world.watch_frame.append(self._listen)

    def _listen(self, frame: Frame) -> None:
        if frame.link.is_outside and not frame.is_strange:
            if len(self._kept) >= KEPT_FRAMES:
                del self._kept[self._dice.below(KEPT_FRAMES)]
            self._kept.append(frame)

    def strike(self, count: int) -> None:
        """Send so many packets: old ones as they were, old ones changed, cut or lengthened, and noise."""
        for _ in range(count if self._kept else 0):
            frame = self._kept[self._dice.below(len(self._kept))]
            packet = self._forge(frame.packet)
            self.struck += 1
            self._world.inject(frame.link, frame.sender, packet)

    def _forge(self, packet: bytes) -> bytes:
        dice = self._dice
        kind = pick(dice, ("replay", "replay", "replay", "flip", "cut", "tail", "noise", "payload"))
        if kind == "flip":
            return flip(packet, dice.below(8 * len(packet)))
        if kind == "cut":
            return packet[: 1 + dice.below(len(packet))]
        if kind == "tail":
            return packet + dice.octets(1 + dice.below(40))
        if kind == "noise":
            return bytes([pick(dice, (0x45, 0x60))]) + dice.octets(dice.below(80))
        if kind == "payload":
            head = 20 if packet[0] >> 4 == 4 else 40
            return packet[: head + 12] + dice.octets(max(len(packet) - head - 12, 0))
        return packet
