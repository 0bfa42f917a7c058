"""What a capture of the wire shows besides what is protected."""

from pathlib import Path

from koura.wire import capture
from koura.wire.summary import summarise

PROTECTING = (50, 51, 108)
_UDP, _ICMP6 = 17, 58
_PORTS = (500, 4500)
_LINK = range(130, 144)  # neighbour and listener discovery


def others_than_protected(path: Path) -> list[bytes]:
    """Every IP packet that is neither ESP, AH, IPComp, IKE nor ESP in UDP, nor what IPv6 does on a link."""
    found = []
    with path.open("rb") as file:
        for record in capture.read(file):
            packet = capture.network(record.linktype, record.octets)
            if packet is not None and packet[0] >> 4 in (4, 6) and not _is_protected(packet):
                found.append(packet)
    return found


def _is_protected(packet: bytes) -> bool:
    summary = summarise(packet)
    if summary.protocol in PROTECTING:
        return True
    if summary.protocol == _UDP:
        return summary.sport in _PORTS if summary.sport is not None else summary.is_fragment and not summary.is_first_fragment
    return summary.protocol == _ICMP6 and summary.sport in _LINK


def spis(path: Path) -> set[int]:
    """Of all ESP, in UDP or not, that shows its header."""
    found = set()
    with path.open("rb") as file:
        for record in capture.read(file):
            packet = capture.network(record.linktype, record.octets)
            if packet is None or packet[0] >> 4 not in (4, 6):
                continue
            summary = summarise(packet)
            if summary.is_fragment and not summary.is_first_fragment:
                continue
            at = summary.offset + (8 if summary.protocol == _UDP else 0)
            if summary.protocol == 50 or (summary.protocol == _UDP and summary.sport in _PORTS):
                found.add(int.from_bytes(packet[at : at + 4], "big"))
    return found
