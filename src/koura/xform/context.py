"""What a transform may know besides the packet and the SA, and what opening one gives."""

from dataclasses import dataclass

from koura.entropy import Entropy
from koura.moment import Moment
from koura.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """The tunables, the time, and the dice of one packet."""

    settings: Settings
    at: Moment
    entropy: Entropy


@dataclass(frozen=True, slots=True)
class Opened:
    """A packet with one header less. `next_header`: what stands behind the IP headers now; `seq64`: the number that authenticated."""

    packet: bytes
    next_header: int
    seq64: int = 0
