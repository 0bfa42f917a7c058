"""What the engine has learned to let pass does not outlive the policy that let it."""

import pytest

from koura.crypto.algorithm import Kind
from koura.sadb.agreement import Agreement
from koura.saindex import Direction, Mode, Protocol, SaIndex
from koura.secret import Secret
from koura.traffic.outcome import Bypass, Forward
from tests.parity.kit import AT, SHAPES, Pair, Shape, agreement, needs_fast, packets, policy
from tests.unit.traffic import kit
from tests.unit.xform.kit import row

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


def test_while_there_are_tcp_md5_keys_native_io_leaves_all_to_the_reference() -> None:
    """Signatures of TCP (RFC 2385) are the reference's: koura.stack.core.Stack.begin_burst is what native I/O asks first."""
    pair = Pair(1, [agreement(GCM, SHAPES[0])], [policy(SHAPES[0], Direction.OUTBOUND, Protocol.ESP)])
    assert pair.fast.begin_burst(AT)
    index = SaIndex(kit.A, kit.B, Protocol.TCP, Mode.TCP_MD5, 0)
    key = pair.fast.sadb.add(Agreement(index, 0x1000, integrity=row(Kind.INTEGRITY, "tcp-md5"), integrity_key=Secret(b"secret")), AT)
    assert not pair.fast.begin_burst(AT)
    pair.fast.sadb.remove(key)
    assert pair.fast.begin_burst(AT)
