"""What of a packet a policy can see, and the packets that no policy for any protocol can demand protection of."""

from koura.spd.entry import Entry
from koura.spd.selector import ANY_PROTOCOL, Flow
from koura.wire.summary import Summary, skip_ah

_ICMPV6 = 58
_ND_FIRST, _ND_LAST, _ND_HOP_LIMIT = 133, 137, 255


def flow_of(summary: Summary, packet: bytes) -> Flow:
    """The five-tuple of a whole packet that has been summarised, AH skipped. Raises Malformed."""
    return flow_of_summary(skip_ah(summary, packet))


def flow_of_summary(summary: Summary) -> Flow:
    return Flow(summary.src, summary.dst, summary.protocol, summary.sport, summary.dport)


def is_neighbour_discovery(entry: Entry, flow: Flow, packet: bytes) -> bool:
    """Whether this is neighbour discovery (RFC 4861) under a policy for any protocol: it passes in clear, both ways.

    Protection would need the neighbour's address, which is what is being asked. Only hop limit 255, which no router lets through,
    makes it neighbour discovery. A policy that names ICMPv6 means what it says. FreeBSD has no such exemption.
    """
    if flow.protocol != _ICMPV6 or flow.sport is None or not _ND_FIRST <= flow.sport <= _ND_LAST or packet[7] != _ND_HOP_LIMIT:
        return False
    selector = entry.policy.selector
    return selector is not None and selector.protocol == ANY_PROTOCOL
