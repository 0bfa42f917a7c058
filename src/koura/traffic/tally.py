"""Tally: the one place where traffic counts. Ends by Reason, and what netstat -s shows beside them. processing.md §11.

    REASON                    every end, by its name; on the SA too, if it had come so far
    ipsec.FIELD ipsec6.FIELD  the ends and events whose BSD counter is of ipsecstat, by the packet's family
    esp.input esp.output …    packets that came to a protocol, and that it put on; esp.ibytes, esp.obytes: what it protected
    esp.hist.ALGORITHM        both directions
    ipcomp.threshold .uncompr packets that IPComp left as they were
"""

from koura.reasons import (
    AH_HEADERS,
    AH_LENGTH,
    AH_NO_CRYPTO,
    AH_OLD,
    AH_REPLAY,
    AH_SEQ_OVER,
    AH_SHORT,
    AH_ZERO,
    BYPASSED,
    DELIVERED,
    ESP_LENGTH,
    ESP_NO_CRYPTO,
    ESP_OLD,
    ESP_REPLAY,
    ESP_SEQ_OVER,
    ESP_SHORT,
    ESP_ZERO,
    FORWARDED,
    IP_MALFORMED,
    IPCOMP_NESTED,
    IPCOMP_NO_CRYPTO,
    IPCOMP_SHORT,
    Discarded,
)
from koura.sadb.association import Association
from koura.saindex import Protocol
from koura.settings import Settings
from koura.stats.counters import Counters
from koura.traffic.outcome import Bypass, Deliver, Forward, Held, Outcome, Punt
from koura.wire import esp, ipcomp
from koura.xform import ah, place

_IPSECSTAT = "ips_"
# Ends before the cipher: the octets of such packets are not counted as input, as in BSD.
_UNTOUCHED = frozenset((
    ESP_SHORT, ESP_LENGTH, ESP_REPLAY, ESP_OLD, ESP_ZERO, ESP_SEQ_OVER, ESP_NO_CRYPTO,
    AH_SHORT, AH_LENGTH, AH_REPLAY, AH_OLD, AH_ZERO, AH_SEQ_OVER, AH_NO_CRYPTO, AH_HEADERS,
    IPCOMP_SHORT, IPCOMP_NESTED, IPCOMP_NO_CRYPTO, IP_MALFORMED,
))  # fmt: skip
_NAMES = {Protocol.ESP: "esp", Protocol.AH: "ah", Protocol.IPCOMP: "ipcomp"}
_INPUT = {int(protocol): f"{name}.input" for protocol, name in _NAMES.items()}
_IBYTES = {protocol: f"{name}.ibytes" for protocol, name in _NAMES.items()}


class Tally:
    """Counts for one stack."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters

    def ended(self, outcome: Outcome) -> None:
        """An outcome that is no discard."""
        if isinstance(outcome, Forward):
            self.counters.count(FORWARDED)
        elif isinstance(outcome, Deliver):
            self.counters.count(DELIVERED)
        elif isinstance(outcome, Bypass):
            self.counters.count(BYPASSED)
        elif isinstance(outcome, Held | Punt):
            self.counters.count(outcome.reason)

    def discarded(self, end: Discarded, packet: bytes) -> None:
        """A packet's end, under its family, and on the SA it happened to."""
        self.counters.count(end.reason)
        if end.reason.bsd.startswith(_IPSECSTAT):
            self.event(end.reason.bsd.removeprefix(_IPSECSTAT), packet)
        if isinstance(end.association, Association):
            failures = end.association.failures
            failures[end.reason.name] = failures.get(end.reason.name, 0) + 1

    def event(self, name: str, packet: bytes) -> None:
        """One of ipsecstat's that is no end: out_nosa, out_bundlesa."""
        section = "ipsec6" if packet[:1] and packet[0] >> 4 == 6 else "ipsec"
        self.counters.add(f"{section}.{name}")

    def came(self, protocol: int) -> None:
        """A packet for ESP, AH or IPComp, before anything about it is looked at."""
        self.counters.add(_INPUT[protocol])

    def opened(self, sa: Association, packet: bytes, end: Discarded | None = None) -> None:
        """A whole packet was handed to the cipher, what became of it or not: how much of it is payload. `end`: how it ended there."""
        if end is not None and end.reason in _UNTOUCHED:
            return
        protocol = sa.agreement.index.protocol
        self.counters.add(_IBYTES[protocol], max(place.payload_octets(packet, place.for_input) - _around(sa), 0))
        self._histogram(_NAMES[protocol], sa)

    def sealed(self, sa: Association, before: bytes, after: bytes, settings: Settings) -> None:
        """A transform is done with a packet; IPComp may have left it alone."""
        name = _NAMES[sa.agreement.index.protocol]
        payload_octets = place.payload_octets(before, place.for_output)
        if name == "ipcomp" and after == before:
            if len(before) <= settings.ipcomp_threshold_octets:
                self.counters.add("ipcomp.threshold")
                return
            self.counters.add("ipcomp.uncompr")
        self.counters.add(f"{name}.output")
        self.counters.add(f"{name}.obytes", payload_octets)
        self._histogram(name, sa)

    def _histogram(self, name: str, sa: Association) -> None:
        agreement = sa.agreement
        row = agreement.encryption or agreement.compression or agreement.integrity
        if row is not None:
            self.counters.add(f"{name}.hist.{row.name}")


def _around(sa: Association) -> int:
    """What an SA's headers and ICV add around the payload; padding is not counted."""
    if sa.session is not None:
        return esp.OCTETS + sa.session.iv_octets + sa.session.icv_octets
    return ipcomp.OCTETS if sa.digest is None else ah.header_octets(sa)
