"""What nodes are made of, what leaves them, and what is seen of them: values, for node, world, checks and stories."""

from dataclasses import dataclass
from enum import Enum

from koura.address import Prefix
from koura.moment import Moment
from koura.traffic.outcome import Outcome

Tags = frozenset[int]
NO_TAGS: Tags = frozenset()


@dataclass(frozen=True, slots=True)
class Interface:
    """One end of a link: the addresses with their prefix lengths, and the largest packet it takes."""

    name: str
    addresses: tuple[tuple[bytes, int], ...]
    mtu_octets: int = 1500


@dataclass(frozen=True, slots=True)
class Route:
    """Packets for these destinations leave by this interface; the longest prefix counts."""

    prefix: Prefix
    interface: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet that leaves by an interface."""

    interface: str
    packet: bytes
    tags: Tags = NO_TAGS


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram that came to a port of this host. packet: the whole of it; tags: of the packet that brought it."""

    src: bytes
    dst: bytes
    sport: int
    dport: int
    payload: bytes
    at: Moment
    packet: bytes
    tags: Tags = NO_TAGS


class What(Enum):
    """What happened at a node."""

    ARRIVED = "arrived"  # from a link
    INBOUND = "inbound"  # the stack said what becomes of it
    OUTBOUND = "outbound"  # likewise, of a packet about to leave
    RELEASED = "released"  # what became of one that was held; the packet is not known
    EMITTED = "emitted"  # a packet of the stack's own
    SENT = "sent"  # onto a link
    TAKEN = "taken"  # by this host: nobody else will see it
    DROPPED = "dropped"  # by this host's IP layer, not by the stack
    TOLD = "told"  # the sender here was told a smaller size


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that happened. outcome: the stack's, where there is one; note: a word for a reader."""

    at: Moment
    node: str
    what: What
    packet: bytes = b""
    tags: Tags = NO_TAGS
    outcome: Outcome | None = None
    note: str = ""
    is_outbound: bool = False
