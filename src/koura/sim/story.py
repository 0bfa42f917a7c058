"""Story: what happened in a run, line by line, for a person who wants to know why a seed failed.

    12.345678  a    out  Forward            1462 octets   #12            198.51.100.1 > 203.0.113.1 ESP
    12.346678  r-b       lost               1500 octets   #12            198.51.100.1 > 203.0.113.1 ESP

Times are seconds since the run began; # are the packets of the workload that a line is about.
"""

from koura.address import show
from koura.errors import Malformed
from koura.moment import NS_PER_S, Moment
from koura.sim.parts import Seen, What
from koura.sim.run import START
from koura.sim.world import Frame
from koura.traffic.outcome import Discard, Held, Punt
from koura.wire.summary import summarise

_NAMES = {50: "ESP", 51: "AH", 108: "IPComp", 1: "ICMP", 58: "ICMPv6", 6: "TCP", 17: "UDP", 4: "IPv4", 41: "IPv6"}
_ROUTINE = (What.ARRIVED, What.SENT)


class Story:
    """Gathers lines; `is_full`: also what went well on its way."""

    def __init__(self, *, is_full: bool = False) -> None:
        self.lines: list[tuple[int, str]] = []
        self._is_full = is_full

    def __call__(self, happened: Seen | Frame) -> None:
        """Take note of one thing."""
        if isinstance(happened, Frame):
            self._frame(happened)
        elif self._is_full or happened.what not in _ROUTINE:
            self._seen(happened)

    def note(self, at_ns: int, line: str) -> None:
        """A line of somebody else's, at its time."""
        self.lines.append((at_ns, f"{_time(Moment(at_ns))}  {line}"))

    def about(self, tag: int) -> list[str]:
        """The lines about one packet of the workload."""
        return [line for _, line in sorted(self.lines) if f"#{tag} " in f"{line} "]

    def told(self, last: int = 0) -> list[str]:
        """All lines in order of time, or the last so many."""
        lines = [line for _, line in sorted(self.lines, key=lambda pair: pair[0])]
        return lines[-last:] if last else lines

    def _seen(self, seen: Seen) -> None:
        outcome = seen.outcome
        word = type(outcome).__name__ if outcome is not None else seen.what.value
        if isinstance(outcome, Discard | Held | Punt):
            word = f"{word} {outcome.reason.name}"
        side = ("out" if seen.is_outbound else "in") if outcome is not None else ""
        tail = f"{seen.note} " if seen.note else ""
        self._line(seen.at, seen.node, side, word, seen.packet, seen.tags, tail)

    def _frame(self, frame: Frame) -> None:
        strange = [fate for fate in frame.fates if fate]
        word = "a stranger's" if frame.is_strange else ("lost" if not frame.fates else ", ".join(strange))
        if word or self._is_full:
            self._line(frame.at, frame.link.name, "", word or "passes", frame.packet, frame.tags, "")

    def _line(self, at: Moment, where: str, side: str, word: str, packet: bytes, tags: frozenset[int], tail: str) -> None:
        numbers = " ".join(f"#{tag}" for tag in sorted(tags)[:4]) + (" ..." if len(tags) > 4 else "")
        size = f"{len(packet):5} octets" if packet else ""
        line = f"{_time(at)}  {where:<4} {side:<3} {word:<26} {size:<12} {numbers:<6} {tail}{_about(packet)}"
        self.lines.append((at.ns, line.rstrip()))


def _time(at: Moment) -> str:
    return f"{at.since_ns(START) / NS_PER_S:10.6f}"


def _about(packet: bytes) -> str:
    if not packet:
        return ""
    try:
        summary = summarise(packet)
    except Malformed as fault:
        return f"(no IP packet: {fault})"
    name = _NAMES.get(summary.protocol, str(summary.protocol))
    return f"{show(summary.src)} > {show(summary.dst)} {name}" + (" fragment" if summary.is_fragment else "")
