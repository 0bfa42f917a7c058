"""A played frame as one line for a person, or as values for a program."""

from datetime import UTC, datetime, timedelta

from koura.address import show
from koura.errors import Malformed
from koura.replay.player import Played, reason_of
from koura.replay.summary import kind_of, word_of
from koura.setkey.names import PROTOCOL_NAMES
from koura.traffic.outcome import Applied, Deliver
from koura.wire.summary import summarise

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SPI_PLACES = {50: (0, 4), 51: (4, 8), 108: (2, 4)}
_ICMPS = (1, 58)
_MODES = ("", " transport", " tunnel")


def line(played: Played) -> str:
    """Number, time, the packet as it came; what became of it, and of what came off it."""
    head = f"{played.number:>6} {time(played.at_ns)}  "
    if played.outcome is None:
        return f"{head}{played.left.sentence if played.left is not None else ''}: left out"
    reason = reason_of(played.outcome)
    text = f"{head}{packet(played.packet)}: {word_of(reason)}"
    if not played.written:
        return f"{text}, {reason.name}: {reason.sentence}"
    if isinstance(played.outcome, Deliver) and played.outcome.history:
        text += " out of " + ", ".join(_applied(entry) for entry in played.outcome.history)
    if played.written != (played.packet,):
        text += ": " + "; ".join(packet(written) for written in played.written)
    return text


def values(played: Played) -> dict[str, object]:
    """The same for a program."""
    found: dict[str, object] = {"frame": played.number, "time": time(played.at_ns)}
    if played.outcome is None:
        return found | {"left_out": played.left.value if played.left is not None else ""}
    reason = reason_of(played.outcome)
    found |= {
        "packet": packet(played.packet), "outcome": kind_of(reason).value, "reason": reason.name,
        "written": [packet(written) for written in played.written],
    }  # fmt: skip
    if isinstance(played.outcome, Deliver):
        found["history"] = [_applied(entry) for entry in played.outcome.history]
    return found


def time(at_ns: int) -> str:
    """ISO 8601 in UTC, to the microsecond; beyond the years that have a calendar, plain seconds."""
    try:
        return f"{(_EPOCH + timedelta(microseconds=at_ns // 1000)).isoformat(timespec='microseconds').removesuffix('+00:00')}Z"
    except OverflowError:
        return f"{at_ns // 1_000_000_000}s"


def packet(octets: bytes) -> str:
    """Ends, protocol, and whatever tells one packet from the next: ports, ICMP type and code, SPI, fragment; its size."""
    try:
        found = summarise(octets)
    except Malformed as fault:
        return f"{len(octets)} octets that are no IP packet ({fault})"
    protocol = PROTOCOL_NAMES.get(found.protocol, str(found.protocol))
    src, dst = show(found.src), show(found.dst)
    place = _SPI_PLACES.get(found.protocol)
    if found.is_fragment and not found.is_first_fragment:
        what = f"{src} > {dst} {protocol} fragment"
    elif place is not None:
        spi = octets[found.offset + place[0] : found.offset + place[1]]
        what = f"{src} > {dst} {protocol} 0x{spi.hex()}"
    elif found.sport is None or found.dport is None:
        what = f"{src} > {dst} {protocol}"
    elif found.protocol in _ICMPS:
        what = f"{src} > {dst} {protocol} {found.sport},{found.dport}"
    else:
        what = f"{src}[{found.sport}] > {dst}[{found.dport}] {protocol}"
    if found.is_first_fragment:
        what += " first fragment"
    return f"{what} {len(octets)} octets"


def _applied(entry: Applied) -> str:
    return f"{PROTOCOL_NAMES[entry.protocol]}{_MODES[entry.mode] if entry.mode < len(_MODES) else ''} 0x{entry.spi:08x}"
