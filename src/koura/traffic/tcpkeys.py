"""TCP-MD5 on the way: which segments are signed and checked, and with which key. M25; RFC 2385.

A key belongs to a pair of addresses and one direction, as `setkey add SRC DST tcp` says; all ports are covered. This host's own
segments are signed before policy looks at them, segments for it are checked after; what is forwarded is not ours to sign. The fast
path stands aside while there are such keys.
"""

from koura.moment import Moment
from koura.sadb.association import Association
from koura.saindex import Protocol
from koura.traffic.plane import Plane
from koura.wire.summary import Summary, summarise
from koura.xform import tcpmd5


def signed(plane: Plane, packet: bytes, summary: Summary, at: Moment) -> tuple[bytes, Summary]:
    """An outbound segment, signed if its pair has a key, and what it is then. Raises Discarded."""
    sa = _key(plane, summary)
    if sa is None:
        return packet, summary
    packet = tcpmd5.sign(sa, packet, summary)
    plane.sadb.use(sa, len(packet), at)
    return packet, summarise(packet)


def verified(plane: Plane, packet: bytes, summary: Summary, at: Moment) -> bytes:
    """An inbound segment as TCP may see it. Raises Discarded where its pair has a key and it has not the signature."""
    sa = _key(plane, summary)
    if sa is None:
        return packet
    packet = tcpmd5.verify(sa, packet, summary)
    plane.sadb.use(sa, len(packet), at)
    return packet


def _key(plane: Plane, summary: Summary) -> Association | None:
    """The usable key of a pair; there is at most one."""
    return next((sa for sa in plane.sadb.between(summary.src, summary.dst, Protocol.TCP) if sa.is_usable), None)
