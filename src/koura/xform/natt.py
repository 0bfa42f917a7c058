"""ESP in UDP, and the checksums that NAT breaks. RFC 3948."""

from koura.errors import Malformed
from koura.reasons import ESP_TOO_BIG, IP_MALFORMED, NATT_CHECKSUM, NATT_UDP, Discarded
from koura.sadb.association import Association
from koura.wire import checksum, udp
from koura.xform import place
from koura.xform.context import Context

TCP, UDP = 6, 17
_CHECKSUM_AT = {TCP: 16, UDP: 6}
_SHORTEST = {TCP: 20, UDP: 8}


def wrap(sa: Association, packet: bytes) -> bytes:
    """UDP between IP and ESP: the SA's ports, checksum 0 on IPv4 (RFC 3948 §2.1), computed on IPv6 (RFC 8200 §8.1; S26)."""
    around = sa.agreement.encapsulation
    assert around is not None
    parted = place.for_input(packet)
    try:
        if len(parted.src) == 16:
            return parted.join(UDP, udp.write_checked(parted.src, parted.dst, around.sport, around.dport, parted.payload))
        return parted.join(UDP, udp.write(udp.Header(around.sport, around.dport), parted.payload))
    except Malformed as fault:
        raise Discarded(ESP_TOO_BIG, sa) from fault


def unwrap(packet: bytes) -> bytes:
    """The packet with ESP where UDP was. Raises Discarded(NATT_UDP)."""
    try:
        parted = place.for_input(packet)
        _, payload = udp.read(parted.payload)
        return parted.join(50, payload)
    except Malformed as fault:
        raise Discarded(NATT_UDP) from fault


def overhead(sa: Association) -> int:
    """Octets of the UDP header, where the SA has one."""
    return udp.OCTETS if sa.agreement.encapsulation is not None else 0


def repair(sa: Association, packet: bytes, context: Context) -> bytes:
    """Transport mode: a TCP or UDP checksum made right for the addresses as they are here. RFC 3948 §3.1.2, M13.

    The sender computed it over its own view of the addresses: OAI and OAR where known, else what the NAT hid.
    natt_cksum_policy 0: with OAI or OAR known, adjust by the difference and verify (FreeBSD verifies too); without, make it anew,
    which is what "ignore it" comes to for a receiver. Otherwise always make it anew. Raises Discarded(NATT_CHECKSUM | IP_MALFORMED).
    """
    try:
        parted = place.for_input(packet)
    except Malformed as fault:
        # What was inside begins with extension headers that are none.
        raise Discarded(IP_MALFORMED, sa) from fault
    at = _CHECKSUM_AT.get(parted.protocol)
    payload = parted.payload
    around = sa.agreement.encapsulation
    if at is None or around is None or len(payload) < _SHORTEST[parted.protocol]:
        return packet
    if parted.protocol == UDP and payload[at : at + 2] == b"\0\0":
        return packet
    blank = payload[:at] + b"\0\0" + payload[at + 2 :]
    right = checksum.upper(parted.src, parted.dst, parted.protocol, blank)
    if parted.protocol == UDP:
        right = right or 0xFFFF
    if (around.oai or around.oar) and context.settings.natt_cksum_policy == 0:
        old_src = around.oai if len(around.oai) == len(parted.src) else parted.src
        old_dst = around.oar if len(around.oar) == len(parted.dst) else parted.dst
        given = int.from_bytes(payload[at : at + 2], "big")
        fixed = checksum.update(given, old_src + old_dst, parted.src + parted.dst)
        if fixed % 0xFFFF != right % 0xFFFF:
            raise Discarded(NATT_CHECKSUM, sa)
    return parted.join(parted.protocol, payload[:at] + right.to_bytes(2, "big") + payload[at + 2 :])
