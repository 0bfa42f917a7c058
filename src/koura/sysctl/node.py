"""Node: one row of the table of tunables: its name, where its value stands in Settings, and which values it takes."""

from dataclasses import dataclass
from enum import Enum

INT_LEAST, INT_MOST = -(1 << 31), (1 << 31) - 1
UINT_MOST = (1 << 32) - 1


class Kind(Enum):
    """What a node is. Behaviour follows this column."""

    TUNABLE = "tunable"  # an integer in Settings
    COUNTERS = "counters"  # the counters of a protocol: read; writing zero clears them
    STATE = "state"  # a word about how this stack runs; never written
    FIXED = "fixed"  # an integer that says what was built in; never written


class Rule(Enum):
    """A check or a change beyond the range."""

    NONE = ""
    DEFLEV = "deflev"  # R25: 1, 2 and 3 stay, every other value becomes 2
    SPI_RANGE = "spi range"  # spi_minval may not pass spi_maxval


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    where: the path of the value in Settings, for TUNABLE; the protocol whose counters they are, for COUNTERS;
    what is asked for, for STATE.
    least, most: the values it takes, as shown. words: what some values mean, for help and for faults.
    scale: what is stored is the shown value times this (units that differ from Settings').
    mib: its integer name, () where it never had a fixed one (FreeBSD hands those out at run time).
    aliases: other names of the same value.
    is_boot_time: set at start only (M6). is_ours: not in FreeBSD.
    """

    name: str
    sentence: str
    where: tuple[str, ...] = ()
    kind: Kind = Kind.TUNABLE
    least: int = INT_LEAST
    most: int = INT_MOST
    words: str = ""
    scale: int = 1
    rule: Rule = Rule.NONE
    mib: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()
    value: int = 1  # of FIXED
    is_boot_time: bool = False
    is_ours: bool = False

    @property
    def allowed(self) -> str:
        """The values it takes, in words."""
        if self.kind is Kind.COUNTERS:
            return "only 0, which clears them"
        if self.kind in (Kind.FIXED, Kind.STATE):
            return "nothing: it cannot be set"
        between = f"{self.least} to {self.most}"
        return f"{between} ({self.words})" if self.words else between
