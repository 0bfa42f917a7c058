"""Fragments put together, and packets taken apart. RFC 791 §3.2, RFC 815, RFC 8200 §4.5, RFC 5722, RFC 3168 §5.3, RFC 4301 §7.

The rules:

- A datagram is known by its addresses, identification, protocol (IPv4 only) and *context*: what the caller says about how its
  fragments came. Fragments out of an SA never meet fragments that came in clear, nor those of another relation.
- Nothing overlaps. The same fragment again is ignored; any other overlap ends the datagram, the fragments that are yet to
  come included (RFC 5722 §4; we hold IPv4 to it as well).
- CE on one fragment marks the whole; CE beside Not-ECT ends it (RFC 3168 §5.3).
- How many fragments and datagrams wait is limited. At the limit the new fragment is refused: what waits already was first.

Each refusal raises Discarded with its Reason and forgets the datagram. Not here: what is done when time is up (the caller asks
`due`), and path MTUs (pmtu).
"""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from koura.errors import Malformed
from koura.moment import NS_PER_S, Moment
from koura.reasons import FRAG_ECN, FRAG_LIMIT, FRAG_MALFORMED, FRAG_OVERLAP, FRAG_TOO_BIG, Discarded
from koura.settings import Limits
from koura.wire import ipv4, ipv6
from koura.wire.summary import Summary

MAX_OCTETS = 65535
UNIT = 8  # fragments are cut at multiples of 8 octets
_NOT_ECT, _CE = 0, 3
_Key = tuple[bytes, bytes, int, int, Hashable]


@dataclass(frozen=True, slots=True)
class Whole:
    """A datagram put together. fragment_octets: its largest fragment, IP header included."""

    packet: bytes
    fragment_octets: int


@dataclass(frozen=True, slots=True)
class Expired:
    """A datagram whose time is up. `first`: its first fragment as it came, b'' if that never did; `count`: how many had come."""

    first: bytes
    count: int


@dataclass(slots=True)
class _Piece:
    """What one fragment says, whichever the family."""

    key: _Key
    start: int
    octets: bytes
    is_last: bool
    ecn: int
    packet: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.octets)


@dataclass(slots=True)
class _Datagram:
    """The pieces of one datagram so far. is_spoiled: it was ended, and stays so until its time is up."""

    deadline_ns: int
    pieces: dict[int, _Piece] = field(default_factory=dict)
    total: int | None = None
    is_spoiled: bool = False

    def is_whole(self) -> bool:
        return self.total is not None and sum(len(piece.octets) for piece in self.pieces.values()) == self.total


class Reassembly:
    """The fragments that wait. Datagrams are kept in the order their first fragment came, which is that of their deadlines."""

    def __init__(self) -> None:
        self._datagrams: dict[_Key, _Datagram] = {}
        self._count = 0

    def __len__(self) -> int:
        """Fragments held."""
        return self._count

    def add(self, packet: bytes, at: Moment, limits: Limits, context: Hashable = ()) -> Whole | None:
        """Take one fragment; the whole datagram if it is complete now, else None: held. Raises Discarded(FRAG_*).

        packet: an IPv4 or IPv6 fragment, header checked. An IPv6 fragment that is the whole is returned at once (RFC 6946).
        """
        piece = _read(packet, context)
        if piece.start == 0 and piece.is_last:
            return Whole(_join(packet, piece.octets, piece.ecn), len(packet))
        datagram = self._datagrams.get(piece.key)
        if datagram is not None and datagram.is_spoiled:
            raise Discarded(FRAG_OVERLAP)
        if datagram is None or piece.start not in datagram.pieces:
            self._check_limits(datagram, limits)
        if datagram is None:
            datagram = _Datagram(at.ns + limits.fragment_timeout_s * NS_PER_S)
            self._datagrams[piece.key] = datagram
        try:
            self._put(datagram, piece)
            return self._finish(piece.key, datagram)
        except Discarded:
            self._count -= len(datagram.pieces)
            datagram.pieces.clear()
            datagram.is_spoiled = True
            raise

    def due(self, at: Moment) -> tuple[Expired, ...]:
        """Forget the datagrams whose time is up; those that were refused before are forgotten without a word."""
        gone = []
        for key, datagram in list(self._datagrams.items()):
            if datagram.deadline_ns > at.ns:
                break
            del self._datagrams[key]
            self._count -= len(datagram.pieces)
            if datagram.pieces:
                first = datagram.pieces.get(0)
                gone.append(Expired(first.packet if first is not None else b"", len(datagram.pieces)))
        return tuple(gone)

    def next_deadline(self) -> Moment | None:
        """When to call `due`."""
        first = next(iter(self._datagrams.values()), None)
        return Moment(first.deadline_ns) if first is not None else None

    # -- inside --------------------------------------------------------------------------------------------------------

    def _check_limits(self, datagram: _Datagram | None, limits: Limits) -> None:
        if self._count >= limits.fragments or (datagram is None and len(self._datagrams) >= limits.fragment_datagrams):
            raise Discarded(FRAG_LIMIT)

    def _put(self, datagram: _Datagram, piece: _Piece) -> None:
        known = datagram.pieces.get(piece.start)
        if known is not None and known.octets == piece.octets and known.is_last == piece.is_last:
            return
        if any(piece.start < other.end and other.start < piece.end for other in datagram.pieces.values()):
            raise Discarded(FRAG_OVERLAP)
        if piece.is_last:
            if datagram.total is not None or any(other.end > piece.end for other in datagram.pieces.values()):
                raise Discarded(FRAG_MALFORMED)
            datagram.total = piece.end
        elif datagram.total is not None and piece.end > datagram.total:
            raise Discarded(FRAG_MALFORMED)
        datagram.pieces[piece.start] = piece
        self._count += 1

    def _finish(self, key: _Key, datagram: _Datagram) -> Whole | None:
        if not datagram.is_whole():
            return None
        pieces = [datagram.pieces[start] for start in sorted(datagram.pieces)]
        packet = _join(pieces[0].packet, b"".join(piece.octets for piece in pieces), _ecn(pieces))
        del self._datagrams[key]
        self._count -= len(pieces)
        return Whole(packet, max(len(piece.packet) for piece in pieces))


def without_atomic(packet: bytes, summary: Summary) -> bytes:
    """A whole packet as it is once put together: without the fragment header that an IPv6 one may have all the same (RFC 6946).

    Linux sends such where a path's MTU is below 1280 octets. Raises Discarded(FRAG_*).
    """
    if summary.version == 4 or summary.is_fragment or summary.offset == ipv6.FIXED_OCTETS:
        return packet
    chain = ipv6.read_chain(packet[6], packet[ipv6.FIXED_OCTETS : summary.octets])
    if all(extension.kind != ipv6.FRAGMENT for extension in chain.extensions):
        return packet
    piece = _read(packet[: summary.octets], ())
    return _join(packet, piece.octets, piece.ecn)


# -- reading and joining ---------------------------------------------------------------------------------------------------


def _read(packet: bytes, context: Hashable) -> _Piece:
    """One fragment as a piece. Raises Discarded(FRAG_MALFORMED | FRAG_TOO_BIG)."""
    try:
        piece = _read4(packet, context) if packet[0] >> 4 == 4 else _read6(packet, context)
    except Malformed as fault:
        raise Discarded(FRAG_MALFORMED) from fault
    if not piece.octets or (not piece.is_last and len(piece.octets) % UNIT):
        raise Discarded(FRAG_MALFORMED)
    return piece


def _read4(packet: bytes, context: Hashable) -> _Piece:
    header, payload = ipv4.read(packet)
    if len(packet) - len(payload) + header.offset_octets + len(payload) > MAX_OCTETS:
        raise Discarded(FRAG_TOO_BIG)
    key = (header.src, header.dst, header.protocol, header.identification, context)
    return _Piece(key, header.offset_octets, payload, not header.is_mf, header.tos & 3, packet)


def _read6(packet: bytes, context: Hashable) -> _Piece:
    header, payload = ipv6.read(packet)
    place, fragment = _find6(header.next_header, payload)
    octets = payload[place + UNIT :]
    if place + fragment.offset_octets + len(octets) > MAX_OCTETS:
        raise Discarded(FRAG_TOO_BIG)
    if fragment.offset_octets == 0:
        _check_first6(fragment.next_header, octets)
    key = (header.src, header.dst, 0, fragment.identification, context)
    return _Piece(key, fragment.offset_octets, octets, not fragment.is_more, header.traffic_class & 3, packet)


def _find6(next_header: int, payload: bytes) -> tuple[int, ipv6.Fragment]:
    """Where in the payload the fragment header stands, and what it says."""
    for extension in ipv6.read_chain(next_header, payload).extensions:
        if extension.kind == ipv6.FRAGMENT:
            return extension.offset, ipv6.Fragment.read(extension.octets)
    raise Discarded(FRAG_MALFORMED)


def _check_first6(next_header: int, octets: bytes) -> None:
    """A first fragment holds the whole header chain and the beginning of what follows it. RFC 8200 §4.5, RFC 7112 §5."""
    chain = ipv6.read_chain(next_header, octets)
    if chain.offset >= len(octets) and chain.protocol != ipv6.NO_NEXT:
        raise Discarded(FRAG_MALFORMED)


def _join(first: bytes, octets: bytes, ecn: int) -> bytes:
    """The whole packet under the first fragment's headers."""
    if first[0] >> 4 == 4:
        header4, _ = ipv4.read(first)
        header4 = replace(header4, is_mf=False, offset_octets=0, tos=header4.tos & ~3 | ecn)
        if 20 + len(header4.options) + len(octets) > MAX_OCTETS:
            raise Discarded(FRAG_TOO_BIG)
        return ipv4.write(header4, octets)
    header, payload = ipv6.read(first)
    place, fragment = _find6(header.next_header, payload)
    if place + len(octets) > MAX_OCTETS:
        raise Discarded(FRAG_TOO_BIG)
    before = [extension for extension in ipv6.read_chain(header.next_header, payload).extensions if extension.offset < place]
    header, octets6 = _relink(header, payload[:place], before[-1] if before else None, fragment.next_header)
    return ipv6.write(replace(header, traffic_class=header.traffic_class & ~3 | ecn), octets6 + octets)


def _relink(header: ipv6.Header, before: bytes, last: ipv6.Extension | None, follows: int) -> tuple[ipv6.Header, bytes]:
    """The header and the extension headers `before`, the `last` of which, or the header itself, now names `follows`."""
    if last is None:
        return replace(header, next_header=follows), before
    return header, before[: last.offset] + bytes([follows]) + before[last.offset + 1 :]


def _ecn(pieces: list[_Piece]) -> int:
    """The ECN field of the whole. RFC 3168 §5.3; fragments that merely disagree about ECT count as Not-ECT or the first's."""
    marks = {piece.ecn for piece in pieces}
    if _CE in marks:
        if _NOT_ECT in marks:
            raise Discarded(FRAG_ECN)
        return _CE
    return _NOT_ECT if _NOT_ECT in marks else pieces[0].ecn


# -- taking apart ----------------------------------------------------------------------------------------------------------


def split(packet: bytes, mtu_octets: int, identification: int) -> tuple[bytes, ...]:
    """Cut a whole packet into fragments of at most `mtu_octets`; a packet that fits is returned alone, unchanged.

    identification: of the IPv6 fragment header; an IPv4 packet has its own. Pieces of a packet with DF have it, too: it came in
    fragments that had it, for any other the caller does not ask. A limit too small for a header and 8 octets is taken as the
    smallest that works.
    """
    if len(packet) <= mtu_octets:
        return (packet,)
    return _split4(packet, mtu_octets) if packet[0] >> 4 == 4 else _split6(packet, mtu_octets, identification)


def _split4(packet: bytes, mtu_octets: int) -> tuple[bytes, ...]:
    """RFC 791 §3.2. Options without the copy bit stand in the first fragment only."""
    header, payload = ipv4.read(packet)
    later = replace(header, options=ipv4.copied_options(header.options))
    pieces = []
    at = 0
    while at < len(payload):
        head = header if at == 0 else later
        room = max((mtu_octets - 20 - len(head.options)) // UNIT * UNIT, UNIT)
        part = payload[at : at + room]
        is_mf = at + len(part) < len(payload) or header.is_mf
        pieces.append(ipv4.write(replace(head, is_mf=is_mf, offset_octets=header.offset_octets + at), part))
        at += len(part)
    return tuple(pieces)


def _split6(packet: bytes, mtu_octets: int, identification: int) -> tuple[bytes, ...]:
    """RFC 8200 §4.5: hop-by-hop, routing and what stands before routing go with every fragment."""
    header, payload = ipv6.read(packet)
    place, follows, last = 0, header.next_header, None
    for extension in ipv6.read_chain(header.next_header, payload).extensions:
        if extension.kind in (ipv6.HOP_BY_HOP, ipv6.ROUTING):
            place, follows, last = extension.offset + len(extension.octets), extension.next_header, extension
    header, before = _relink(header, payload[:place], last, ipv6.FRAGMENT)
    rest = payload[place:]
    room = max((mtu_octets - 40 - len(before) - UNIT) // UNIT * UNIT, UNIT)
    pieces = []
    for at in range(0, len(rest), room):
        part = rest[at : at + room]
        fragment = ipv6.Fragment(follows, at, at + room < len(rest), identification)
        pieces.append(ipv6.write(header, before + fragment.write() + part))
    return tuple(pieces)
