"""What a transform may know besides the packet and the SA, and what opening one gives."""

from dataclasses import dataclass

from koura.entropy import Entropy
from koura.moment import Moment
from koura.quick import quick
from koura.settings import Settings
from koura.xform.place import Place


@quick
@dataclass(frozen=True, slots=True)
class Context:
    """The tunables, the time, and the dice of one packet."""

    settings: Settings
    at: Moment
    entropy: Entropy


@quick
@dataclass(frozen=True, slots=True)
class Opened:
    """A packet with one header less, parted: `place`; `seq64`: the number that authenticated."""

    place: Place
    seq64: int = 0

    @property
    def packet(self) -> bytes:
        """The packet, lengths and checksum of its IP header right."""
        return self.place.packet

    @property
    def next_header(self) -> int:
        """What stands behind the IP headers now."""
        return self.place.protocol
