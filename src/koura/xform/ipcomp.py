"""IPComp. RFC 3173, RFC 2394."""

from koura.crypto.session import Overflow
from koura.errors import Malformed
from koura.reasons import IPCOMP_BOMB, IPCOMP_DAMAGED, IPCOMP_NESTED, IPCOMP_NO_CRYPTO, IPCOMP_SHORT, Discarded
from koura.sadb.association import Association
from koura.settings import Settings
from koura.wire import ipcomp as wire
from koura.xform.context import Context, Opened
from koura.xform.place import Place

PROTOCOL = 108
MAX_OCTETS = 65535


def output(sa: Association, place: Place, context: Context) -> bytes:
    """Compress what is behind the IP header, or leave the packet as it is where that does not make it smaller. RFC 3173 §2.2."""
    if sa.compressor is None:
        raise Discarded(IPCOMP_NO_CRYPTO, sa)
    whole = place.join(place.protocol, place.payload)
    if len(whole) <= context.settings.ipcomp_threshold_octets:
        return whole
    packed = sa.compressor.compress(place.payload)
    # RFC 3173 §2.2: the header counts: what is not smaller with it is sent as it was (S25).
    if len(packed) + wire.OCTETS >= len(place.payload):
        return whole
    return place.join(PROTOCOL, wire.Header(place.protocol, 0, sa.agreement.spi & 0xFFFF).write() + packed)


def input(sa: Association, place: Place, context: Context) -> Opened:
    """Expand what is behind the IPComp header; flags are ignored. RFC 3173 §2.3."""
    if sa.compressor is None:
        raise Discarded(IPCOMP_NO_CRYPTO, sa)
    try:
        header = wire.Header.read(place.payload)
    except Malformed as fault:
        raise Discarded(IPCOMP_SHORT, sa) from fault
    if header.next_header == PROTOCOL:
        raise Discarded(IPCOMP_NESTED, sa)
    head_octets = len(place.head) if place.is_ipv4 else len(place.before)
    try:
        clear = sa.compressor.expand(place.payload[wire.OCTETS :], MAX_OCTETS - head_octets)
    except Overflow as fault:
        raise Discarded(IPCOMP_BOMB, sa) from fault
    except Malformed as fault:
        raise Discarded(IPCOMP_DAMAGED, sa) from fault
    return Opened(place.opened(header.next_header, clear))


def overhead(sa: Association, payload_octets: int, settings: Settings) -> int:
    """None: what does not shrink is sent as it was."""
    return 0
