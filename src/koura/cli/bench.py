"""koura bench: the fast path in memory, beside the limit that crypto and memory set in the same run.

Two runs are compared by their ratios to the limit: they seldom had the same machine to themselves.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from koura.cli import chart, endtoend, measure
from koura.cli.main import BAD_DATA, Failed
from koura.cli.measure import COUNTS, MAIN, SIZES, STAGES, SUITES, Figure
from koura.cli.rigs import Missing
from koura.fast.drivers import Absent

TOLERATED = 0.10
_HEAD = ("suite", "octets", "way", "SAs", "busy", "ns", "limit", *STAGES, "memcpy", "Mpps", "Gb/s", "ratio")
_ROW = "{:<19}{:>6}{:>4}{:>8}{:>8}{:>8}{:>8}" + "{:>7}" * len(STAGES) + "{:>8}{:>7}{:>7}{:>7}"
_EXPLAINED = """\
ns for each packet, all of it; limit: its crypto alone, with as many keys in the same order. Where the time goes, in nanoseconds:
parse: headers, keys hashed; fetch: what is needed is brought near; find: flow, SA, inbound the window; write: number, IV, headers,
padding, job; crypt; finish: outbound UDP checksums and AH's ICVs, inbound padding and the inner header; count: counters, inbound the
window again and what policy says. busy: to how many SAs there is traffic. ratio: limit to ns."""
_Read = Callable[[click.Context, click.Parameter, str], Any]


def _names(table: dict[str, Any]) -> _Read:
    def read_names(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
        names = tuple(table) if text == "all" else tuple(text.split(","))
        unknown = [name for name in names if name not in table]
        if unknown:
            raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(table)}")
        return names

    return read_names


def _counts(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, ...]:
    if text == "all":
        return COUNTS
    counts = tuple(int(one) for one in text.split(",") if one.isdigit())
    if len(counts) != len(text.split(",")) or not all(1 <= count <= 1_000_000 for count in counts):
        raise click.BadParameter(f"{text!r}: numbers of SAs from 1 to 1000000, with commas between them")
    return counts


@click.command("bench")
@click.option("--suite", "suites", default=",".join(MAIN), callback=_names(SUITES), help=f"Of {', '.join(SUITES)}; or `all`.")
@click.option("--size", "sizes", default="64,1400", callback=_names(SIZES), help=f"Of {', '.join(SIZES)}: octets of a packet; `all`.")
@click.option("--sas", "counts", default="1,10000", callback=_counts, help="How many SAs; `all`: 1,100,10000,100000.")
@click.option("--busy", default=0, type=click.IntRange(0), help="Traffic to so many of the SAs only; 0: to all.")
@click.option("--seconds", default=0.5, type=click.FloatRange(0.01, 60), help="For each direction of each line.")
@click.option("--end-to-end", "is_end_to_end", is_flag=True, help="iperf3 and ping through daemons, beside peers. Needs root; minutes.")
@click.option("--rounds", default=endtoend.ROUNDS, type=click.IntRange(min=1), help="Of --end-to-end.")
@click.option("--setup", "setups", multiple=True, help="Of --end-to-end only those with this in their name; may come again.")
@click.option("--json", "as_json", type=click.Path(dir_okay=False), help="Write the figures there, too.")
@click.option("--compare", nargs=2, type=click.Path(), metavar="OLD NEW", help="Compare two such files; 1: a ratio fell by over a tenth.")
@click.option("--plot", nargs=2, type=click.Path(), metavar="FILE DIRECTORY", help="Draw such a file as SVG.")
def command(
    suites: tuple[str, ...], sizes: tuple[str, ...], counts: tuple[int, ...], busy: int, seconds: float, is_end_to_end: bool,
    rounds: int, setups: tuple[str, ...], as_json: str | None, compare: tuple[str, str] | None, plot: tuple[str, str] | None,
) -> None:  # fmt: skip
    """The fast path in memory, one core, beside the limit that crypto and memory set in the same run."""
    if is_end_to_end:
        _end_to_end(seconds, setups, rounds)
        return
    if compare:
        fallen = differences(*(read(path) for path in compare))
        if fallen:
            raise Failed(f"{fallen} of the ratios to the limit fell by more than {TOLERATED:.0%}")
        return
    if plot:
        for path in chart.draw(read(plot[0]), Path(plot[1])):
            click.echo(path)
        return
    try:
        found = run(suites, sizes, counts, seconds, busy)
    except Absent as fault:
        raise Failed(f"there is no fast path to measure: {fault}") from fault
    if as_json:
        Path(as_json).write_text(json.dumps(measure.as_values(found), indent=1) + "\n")


def _end_to_end(seconds: float, setups: tuple[str, ...], rounds: int) -> None:
    """Raises Failed."""
    try:
        for table in endtoend.run(seconds, setups, rounds):
            click.echo(table.text())
    except Missing as error:
        raise Failed(str(error)) from error


def run(suites: Sequence[str], sizes: Sequence[str], counts: Sequence[int], seconds: float, busy: int = 0) -> list[Figure]:
    """Measure and print, line by line. Raises Absent."""
    click.echo("; ".join(f"{name} {value}" for name, value in measure.machine().items()))
    click.echo(_EXPLAINED)
    click.echo(_ROW.format(*_HEAD))
    found = []
    for suite in suites:
        for count in counts:
            on = measure.ground(suite, count)
            for size in sizes:
                for one in measure.figures(on, suite, size, seconds, busy):
                    click.echo(line(one))
                    found.append(one)
    return found


def line(one: Figure) -> str:
    return _ROW.format(
        one.suite, one.size, one.direction, f"{one.sas:,}", f"{one.busy:,}", f"{one.all_ns:.1f}", f"{one.crypto_ns:.1f}",
        *(f"{one.stages[name]:.1f}" for name in STAGES), f"{one.memcpy_ns:.1f}", f"{one.mpps:.2f}", f"{one.gbits:.2f}", f"{one.ratio:.2f}",
    )  # fmt: skip


def read(path: str) -> dict[str, Any]:
    """A file of `--json`. Raises Failed for what is none."""
    try:
        values = json.loads(Path(path).read_text())
        for row in values["figures"]:
            _ = row["suite"], row["size"], row["direction"], row["sas"], row["ratio"], row["all_ns"], row["gbits"]
    except OSError as fault:
        raise Failed(f"{path}: {fault.strerror}") from fault
    except (ValueError, KeyError, TypeError) as fault:
        raise Failed(f"{path} is no file of `koura bench --json`", BAD_DATA) from fault
    return dict(values)


def differences(old: dict[str, Any], new: dict[str, Any]) -> int:
    """How many figures got worse. Ratios are compared, not nanoseconds: runs share machines."""
    before = {_name(row): row for row in old["figures"]}
    worse = 0
    click.echo("{:<20}{:>7}{:>5}{:>9}{:>10}{:>10}{:>9}".format("suite", "octets", "way", "SAs", "old ratio", "new ratio", "change"))
    for row in new["figures"]:
        was = before.get(_name(row))
        if was is None:
            continue
        change = row["ratio"] / was["ratio"] - 1
        mark = "  worse" if change < -TOLERATED else ""
        worse += bool(mark)
        click.echo(
            f"{row['suite']:<20}{row['size']:>7}{row['direction']:>5}{row['sas']:>9,}{was['ratio']:>10.2f}{row['ratio']:>10.2f}"
            f"{change:>+9.1%}{mark}"
        )
    return worse


def _name(row: dict[str, Any]) -> tuple[str, str, str, int, int]:
    return row["suite"], row["size"], row["direction"], row["sas"], row.get("busy", row["sas"])
