"""`koura filter`: rules a person writes, as the packet filter's hook on enc0 and on what came out of tunnels. R10, R11, M1.

    NUMBER  pass|block  in|out|both  before|after|input|any  [EXPRESSION]

The rule with the lowest number that matches decides; where none does, the packet passes. `before` and `after` are enc(4)'s stages
(net.enc.*.ipsec_filter_mask says which are asked at all), `input` is the packet that a tunnel brought, at the host's own input, which is
asked with net.inet.ipsec.filtertunnel=1. Rules and counters are the engine's; the rules outlive it (journal).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from koura.control import Value
from koura.daemon import codec
from koura.daemon.journal import Journal
from koura.enc.filter import AFTER, BEFORE
from koura.errors import Errno, Refused
from koura.host.pcapfilter import Expression, NoFilter
from koura.saindex import Direction
from koura.stack import Stack
from koura.traffic.outcome import Deliver

INPUT = 8
MOST_RULES, STEP, MOST_NUMBER = 1000, 10, 65535
STAGES: Mapping[str, int] = {"before": BEFORE, "after": AFTER, "input": INPUT, "any": BEFORE | AFTER | INPUT}
WAYS: Mapping[str, tuple[Direction, ...]] = {
    "in": (Direction.INBOUND,), "out": (Direction.OUTBOUND,), "both": (Direction.INBOUND, Direction.OUTBOUND)
}  # fmt: skip
_KEY = b"filter/"


@dataclass(frozen=True, slots=True)
class Written:
    """One rule as a person wrote it. expression '': every packet."""

    number: int
    does_pass: bool
    way: str = "both"
    stage: str = "any"
    expression: str = ""


@dataclass(slots=True)
class _Rule:
    """A rule at work, with what it decided."""

    written: Written
    compiled: Expression | None
    packets: int = 0
    octets: int = 0
    stages: int = field(init=False)
    directions: tuple[Direction, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.stages = STAGES[self.written.stage]
        self.directions = WAYS[self.written.way]

    def is_about(self, stage: int, direction: Direction, packet: bytes) -> bool:
        return bool(stage & self.stages) and direction in self.directions and (self.compiled is None or self.compiled.matches(packet))


class Filters:
    """The rules of one engine."""

    def __init__(self, stack: Stack, book: Journal) -> None:
        self._stack = stack
        self._book = book
        self._rules: dict[int, _Rule] = {}

    def __call__(self, stage: int, direction: Direction, packet: bytes) -> bool:
        """Whether the packet passes: enc.filter.Rule."""
        for rule in self._rules.values():
            if rule.is_about(stage, direction, packet):
                rule.packets += 1
                rule.octets += len(packet)
                return rule.written.does_pass
        return True

    def lets_in(self, outcome: Deliver) -> bool:
        """Whether the host may have what a tunnel brought."""
        return outcome.skips_filter or not outcome.history or self(INPUT, Direction.INBOUND, outcome.packet)

    def add(self, number: int, does_pass: bool, way: str, stage: str, expression: str) -> int:
        """Put a rule there; 0: behind the last. Its number. Raises Refused."""
        if len(self._rules) >= MOST_RULES:
            raise Refused(Errno.ENOBUFS, f"there are {MOST_RULES} rules already")
        number = number or max(self._rules, default=0) // STEP * STEP + STEP
        if not 0 < number <= MOST_NUMBER:
            raise Refused(Errno.EINVAL, f"a rule's number is 1 to {MOST_NUMBER}, not {number}")
        if number in self._rules:
            raise Refused(Errno.EEXIST, f"there is a rule {number}: delete it first, or choose another number")
        for word, known in ((way, WAYS), (stage, STAGES)):
            if word not in known:
                raise Refused(Errno.EINVAL, f"{word!r} is none of {', '.join(known)}")
        self._put(Written(number, does_pass, way, stage, " ".join(expression.split())))
        self._book.keep(_KEY + b"%d" % number, codec.write(self._rules[number].written))
        return number

    def delete(self, number: int) -> None:
        """Raises Refused."""
        if number not in self._rules:
            raise Refused(Errno.ENOENT, f"there is no rule {number}")
        del self._rules[number]
        self._book.keep(_KEY + b"%d" % number, None)
        self._changed()

    def flush(self) -> int:
        """All of them; how many there were."""
        numbers = list(self._rules)
        for number in numbers:
            self.delete(number)
        return len(numbers)

    def rows(self) -> Iterable[dict[str, Value]]:
        """What `koura filter list` shows."""
        for number, rule in self._rules.items():
            written = rule.written
            yield {"number": number, "pass": written.does_pass, "way": written.way, "stage": written.stage,
                   "expression": written.expression, "packets": rule.packets, "octets": rule.octets}  # fmt: skip

    def resume(self, kept: Mapping[bytes, bytes]) -> None:
        """What an engine before wrote down."""
        for key, value in kept.items():
            if key.startswith(_KEY):
                self._put(codec.read(Written, value))

    def _put(self, written: Written) -> None:
        """Raises Refused."""
        try:
            compiled = Expression(written.expression) if written.expression else None
        except NoFilter as error:
            raise Refused(Errno.EINVAL, str(error)) from error
        self._rules[written.number] = _Rule(written, compiled)
        self._rules = dict(sorted(self._rules.items()))
        self._changed()

    def _changed(self) -> None:
        """The fast path stands aside while there are rules."""
        self._stack.filter.rule = self if self._rules else None
