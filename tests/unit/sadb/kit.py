"""What the SAD tests share: a database by hand, agreements with known keys, windows of their own."""

from dataclasses import replace

from koura.sadb.association import Association, Makings
from koura.sadb.database import Database
from koura.sadb.hot import Arena, Hot
from koura.sadb.replay import Numbers, Window
from koura.settings import Limits as Bounds
from tests.unit.traffic.kit import REGISTRY, Dice


def database(*, has_ledger: bool = False, bounds: Bounds | None = None, seed: int = 1) -> Database:
    """An empty SAD."""
    limits = bounds if bounds is not None else Bounds()
    return Database(Makings(REGISTRY, Arena(), Dice(seed), has_ledger), lambda: limits)


def window(packets: int, numbers: Numbers = Numbers.ONCE, highest: int = 0) -> Window:
    return Window(Arena().take(), packets, numbers, highest=highest)


def hot() -> Hot:
    return Arena().take()


def renamed(sa: Association, **changes: object) -> Association:
    """The SA with another agreement, in place."""
    sa.agreement = replace(sa.agreement, **changes)  # type: ignore[arg-type]
    return sa
