"""A fuzz target: what runs on one input, and inputs to begin with. Whatever it lets out is a fault; a declared error it catches itself."""

from collections.abc import Callable
from dataclasses import dataclass

Run = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Target:
    """begin: makes the runner, with fresh state; seeds: well-formed inputs, so that mutation gets beyond the first check."""

    name: str
    begin: Callable[[], Run]
    seeds: Callable[[], list[bytes]]


def stateless(name: str, run: Run, seeds: Callable[[], list[bytes]]) -> Target:
    """A target that keeps nothing between inputs."""
    return Target(name, lambda: run, seeds)
