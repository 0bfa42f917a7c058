"""The pool of dice near its end: the engine takes exactly what the reference would, and needs none where the reference draws none."""

import pytest

from koura.entropy import POOL_OCTETS, Pooled
from koura.saindex import Direction
from tests.parity.kit import SHAPES, Pair, Shape, agreement, needs_fast, packets, policy

pytestmark = needs_fast

_SUITES = [("aes-gcm-16", None), ("aes-cbc", "hmac-sha2-256")]


@pytest.mark.parametrize("suite", _SUITES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_paths_draw_the_same_dice_when_few_are_left(
    shape: Shape, suite: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[Pooled] = []

    class Kept(Pooled):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            pools.append(self)

    monkeypatch.setattr("tests.parity.kit.Pooled", Kept)
    pair = Pair(7, [agreement(suite, shape)], [policy(shape, Direction.OUTBOUND)])
    sent = packets(shape, 3, 12)
    pair.outbound(sent)
    draws_nothing = suite[1] is None and (not shape.is_tunnel or shape.outer == 6)
    for left in (0, 1, 2, 3, 15, 16, 17, 18, 40):
        before = pair.watched.sealed
        for pool in pools:
            pool.cursor[0] = POOL_OCTETS - left
        pair.outbound(sent)
        mine, theirs = (pool.cursor[0] for pool in pools)
        assert mine == theirs
        assert (mine == POOL_OCTETS - left) == draws_nothing
        if draws_nothing:
            assert pair.watched.sealed - before == len(sent)
