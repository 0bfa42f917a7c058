"""The clock: the wall's time when it was started, and from then on a clock that nobody sets. Time never runs backwards."""

import time

from koura.moment import Moment


class Clock:
    """Gives Moments. `anchor_ns`: wall time minus time since boot, once; processes that share it have the same clock."""

    __slots__ = ("anchor_ns",)

    def __init__(self, anchor_ns: int | None = None) -> None:
        self.anchor_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) if anchor_ns is None else anchor_ns

    def now(self) -> Moment:
        """This moment; it goes on while the machine sleeps, and does not jump when its clock is set."""
        return Moment(self.anchor_ns + time.clock_gettime_ns(time.CLOCK_BOOTTIME))
