"""How long packets that arrive one by one are let gather: never lone ones, never those of a burst that is large already."""

import pytest

from koura.fast import drivers

if drivers.why_not():
    pytest.skip(f"no fast path here: {drivers.why_not()}", allow_module_level=True)
io = pytest.importorskip("koura.fast._io", reason="the extension was not built here: no compiler, or no Cython")

US = 1_000
LONGEST_NS = 150 * US
AT = 10**15


def steady(apart_us: int, count: int, turns: int = 50) -> list[tuple[int, int]]:
    """Turns so far apart, each of which brings so many packets."""
    return [(AT + number * apart_us * US, count) for number in range(turns)]


@pytest.mark.parametrize(("apart_us", "count"), [(2000, 1), (500, 1), (150, 1), (100, 4), (1_000_000, 3)])
def test_pings_calls_and_slow_streams_never_wait(apart_us: int, count: int) -> None:
    assert not any(io.waits(steady(apart_us, count)))


def test_a_bulk_that_comes_a_few_at_a_time_waits_as_long_as_a_full_turn_of_it_needs() -> None:
    found = io.waits(steady(30, 8))  # 3.75 microseconds apart
    assert found[0] == 0
    assert found[-1] == 3750 * (32 - 8)


def test_the_longest_wait_is_bounded() -> None:
    assert max(io.waits(steady(15, 1))) == LONGEST_NS


def test_large_bursts_do_not_wait() -> None:
    assert not any(io.waits(steady(200, 32)))
    assert not any(io.waits(steady(200, 256)))


def test_after_a_silence_the_first_packets_do_not_wait() -> None:
    bulk = steady(30, 8)
    again = bulk[-1][0] + 10_000 * US
    assert io.waits([*bulk, (again, 1), (again + 2000 * US, 1)])[-2:] == [0, 0]


def test_turns_that_bring_nothing_change_nothing() -> None:
    bulk = steady(30, 8)
    idle = [(at + 1, 0) for at, _ in bulk]
    mixed = [turn for pair in zip(bulk, idle, strict=True) for turn in pair]
    found = io.waits(mixed)
    assert not any(found[1::2])
    assert found[0::2] == io.waits(bulk)
