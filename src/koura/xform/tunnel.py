"""Outer headers: put on, taken off, and what passes between inner and outer. RFC 4301 §5.1.2, RFC 6040.

ECN codes: 00 not capable, 01 ECT(1), 10 ECT(0), 11 congestion experienced (CE).
"""

from dataclasses import replace

from koura.entropy import Entropy
from koura.errors import Malformed
from koura.reasons import (
    AH_INNER,
    AH_INNER_MALFORMED,
    AH_TOO_BIG,
    ESP_INNER,
    ESP_INNER_MALFORMED,
    ESP_TOO_BIG,
    IPCOMP_INNER,
    IPCOMP_INNER_MALFORMED,
    IPCOMP_TOO_BIG,
    SA_ENDPOINTS,
    TUNNEL_ECN,
    Discarded,
)
from koura.sadb.agreement import SaFlags
from koura.sadb.association import Association
from koura.saindex import Protocol
from koura.settings import Settings
from koura.wire import ipv4, ipv6
from koura.xform import place
from koura.xform.context import Context

IPV4_INSIDE, IPV6_INSIDE = 4, 41
NOT_ECT, ECT1, ECT0, CE = 0, 1, 2, 3
INSTEAD_OF_0 = 0xFFFF
_NOT_IP = {Protocol.ESP: ESP_INNER, Protocol.AH: AH_INNER, Protocol.IPCOMP: IPCOMP_INNER}
_TOO_BIG = {Protocol.ESP: ESP_TOO_BIG, Protocol.AH: AH_TOO_BIG, Protocol.IPCOMP: IPCOMP_TOO_BIG}
_MALFORMED = {Protocol.ESP: ESP_INNER_MALFORMED, Protocol.AH: AH_INNER_MALFORMED, Protocol.IPCOMP: IPCOMP_INNER_MALFORMED}


def wrap(src: bytes, dst: bytes, packet: bytes, context: Context, sa: Association) -> bytes:
    """The packet inside a new IP header from `src` to `dst`: any mix of families. RFC 4301 §5.1.2.1, §5.1.2.2.

    TTL from the tunables; TOS by the ecn tunable of the outer family; DF by dfbit, of an inner IPv6 packet's only `set` (S28);
    ID 0 with DF (RFC 6864 §4.1), else random and never 0. Raises Discarded(SA_ENDPOINTS | *_TOO_BIG).
    """
    if len(src) != len(dst):
        raise Discarded(SA_ENDPOINTS, sa)
    settings = context.settings
    is_inner4 = packet[0] >> 4 == 4
    tos = packet[1] if is_inner4 else (packet[0] << 4 | packet[1] >> 4) & 0xFF
    protocol = IPV4_INSIDE if is_inner4 else IPV6_INSIDE
    outer_tos = ecn_ingress(tos, settings.of(4 if len(dst) == 4 else 6).ecn, sa)
    most = ipv6.MAX_PAYLOAD_OCTETS if len(dst) == 16 else ipv4.MAX_OCTETS - ipv4.FIXED_OCTETS
    if len(packet) > most:
        raise Discarded(_TOO_BIG[sa.agreement.index.protocol], sa)
    if len(dst) == 16:
        return ipv6.write(ipv6.Header(src, dst, protocol, settings.hop_limit, outer_tos), packet)
    is_df = _df(packet, is_inner4, settings, sa)
    number = 0 if is_df else identification(context.entropy)
    return ipv4.write(ipv4.Header(src, dst, protocol, settings.ttl, outer_tos, number, is_df), packet)


def identification(entropy: Entropy) -> int:
    """A random IPv4 ID. Never 0: a kernel that is handed that fills in another (raw(7)), behind AH's ICV and in each fragment anew."""
    return entropy.below(1 << 16) or INSTEAD_OF_0


def strip(parted: place.Place, context: Context, sa: Association) -> bytes:
    """The inner packet, cut to its own length (TFC padding), with congestion marks carried over. RFC 4301 §5.2, RFC 6040 §4.2.

    parted: the outer IP header, behind it the inner packet. Raises Discarded(*_INNER | *_INNER_MALFORMED | TUNNEL_ECN).
    """
    protocol = sa.agreement.index.protocol
    if parted.protocol not in (IPV4_INSIDE, IPV6_INSIDE):
        raise Discarded(_NOT_IP[protocol], sa)
    ecn = -1 if sa.agreement.ignores_ecn else context.settings.of(4 if parted.is_ipv4 else 6).ecn
    try:
        if parted.protocol == IPV4_INSIDE:
            return _inner4(parted.payload, parted.tos, ecn, sa)
        return _inner6(parted.payload, parted.tos, ecn, sa)
    except Malformed as fault:
        raise Discarded(_MALFORMED[protocol], sa) from fault


def _inner4(inner: bytes, outer_tos: int, ecn: int, sa: Association) -> bytes:
    _, end = ipv4.bounds(inner)
    tos = _tos_egress(outer_tos, inner[1], ecn, sa)
    if tos == inner[1]:
        return inner[:end]
    header, payload = ipv4.read(inner)
    return ipv4.write(replace(header, tos=tos), payload)


def _inner6(inner: bytes, outer_tos: int, ecn: int, sa: Association) -> bytes:
    end = ipv6.end(inner)
    before = (inner[0] << 4 | inner[1] >> 4) & 0xFF
    tos = _tos_egress(outer_tos, before, ecn, sa)
    if tos == before:
        return inner[:end]
    header, payload = ipv6.read(inner)
    return ipv6.write(replace(header, traffic_class=tos), payload)


def _tos_egress(outer: int, inner: int, ecn: int, sa: Association) -> int:
    """The inner TOS. ecn: the tunable of the outer family."""
    dscp = (outer if sa.agreement.takes_dscp else inner) & 0xFC
    if ecn == -1:
        return dscp | inner & 3
    mark = ecn_egress(outer & 3, inner & 3)
    if mark is None:
        raise Discarded(TUNNEL_ECN, sa)
    return dscp | mark


def ecn_ingress(tos: int, value: int, sa: Association) -> int:
    """The outer TOS. 1: ECN allowed (CE becomes ECT(0)); 0: forbidden; 2: RFC 6040 normal mode; -1 and others: the octet copied."""
    if sa.agreement.ignores_ecn or value == 0:
        return tos & 0xFC
    if value == 1 and tos & 3 == CE:
        return tos & 0xFC | ECT0
    return tos


def ecn_egress(outer: int, inner: int) -> int | None:
    """The inner packet's ECN code after decapsulation; None: drop it. RFC 6040 §4.2, figure 4."""
    if outer == CE:
        return None if inner == NOT_ECT else CE
    if outer == ECT1 and inner == ECT0:
        return ECT1
    return inner


def _df(packet: bytes, is_inner4: bool, settings: Settings, sa: Association) -> bool:
    if sa.agreement.flags & SaFlags.NOPMTUDISC:
        return False
    if settings.dfbit == 0:
        return False
    return settings.dfbit == 1 or (is_inner4 and bool(packet[6] & 0x40))
