"""The rows of deviations.toml about packets, and what they leave over of a difference."""

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tests.parity.difference import Difference
from tests.parity.observed import same
from tests.parity.rules import RULES

PATH = Path(__file__).resolve().parents[1] / "vectors" / "deviations.toml"


@dataclass(frozen=True)
class Row:
    """One deliberate difference. case: a pattern of recording ids; witness, event: where it is to be seen ('' in no case we have)."""

    rule: str
    case: str
    number: str
    freebsd: str
    ours: str
    reason: str
    witness: str
    event: str


@dataclass(frozen=True)
class Setting:
    """A tunable with another default than FreeBSD's, or one that FreeBSD has not; the comparison runs with `freebsd`."""

    name: str
    number: str
    freebsd: str
    ours: str
    reason: str


def rows() -> list[Row]:
    return [Row(**row) for row in tomllib.loads(PATH.read_text())["packet"]]


def settings() -> list[Setting]:
    return [Setting(**row) for row in tomllib.loads(PATH.read_text())["setting"]]


def explain(difference: Difference, known: list[Row]) -> tuple[Difference, tuple[str, ...]]:
    """What the rows leave over, and the rules of those that took something away."""
    used = []
    for row in known:
        if same(difference.theirs, difference.ours):
            break
        if fnmatchcase(difference.recording.id, row.case):
            left = RULES[row.rule](difference)
            if left is not None:
                difference = left
                used.append(row.rule)
    return difference, tuple(used)
