"""python -m tests.fuzz [NAME ...]: run fuzz targets, with atheris where it is installed, else by seeded mutation.

    --seconds S   for each target (default 10)
    --runs N      atheris: that many inputs instead
    --seed N      of the dice; printed, so that a run can be repeated
    --plain       no atheris even where it is there
    --list        the names
    --input FILE  one input, as atheris saves it
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Koura's fuzz targets.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=4301)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--input", type=Path)
    given = parser.parse_args(arguments)
    atheris = None if given.plain or given.list or given.input else _atheris()
    targets = _targets(atheris)
    if given.list:
        print("\n".join(name for name in targets if name != "all"))
        return 0
    names = given.names or [name for name in targets if name != "all"]
    unknown = [name for name in names if name not in targets]
    if unknown:
        parser.error(f"no target {unknown[0]!r}; --list names them")
    if given.input:
        targets[names[0]].begin()(given.input.read_bytes())
        return 0
    if atheris is not None:
        if len(names) > 1:
            parser.error("atheris takes one target in one process; tools/fuzz runs them all")
        return _with_atheris(atheris, targets[names[0]], given)
    return max(_plain(targets[name], given.seconds, given.seed) for name in names)


def _atheris() -> Any:
    try:
        return importlib.import_module("atheris")
    except ImportError:
        return None


def _targets(atheris: Any) -> dict[str, Any]:
    if atheris is None:
        return dict(importlib.import_module("tests.fuzz.targets").TARGETS)
    with atheris.instrument_imports(include=["koura"]):
        return dict(importlib.import_module("tests.fuzz.targets").TARGETS)


def _with_atheris(atheris: Any, target: Any, given: argparse.Namespace) -> int:
    """Does not come back: libFuzzer ends the process, with status 77 where something escaped."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds()):
            Path(corpus, f"{number:05}").write_bytes(seed)
        limit = f"-runs={given.runs}" if given.runs else f"-max_total_time={max(int(given.seconds), 1)}"
        flags = [sys.argv[0], corpus, limit, f"-seed={given.seed}", "-max_len=20000", "-verbosity=0", "-timeout=20",
                 f"-artifact_prefix={os.getcwd()}/fuzz-{target.name}-"]  # fmt: skip
        atheris.Setup(flags, target.begin())
        print(f"{target.name}: atheris, seed {given.seed}", flush=True)
        atheris.Fuzz()
    return 0


def _plain(target: Any, seconds: float, seed: int) -> int:
    from tests.fuzz.mutation import inputs

    run = target.begin()
    end = time.monotonic() + seconds
    count = 0
    for octets in inputs(target.seeds(), 1 << 62, seed):
        try:
            run(octets)
        except BaseException:
            print(f"{target.name}: seed {seed}, input {count}: {octets.hex()}", file=sys.stderr, flush=True)
            raise
        count += 1
        if time.monotonic() >= end:
            break
    print(f"{target.name}: seed {seed}, {count} inputs", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
