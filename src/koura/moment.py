"""Moment: a point in time that is handed in, never asked for.

The core has no clock. Whoever calls it says when it is (`at: Moment`); the simulator says it in virtual time.
Nanoseconds since 1970-01-01 UTC, so that the absolute seconds of PF_KEY (RFC 2367 §2.3.2) follow by division.
"""

from dataclasses import dataclass

from koura.quick import quick

NS_PER_S = 1_000_000_000


@quick
@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """A point in time, `ns` nanoseconds after the UNIX epoch."""

    ns: int

    def __post_init__(self) -> None:
        if self.ns < 0:
            raise ValueError("a Moment is not before 1970")

    @classmethod
    def of_s(cls, seconds: float) -> "Moment":
        """The moment `seconds` after the epoch."""
        return cls(round(seconds * NS_PER_S))

    @property
    def s(self) -> int:
        """Whole seconds since the epoch."""
        return self.ns // NS_PER_S

    def after_s(self, seconds: float) -> "Moment":
        """The moment `seconds` later."""
        return Moment(self.ns + round(seconds * NS_PER_S))

    def after_ns(self, ns: int) -> "Moment":
        """The moment `ns` nanoseconds later."""
        return Moment(self.ns + ns)

    def since_ns(self, earlier: "Moment") -> int:
        """Nanoseconds from `earlier` to here; negative if `earlier` is later."""
        return self.ns - earlier.ns
