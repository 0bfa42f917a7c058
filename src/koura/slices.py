"""Work in slices: a generator that yields None where it may rest, and returns what came of it.

Who has other things to do beside it goes on with `next` when these are done; who has not calls `whole`.
"""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
Slices = Generator[None, None, T]
COMMANDS = 32  # of a script, between two rests: a few milliseconds


def whole(work: Slices[T]) -> T:
    """All of it at once."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: T = end.value
            return found
