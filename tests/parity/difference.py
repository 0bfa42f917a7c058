"""One event that did not go as recorded, with what rules need to know of the case around it."""

from dataclasses import dataclass

from tests.parity.observed import Observed
from tests.parity.recordings import Asked, Event, Recording, Sent


@dataclass(frozen=True)
class Difference:
    """number: which of the case's events, one past the last for the SAD at the end (event None). has_differed: an earlier one did, too."""

    recording: Recording
    number: int
    event: Event | None
    theirs: Observed
    ours: Observed
    has_differed: bool = False

    @property
    def what(self) -> str:
        """The event in words."""
        if self.event is None:
            return "SAD at the end"
        return self.event.what if isinstance(self.event, Sent) else self.event.text if isinstance(self.event, Asked) else "time"
