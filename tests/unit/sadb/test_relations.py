"""Which SA serves a wish: the newest relation, and in it the oldest or the newest; against a slow twin. RFC 4301 §4.4.2."""

import random

import pytest

from koura.sadb.association import Association
from koura.sadb.database import Database
from koura.saindex import Mode, SaIndex
from tests.unit.sadb.kit import database
from tests.unit.traffic.kit import ANY, AT, ESP, TRANSPORT, TUNNEL, A, B, agreement


def added(sad: Database, spi: int, mode: Mode = ANY, reqid: int = 0) -> Association:
    return sad.add(agreement(ESP, A, B, spi, mode, reqid=reqid), AT)


def served(sad: Database, mode: Mode = TRANSPORT, reqid: int = 0, *, oldest: bool = True) -> int:
    found = sad.outbound(SaIndex(A, B, ESP, mode, reqid), oldest)
    return found.agreement.spi if found is not None else 0


@pytest.mark.covers("R28")
def test_the_newest_relation_serves() -> None:
    sad = database()
    added(sad, 0x1009, reqid=9)
    assert served(sad) == 0x1009
    added(sad, 0x1007, reqid=7)
    assert served(sad) == 0x1007
    added(sad, 0x1017, TUNNEL, reqid=7)
    assert served(sad) == 0x1007, "the mode is another"
    assert served(sad, reqid=9) == 0x1009
    assert served(sad, reqid=8) == 0


def test_an_sa_that_could_replace_others_joins_their_relation() -> None:
    sad = database()
    first = added(sad, 0x1007, reqid=7)
    second = added(sad, 0x1000, TRANSPORT)
    assert second.relation == first.relation
    assert (served(sad), served(sad, oldest=False)) == (0x1007, 0x1000)
    assert served(sad, reqid=7, oldest=False) == 0x1007, "a wish for a reqid is served by that reqid alone"
    sad.remove(first)
    assert served(sad) == 0x1000


def test_update_moves_an_sa_to_another_relation() -> None:
    sad = database()
    larval = sad.larval(agreement(ESP, A, B, 0x1001), AT, 30)
    added(sad, 0x1002, reqid=7)
    sad.mature(larval, agreement(ESP, A, B, 0x1001, TRANSPORT, reqid=7), AT)
    assert served(sad, reqid=7) == 0x1001, "of one relation the oldest, though it came into the relation last"
    assert served(sad, reqid=7, oldest=False) == 0x1002


@pytest.mark.parametrize("seed", range(8))
def test_like_the_slow_twin(seed: int) -> None:
    dice = random.Random(seed)
    sad = database()
    twin: list[Association] = []
    for spi in range(0x1000, 0x1060):
        if twin and dice.random() < 0.3:
            gone = dice.choice(twin)
            twin.remove(gone)
            sad.remove(gone)
            continue
        index = SaIndex(A, B, ESP, dice.choice((ANY, TRANSPORT, TUNNEL)), dice.choice((0, 0, 7, 9)))
        kin = [sa.relation for sa in twin if _serves(sa, index)]
        sa = added(sad, spi, index.mode, index.reqid)
        assert sa.relation == max(kin) if kin else sa.relation not in [other.relation for other in twin]
        twin.append(sa)
        assert sad.between(A, B, ESP) == tuple(twin)
        for mode in (TRANSPORT, TUNNEL):
            for reqid in (0, 7, 9, 8):
                fits = [sa for sa in twin if _serves(sa, SaIndex(A, B, ESP, mode, reqid))]
                for oldest in (True, False):
                    best = max(fits, key=lambda sa: (sa.relation, -sa.order if oldest else sa.order), default=None)
                    assert served(sad, mode, reqid, oldest=oldest) == (best.agreement.spi if best is not None else 0)


def _serves(sa: Association, wish: SaIndex) -> bool:
    have = sa.agreement.index
    return have.mode in (ANY, wish.mode) and wish.reqid in (0, have.reqid)
