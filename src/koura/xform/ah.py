"""AH. RFC 4302; the old format without sequence number RFC 1826."""

from koura.errors import Malformed, Unauthentic
from koura.reasons import (
    AH_HEADERS,
    AH_HEADERS_OUT,
    AH_ICV,
    AH_LENGTH,
    AH_NO_CRYPTO,
    AH_OLD,
    AH_REPLAY,
    AH_SEQ_CYCLED,
    AH_SEQ_OVER,
    AH_SHORT,
    AH_TOO_BIG,
    AH_ZERO,
    SA_UNGRANTED,
    Discarded,
)
from koura.sadb import sequence
from koura.sadb.association import Association
from koura.sadb.hot import FAILED_ICV, FAILED_REPLAY, SEQUENCE_LAST
from koura.sadb.replay import Stale
from koura.settings import Settings
from koura.wire import ah as wire
from koura.xform import mutable
from koura.xform.context import Context, Opened
from koura.xform.place import Place

PROTOCOL = 51
_STALE = {Stale.REPLAYED: AH_REPLAY, Stale.OLD: AH_OLD, Stale.ZERO: AH_ZERO, Stale.OVER: AH_SEQ_OVER}


def output(sa: Association, place: Place, context: Context) -> bytes:
    """Authenticate the packet. RFC 4302 §3.3: header with a zero ICV in place, ICV over the immutable packet, ICV into the header."""
    if sa.digest is None:
        raise Discarded(AH_NO_CRYPTO, sa)
    seq64 = _number(sa, context)
    zero = bytes(_icv_octets(sa, place.is_ipv4))
    header = wire.Header(place.protocol, sa.agreement.spi, seq64 & 0xFFFF_FFFF, zero, sa.agreement.is_old)
    try:
        packet = place.join(PROTOCOL, header.write() + place.payload)
    except Malformed as fault:
        raise Discarded(AH_TOO_BIG, sa) from fault
    try:
        covered = _covered(packet, place, header, context, is_output=True)
    except Malformed as fault:
        raise Discarded(AH_HEADERS_OUT, sa) from fault
    icv = sa.digest.digest(covered + place.payload + _high(sa, seq64))
    if context.settings.test_integrity:
        icv = bytes(len(icv))
    start = len(packet) - len(place.payload) - len(zero)
    return packet[:start] + icv + packet[start + len(icv) :]


def input(sa: Association, place: Place, context: Context) -> Opened:
    """Verify and take AH off. RFC 4302 §3.4: infer, check, authenticate, commit."""
    digest, window = sa.digest, sa.window
    if digest is None or window is None:
        raise Discarded(AH_NO_CRYPTO, sa)
    try:
        header = wire.Header.read(place.payload, sa.agreement.is_old)
    except Malformed as fault:
        raise Discarded(AH_SHORT, sa) from fault
    if len(header.icv) != _icv_octets(sa, place.is_ipv4):
        raise Discarded(AH_LENGTH, sa)
    seq64 = 0
    if not sa.agreement.is_old:
        seq64 = window.infer(header.seq32)
        if (stale := window.check(seq64)) is not None:
            sa.hot.add(FAILED_REPLAY, 1)
            raise Discarded(_STALE[stale], sa)
    body = place.payload[header.octets :]
    packet = place.join(PROTOCOL, place.payload)
    # RFC 4302 §3.3.3.2.1: only the ICV counts as zero; its padding is covered as the sender chose it (Linux sends octets of its hash).
    zeroed = bytes(digest.icv_octets) + header.icv[digest.icv_octets :]
    blank = wire.Header(header.next_header, header.spi, header.seq32, zeroed, header.is_old)
    try:
        covered = _covered(packet, place, blank, context, is_output=False)
    except Malformed as fault:
        raise Discarded(AH_HEADERS, sa) from fault
    # The reserved octets are authenticated as they came (RFC 4302 §2.3).
    start = len(covered) - blank.octets
    covered = covered[: start + 2] + place.payload[2:4] + covered[start + 4 :]
    try:
        digest.verify(covered + body + _high(sa, seq64), header.icv[: digest.icv_octets])
    except Unauthentic as fault:
        sa.hot.add(FAILED_ICV, 1)
        raise Discarded(AH_ICV, sa) from fault
    if not sa.agreement.is_old:
        window.commit(seq64)
    return Opened(place.opened(header.next_header, body), seq64)


def overhead(sa: Association, payload_octets: int, settings: Settings) -> int:
    """The header, whatever it protects."""
    return header_octets(sa) if sa.digest is not None else 0


def header_octets(sa: Association) -> int:
    """Fixed header and padded ICV; the family is the SA's."""
    fixed = wire.OLD_FIXED_OCTETS if sa.agreement.is_old else wire.FIXED_OCTETS
    return fixed + _icv_octets(sa, len(sa.agreement.index.dst) == 4)


def _icv_octets(sa: Association, is_ipv4: bool) -> int:
    """ICV and its padding: the header is whole 32-bit words on IPv4 (64 where the SA says so), 64 on IPv6. RFC 4302 §3.3.3.2.1."""
    assert sa.digest is not None
    fixed = wire.OLD_FIXED_OCTETS if sa.agreement.is_old else wire.FIXED_OCTETS
    align = sa.agreement.align_octets if is_ipv4 else 8
    return sa.digest.icv_octets + -(fixed + sa.digest.icv_octets) % align


def _covered(packet: bytes, place: Place, header: wire.Header, context: Context, *, is_output: bool) -> bytes:
    """Everything up to the end of AH as the ICV covers it. Raises Malformed."""
    if place.is_ipv4:
        head = mutable.ipv4_head(packet[: len(place.head)], context.settings, is_output=is_output)
    else:
        head = mutable.ipv6_head(packet, packet[40 : 40 + len(place.before)], is_output=is_output)
    return head + header.write()


def _high(sa: Association, seq64: int) -> bytes:
    """ESN's high half, authenticated behind the payload. RFC 4302 §3.3.3."""
    return (seq64 >> 32).to_bytes(4, "big") if sa.agreement.has_esn else b""


def _number(sa: Association, context: Context) -> int:
    if sa.agreement.is_old:
        return 0
    try:
        seq64 = sequence.next_sequence(sa)
    except sequence.Spent as fault:
        raise Discarded(AH_SEQ_CYCLED, sa) from fault
    except sequence.Ungranted as fault:
        raise Discarded(SA_UNGRANTED, sa) from fault
    if context.settings.test_replay and seq64 > 1:
        sa.hot.words[SEQUENCE_LAST] = 1
        return 1
    return seq64
