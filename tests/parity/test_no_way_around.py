"""What the engine has learned to let pass does not outlive the policy that let it."""

import pytest

from koura.saindex import Direction, Protocol
from koura.traffic.outcome import Bypass, Forward
from tests.parity.kit import AT, SHAPES, Pair, Shape, agreement, needs_fast, packets, policy

pytestmark = needs_fast
GCM = ("aes-gcm-16", None)


@pytest.mark.covers("M35")
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if not shape.has_esn and not shape.is_encapsulated], ids=str)
def test_a_first_policy_meets_flows_that_went_in_clear(shape: Shape) -> None:
    pair = Pair(1, [agreement(GCM, shape)], [])
    for _ in range(2):
        assert all(isinstance(one, Bypass) for one in pair.outbound(packets(shape, 3, 20)).outcomes)
    for stack in pair.both:
        stack.spd.add(policy(shape, Direction.OUTBOUND, Protocol.ESP), AT)
    for _ in range(2):
        assert all(isinstance(one, Forward) for one in pair.outbound(packets(shape, 3, 20)).outcomes)
    assert pair.watched.sealed
