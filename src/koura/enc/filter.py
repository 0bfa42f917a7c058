"""The packet filter's hook on enc0: something that passes or blocks a packet, by stage and direction. R10, R11, M1.

What rules a person writes, and how they become a `Rule`, is not here; nor which stages are asked (the filter masks: traffic.plane).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from koura.saindex import Direction

BEFORE, AFTER, FILTERED = 1, 2, 4


class Rule(Protocol):
    """Whether a packet may pass. The packet begins with its IP header; a rule keeps no packet and raises nothing."""

    def __call__(self, stage: int, direction: Direction, packet: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class Predicate:
    """The simplest Rule: asks `passes` about packets of some stages (bits) and directions, and lets all others pass."""

    passes: Callable[[bytes], bool]
    stages: int = BEFORE | AFTER
    directions: tuple[Direction, ...] = (Direction.INBOUND, Direction.OUTBOUND)

    def __call__(self, stage: int, direction: Direction, packet: bytes) -> bool:
        return not stage & self.stages or direction not in self.directions or self.passes(packet)


class Filter:
    """The hook. Without a rule everything passes. `passed` and `blocked` count what was asked."""

    def __init__(self, rule: Rule | None = None) -> None:
        self.rule = rule
        self.passed = 0
        self.blocked = 0

    def pass_or_block(self, stage: int, direction: Direction, packet: bytes) -> bool:
        """Whether the packet passes."""
        if self.rule is None:
            return True
        does_pass = self.rule(stage, direction, packet)
        self.passed += does_pass
        self.blocked += not does_pass
        return does_pass
