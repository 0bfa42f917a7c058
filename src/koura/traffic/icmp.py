"""ICMP errors as IPsec meets them: about our protected packets, about packets too big to protect, and through an SA. RFC 4301 §6, §8.

    about our own ESP, AH, IPComp     may narrow the path of the SA it quotes (`learn`)           RFC 4301 §8.2, S30, S38
    that we send                      a packet does not fit: 3/4 or packet-too-big (`too_big`)    RFC 4301 §8.2.1
    in an SA                          belongs where the packet it quotes belongs (`returning`)    RFC 4301 §6.2, R42

An ICMP from the network is a stranger's word: all that it can do here is to make the path of one existing SA narrower, within
limits (pmtu). Not here: whether it is delivered (policy says so, as for every packet).
"""

from dataclasses import dataclass

from koura.errors import Malformed
from koura.sadb.association import Association
from koura.sadb.database import Database
from koura.saindex import Protocol
from koura.spd.selector import Flow
from koura.traffic.flow import flow_of_summary
from koura.wire import esp, icmp, ipcomp, ipv4, ipv6, udp
from koura.wire.summary import Summary, summarise

_UDP = 17
_ICMPS = (1, 58)


@dataclass(frozen=True, slots=True)
class Report:
    """A router says that a packet of ours to `dst` was too big. body: what it quotes behind that packet's IP header."""

    mtu_octets: int
    src: bytes
    dst: bytes
    protocol: int
    body: bytes


def read_report(packet: bytes, summary: Summary) -> Report | None:
    """What a whole inbound packet reports, if it is "fragmentation needed" or "packet too big"; None for every other packet."""
    if summary.protocol not in _ICMPS or summary.is_fragment:
        return None
    if (summary.version, summary.sport) not in ((4, icmp.UNREACHABLE), (6, icmp.TOO_BIG6)):
        return None
    if summary.version == 4 and summary.dport != icmp.FRAGMENTATION_NEEDED:
        return None
    try:
        octets = icmp.quoted(packet)
        if octets is None:
            return None
        message = icmp.read(packet[summary.offset : summary.octets])
        head = _quoted(octets)
    except Malformed:
        return None
    mtu_octets = message.rest & 0xFFFF if summary.version == 4 else message.rest
    return Report(mtu_octets, head.src, head.dst, head.protocol, message.data[head.offset :])


def associate(report: Report, sadb: Database) -> Association | None:
    """The outbound SA whose packet is quoted, by the SPI at its exact place; None: no SA of ours sent such a packet. S38."""
    try:
        found = _named(report)
    except Malformed:
        return None
    if found is None:
        return None
    protocol, spi, has_udp = found
    sa = sadb.by_spi(report.dst, protocol, spi, report.src)
    if sa is None or not sa.is_usable:
        return None
    is_from = not any(sa.agreement.index.src) or sa.agreement.index.src == report.src
    return sa if is_from and has_udp == (sa.agreement.encapsulation is not None) else None


def _named(report: Report) -> tuple[Protocol, int, bool] | None:
    """Protocol, SPI, and whether it was in UDP. Raises Malformed where too little is quoted."""
    if report.protocol == Protocol.ESP:
        return Protocol.ESP, esp.Header.read(report.body).spi, False
    if report.protocol == Protocol.AH:
        return Protocol.AH, int.from_bytes(_at_least(report.body, 8)[4:8], "big"), False
    if report.protocol == Protocol.IPCOMP:
        return Protocol.IPCOMP, ipcomp.Header.read(report.body).cpi, False
    if report.protocol == _UDP:
        return Protocol.ESP, int.from_bytes(_at_least(report.body, udp.OCTETS + 4)[udp.OCTETS : udp.OCTETS + 4], "big"), True
    return None


def _at_least(octets: bytes, count: int) -> bytes:
    if len(octets) < count:
        raise Malformed("quoted packet", f"{len(octets)} octets behind its IP header")
    return octets


def returning(packet: bytes) -> Flow | None:
    """For an ICMP error: the flow of the packet it quotes, reversed; None for every other packet. RFC 4301 §6.2.

    The reverse of what the quoted packet was is the flow whose SA the error may use, and through whose SA it may come.
    """
    try:
        octets = icmp.quoted(packet)
        if octets is None:
            return None
        head = _quoted(octets)
    except Malformed:
        return None
    flow = flow_of_summary(head)
    if flow.protocol in _ICMPS:
        return Flow(flow.dst, flow.src, flow.protocol)
    return Flow(flow.dst, flow.src, flow.protocol, flow.dport, flow.sport)


def _quoted(octets: bytes) -> Summary:
    """The summary of a packet that is cut: its lengths say more than is there. Raises Malformed."""
    if not octets:
        raise Malformed("quoted packet", "nothing quoted")
    if octets[0] >> 4 == 4:
        return summarise(octets[:2] + min(len(octets), 65535).to_bytes(2, "big") + octets[4:])
    if len(octets) < ipv6.FIXED_OCTETS:
        raise Malformed("quoted packet", f"{len(octets)} octets")
    return summarise(octets[:4] + (len(octets) - ipv6.FIXED_OCTETS).to_bytes(2, "big") + octets[6:])


def too_big(packet: bytes, mtu_octets: int, source: bytes) -> bytes | None:
    """The error that tells a packet's sender how large it may be; None where none may be sent (RFC 1122 §3.2.2, RFC 4443 §2.4)."""
    summary = summarise(packet)
    if not may_answer(packet, summary):
        return None
    if summary.version == 4:
        return icmp.error(source, icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED, mtu_octets, packet)
    return icmp.error(source, icmp.TOO_BIG6, 0, mtu_octets, packet)


def may_answer(packet: bytes, summary: Summary) -> bool:
    """Whether an ICMP error about a packet may be sent: not about an error, a later fragment, or from nobody or everybody."""
    is_error = summary.protocol in _ICMPS and (summary.sport is None or icmp.is_error(summary.version, summary.sport))
    is_later = summary.version == 4 and ipv4.read(packet)[0].offset_octets > 0
    src = summary.src
    is_nobody = not any(src) or (src[0] >= 0xE0 if len(src) == 4 else src[0] == 0xFF)
    return not (is_error or is_later or is_nobody)
