"""Selector: which packets a policy is about; Flow: what of a packet a selector can see. RFC 4301 §4.4.1.1."""

from dataclasses import dataclass

from koura.address import Prefix
from koura.quick import quick
from koura.saindex import Direction

ANY_PROTOCOL = 255
ANY_PORT = 0


@quick
@dataclass(frozen=True, slots=True)
class Flow:
    """The five-tuple of one packet. Ports None: not visible (fragment, short packet, other protocol).

    For ICMP and ICMPv6 `sport` is the type and `dport` the code. `is_forwarded`: in transit, not of this host.
    """

    src: bytes
    dst: bytes
    protocol: int
    sport: int | None = None
    dport: int | None = None


@quick
@dataclass(frozen=True, slots=True)
class Selector:
    """One side of the SPD's key. protocol 255: any. Port 0: any.

    ICMP selectors (protocol 1 or 58) hold type and code in `icmp_type`, `icmp_code` (None: any), never in the ports, so that
    type 0 and code 0 can be asked for (S9).
    """

    direction: Direction
    src: Prefix
    dst: Prefix
    protocol: int = ANY_PROTOCOL
    sport: int = ANY_PORT
    dport: int = ANY_PORT
    icmp_type: int | None = None
    icmp_code: int | None = None

    def matches(self, flow: Flow) -> bool:
        """Whether the flow is covered. A port that is asked for and not visible does not match."""
        if self.protocol not in (ANY_PROTOCOL, flow.protocol):
            return False
        if not (self.src.contains(flow.src) and self.dst.contains(flow.dst)):
            return False
        if self.sport not in (ANY_PORT, flow.sport):
            return False
        if self.dport not in (ANY_PORT, flow.dport):
            return False
        if self.icmp_type is not None and self.icmp_type != flow.sport:
            return False
        return self.icmp_code is None or self.icmp_code == flow.dport
