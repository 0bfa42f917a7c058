"""Numbers that begin again (setkey's default) stay with the fast path, and go over the wrap as the reference's do."""

from dataclasses import replace

import pytest

from koura.sadb.agreement import SaFlags
from koura.sadb.association import LAST32
from koura.saindex import Direction, Protocol
from koura.traffic.outcome import Forward
from tests.parity.kit import AT, Pair, Shape, agreement, needs_fast, packets, policy

pytestmark = needs_fast
SHAPE = Shape(True, 4, 4)
CYCLIC = [("aes-cbc", "hmac-sha2-256"), ("null", "hmac-sha1"), ("ah", "hmac-sha2-256")]


def _wire(suite: tuple[str, str], start: int, count: int) -> tuple[Pair, list[bytes]]:
    made = replace(agreement(suite, SHAPE), flags=SaFlags.CYCSEQ, sequence=start, window_packets=0)
    out = Pair(1, [made], [policy(SHAPE, Direction.OUTBOUND, _protocol(suite))])
    outcomes = []
    for n in range(0, count, 20):
        outcomes += out.outbound(packets(SHAPE, n, 20)[: 1 if n == 0 else 20]).outcomes
        _advance(out)
    return out, [packet for one in outcomes if isinstance(one, Forward) for packet in one.packets]


def _advance(pair: Pair) -> None:
    """Key management hears of a number space that is nearly spent; until then every packet is the reference's."""
    for stack in pair.both:
        stack.advance(AT)


def _protocol(suite: tuple[str, str]) -> Protocol:
    return Protocol.AH if suite[0] == "ah" else Protocol.ESP


@pytest.mark.parametrize("suite", CYCLIC, ids=lambda s: s[0])
@pytest.mark.parametrize("window", [0, 1, 32, 1000])
@pytest.mark.parametrize("start", [0, LAST32 - 50])
def test_cyclic_numbers_are_the_engines_but_for_the_wrap_itself(suite: tuple[str, str], window: int, start: int) -> None:
    out, wire = _wire(suite, start, 120)
    assert len(wire) == 101
    assert out.watched.sealed >= 96, "the fast path answered too little to be compared"
    back = Pair(
        2, [replace(agreement(suite, SHAPE), flags=SaFlags.CYCSEQ, sequence=start, window_packets=window)],
        [policy(SHAPE, Direction.INBOUND, _protocol(suite))],
    )  # fmt: skip
    for n in range(0, len(wire), 8):
        back.inbound([*wire[n : n + 8], *wire[max(0, n - 40) : n : 7]])
        _advance(back)
    assert back.watched.opened >= len(wire), "the fast path answered too little to be compared"


def test_a_small_number_in_the_middle_of_a_round_is_old_on_both_paths() -> None:
    suite = ("aes-cbc", "hmac-sha2-256")
    _, wire = _wire(suite, 1 << 20, 40)
    _, small = _wire(suite, 0, 40)
    made = replace(agreement(suite, SHAPE), flags=SaFlags.CYCSEQ, sequence=1 << 20, window_packets=32)
    back = Pair(2, [made], [policy(SHAPE, Direction.INBOUND)])
    back.inbound([*wire[:10], *small[:10], *wire[10:]])
    assert back.fast.counters.endings()["esp.old"] == 10
    assert back.watched.opened >= 27
