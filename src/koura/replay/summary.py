"""What became of a whole capture: frames, packets, outcomes and reasons, for a person and for a program.

    frames = left out + packets;  packets = the sum over the reasons, each counted once, by its last end

What is Held is counted as that until it is released. Fragments that went into a whole stay counted as held.fragment: the whole
has the end of the last one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from koura.reasons import (
    BYPASSED,
    DELIVERED,
    FORWARDED,
    FRAG_TIMEOUT,
    HELD_ACQUIRE,
    HELD_FRAGMENT,
    HELD_GRANT,
    HELD_LARVAL,
    PUNTED_IKE,
    SA_UNGRANTED,
    Ending,
    Severity,
)


class Left(Enum):
    """Why a frame never came before the stack."""

    NOT_IP = "not-ip"
    LINK = "link"
    CUT = "cut"

    @property
    def sentence(self) -> str:
        """For a person."""
        return _WHY_LEFT[self]


_WHY_LEFT = {
    Left.NOT_IP: "no IP packet in the frame",
    Left.LINK: "a frame of a link type that is not known here",
    Left.CUT: "the capture kept a part of the packet only",
}


class Kind(Enum):
    """The six outcomes; the value is the name that programs see."""

    FORWARD = "forward"
    DELIVER = "deliver"
    BYPASS = "bypass"
    PUNT = "punt"
    HELD = "held"
    DISCARD = "discard"


_KINDS = {
    FORWARDED: Kind.FORWARD, DELIVERED: Kind.DELIVER, BYPASSED: Kind.BYPASS, PUNTED_IKE: Kind.PUNT,
    HELD_FRAGMENT: Kind.HELD, HELD_ACQUIRE: Kind.HELD, HELD_LARVAL: Kind.HELD, HELD_GRANT: Kind.HELD,
}  # fmt: skip
_WORDS = {
    Kind.FORWARD: "protected", Kind.DELIVER: "delivered", Kind.BYPASS: "in clear", Kind.PUNT: "left out", Kind.HELD: "held",
    Kind.DISCARD: "refused",
}  # fmt: skip
_ORDER = ("delivered", "protected", "in clear", "held", "left out", "refused")


def kind_of(reason: Ending) -> Kind:
    """The outcome that a reason belongs to."""
    return _KINDS.get(reason, Kind.DISCARD)


def word_of(reason: Ending) -> str:
    """What a person reads: a discard that is nobody's fault (a keepalive, a dummy packet) is left out, not refused."""
    kind = kind_of(reason)
    return "left out" if kind is Kind.DISCARD and reason.severity is Severity.NORMAL else _WORDS[kind]


@dataclass(slots=True)
class Summary:
    """The counts. written: packets that went out, of which one packet in may make several."""

    frames: int = 0
    written: int = 0
    reasons: dict[Ending, int] = field(default_factory=dict)
    left: dict[Left, int] = field(default_factory=dict)

    def ended(self, reason: Ending, written: int) -> None:
        """A packet's outcome."""
        self.written += written
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def left_out(self, why: Left) -> None:
        """A frame that never came before the stack."""
        self.left[why] = self.left.get(why, 0) + 1

    def released(self, reason: Ending, *, is_outbound: bool) -> None:
        """A packet that was counted as held has come to its end."""
        waited = {FRAG_TIMEOUT: HELD_FRAGMENT, SA_UNGRANTED: HELD_GRANT}.get(reason, HELD_ACQUIRE if is_outbound else HELD_LARVAL)
        self.reasons[waited] -= 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    @property
    def packets(self) -> int:
        """What came before the stack."""
        return sum(self.reasons.values())

    def outcomes(self) -> dict[str, int]:
        """How many packets had each of the six outcomes."""
        found = dict.fromkeys((kind.value for kind in Kind), 0)
        for reason, count in self.reasons.items():
            found[kind_of(reason).value] += count
        return found

    def as_json(self) -> dict[str, object]:
        """The counts for a program."""
        return {
            "frames": self.frames, "packets": self.packets, "written": self.written, "outcomes": self.outcomes(),
            "reasons": {reason.name: count for reason, count in self._sorted() if count},
            "left_out": {why.value: self.left.get(why, 0) for why in Left},
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        """The counts for a person: a headline, then a line for each reason, what passed first."""
        yield f"{_count(self.frames, 'frame')}, {_count(self.packets, 'packet')} in, {_count(self.written, 'packet')} out"
        rows = [(word_of(reason), count, reason.name, _sentence(reason)) for reason, count in self._sorted() if count]
        rows += [("left out", count, f"frame.{why.value}", why.sentence) for why, count in self.left.items()]
        rows.sort(key=lambda row: (_ORDER.index(row[0]), -row[1]))
        digits = max((len(str(row[1])) for row in rows), default=0)
        width = max((len(row[2]) for row in rows), default=0)
        for word, count, name, sentence in rows:
            yield f"  {word:<9}  {count:>{digits}}  {name:<{width}}  {sentence}"

    def _sorted(self) -> list[tuple[Ending, int]]:
        return sorted(self.reasons.items(), key=lambda row: row[0].name)


def _sentence(reason: Ending) -> str:
    if reason is HELD_FRAGMENT:
        return "a fragment that went into a whole packet, which ended with the last one"
    return f"{reason.sentence} ({reason.rfc})" if reason.rfc and kind_of(reason) is Kind.DISCARD else reason.sentence


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
