"""Which SAs the engine knows, in which of its places; and which of them were chosen for what wish.

An SA that changes is told anew, or forgotten. What serves a wish - an address pair, a protocol, and a reqid or none - may change with
any SA of that pair and reqid: then the flows that were learned under the wish are looked at again, and no others. Ten thousand SAs
between two gateways do not disturb each other.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from koura.fast.learn import facts_of
from koura.sadb.association import Association
from koura.sadb.hot import USED_FIRST_NS
from koura.saindex import SaIndex
from koura.settings import Settings

_Wish = tuple[bytes, bytes, int, int]  # address pair, protocol, reqid; 0: any


class Known:
    """The SAs of one engine. `settle`: brings its counts home, which must be done before an SA is forgotten."""

    def __init__(self, burst: Any, settle: Callable[[], None]) -> None:
        self._burst, self._settle = burst, settle
        self._places: dict[int, tuple[int, Association, object]] = {}  # slot -> place, the SA, what the engine was told
        self._by_place: dict[int, Association] = {}
        self._free: list[int] = []
        self._changed: dict[int, None] = {}  # slots
        self._wishes: dict[_Wish, dict[int, None]] = {}  # the places of SAs that were chosen for it

    def place(self, sa: Association) -> int:
        """Where the engine knows this SA. Raises KeyError where it does not."""
        return self._places[sa.slot][0]

    def at(self, place: int) -> Association:
        """The SA in this place."""
        return self._by_place[place]

    def tell(self, sa: Association, settings: Settings) -> int | None:
        """Where the engine knows this SA, told anew if its agreement changed; None: it does not take it."""
        known = self._places.get(sa.slot)
        current = (sa.epoch, sa.agreement, bool(sa.hot.words[USED_FIRST_NS]))
        if known is not None and known[2] == current:
            return known[0]
        facts, window = facts_of(sa, settings), sa.window
        if facts is None or window is None:
            return None
        if known is not None:
            self._settle()
        free = known[0] if known is not None else self._free.pop() if self._free else None
        place: int | None = self._burst.put_sa(free, facts, sa.hot.words, window.ring if window.packets else None)
        if place is None:
            return None
        self._places[sa.slot] = (place, sa, current)
        self._by_place[place] = sa
        return place

    def chosen(self, place: int, reqid: int) -> None:
        """A flow is being learned for which this SA was chosen; `reqid`: what its policy asks for."""
        self._wishes.setdefault((*self._by_place[place].agreement.index.pair, reqid), {})[place] = None

    def changed(self, sa: Association, index: SaIndex) -> None:
        """An SA came, went or changed under this index."""
        known = self._places.get(sa.slot)
        if known is not None:
            self._changed[sa.slot] = None
        for reqid in {index.reqid, 0}:
            for place in self._wishes.pop((*index.pair, reqid), ()):
                self._burst.choose_anew(place)

    def forget_changed(self) -> None:
        """SAs that have gone, or are others now."""
        if self._changed:
            self.forget(self._stale(tuple(self._changed)))
            self._changed.clear()

    def _stale(self, slots: Iterable[int]) -> Iterator[int]:
        for slot in slots:
            _, sa, told = self._places[slot]
            if not sa.is_usable or told != (sa.epoch, sa.agreement, bool(sa.hot.words[USED_FIRST_NS])):
                yield slot

    def forget(self, slots: Iterable[int] | None = None) -> None:
        """Drop what the engine holds of these SAs; None: of all."""
        gone = list(self._places) if slots is None else list(slots)
        if gone:
            self._settle()
        for slot in gone:
            place, _, _ = self._places.pop(slot)
            self._burst.drop_sa(place)
            self._free.append(place)
            del self._by_place[place]
