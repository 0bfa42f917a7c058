"""Random worlds: each seed is one run, and all checks hold in it. A seed that fails is told by its number: `koura sim --seed N`."""

import pytest

from koura.sim.run import run

QUICK, ALL, CHUNK = 48, 1000, 20


def hold(first: int, count: int) -> None:
    for seed in range(first, first + count):
        run(seed)


@pytest.mark.covers("R2", "R3", "R7", "R19", "R41", "R57")
@pytest.mark.parametrize("first", range(0, QUICK, 4))
def test_seeds_hold_all_checks(first: int) -> None:
    """Safety while links lose, double, delay and damage packets and strangers replay and forge; liveness once all is calm."""
    hold(first, 4)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(QUICK, ALL, CHUNK))
def test_a_thousand_seeds_hold_all_checks(first: int) -> None:
    hold(first, min(CHUNK, ALL - first))


def test_a_seed_is_a_run() -> None:
    """The same seed gives the same run, to the last packet and counter."""
    first, second = run(5), run(5)
    assert first == second
    assert first.steps > 100
