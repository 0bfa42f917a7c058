"""What an inbound packet for this host is: ESP, AH, IPComp, ESP in UDP, IKE, or something in clear; and which SA it names. RFC 4301 §5.2.

    IP | ESP | ...                     by its SPI                        RFC 4303 §2.1
    IP | AH | ...                      by its SPI                        RFC 4302 §2.4
    IP | IPComp | ...                  by its CPI, well-known ones with the source (S1)
    IP | UDP port | ESP                by its SPI; the ports are compared with the SA's       RFC 3948 §2.1
    IP | UDP port | 0 0 0 0 | IKE      for the socket: Punt
    IP | UDP port | 0xff               keepalive: swallowed (S41)

Encapsulation ports are 4500, those of SAs, and those a socket asked for. UDP to any other port is a packet in clear.
"""

from dataclasses import dataclass
from enum import Enum

from koura.errors import Malformed
from koura.quick import quick
from koura.reasons import (
    AH_DISABLED_IN,
    AH_NO_SA,
    AH_SHORT,
    ESP_DISABLED_IN,
    ESP_NO_SA,
    ESP_PORT,
    ESP_SHORT,
    IPCOMP_DISABLED_IN,
    IPCOMP_NO_SA,
    IPCOMP_SHORT,
    NATT_KEEPALIVE,
    NATT_SHORT,
    NATT_UDP,
    NATT_UDP_CHECKSUM,
    Discarded,
    Ending,
)
from koura.sadb.association import Association, State
from koura.sadb.database import Database
from koura.saindex import Protocol
from koura.settings import Settings
from koura.wire import ah, checksum, ipcomp, udp
from koura.wire import natt as wire_natt
from koura.wire.summary import Summary
from koura.xform import natt

_UDP = 17
_SHORTEST_OCTETS = 8
DEFLATE_CPI = 2


class Kind(Enum):
    """What to do with it."""

    CLEAR = "clear"
    PROTECTED = "protected"
    IKE = "ike"


@quick
@dataclass(frozen=True, slots=True)
class Found:
    """The answer. packet: without UDP around ESP, and not there in clear; ports: of that UDP header, () without one."""

    kind: Kind
    packet: bytes
    protocol: Protocol = Protocol.ESP
    spi: int = 0
    src: bytes = b""
    dst: bytes = b""
    ports: tuple[int, int] | tuple[()] = ()


_CLEAR = Found(Kind.CLEAR, b"")


def demultiplex(packet: bytes, summary: Summary, ports: frozenset[int], sadb: Database, settings: Settings) -> Found:
    """What a whole packet is. ports: for ESP in UDP, besides those of SAs. Raises Discarded: switched off, too short, keepalive."""
    body = packet[summary.offset : summary.octets]
    if summary.protocol == _UDP and summary.dport is not None and (
        summary.dport in ports or sadb.encapsulated.expects(summary.dst, summary.dport)
    ):
        return _encapsulated(packet, summary, body, settings)
    if summary.protocol == Protocol.ESP:
        return Found(Kind.PROTECTED, packet, Protocol.ESP, _esp_spi(body, settings), summary.src, summary.dst)
    if summary.protocol == Protocol.AH:
        _check(bool(settings.ah_enable), AH_DISABLED_IN)
        _check(len(body) >= _SHORTEST_OCTETS, AH_SHORT)
        try:
            spi = ah.Header.read(body).spi
        except Malformed as fault:
            raise Discarded(AH_SHORT) from fault
        return Found(Kind.PROTECTED, packet, Protocol.AH, spi, summary.src, summary.dst)
    if summary.protocol == Protocol.IPCOMP:
        _check(bool(settings.ipcomp_enable), IPCOMP_DISABLED_IN)
        _check(len(body) >= _SHORTEST_OCTETS, IPCOMP_SHORT)
        try:
            cpi = ipcomp.Header.read(body).cpi
        except Malformed as fault:
            raise Discarded(IPCOMP_SHORT) from fault
        return Found(Kind.PROTECTED, packet, Protocol.IPCOMP, cpi, summary.src, summary.dst)
    return _CLEAR


def associate(found: Found, sadb: Database, settings: Settings) -> Association:
    """The SA a protected packet names, larval ones too. Raises Discarded(*_NO_SA | ESP_PORT)."""
    sa = sadb.receiving(found.dst, found.protocol, found.spi, found.src)
    if sa is None:
        raise Discarded({Protocol.ESP: ESP_NO_SA, Protocol.AH: AH_NO_SA}.get(found.protocol, IPCOMP_NO_SA))
    if found.ports and sa.state is not State.LARVAL:  # Ports come with the keys; what waits for those is looked at again then.
        around = sa.agreement.encapsulation
        if around is None or ((around.sport, around.dport) != found.ports and not settings.natt_roaming):
            raise Discarded(ESP_PORT, sa)
    return sa


def _esp_spi(body: bytes, settings: Settings) -> int:
    _check(bool(settings.esp_enable), ESP_DISABLED_IN)
    _check(len(body) >= _SHORTEST_OCTETS, ESP_SHORT)
    return int.from_bytes(body[:4], "big")


def _encapsulated(packet: bytes, summary: Summary, body: bytes, settings: Settings) -> Found:
    try:
        header, payload = udp.read(body)
    except Malformed as fault:
        raise Discarded(NATT_UDP) from fault
    # 0 says that there is none: usual on IPv4 (RFC 3948 §2.1), allowed for tunnels on IPv6 (RFC 6935).
    octets = udp.OCTETS + len(payload)
    if header.checksum and checksum.upper(summary.src, summary.dst, udp.PROTOCOL, body[:octets]):
        raise Discarded(NATT_UDP_CHECKSUM)
    kind = wire_natt.demultiplex(payload)
    if kind is wire_natt.Kind.KEEPALIVE:
        raise Discarded(NATT_KEEPALIVE)
    if kind is wire_natt.Kind.SHORT:
        raise Discarded(NATT_SHORT)
    if kind is wire_natt.Kind.IKE:
        return Found(Kind.IKE, packet)
    spi = _esp_spi(payload, settings)
    return Found(Kind.PROTECTED, natt.unwrap(packet), Protocol.ESP, spi, summary.src, summary.dst, (header.sport, header.dport))


def _check(is_fine: bool, reason: Ending) -> None:
    if not is_fine:
        raise Discarded(reason)
