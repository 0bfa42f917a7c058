"""The fast path in memory, beside the limit in the same run, as `koura bench` measures it; and the charts of the page."""

from typing import Any

from bench.table import PAGE, Table
from koura.cli import chart, measure

SIZES = ("64", "1400", "8192", measure.IMIX)
COUNTS = (1, 10_000)
MANY, BUSY = 100_000, (1, 64)
PLOTS = PAGE.parent / "plots"


def run(seconds: float) -> tuple[Table, ...]:
    """The tables, and the charts beside the page. Raises Absent."""
    found = []
    for suite in measure.MAIN:
        for count in COUNTS:
            on = measure.ground(suite, count)
            for size in SIZES:
                found += list(measure.figures(on, suite, size, seconds / 5))
    return table(measure.as_values(found)), ledger(measure.as_values(found)), crowd(seconds / 5)


def crowd(seconds: float) -> Table:
    """Many SAs installed, traffic to few, against as few installed."""
    suite = measure.MAIN[0]
    rows: list[tuple[str, ...]] = []
    few = {busy: list(measure.figures(measure.ground(suite, busy), suite, "64", seconds)) for busy in BUSY}
    on = measure.ground(suite, MANY)
    for busy in BUSY:
        for alone, among in zip(few[busy], measure.figures(on, suite, "64", seconds, busy), strict=True):
            one = few[1][0 if alone.direction == "out" else 1].all_ns
            rows.append((alone.direction, f"{busy}", f"{alone.all_ns:.0f}", f"{among.all_ns:.0f}", f"{among.all_ns / one:.2f}"))
    return Table(
        "crowd", "Few among many",
        f"{suite}, 64 octets, nanoseconds a packet: so many SAs with traffic, alone and among {MANY:,} SAs and {2 * MANY:,} policies. "
        "ratio: among many, to one SA alone; wanted is at most 1.5 while what has traffic fits the cache.",
        ("way", "SAs with traffic", "alone, ns", "among many, ns", "ratio"), tuple(rows),
    )  # fmt: skip


def ledger(values: dict[str, Any]) -> Table:
    """Where each nanosecond goes."""
    rows = [
        (
            row["suite"], row["size"], row["direction"], f"{row['sas']:,}", f"{row['all_ns']:.0f}",
            *(f"{row['stages'][name]:.0f}" for name in measure.STAGES),
        )
        for row in values["figures"] if row["size"] in ("64", "1400")
    ]  # fmt: skip
    return Table(
        "ledger", "Where each nanosecond goes",
        "The same run. parse: headers read and checked, keys hashed. fetch: what the packets of a group will need (flows, SAs, numbers, "
        "keys) is brought near, all misses at once. find: flow and SA, inbound also the replay window. write: number, IV, headers, "
        "padding, the cipher's job. crypt: the cipher, with its key near. finish: outbound UDP checksums over IPv6 and AH's ICVs, inbound "
        "padding and trailer off, the inner header read and checked. count: counters; inbound the window once more, and what policy says.",
        ("suite", "octets", "way", "SAs", "ns", *measure.STAGES), tuple(rows),
    )  # fmt: skip


def table(values: dict[str, Any]) -> Table:
    """A run as a table."""
    chart.draw(values, PLOTS)
    rows = [
        (
            row["suite"], row["size"], row["direction"], f"{row['sas']:,}", f"{row['all_ns']:.0f}", f"{row['crypto_ns']:.0f}",
            f"{row['memcpy_ns']:.0f}", f"{row['mpps']:.2f}", f"{row['gbits']:.1f}",
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
        "the same bursts' crypto alone, with as many keys in the same order, which is the limit. ratio: crypto to all. "
        "Charts: [ratio](plots/fast-ratio.svg), "
        "[Gb/s](plots/fast-gbits.svg). The same: `koura bench`; two runs: `koura bench --compare OLD NEW`.",
        ("suite", "octets", "way", "SAs", "ns", "crypto", "memcpy", "Mpps", "Gb/s", "ratio"), tuple(rows),
    )  # fmt: skip
