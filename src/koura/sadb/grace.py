"""Grace: SAs that a key manager deleted because newer ones have taken their place, while packets for them are still under way.

    DELETE ------------- grace (net.koura.delete_grace_ms) -------------> gone
    nobody finds it      a packet that names it is opened:                ESP_NO_SA
    but its packets      window, lifetimes and policy as ever

IKE deletes an old SA as soon as there is a new one, and the peer may have sent under the old one until it read that (RFC 7296 §2.8):
these packets are on the wire, or in queues of ours. Only receiving goes on. To PF_KEY the SA is gone: it is in no dump, DELETE and GET
say ESRCH, and its SPI is free; whoever takes it again ends the grace at once. So do a second DELETE, FLUSH, a hard limit, and the
tunable at 0. Not here: which SAs get one (pfkey.sa_requests), the filing (database).
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from koura.moment import Moment
from koura.sadb.association import Association, State
from koura.sadb.hot import PACKETS

MOST = 4096  # SAs in grace at once; one more, and the one that was deleted first is gone
Key = TypeVar("Key", bound=Hashable)


class Grace(Generic[Key]):
    """The SAs in grace, by what their packets show, in the order they were deleted. `over(sa)` is called for each at its end."""

    def __init__(self, over: Callable[[Association], None]) -> None:
        self._over = over
        self._known: dict[Key, tuple[Association, Moment, int]] = {}  # the SA, when its grace ends, its packets when it began
        self._opened = 0  # by those whose grace is over

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Association]:
        return iter([sa for sa, _, _ in self._known.values()])

    @property
    def opened_packets(self) -> int:
        """How many packets were taken in grace, by all SAs ever."""
        return self._opened + sum(int(sa.hot.words[PACKETS]) - before for sa, _, before in self._known.values())

    def find(self, key: Key) -> Association | None:
        """The SA that still opens what shows this; None: there is none, or a packet ended it."""
        known = self._known.get(key)
        return known[0] if known is not None and known[0].state is not State.DEAD else None

    def begin(self, key: Key, sa: Association, until: Moment) -> None:
        """It was deleted just now. Nobody else has this key."""
        while len(self._known) >= MOST:
            self.end(next(iter(self._known)))
        self._known[key] = (sa, until, int(sa.hot.words[PACKETS]))

    def end(self, key: Key) -> bool:
        """At once, whether it was time or not; False: there is none."""
        known = self._known.pop(key, None)
        if known is None:
            return False
        sa, _, before = known
        self._opened += int(sa.hot.words[PACKETS]) - before
        self._over(sa)
        return True

    def end_all(self, fits: Callable[[Association], bool] = lambda _: True) -> None:
        """At once for those that fit."""
        for key in [key for key, (sa, _, _) in self._known.items() if fits(sa)]:
            self.end(key)

    def due(self, key: Key, at: Moment) -> bool:
        """Whether this SA's time is up, or it is at a hard limit; False for one that is not in grace."""
        known = self._known.get(key)
        return known is not None and (known[1] <= at or known[0].state is State.DEAD)
