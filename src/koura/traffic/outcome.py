"""Outcome: what became of one packet; Event: what else happened. Packets in = the sum of outcomes, always."""

from dataclasses import dataclass

from koura.quick import quick
from koura.reasons import Ending
from koura.saindex import Protocol


@quick
@dataclass(frozen=True, slots=True)
class Origin:
    """Where an outbound packet comes from.

    is_forwarded: in transit, not of this host. socket: the number of the socket that sent it, whose own policy goes first; 0: none known.
    fragment_octets: it came in fragments, the largest of which had so many octets (Deliver says so); 0: it came whole.
    interface: the virtual tunnel interface it was routed to, whose policies alone decide (M22); '': none.
    """

    is_forwarded: bool = False
    socket: int = 0
    fragment_octets: int = 0
    interface: str = ""


LOCAL = Origin()
FORWARDED = Origin(is_forwarded=True)


@quick
@dataclass(frozen=True, slots=True)
class Applied:
    """One entry of the decapsulation history, in the order the headers came off (outermost first).

    src, dst: the SA's own; where the SA leaves its source open, that of the packet.
    """

    protocol: Protocol
    mode: int  # of the SA: 0 any
    was_tunnel: bool  # whether an outer IP header came off
    spi: int
    src: bytes
    dst: bytes
    reqid: int


@quick
@dataclass(frozen=True, slots=True)
class Forward:
    """Outbound: protected; send these packets (several when the result was fragmented), outer IP headers on."""

    packets: tuple[bytes, ...]


@quick
@dataclass(frozen=True, slots=True)
class Deliver:
    """Inbound: accepted; the innermost packet, for this host or to be forwarded. history is () for clear packets.

    fragment_octets: it came in fragments, the largest of which had so many octets; who forwards it hands that on in Origin.
    skips_filter: a packet filter at the host's own input has seen what it may of it (M1: filtertunnel is 0).
    """

    packet: bytes
    history: tuple[Applied, ...] = ()
    fragment_octets: int = 0
    skips_filter: bool = False


@quick
@dataclass(frozen=True, slots=True)
class Bypass:
    """Outbound: send in clear, as policy allows; several packets when it had to be fragmented."""

    packets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Punt:
    """Inbound: not for IPsec but for the socket of its port (IKE); the whole packet."""

    packet: bytes
    reason: Ending


@dataclass(frozen=True, slots=True)
class Held:
    """Kept: a fragment, or a packet that waits for an SA. Its end is reported later as a Released event."""

    reason: Ending


@dataclass(frozen=True, slots=True)
class Discard:
    """Ended here, for this reason."""

    reason: Ending


Outcome = Forward | Deliver | Bypass | Punt | Held | Discard


@quick
@dataclass(frozen=True, slots=True)
class ToKeySocket:
    """A PF_KEY message for the key socket with this number."""

    socket: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class Emit:
    """A packet of our own making (ICMP error, dummy, keepalive): ready to send as it is, already protected if it must be."""

    packet: bytes
    why: str


@quick
@dataclass(frozen=True, slots=True)
class Released:
    """What finally became of a packet that was Held. packet: as it waited; b'' where it ended there."""

    outcome: Outcome
    is_outbound: bool
    packet: bytes = b""


@dataclass(frozen=True, slots=True)
class Tapped:
    """A packet shown at enc(4): family, spi, flags as in DLT_ENC (processing.md §9)."""

    is_outbound: bool
    stage: int  # 1 BEFORE, 2 AFTER, 4 after the filter
    spi: int
    flags: int
    packet: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Reservation: the SA (handle slot, epoch) wants its next block of numbers from the ledger (ARCHITECTURE §4, nonces)."""

    slot: int
    epoch: int


@dataclass(frozen=True, slots=True)
class TooBig:
    """A packet of this host was discarded because it does not fit once protected: its sender sees EMSGSIZE. RFC 4301 §8.2.

    mtu_octets: the largest packet to this destination that would fit. interface: the virtual tunnel interface that it was sent into.
    At a bump in the wire: a packet of a host behind it.
    """

    packet: bytes
    mtu_octets: int
    interface: str = ""


Event = ToKeySocket | Emit | Released | Tapped | Wanted | TooBig
