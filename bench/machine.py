"""The machine a table was measured on, in one line; and the clock of all benchmarks."""

import platform
import time
from collections.abc import Callable
from pathlib import Path

import cryptography


def described() -> str:
    """Processor, number of cores, Python, libraries."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{processor}, {len(names)} cores, Python {platform.python_version()}, cryptography {cryptography.__version__}"


def us_each(act: Callable[[], int], seconds: float, rounds: int = 5) -> float:
    """Microseconds of processor time for each of the things that `act` does and counts: the best of some rounds in `seconds`.

    Processor time of this one process, so that others on the machine matter little; the best, because nothing but noise makes it more.
    """
    return min(_round(act, seconds / rounds) for _ in range(rounds))


def us_side_by_side(ours: Callable[[], int], theirs: Callable[[], int], seconds: float, rounds: int = 10) -> tuple[float, float]:
    """The same for two things, round by round in turn: a machine that is slow for a while is slow for both, so their ratio holds."""
    pairs = [(_round(ours, seconds / rounds), _round(theirs, seconds / rounds)) for _ in range(rounds)]
    return min(one for one, _ in pairs), min(other for _, other in pairs)


def _round(act: Callable[[], int], seconds: float) -> float:
    count = 0
    start = time.process_time()
    while (spent := time.process_time() - start) < seconds:
        count += act()
    return spent / count * 1e6


def resident_octets() -> int:
    """What this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
