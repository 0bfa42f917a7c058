"""The fast path is the reference, octet for octet: every algorithm, mode, mix of families, ESN and ESP in UDP."""

import pytest

from koura.fast import drivers
from koura.saindex import Direction
from koura.traffic.outcome import Forward
from tests.parity.kit import SHAPES, SUITES, Pair, Shape, agreement, needs_fast, packets, policy

pytestmark = needs_fast


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: "+".join(filter(None, s)))
@pytest.mark.parametrize("shape", SHAPES[::5], ids=str)
def test_each_suite_in_some_shapes(suite: tuple[str, str | None], shape: Shape) -> None:
    _both_ways(suite, shape)


@pytest.mark.parametrize("suite", [("aes-gcm-16", None), ("aes-cbc", "hmac-sha2-256")], ids=lambda s: s[0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_shape_of_two_suites(suite: tuple[str, str | None], shape: Shape) -> None:
    _both_ways(suite, shape)


def _both_ways(suite: tuple[str, str | None], shape: Shape) -> None:
    out = Pair(1, [agreement(suite, shape)], [policy(shape, Direction.OUTBOUND)])
    sent = packets(shape, 5, 40)
    wire = [packet for outcome in out.outbound(sent).outcomes if isinstance(outcome, Forward) for packet in outcome.packets]
    assert len(wire) == len(sent)
    assert out.watched.sealed >= len(sent) - 4, "the fast path answered too little to be compared"
    back = Pair(2, [agreement(suite, shape)], [policy(shape, Direction.INBOUND)])
    forged = bytearray(wire[7])
    forged[-1] ^= 1
    back.inbound([*wire[:20], bytes(forged), *wire[3:6], *wire[20:], wire[-1]])
    if not shape.is_encapsulated or shape.is_tunnel:
        assert back.watched.opened >= len(sent) - 4, "the fast path answered too little to be compared"


def test_a_driver_was_found() -> None:
    assert drivers.found()
