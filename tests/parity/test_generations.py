"""A change to one SA disturbs the flows it may concern, and no others of its pair of gateways; what it concerns is chosen anew."""

from dataclasses import replace

import pytest

from koura.sadb.agreement import Agreement
from koura.saindex import Direction
from koura.spd.policy import Policy
from tests.parity.kit import AT, Pair, Shape, agreement, ends, needs_fast
from tests.unit.traffic import kit

pytestmark = needs_fast
SHAPE = Shape(True, 4, 4)
GCM = ("aes-gcm-16", None)
SRC, DST = ends(SHAPE)


def _sa(reqid: int, spi: int = 0) -> Agreement:
    made = agreement(GCM, SHAPE, spi or 0x1000 + reqid)
    return replace(made, index=replace(made.index, reqid=reqid))


def _policy(reqid: int, direction: Direction = Direction.OUTBOUND) -> Policy:
    """Its own port asks for its own reqid; 0: any SA will do."""
    wanted = replace(kit.tunnel(kit.ESP, kit.A, kit.B), reqid=reqid)
    return kit.policy(kit.selector(direction, "0.0.0.0/0", "0.0.0.0/0", 17, 1000 + reqid), wanted)


def _burst(reqids: tuple[int, ...]) -> list[bytes]:
    return [kit.datagram(SRC, DST, 30, sport=1000 + reqid, dport=1000 + reqid) for reqid in reqids for _ in range(3)]


@pytest.fixture
def warm() -> Pair:
    pair = Pair(1, [_sa(1), _sa(2), _sa(3)], [_policy(1), _policy(2), _policy(0)])
    for _ in range(3):
        pair.outbound(_burst((1, 2, 0)))
    pair.watched.sealed = 0
    pair.outbound(_burst((1, 2, 0)))
    assert pair.watched.sealed == 9
    pair.watched.sealed = 0
    return pair


def _each(pair: Pair, number: int, what: str) -> None:
    for stack in pair.both:
        sa = list(stack.sadb)[number]
        if what == "remove":
            stack.sadb.remove(sa)
        else:
            stack.sadb.renew(sa, replace(sa.agreement, tfc_octets=256 if what == "pad" else 0))


@pytest.mark.parametrize("what", ["remove", "renew"])
def test_what_asks_for_another_reqid_goes_on(warm: Pair, what: str) -> None:
    _each(warm, 0, what)
    warm.outbound(_burst((2,)))
    assert warm.watched.sealed == 3


def test_a_new_sa_is_chosen_by_all_whom_it_serves(warm: Pair) -> None:
    for stack in warm.both:
        stack.sadb.add(_sa(2, 0x2002), AT)
    warm.outbound(_burst((1,)))
    assert warm.watched.sealed == 3, "reqid 1 knows nothing of it"
    warm.outbound(_burst((2, 0)))
    warm.outbound(_burst((2, 0)))
    assert warm.watched.sealed >= 9


def test_an_sa_that_changes_is_told_anew(warm: Pair) -> None:
    _each(warm, 1, "pad")
    warm.outbound(_burst((2, 0)))
    assert warm.watched.sealed < 6, "padded packets are the reference's"
    _each(warm, 1, "renew")
    warm.outbound(_burst((1, 2, 0)))
    warm.outbound(_burst((1, 2, 0)))


def test_many_sas_between_two_gateways_do_not_disturb_each_other() -> None:
    count = 40
    pair = Pair(1, [_sa(n) for n in range(1, count)], [_policy(n) for n in range(1, count)])
    every = tuple(range(1, count))
    for _ in range(3):
        pair.outbound(_burst(every))
    pair.watched.sealed = 0
    for number in range(10):
        for stack in pair.both:
            stack.sadb.add(_sa(100 + number, 0x5000 + number), AT)
            stack.sadb.remove(next(iter(stack.sadb)))
        pair.outbound(_burst(every[number + 1 :]))
    assert pair.watched.sealed == sum(3 * (count - 2 - number) for number in range(10))


def test_inbound_an_sa_that_stays_goes_on() -> None:
    out = Pair(1, [_sa(1), _sa(2)], [_policy(1), _policy(2)])
    wire = [packet for one in out.outbound(_burst((1, 2) * 4)).outcomes for packet in one.packets]  # type: ignore[union-attr]
    back = Pair(2, [_sa(1), _sa(2)], [])
    back.inbound(wire[:12])
    back.watched.opened = 0
    for stack in back.both:
        stack.sadb.remove(next(iter(stack.sadb)))
    second = [packet for packet in wire[12:] if packet[20:24] == (0x1002).to_bytes(4, "big")]
    back.inbound(second)
    assert len(second) == 6
    assert back.watched.opened == 6
