"""python -m bench [NAME ...] [--write] [--seconds S]: run benchmarks, print their tables; --write puts them into docs/performance.md."""

import argparse
import sys
from collections.abc import Callable, Iterable

from bench import fast, intercept, pfkey, reference, scale
from bench.machine import described
from bench.table import Table, put
from koura.cli import endtoend
from koura.cli.rigs import Missing

BENCHES: dict[str, Callable[[float], Iterable[Table]]] = {
    "fast": fast.run,
    "reference": lambda seconds: (reference.run(seconds),),
    "scale": scale.run,
    "intercept": intercept.run,
    "pfkey": pfkey.run,
    "endtoend": endtoend.run,
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Koura's benchmarks, beside their peers, in one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHES)}; all without any")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each number (default 1)")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHES)}")
    print(described())
    print()
    try:
        for name in given.names or BENCHES:
            for table in BENCHES[name](given.seconds):
                print(table.text(), flush=True)
                if given.write:
                    put(table)
    except Missing as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
