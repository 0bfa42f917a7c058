"""When Python looks for garbage. Values of ours hold no cycles: reference counts free them, and looking for cycles among a hundred
thousand SAs again and again while they come costs a third of a load, and later stops the packets for as long as it takes.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_RARELY = (50_000, 20, 50)


def rarely() -> None:
    """For a whole process: look when fifty thousand objects more have come than gone, not seven hundred."""
    gc.set_threshold(*_RARELY)


@contextmanager
def resting() -> Iterator[None]:
    """Not at all while much is loaded; what is there afterwards is there to stay, and is not looked at again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
