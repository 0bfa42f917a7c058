"""An SA that moves to another address pair while the engine knows it, and then goes: nothing of its old place is left behind."""

from koura.moment import Moment
from koura.notices import PeerMoved
from koura.saindex import Direction
from tests.parity.kit import AT, Pair, Shape, agreement, ends, needs_fast, packets, policy
from tests.unit.traffic import kit

pytestmark = needs_fast
NEW = bytes((192, 0, 2, 77))


def test_an_sa_that_moved_and_went_leaves_nothing_in_the_engine() -> None:
    shape = Shape(True, 4, 4, is_encapsulated=True)
    suite = ("aes-gcm-16", None)
    out = Pair(1, [agreement(suite, shape)], [policy(shape, Direction.OUTBOUND)])
    wire = [packet for outcome in out.outbound(packets(shape, 5, 8)).outcomes for packet in outcome.packets]  # type: ignore[union-attr]
    pair = Pair(2, [agreement(suite, shape)], [])
    pair.inbound(wire[:4])
    assert pair.watched.opened, "the engine knows the SA"
    for stack in pair.both:
        stack.notice(PeerMoved(kit.A, 4500, NEW, 4500), AT)
    pair.inbound(wire[4:6])
    for stack in pair.both:
        stack.notice(PeerMoved(NEW, 4500, kit.A, 4500), AT)  # both pairs change, and then the SA goes
        for sa in stack.sadb:
            stack.sadb.remove(sa)
    pair.inbound([kit.datagram(*ends(shape)), *wire[6:]], Moment(AT.ns + 1))
