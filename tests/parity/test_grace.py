"""An SA that is deleted in a rekey while bursts for it are under way: the engine opens them as the reference does, and then no more."""

import random

import pytest

from koura.moment import NS_PER_S, Moment
from koura.reasons import ESP_NO_SA
from koura.saindex import Direction
from koura.traffic.outcome import Deliver, Discard
from tests.parity.kit import AT, Pair, Shape, agreement, needs_fast, packets, policy

pytestmark = needs_fast
SUITE = ("aes-gcm-16", None)


@pytest.mark.parametrize("shape", [Shape(True, 4, 4), Shape(False, 6, 6), Shape(True, 6, 4, is_encapsulated=True)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_bursts_across_a_deletion_leave_both_paths_equal(shape: Shape, seed: int) -> None:
    dice = random.Random(seed)
    old, new = agreement(SUITE, shape), agreement(SUITE, shape, 0x1001)
    sender = Pair(1, [old], [policy(shape, Direction.OUTBOUND)])
    wire = [one for outcome in sender.outbound(packets(shape, seed, 60)).outcomes for one in outcome.packets]  # type: ignore[union-attr]
    pair = Pair(2, [old], [])
    pair.inbound(wire[:10])
    assert pair.watched.opened
    for stack in pair.both:
        stack.sadb.add(new, AT)
        (first, _) = stack.sadb
        stack.sadb.retire(first, AT.after_ns(NS_PER_S))
    under_way = wire[10:40]
    dice.shuffle(under_way)
    before = pair.watched.opened
    results = pair.inbound(under_way + wire[:5], Moment(AT.ns + 1))
    assert [type(outcome) for outcome in results.outcomes] == [Deliver] * 30 + [Discard] * 5
    assert pair.watched.opened - before > 30, "the engine answers in grace, too: all but what it learns from"
    assert pair.reference.sadb.grace.opened_packets == 30
    for stack in pair.both:
        stack.advance(AT.after_ns(NS_PER_S))
    late = pair.inbound(wire[40:] * 2, AT.after_ns(NS_PER_S))
    assert {outcome.reason for outcome in late.outcomes if isinstance(outcome, Discard)} == {ESP_NO_SA}
    assert len(late.outcomes) == 40


def test_what_the_engine_sends_under_goes_with_the_deletion() -> None:
    shape = Shape(True, 4, 4)
    pair = Pair(3, [agreement(SUITE, shape)], [policy(shape, Direction.OUTBOUND)])
    pair.outbound(packets(shape, 1, 20))
    assert pair.watched.sealed
    for stack in pair.both:
        stack.sadb.add(agreement(SUITE, shape, 0x1001), AT)
        (first, _) = stack.sadb
        stack.sadb.retire(first, AT.after_ns(NS_PER_S))
    for outcome in pair.outbound(packets(shape, 2, 20)).outcomes:
        for sealed in outcome.packets:  # type: ignore[union-attr]
            assert sealed[20:24] == (0x1001).to_bytes(4, "big")
