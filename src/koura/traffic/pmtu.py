"""How large a packet may be: what the path takes, learned and told, and what protection adds. RFC 4301 §8, RFC 1191, RFC 8201.

Three sources, the smallest counts:

- the link: what the host said about the route, and what its kernel refused to send lately (notice PathMtu);
- the path: ICMP "fragmentation needed" and "packet too big" about our own protected packets, matched to an SA by its SPI at
  the exact offset (S30, S38); kept for that SA, for pmtu_timeout_s, never raised by such a message, never below min_pmtu
  (IPv6: 1280). An ICMP is not authenticated: it can name only an SA that exists, and only from an address pair that is the SA's;
- the SA: what its headers, IV, padding and ICV add, exactly (S29).

Not here: which packets may be fragmented (outbound), and writing the ICMP that tells a sender (icmp).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from koura.moment import NS_PER_S, Moment
from koura.sadb.association import Association
from koura.settings import Settings
from koura.traffic.bundle import Step
from koura.traffic.icmp import Report
from koura.xform import base

IPV6_MIN_MTU = 1280
UDP_OCTETS = 8
_Key = tuple[bytes, int, int]  # destination, protocol, SPI; of a link, protocol and SPI are 0


@dataclass(slots=True)
class _Learned:
    mtu_octets: int
    deadline_ns: int


class Paths:
    """What is known of paths. At most `limits.pmtu_entries` are kept: the oldest goes."""

    def __init__(self) -> None:
        self._links: dict[bytes, int] = {}
        self._learned: dict[_Key, _Learned] = {}

    def tell(self, destination: bytes, mtu_octets: int) -> None:
        """The host's word about a route; b'' is every other destination, 0 takes the word back."""
        if mtu_octets:
            self._links[destination] = mtu_octets
        else:
            self._links.pop(destination, None)

    def refused(self, destination: bytes, mtu_octets: int, until: Moment, most_entries: int) -> None:
        """The first link towards a destination takes no more: so the kernel said when more was sent."""
        self._keep((destination, 0, 0), _Learned(mtu_octets, until.ns), most_entries)

    def link(self, destination: bytes) -> int | None:
        """What the first link towards a destination takes; None: not known, so nothing is cut to it."""
        known = self._links.get(destination, self._links.get(b""))
        refused = self._learned.get((destination, 0, 0))
        if refused is None:
            return known
        return refused.mtu_octets if known is None else min(known, refused.mtu_octets)

    def learn(self, sa: Association, report: Report, settings: Settings, at: Moment) -> bool:
        """Believe an ICMP report about a packet of this SA, if it makes the path narrower; whether it did.

        Deviates from FreeBSD in what it is filed under: the SA (RFC 4301 §8.2.1), not the destination.
        """
        index = sa.agreement.index
        least = max(settings.min_pmtu, 68) if len(index.dst) == 4 else IPV6_MIN_MTU
        known = self.mtu(index.dst, sa, at)
        if report.mtu_octets < least or (known is not None and report.mtu_octets >= known):
            return False
        key = (index.dst, int(index.protocol), sa.agreement.spi)
        deadline_ns = at.ns + settings.limits.pmtu_timeout_s * NS_PER_S
        self._keep(key, _Learned(report.mtu_octets, deadline_ns), settings.limits.pmtu_entries)
        return True

    def _keep(self, key: _Key, learned: _Learned, most_entries: int) -> None:
        self._learned.pop(key, None)
        while len(self._learned) >= most_entries:
            del self._learned[next(iter(self._learned))]
        self._learned[key] = learned

    def mtu(self, destination: bytes, sa: Association, at: Moment) -> int | None:
        """What the path to a destination takes of packets of this SA; None: nothing is known."""
        index = sa.agreement.index
        learned = self._learned.get((index.dst, int(index.protocol), sa.agreement.spi))
        sizes = [learned.mtu_octets] if learned is not None and learned.deadline_ns > at.ns else []
        link = self.link(destination)
        if link is not None:
            sizes.append(link)
        return min(sizes, default=None)

    def until_ns(self, sa: Association, at: Moment) -> int | None:
        """Until when what was learned for this SA holds; None: nothing was."""
        index = sa.agreement.index
        learned = self._learned.get((index.dst, int(index.protocol), sa.agreement.spi))
        return learned.deadline_ns if learned is not None and learned.deadline_ns > at.ns else None

    def due(self, at: Moment) -> None:
        """Forget what is too old: the path may have become wider (RFC 1191 §6.3)."""
        while (deadline := self.next_deadline()) is not None and deadline <= at:
            del self._learned[next(iter(self._learned))]

    def next_deadline(self) -> Moment | None:
        """When to call `due`. They stand in the order they were learned; where the tunable changed since, one may stay longer, unheeded."""
        first = next(iter(self._learned.values()), None)
        return Moment(first.deadline_ns) if first is not None else None


# -- sizes -----------------------------------------------------------------------------------------------------------------


def grown(steps: Sequence[Step], header_octets: int, octets: int, settings: Settings) -> int:
    """How many octets an IP packet of `octets` has once it went through these steps (IPComp: if it does not compress).

    header_octets: how many of them stand in front of what transport mode protects (place.for_output).
    """
    for step in steps:
        if step.outer is not None:
            header_octets = 20 if len(step.outer[1]) == 4 else 40
            octets += header_octets
        octets += base.overhead(step.sa, octets - header_octets, settings)
        if step.sa.agreement.encapsulation is not None:
            octets += UDP_OCTETS
    return octets


def room(steps: Sequence[Step], header_octets: int, mtu_octets: int, settings: Settings) -> int:
    """The largest IP packet that has at most `mtu_octets` once it went through these steps; 0 where none has.

    Padding makes `grown` a staircase that never falls, so from an estimate the edge is found by trying: less than a block per step.
    """
    octets = max(mtu_octets - (grown(steps, header_octets, mtu_octets, settings) - mtu_octets), header_octets)
    while grown(steps, header_octets, octets + 1, settings) <= mtu_octets:
        octets += 1
    while octets > header_octets and grown(steps, header_octets, octets, settings) > mtu_octets:
        octets -= 1
    return octets if grown(steps, header_octets, octets, settings) <= mtu_octets else 0
