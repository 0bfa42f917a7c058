"""Latches: several transport mode peers behind one NAT have one address; which of them a flow belongs to. RFC 3948 §5.2.

    peers  192.0.2.1:4500 and 192.0.2.1:61234 (as this host sees them)      policy  192.0.2.2 192.0.2.1 any esp/transport//require
    in     TCP 192.0.2.1:40000 > 192.0.2.2:22 through the SA of :61234      so that flow is the peer's at :61234, and
    out    TCP 192.0.2.2:22 > 192.0.2.1:40000                               goes out through that peer's SA, not through the newest

Their policies and addresses are the same, so outbound policy alone would send one peer what is another's. The rules:

1. A flow is the peer's who spoke first in it. Peers are told apart by the UDP port that their SAs were made with, also after they moved.
2. What comes in the same flow from another peer ends (natt.conflict) until the first has been silent for SILENT_S, or its SAs are gone:
   this host could not tell the two apart, and would send one what is for the other.
3. What goes out in a flow that no peer has spoken in ends (natt.ambiguous): nothing says whose it is.
4. SAs of several ages that all lead to one port now are one peer's, as far as anybody can tell: one that was made anew after the peer
   had moved. Then there is no conflict between them, and the newest sends.
5. ICMP echo goes by its identifier, ICMP errors by the packet that they quote.

Only pairs of addresses with several peers are looked at. A fast path asks again after CHECK_S, so that who speaks is not silent here.
"""

from dataclasses import dataclass

from koura.errors import Malformed
from koura.moment import NS_PER_S, Moment
from koura.reasons import NATT_CONFLICT, Discarded
from koura.sadb.association import Association
from koura.sadb.database import Database
from koura.saindex import Protocol
from koura.spd.selector import Flow
from koura.traffic import icmp
from koura.traffic.outcome import Applied
from koura.wire.summary import summarise

SILENT_S = 60
CHECK_S = 10
MOST = 65536
_ECHO = {1: (8, 0), 58: (128, 129)}  # ICMP's number -> types of request and reply
_Place = tuple[bytes, int]
_Key = tuple[bytes, bytes, int, int, int]  # this host, the peer's address, protocol, this host's port, the peer's


@dataclass(slots=True)
class _Latch:
    port: int
    heard_ns: int


class Latches:
    """Flows of one stack and whose they are; the one that was heard of longest ago goes first when there are too many."""

    def __init__(self, sadb: Database) -> None:
        self._sadb = sadb
        self._latches: dict[_Key, _Latch] = {}

    def came(self, packet: bytes, flow: Flow, history: tuple[Applied, ...], at: Moment) -> None:
        """A packet that policy takes came through these SAs. Raises Discarded(NATT_CONFLICT)."""
        sa = self._shared(history)
        if sa is None:
            return
        around, key = sa.agreement.encapsulation, _key(packet, Flow(flow.dst, flow.src, flow.protocol, flow.dport, flow.sport), 0)
        assert around is not None
        if key is None:
            return
        port = around.home[0]
        before = self._latches.pop(key, None)
        if before is None or before.port != port:
            is_spoken_in = before is not None and at.ns - before.heard_ns < SILENT_S * NS_PER_S
            if is_spoken_in and before is not None and self._places(*key[:2], before.port) - self._places(*key[:2], port):
                self._latches[key] = before
                raise Discarded(NATT_CONFLICT, sa)
            for one in self._sadb.between(*key[:2], sa.agreement.index.protocol):
                self._sadb.relation_changed(one, one.agreement.index)
        self._latches[key] = _Latch(port, at.ns)
        if len(self._latches) > MOST:
            del self._latches[next(iter(self._latches))]

    def port(self, packet: bytes, flow: Flow) -> int | None:
        """Which peer an outbound packet is for, by the port that its SAs were made with; None: nothing says so."""
        quoted = icmp.returning(packet)
        key = _key(packet, flow, 1) if quoted is None else _plain(quoted)
        latch = self._latches.get(key) if key is not None else None
        if latch is not None and self._sadb.encapsulated.has_peer(flow.src, flow.dst, latch.port):
            return latch.port
        to_peers = self._to_peers(flow.src, flow.dst)
        return to_peers[-1][0] if len({place for _, place in to_peers}) == 1 else None

    def _places(self, here: bytes, there: bytes, port: int) -> frozenset[_Place]:
        """Where the SAs lead now that were made with this port of the peer's; none: they have gone."""
        return frozenset(place for made_with, place in self._to_peers(here, there) if made_with == port)

    def _to_peers(self, here: bytes, there: bytes) -> list[tuple[int, _Place]]:
        """Each SA in UDP that may send, the newest last: the port it was made with, and where it leads now."""
        found = []
        for sa in self._sadb.between(here, there, Protocol.ESP):
            around = sa.agreement.encapsulation
            if around is not None and sa.is_usable:
                found.append((around.home[1], (sa.agreement.goes_to, around.dport)))
        return found

    def _shared(self, history: tuple[Applied, ...]) -> Association | None:
        """The transport mode SA in UDP among these, if its peer has neighbours behind the same NAT."""
        for applied in history:
            if not applied.was_tunnel and self._sadb.encapsulated.is_shared(applied.dst, applied.src):
                sa = self._sadb.receiving(applied.dst, applied.protocol, applied.spi)
                if sa is not None and sa.agreement.encapsulation is not None:
                    return sa
        return None


def is_told_apart(flow: Flow) -> bool:
    """Whether two flows with different peers differ in what policy sees of them: not those of ICMP."""
    return flow.protocol not in _ECHO


def _plain(flow: Flow) -> _Key:
    return flow.src, flow.dst, flow.protocol, flow.sport or 0, flow.dport or 0


def _key(packet: bytes, flow: Flow, echo: int) -> _Key | None:
    """Where an outbound flow is filed; echo: 0 for packets with a request in them, 1 for replies. None: an ICMP that is neither."""
    types = _ECHO.get(flow.protocol)
    if types is None:
        return _plain(flow)
    try:
        summary = summarise(packet)
    except Malformed:
        return None
    body = packet[summary.offset : summary.octets]
    if len(body) < 8 or body[0] != types[echo]:
        return None
    return flow.src, flow.dst, flow.protocol, 0, int.from_bytes(body[4:6], "big")
