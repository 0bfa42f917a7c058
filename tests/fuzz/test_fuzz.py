"""Every fuzz target on its seeds and some hundred bent ones; and all of them under atheris, where that is installed."""

import importlib.util
import subprocess
import sys

import pytest

from tests.fuzz.mutation import inputs
from tests.fuzz.targets import TARGETS
from tests.source.tree import ROOT

COUNT = 2500
SLOW = {"sysctl": 200, "setkey": 1000, "bump": 300}  # their inputs are long, or looked up among many names


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "all"])
def test_nothing_but_declared_errors_escapes(name: str) -> None:
    target = TARGETS[name]
    run = target.begin()
    seeds = target.seeds()
    assert seeds
    for number, octets in enumerate(inputs(seeds, SLOW.get(name, COUNT), seed=4301)):
        try:
            run(octets)
        except Exception as error:
            raise AssertionError(f"{name}: seed 4301, input {number}: {octets.hex()}") from error


def test_a_target_that_lets_something_out_is_noticed() -> None:
    def run(octets: bytes) -> None:
        assert len(octets) < 50

    with pytest.raises(AssertionError):
        for octets in inputs([bytes(40)], COUNT, seed=1):
            run(octets)


def test_the_same_seed_gives_the_same_inputs() -> None:
    seeds = [bytes(range(100)), b"abc"]
    assert list(inputs(seeds, 50, 7)) == list(inputs(seeds, 50, 7)) != list(inputs(seeds, 50, 8))


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed (no wheel for this Python)")
def test_all_targets_for_a_moment_under_atheris() -> None:
    """libFuzzer guides by what the code did; an escape ends it with a status of its own."""
    command = [sys.executable, "-m", "tests.fuzz", "all", "--runs", "3000", "--seconds", "15"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "all: atheris, seed 4301" in done.stdout
