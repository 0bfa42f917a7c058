"""Virtual tunnel interfaces on the fast path: the same end for every packet as on the reference, and no verdict of another's. M22."""

from dataclasses import replace

import pytest

from koura.notices import InterfacePolicies
from koura.saindex import Direction
from koura.spd.policy import Policy
from koura.traffic.outcome import LOCAL, Discard, Forward, Origin
from tests.parity.kit import AT, Pair, Shape, agreement, ends, needs_fast
from tests.unit.traffic import kit

pytestmark = needs_fast
SHAPE = Shape(True, 4, 4)
SRC, DST = ends(SHAPE)
PACKETS = [kit.datagram(SRC, DST, 30, sport=1000, dport=port) for port in (1, 2, 1, 2, 1, 2)]


def _policies(reqid: int) -> tuple[Policy, ...]:
    wanted = replace(kit.tunnel(kit.ESP, kit.A, kit.B), reqid=reqid)
    return tuple(kit.policy(kit.selector(way, "0.0.0.0/0", "0.0.0.0/0"), wanted) for way in (Direction.OUTBOUND, Direction.INBOUND))


@pytest.mark.covers("M22")
def test_the_interface_decides_and_what_goes_takes_its_flows_along() -> None:
    sas = [agreement(("aes-gcm-16", None), SHAPE, 0x1000 + reqid) for reqid in (1, 2)]
    sas = [replace(sa, index=replace(sa.index, reqid=reqid)) for sa, reqid in zip(sas, (1, 2), strict=True)]
    pair = Pair(1, sas, [])
    for stack in pair.both:
        for reqid in (1, 2):
            stack.notice(InterfacePolicies(f"ipsec{reqid}", reqid, _policies(reqid)), AT)
    origins = [Origin(interface="ipsec1"), Origin(interface="ipsec2"), LOCAL, Origin(interface="none")]
    for _ in range(3):
        pair.watched.sealed = 0
        found = [pair.outbound(PACKETS, origin=origin).outcomes for origin in origins]
    assert pair.watched.sealed == 4 * len(PACKETS)
    spis = [int.from_bytes(one[0].packets[0][20:24], "big") for one in found[:2] if isinstance(one[0], Forward)]
    assert spis == [0x1001, 0x1002]
    sealed = [packet for one in found[:2] for outcome in one if isinstance(outcome, Forward) for packet in outcome.packets]
    assert isinstance(found[3][0], Discard), "an interface without policies sends nothing"
    pair.watched.opened = 0
    pair.inbound(sealed)
    assert pair.watched.opened >= len(sealed) - 4
    for stack in pair.both:
        stack.notice(InterfacePolicies("ipsec1", 1), AT)
    assert all(isinstance(one, Discard) for one in pair.outbound(PACKETS, origin=origins[0]).outcomes)
    pair.outbound(PACKETS, origin=origins[1])
