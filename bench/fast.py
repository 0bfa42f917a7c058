"""The fast path in memory, beside the limit in the same run, as `koura bench` measures it; and the charts of the page."""

from typing import Any

from bench.table import PAGE, Table
from koura.cli import chart, measure

SIZES = ("64", "1400", measure.IMIX)
COUNTS = (1, 10_000)
PLOTS = PAGE.parent / "plots"


def run(seconds: float) -> tuple[Table, ...]:
    """The table, and the charts beside the page. Raises Absent."""
    found = []
    for suite in measure.MAIN:
        for count in COUNTS:
            on = measure.ground(suite, count)
            for size in SIZES:
                found += list(measure.figures(on, suite, size, seconds / 5))
    return (table(measure.as_values(found)),)


def table(values: dict[str, Any]) -> Table:
    """A run as a table."""
    chart.draw(values, PLOTS)
    rows = [
        (
            row["suite"], row["size"], row["direction"], f"{row['sas']:,}", f"{row['all_ns']:.0f}", f"{row['crypto_ns']:.0f}",
            f"{row['look_ns']:.0f}" if row["look_ns"] else "", f"{row['memcpy_ns']:.0f}", f"{row['mpps']:.2f}", f"{row['gbits']:.1f}",
            f"{row['ratio']:.2f}",
        )
        for row in values["figures"]
    ]  # fmt: skip
    machine = ", ".join(f"{name} {value}" for name, value in values["machine"].items())
    return Table(
        "fast", "The fast path, in memory",
        f"{machine}; one core, in processor time of the thread, the best of five parts; others used the machine meanwhile, so the ratios "
        "say more than the nanoseconds. Whole IPv4 tunnel packets: headers, flow, SA, sequence number or window, padding, crypto, inner "
        "policy, accounting; a burst is 256 packets to SAs that dice choose, one SA and two policies for each peer. ns: all of it. crypto: "
        "the same bursts' crypto alone, with as many keys, which is the limit. finding: headers and flow alone, with nothing fetched ahead "
        "(in the whole burst the cache misses overlap). ratio: crypto to all. Charts: [ratio](plots/fast-ratio.svg), "
        "[Gb/s](plots/fast-gbits.svg). The same: `koura bench`; two runs: `koura bench --compare OLD NEW`.",
        ("suite", "octets", "way", "SAs", "ns", "crypto", "finding", "memcpy", "Mpps", "Gb/s", "ratio"), tuple(rows),
    )  # fmt: skip
