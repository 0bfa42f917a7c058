"""ESP. RFC 4303; with AEADs RFC 4106, 4309, 4543, 7634; the old format without sequence number RFC 1827.

    +---------------------------------------------------------------+
  0 |                 Security Parameters Index                     |
  4 |                    Sequence Number                            |
  8 |                    IV (the cipher's)                          |
    |             payload, TFC padding, padding                     |
    |                               |  Pad Length   |  Next Header  |
    |                 ICV                                           |
    +---------------------------------------------------------------+
"""

from koura.crypto.algorithm import Kind
from koura.crypto.session import Session
from koura.errors import Malformed, Unauthentic
from koura.reasons import (
    ESP_DUMMY,
    ESP_ICV,
    ESP_LENGTH,
    ESP_NO_CRYPTO,
    ESP_OLD,
    ESP_PAD_LENGTH,
    ESP_PADDING,
    ESP_REPLAY,
    ESP_SEQ_CYCLED,
    ESP_SEQ_OVER,
    ESP_SHORT,
    ESP_TOO_BIG,
    ESP_ZERO,
    SA_UNGRANTED,
    Discarded,
)
from koura.sadb import sequence
from koura.sadb.agreement import SaFlags
from koura.sadb.association import Association
from koura.sadb.hot import FAILED_ICV, FAILED_REPLAY, SEQUENCE_LAST
from koura.sadb.replay import Stale
from koura.settings import Settings
from koura.wire import esp as wire
from koura.xform.context import Context, Opened
from koura.xform.place import Place

PROTOCOL = 50
NO_NEXT_HEADER = 59
TRAILER_OCTETS = 2
_SEQUENCE_PADDING = bytes(range(1, 256))
_STALE = {Stale.REPLAYED: ESP_REPLAY, Stale.OLD: ESP_OLD, Stale.ZERO: ESP_ZERO, Stale.OVER: ESP_SEQ_OVER}


def output(sa: Association, place: Place, context: Context) -> bytes:
    """Seal what is behind the IP header. RFC 4303 §3.3.

    1. pad to the cipher's alignment          §2.4, §2.7
    2. take the next sequence number and IV   §3.3.3
    3. seal payload, padding, trailer         §3.3.2
    4. header, IV, ciphertext, ICV            §2
    """
    if sa.session is None:
        raise Discarded(ESP_NO_CRYPTO, sa)
    clear = _trailed(sa, place.payload, place.protocol, context)
    head, tail, aad = _number(sa, context)
    iv = _iv(sa, context)
    sealed = sa.session.seal(iv, clear, aad, tail)
    if context.settings.test_integrity:
        sealed = sealed[: len(sealed) - sa.session.icv_octets] + bytes(sa.session.icv_octets)
    try:
        return place.join(PROTOCOL, head + iv + sealed)
    except Malformed as fault:
        raise Discarded(ESP_TOO_BIG, sa) from fault


def input(sa: Association, place: Place, context: Context) -> Opened:
    """Open what is behind the IP header. RFC 4303 §3.4: infer, check, authenticate, commit, and only then look inside."""
    session, window = sa.session, sa.window
    if session is None or window is None:
        raise Discarded(ESP_NO_CRYPTO, sa)
    payload = place.payload
    head_octets = wire.OLD_OCTETS if sa.agreement.is_old else wire.OCTETS
    start = head_octets + session.iv_octets
    if len(payload) < wire.OCTETS:
        raise Discarded(ESP_SHORT, sa)
    # RFC 4303 §2.4: whole blocks, whole words, and at least the trailer. Seen before any key is used.
    clear_octets = len(payload) - start - session.icv_octets
    if clear_octets <= 0 or clear_octets % session.align_octets:
        raise Discarded(ESP_LENGTH, sa)
    seq64 = 0
    head, tail = payload[:head_octets], b""
    if not sa.agreement.is_old:
        seq64 = window.infer(int.from_bytes(payload[4:8], "big"))
        if (stale := window.check(seq64)) is not None:
            sa.hot.add(FAILED_REPLAY, 1)
            raise Discarded(_STALE[stale], sa)
        tail, head = _extended(sa, head, seq64)
    try:
        clear = session.open(payload[head_octets:start], payload[start:], head, tail)
    except Unauthentic as fault:
        sa.hot.add(FAILED_ICV, 1)
        raise Discarded(ESP_ICV, sa) from fault
    if not sa.agreement.is_old:
        window.commit(seq64)
    inner, next_header = _untrailed(sa, clear)
    return Opened(place.opened(next_header, inner), seq64)


def dummy(sa: Association, octets: int, place: Place, context: Context) -> bytes:
    """A dummy packet of `octets` random payload, next header 59: the peer drops it after authentication. RFC 4303 §2.6."""
    return output(sa, Place(place.head, place.before, place.last, NO_NEXT_HEADER, context.entropy.octets(octets)), context)


def overhead(sa: Association, payload_octets: int, settings: Settings) -> int:
    """Header, IV, TFC padding, padding, trailer and ICV for so much payload; exact."""
    session = sa.session
    if session is None:
        return 0
    fixed = (wire.OLD_OCTETS if sa.agreement.is_old else wire.OCTETS) + session.iv_octets + session.icv_octets
    padded_octets = max(payload_octets, _tfc(sa)) + TRAILER_OCTETS
    return fixed + padded_octets + -padded_octets % _alignment(sa, session, settings) - payload_octets


def _tfc(sa: Association) -> int:
    return sa.agreement.tfc_octets if sa.agreement.is_tunnel else 0


def _alignment(sa: Association, session: Session, settings: Settings) -> int:
    """What payload and trailer are padded to."""
    encryption = sa.agreement.encryption
    if encryption is not None and encryption.kind is Kind.CIPHER and encryption.has_counter_iv and settings.ctr_compatibility:
        return 16  # M20: what old receivers of AES-CTR expect.
    return session.align_octets


def _trailed(sa: Association, payload: bytes, next_header: int, context: Context) -> bytes:
    """Payload, TFC padding (a receiver finds the end by the inner packet's length), padding, pad length, next header. §2.4, §2.7."""
    assert sa.session is not None
    if next_header in (4, 41) and len(payload) < _tfc(sa):
        payload += bytes(_tfc(sa) - len(payload))
    octets = -(len(payload) + TRAILER_OCTETS) % _alignment(sa, sa.session, context.settings)
    if sa.agreement.pads_in_sequence:
        padding = _SEQUENCE_PADDING[:octets]
    else:
        padding = context.entropy.octets(octets) if sa.agreement.flags & SaFlags.PRAND else bytes(octets)
    return payload + padding + bytes((octets, next_header))


def _untrailed(sa: Association, clear: bytes) -> tuple[bytes, int]:
    """Payload and next header. Authenticated is not well-formed: pad length and padding are checked all the same. §3.4.4.1."""
    if len(clear) < TRAILER_OCTETS:
        raise Discarded(ESP_PAD_LENGTH, sa)
    octets, next_header = clear[-2], clear[-1]
    end = len(clear) - TRAILER_OCTETS - octets
    if end < 0:
        raise Discarded(ESP_PAD_LENGTH, sa)
    # RFC 4303 §2.4: the receiver SHOULD inspect the padding, where sequence padding is what the SA says (S4).
    if sa.agreement.pads_in_sequence and next_header != NO_NEXT_HEADER and clear[end:-2] != _SEQUENCE_PADDING[:octets]:
        raise Discarded(ESP_PADDING, sa)
    if next_header == NO_NEXT_HEADER:
        raise Discarded(ESP_DUMMY, sa)
    return clear[:end], next_header


def _number(sa: Association, context: Context) -> tuple[bytes, bytes, bytes]:
    """(header, tail, aad) with the next sequence number taken."""
    spi = sa.agreement.spi
    if sa.agreement.is_old:
        head = spi.to_bytes(4, "big")
        return head, b"", head
    try:
        seq64 = sequence.next_sequence(sa)
    except sequence.Spent as fault:
        raise Discarded(ESP_SEQ_CYCLED, sa) from fault
    except sequence.Ungranted as fault:
        raise Discarded(SA_UNGRANTED, sa) from fault
    if context.settings.test_replay and seq64 > 1:
        # The sysctl of test builds: the number stays. The IV does not, so that even this repeats no nonce.
        seq64 = 1
        sa.hot.words[SEQUENCE_LAST] = 1
    head = wire.Header(spi, seq64 & 0xFFFF_FFFF).write()
    tail, aad = _extended(sa, head, seq64)
    return head, tail, aad


def _extended(sa: Association, head: bytes, seq64: int) -> tuple[bytes, bytes]:
    """(tail, aad): ESN's high half stands in an AEAD's AAD (RFC 4106 §5) and behind everything else (RFC 4303 §2.2.1)."""
    if not sa.agreement.has_esn:
        return b"", head
    high = (seq64 >> 32).to_bytes(4, "big")
    encryption = sa.agreement.encryption
    if encryption is not None and encryption.kind is Kind.AEAD:
        return b"", head[:4] + high + head[4:]
    return high, head


def _iv(sa: Association, context: Context) -> bytes:
    """A counter of its own for counter modes, random octets for the others."""
    assert sa.session is not None
    encryption = sa.agreement.encryption
    if encryption is None or not encryption.has_counter_iv:
        return context.entropy.octets(sa.session.iv_octets)
    try:
        return sequence.next_iv(sa).to_bytes(8, "big")
    except sequence.Spent as fault:
        raise Discarded(ESP_SEQ_CYCLED, sa) from fault
    except sequence.Ungranted as fault:
        raise Discarded(SA_UNGRANTED, sa) from fault
