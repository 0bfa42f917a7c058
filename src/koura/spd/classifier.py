"""The ordered lookup: which of many selectors, in SPD order, is the first that covers a flow. RFC 4301 §4.4.1.

The SPD is ordered, and its first match wins; a walk along the list is exact and slow. Tuple space search is exact and its
cost does not depend on the number of entries:

    shape = (family, source bits, destination bits, protocol asked?, source port asked?, destination port asked?)

All selectors of one shape lie in one hash table; a flow is masked to the shape and looked up once. Each table knows the least
order in it, tables are visited by least order, and the walk ends when what was found goes before all that is left.

    tables by least order:   (0,1) /24 /24 tcp     (0,7) host host      (5,2) /0 /0
    found so far:                   none              (3,9)  ---------->  stop: (3,9) < (5,2)

Cost: one hash lookup for each shape in use. Real databases have a handful. Refused: a trie for each dimension (an
intersection of sets for each packet), and a cache alone (exact only until the first new flow).

ICMP type and code stand in the places of the ports: `validity` sees to it that a selector has the one or the other, so two
different selectors never share a table's key.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from koura.quick import quick
from koura.spd.selector import ANY_PORT, ANY_PROTOCOL, Flow, Selector

Order = tuple[int, int]  # priority, then insertion
_Key = tuple[int, int, int]  # source prefix, destination prefix, protocol and ports

_PROTOCOL = 0xFF << 32
_SPORT = 0xFFFF << 16
_DPORT = 0xFFFF


class Ordered(Protocol):
    """What can be classified: it knows its place, which never changes while it is in here."""

    @property
    def order(self) -> Order: ...


T = TypeVar("T", bound=Ordered)


@quick
@dataclass(frozen=True, slots=True)
class _Shape:
    octets: int
    src_shift: int
    dst_shift: int
    mask: int


@dataclass(slots=True)
class _Table(Generic[T]):
    """All rows of one shape. `orders` is a heap that may hold orders of rows that have gone."""

    shape: _Shape
    rows: dict[_Key, T] = field(default_factory=dict)
    orders: list[tuple[Order, _Key]] = field(default_factory=list)

    @property
    def least(self) -> Order:
        """The least order of any row; the table is not empty."""
        while True:
            order, key = self.orders[0]
            row = self.rows.get(key)
            if row is not None and row.order == order:
                return order
            heapq.heappop(self.orders)

    def put(self, key: _Key, row: T) -> None:
        self.rows[key] = row
        if len(self.orders) > 2 * len(self.rows) + 16:  # mostly orders of rows that have gone
            self.orders = [(row.order, key) for key, row in self.rows.items()]
            heapq.heapify(self.orders)
        else:
            heapq.heappush(self.orders, (row.order, key))


def _place(selector: Selector) -> tuple[_Shape, _Key]:
    """The table a selector belongs into, and its key there."""
    sport = selector.sport if selector.icmp_type is None else selector.icmp_type
    dport = selector.dport if selector.icmp_code is None else selector.icmp_code
    has_sport = selector.icmp_type is not None or sport != ANY_PORT
    has_dport = selector.icmp_code is not None or dport != ANY_PORT
    mask = (_PROTOCOL if selector.protocol != ANY_PROTOCOL else 0) | (_SPORT if has_sport else 0) | (_DPORT if has_dport else 0)
    octets = len(selector.src.address)
    shape = _Shape(octets, 8 * octets - selector.src.bits, 8 * octets - selector.dst.bits, mask)
    src = int.from_bytes(selector.src.address, "big") >> shape.src_shift
    dst = int.from_bytes(selector.dst.address, "big") >> shape.dst_shift
    return shape, (src, dst, (selector.protocol << 32 | sport << 16 | dport) & mask)


class Classifier(Generic[T]):
    """Selectors in SPD order. One value for each selector; adding a second one for the same selector is the caller's bug."""

    __slots__ = ("_sorted", "_tables")

    def __init__(self, rows: Iterable[tuple[Selector, T]] = ()) -> None:
        self._tables: dict[_Shape, _Table[T]] = {}
        self._sorted: dict[int, list[tuple[Order, _Table[T]]]] | None = None  # by address octets; None: to be made anew
        for selector, value in rows:
            self.add(selector, value)

    def add(self, selector: Selector, value: T) -> None:
        shape, key = _place(selector)
        table = self._tables.get(shape)
        if table is None:
            table = self._tables[shape] = _Table(shape)
            self._sorted = None
        elif self._sorted is not None and value.order < table.least:
            self._sorted = None
        table.put(key, value)

    def remove(self, selector: Selector) -> None:
        """Take out the value of this selector, which must be there."""
        shape, key = _place(selector)
        table = self._tables[shape]
        was_least = table.rows[key].order == table.least
        del table.rows[key]
        if not table.rows:
            del self._tables[shape]
        if was_least:
            self._sorted = None

    def match(self, flow: Flow) -> T | None:
        """The first value, in order, whose selector covers the flow. A port that is asked for and not visible does not match."""
        tables = (self._sorted if self._sorted is not None else self._sort()).get(len(flow.src))
        if not tables or len(flow.dst) != len(flow.src):
            return None
        src, dst = int.from_bytes(flow.src, "big"), int.from_bytes(flow.dst, "big")
        hidden = (_SPORT if flow.sport is None else 0) | (_DPORT if flow.dport is None else 0)
        upper = flow.protocol << 32 | (flow.sport or 0) << 16 | (flow.dport or 0)
        found: T | None = None
        for least, table in tables:
            if found is not None and found.order < least:
                break
            shape = table.shape
            if shape.mask & hidden:
                continue
            row = table.rows.get((src >> shape.src_shift, dst >> shape.dst_shift, upper & shape.mask))
            if row is not None and (found is None or row.order < found.order):
                found = row
        return found

    def _sort(self) -> dict[int, list[tuple[Order, _Table[T]]]]:
        self._sorted = {
            octets: sorted(
                ((table.least, table) for table in self._tables.values() if table.shape.octets == octets), key=lambda pair: pair[0]
            )
            for octets in (4, 16)
        }
        return self._sorted

    def __len__(self) -> int:
        return sum(len(table.rows) for table in self._tables.values())
