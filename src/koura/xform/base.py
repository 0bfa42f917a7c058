"""The xform switch: which transform an SA's protocol is, and the sizes that follow from the SA. fast_ipsec's `struct xformsw`."""

from types import ModuleType

from koura.errors import Malformed
from koura.reasons import IP_MALFORMED, Discarded
from koura.sadb.association import Association
from koura.saindex import Protocol
from koura.settings import Settings
from koura.xform import ah, esp, ipcomp, place
from koura.xform.context import Context, Opened

__all__ = ["Context", "Opened", "fits", "input", "output", "overhead"]

_SWITCH: dict[Protocol, ModuleType] = {Protocol.ESP: esp, Protocol.AH: ah, Protocol.IPCOMP: ipcomp}


def output(sa: Association, packet: bytes, context: Context) -> bytes:
    """Seal one whole IP packet under `sa`, in place: transport position; a tunnel's outer header is on already (tunnel.wrap).

    Raises Discarded. Not here: policy, accounting, UDP encapsulation, MTU.
    """
    try:
        sealed: bytes = _SWITCH[sa.agreement.index.protocol].output(sa, place.for_output(packet), context)
    except Malformed as fault:
        raise Discarded(IP_MALFORMED, sa) from fault
    return sealed


def input(sa: Association, packet: bytes, context: Context) -> Opened:
    """Take one header off: check, authenticate, commit. The IP header stays, its protocol and lengths rewritten. Raises Discarded."""
    try:
        opened: Opened = _SWITCH[sa.agreement.index.protocol].input(sa, place.for_input(packet), context)
    except Malformed as fault:
        raise Discarded(IP_MALFORMED, sa) from fault
    return opened


def overhead(sa: Association, payload_octets: int, settings: Settings) -> int:
    """How many octets the transform adds to an IP packet with so much behind its header; exact, from the SA (S29). IPComp: 0 at worst."""
    return int(_SWITCH[sa.agreement.index.protocol].overhead(sa, payload_octets, settings))


def fits(sa: Association, payload_octets: int, settings: Settings) -> int:
    """The largest payload that has at most `payload_octets` once transformed; -1 where not even an empty one has.

    What a transform makes of more payload is never shorter, so the edge lies less than a block from the estimate.
    """
    octets = max(payload_octets - overhead(sa, payload_octets, settings), -1)
    while octets + 1 + overhead(sa, octets + 1, settings) <= payload_octets:
        octets += 1
    while octets >= 0 and octets + overhead(sa, octets, settings) > payload_octets:
        octets -= 1
    return octets
