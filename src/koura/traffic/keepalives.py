"""NAT keepalives: one octet to every peer in UDP that nothing was sent to for a while, so that NATs on the way remember us. RFC 3948 §4.

The interval is net.koura.natt_keepalive_s; 0, which is the default: none, for IKE daemons send their own. A peer is a pair of addresses
and ports; what was sent under any of its SAs counts. Nobody is asked for 100,000 SAs each time: all are looked at once in an interval,
or when the next is due. Outbound SAs are those from this host's addresses (LocalAddresses); where these are not known there are none.
"""

from koura.moment import NS_PER_S, Moment
from koura.sadb.association import Association
from koura.sadb.hot import USED_LAST_NS
from koura.traffic.outcome import Emit
from koura.traffic.plane import Plane
from koura.wire import ipv4, ipv6, natt, udp

_Way = tuple[bytes, int, bytes, int]


class Keepalives:
    """Those of one stack."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._sent_ns: dict[_Way, int] = {}
        self._due_ns: int | None = None

    def next_deadline(self, now: Moment) -> Moment | None:
        """When to call `due`; now: when the stack last heard what time it is."""
        interval_ns = self._plane.settings.natt_keepalive_s * NS_PER_S
        if not interval_ns or not self._plane.sadb.encapsulated.sas():
            self._due_ns = None
            return None
        if self._due_ns is None or self._due_ns > now.ns + interval_ns:
            self._due_ns = now.ns + interval_ns
        return Moment(self._due_ns)

    def due(self, at: Moment) -> None:
        """Send what is due, and see when the next one will be."""
        if self._due_ns is None or at.ns < self._due_ns:
            return
        plane = self._plane
        interval_ns = plane.settings.natt_keepalive_s * NS_PER_S
        used = self._used()
        self._sent_ns = {way: sent for way, sent in self._sent_ns.items() if way in used}
        self._due_ns = at.ns + interval_ns
        for way, used_ns in used.items():
            last_ns = max(used_ns, self._sent_ns.get(way, 0))
            if last_ns + interval_ns <= at.ns:
                last_ns = self._sent_ns[way] = at.ns
                plane.tally.counters.add("natt.keepalive.out")
                plane.events.append(Emit(_keepalive(*way, plane.settings.ttl), "keepalive"))
            self._due_ns = min(self._due_ns, last_ns + interval_ns)

    def _used(self) -> dict[_Way, int]:
        """The ways to peers, and when something last went there: a new SA counts as something."""
        found: dict[_Way, int] = {}
        for sa in self._plane.sadb.encapsulated.sas():
            way = self._way(sa)
            if way is not None:
                found[way] = max(found.get(way, 0), sa.hot.words[USED_LAST_NS], sa.created.ns)
        return found

    def _way(self, sa: Association) -> _Way | None:
        agreement, local = sa.agreement, self._plane.local
        around, index = agreement.encapsulation, agreement.index
        if not sa.is_usable or around is None or local is None or index.src not in local or index.dst in local:
            return None
        return index.src, around.sport, agreement.goes_to, around.dport


def _keepalive(src: bytes, sport: int, dst: bytes, dport: int, ttl: int) -> bytes:
    body = udp.write_checked(src, dst, sport, dport, natt.KEEPALIVE)
    if len(dst) == 4:
        return ipv4.write(ipv4.Header(src, dst, udp.PROTOCOL, ttl), body)
    return ipv6.write(ipv6.Header(src, dst, udp.PROTOCOL, ttl), body)
