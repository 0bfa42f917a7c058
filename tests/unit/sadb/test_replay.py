"""The anti-replay window, alone and against a set. RFC 4303 §3.4.3, Appendix A; RFC 6479."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koura.sadb.replay import MAX_PACKETS, Numbers, Stale, Window, words_for
from tests.oracles.window import WindowOracle
from tests.unit.sadb.kit import window

LAST32 = (1 << 32) - 1
LAST64 = (1 << 64) - 1
SIZES = (1, 2, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000, 4096)


def take(one: Window, seq64: int) -> Stale | None:
    """Check, and commit what passed."""
    stale = one.check(seq64)
    if stale is None:
        one.commit(seq64)
    return stale


@pytest.mark.covers("S43", "M15")
@pytest.mark.parametrize("packets", SIZES)
def test_the_window_advances_and_what_it_left_behind_is_old(packets: int) -> None:
    one = window(packets)
    for seq in (1, 2, packets + 2):
        assert take(one, seq) is None
    assert one.top == packets + 2
    assert take(one, 2) is (Stale.OLD if packets + 2 - 2 >= packets else Stale.REPLAYED)
    assert take(one, packets + 2) is Stale.REPLAYED
    if packets > 1:
        assert take(one, 3) is None
        assert take(one, 3) is Stale.REPLAYED


def test_zero_is_never_sent_and_never_accepted() -> None:
    assert window(32).check(0) is Stale.ZERO
    assert window(32, Numbers.EXTENDED).check(0) is Stale.ZERO
    # The low half 0 of a later epoch is a number like others.
    assert window(32, Numbers.EXTENDED, LAST32).check(1 << 32) is None


def test_without_a_window_everything_passes_and_the_top_still_moves() -> None:
    one = window(0)
    for seq in (5, 5, 0, 3):
        assert take(one, seq) is None
    assert one.top == 5


def test_beyond_the_last_64_bit_number_is_over() -> None:
    one = window(64, Numbers.EXTENDED, LAST64 - 1)
    assert take(one, LAST64) is None
    assert one.infer(1) >> 64 == 1
    assert take(one, one.infer(1)) is Stale.OVER


def test_check_and_infer_move_nothing() -> None:
    one = window(64, Numbers.EXTENDED, 1000)
    for seq in (1, 999, 1000, 1001, LAST32):
        one.infer(seq)
        one.check(seq)
    assert one.top == 1000
    assert one.check(1001) is None


@pytest.mark.parametrize("packets", [0, *SIZES, (1 << 20)])
def test_the_ring_has_room_for_the_window_and_one_word_more(packets: int) -> None:
    words = words_for(packets)
    if packets:
        assert words & (words - 1) == 0
        assert 64 * (words - 1) >= packets
    else:
        assert words == 0


@pytest.mark.covers("M14", "S32")
@pytest.mark.parametrize("packets", [0, 1, 32, 64, 1 << 16])
def test_esn_goes_over_the_32_bit_border_with_any_window(packets: int) -> None:
    one = window(packets, Numbers.EXTENDED, LAST32 - 2)
    for seq64 in (LAST32 - 1, LAST32, 1 << 32, (1 << 32) + 1):
        assert one.infer(seq64 & LAST32) == seq64
        assert take(one, seq64) is None
    late = LAST32 - 10
    if packets not in (1, 32, 64):
        assert one.infer(late) == late
    if packets:
        assert take(one, 1 << 32) is (Stale.REPLAYED if packets > 1 else Stale.OLD)


@pytest.mark.covers("S32")
def test_esn_without_a_window_takes_packets_out_of_order() -> None:
    one = window(0, Numbers.EXTENDED)
    for seq in (10, 3, 11, 7):
        assert one.infer(seq) == seq
        one.commit(seq)
    one = window(0, Numbers.EXTENDED, (5 << 32) + 4)
    assert one.infer(LAST32) == (4 << 32) + LAST32
    assert one.infer(3) == (5 << 32) + 3
    assert one.infer(1 << 30) == (5 << 32) + (1 << 30)


@pytest.mark.covers("S3")
@pytest.mark.parametrize("packets", [1, 4, 32, 1000])
def test_cyclic_numbers_go_over_the_wrap_without_a_seam(packets: int) -> None:
    one = window(packets, Numbers.CYCLIC, LAST32 - 2)
    for seq32, accepted in ((LAST32 - 1, True), (LAST32, True), (0, True), (1, packets > 1), (1, False)):
        before = one.top
        stale = take(one, one.infer(seq32))
        if packets > 1:
            assert (stale is None) is accepted, (seq32, stale)
        assert one.top >= before
    if packets >= 32:
        # Late ones of the round before keep their place behind the wrap, and are told from new ones.
        assert take(one, one.infer(LAST32)) is Stale.REPLAYED
        # What lies far behind is old, not the next round.
        assert take(one, one.infer(1 << 20)) is None
        assert take(one, one.infer(7)) is Stale.OLD


@pytest.mark.covers("S3")
@pytest.mark.parametrize("packets", [32, 1000, MAX_PACKETS // 2])
def test_in_the_middle_of_a_round_a_small_number_is_old_even_when_cyclic(packets: int) -> None:
    middle = 1 << 31
    inferring = Window.__new__(Window)
    inferring.__init__(window(0)._hot, 0, Numbers.CYCLIC, highest=middle)  # type: ignore[misc]
    inferring.packets = packets
    for seq32 in (1, 7, packets // 2):
        assert inferring.infer(seq32) == seq32


@pytest.mark.covers("M15", "S32")
@pytest.mark.parametrize("packets", [1 << 31, (1 << 31) + 1, MAX_PACKETS])
@pytest.mark.parametrize("top", [0, 1, 1 << 31, LAST32, 1 << 32, (1 << 32) + 5, (7 << 32) + 3, (7 << 32) + LAST32])
def test_inference_in_the_largest_windows_agrees_with_the_oracle(packets: int, top: int) -> None:
    """No ring is made: inference looks at the size and the top only."""
    one = window(0, Numbers.EXTENDED, top)
    one.packets = packets
    oracle = WindowOracle(packets, has_esn=True, highest=top)
    edges = {(top + delta) & LAST32 for delta in (-packets - 1, -packets, -packets + 1, -1, 0, 1, 2)} | {0, 1, LAST32, 1 << 31}
    for seq32 in sorted(edges):
        assert one.infer(seq32) == oracle.infer(seq32), (packets, top, seq32)


@pytest.mark.slow
@pytest.mark.covers("M15")
def test_a_window_of_the_largest_size_works() -> None:
    one = window(MAX_PACKETS, Numbers.EXTENDED)
    assert 64 * words_for(MAX_PACKETS) >= MAX_PACKETS
    for seq64 in (1, LAST32 - 100, 2, (1 << 32) + 5, 40, (1 << 32) + 5 - MAX_PACKETS + 1):
        assert take(one, seq64) is None
    assert take(one, 40) is Stale.REPLAYED
    assert take(one, (1 << 32) + 5 - MAX_PACKETS) is Stale.OLD
    assert take(one, 3 << 32) is None
    assert take(one, (1 << 32) + 5) is Stale.OLD


steps = st.lists(st.tuples(st.sampled_from(("ahead", "near", "far", "wild")), st.integers(0, LAST32)), min_size=1, max_size=60)


@pytest.mark.covers("S43", "S32", "M14", "M15")
@settings(max_examples=150, deadline=None)
@given(
    packets=st.sampled_from((0, 1, 2, 31, 32, 63, 64, 65, 128, 200, 1024)),
    has_esn=st.booleans(),
    start=st.sampled_from((0, 1, 63, LAST32 - 70, LAST32 - 1, LAST32)),
    walk=steps,
)
def test_against_the_set_oracle(packets: int, has_esn: bool, start: int, walk: list[tuple[str, int]]) -> None:
    one = window(packets, Numbers.EXTENDED if has_esn else Numbers.ONCE, start)
    oracle = WindowOracle(packets, has_esn=has_esn, highest=start)
    for kind, value in walk:
        seq32 = {
            "ahead": (one.top + 1 + value % 70) & LAST32,
            "near": (one.top - value % (packets + 3)) & LAST32,
            "far": (one.top - packets - value % 300) & LAST32,
            "wild": value,
        }[kind]
        seq64 = one.infer(seq32)
        assert seq64 == oracle.infer(seq32)
        stale = one.check(seq64)
        assert (stale is None) == oracle.accepts(seq64), (kind, seq64, one.top, stale)
        if stale is None:
            one.commit(seq64)
            oracle.commit(seq64)
        assert one.top == oracle.top


@pytest.mark.covers("S43")
@pytest.mark.parametrize("seed", range(6))
def test_a_long_reordered_stream_against_the_set_oracle(seed: int) -> None:
    dice = random.Random(seed)
    packets = dice.choice((32, 64, 100, 512))
    base = dice.choice((0, LAST32 - 400, (3 << 32) + LAST32 - 300))
    one, oracle = window(packets, Numbers.EXTENDED, base), WindowOracle(packets, has_esn=True, highest=base)
    stream = [seq for seq in range(base + 1, base + 1500) if dice.random() > 0.05]
    for place in range(len(stream)):
        if dice.random() < 0.3:
            other = min(len(stream) - 1, place + dice.randrange(2 * packets))
            stream[place], stream[other] = stream[other], stream[place]
    stream += dice.sample(stream, 300)
    accepted = 0
    for seq64 in stream:
        inferred = one.infer(seq64 & LAST32)
        assert inferred == oracle.infer(seq64 & LAST32), f"seed {seed}"
        if oracle.accepts(inferred):
            assert take(one, inferred) is None, f"seed {seed}"
            oracle.commit(inferred)
            accepted += 1
        else:
            assert one.check(inferred) is not None, f"seed {seed}"
    assert accepted > 500
