"""End to end: iperf3 and ping between namespaces, through koura and beside its peers in the same run. Needs root, iperf3, ping."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import rigs
from bench.machine import percentile
from bench.rigs import Missing, Rig, child, inside
from bench.table import Table

Make = Callable[[Path], AbstractContextManager[Rig]]
PAYLOAD = 1300  # octets in each datagram of the UDP measurement
SEGMENT = 1348  # octets of TCP payload in a packet of 1400
PINGS = 1000

SETUPS: dict[str, Make] = {
    "plain veth": rigs.between,
    "plain routing, gateways": lambda folder: rigs.gateways(folder, ""),
    "plain TUN forwarder": rigs.forwarder,
    "strongSwan kernel-libipsec": rigs.libipsec,
    "koura, ESP in UDP": partial(rigs.between, extension="esp-udp"),
    "koura, ESP in UDP, null crypto": partial(rigs.between, extension="esp-udp", algorithm=rigs.NULL),
    "koura, ESP": partial(rigs.between, extension="esp"),
    "koura, gateways, ESP in UDP": partial(rigs.gateways, extension="esp-udp"),
    "koura, gateways, ESP": partial(rigs.gateways, extension="esp"),
}


@dataclass(slots=True)
class Result:
    """What one setup did. Gbit/s; packets per second; nanoseconds of its processes for a TCP packet; pings in milliseconds."""

    tcp: float = 0.0
    retransmits: int = 0
    udp: float = 0.0
    small: float = 0.0
    packet_ns: float = 0.0
    idle: list[float] = field(default_factory=list)
    loaded: list[float] = field(default_factory=list)


@contextmanager
def server(rig: Rig) -> Iterator[None]:
    with child([*inside(rig.server), "iperf3", "-s", "-B", rig.far], {}):
        rigs.wait(lambda: ":5201" in rigs.run(*inside(rig.server), "ss", "-ltn"), "iperf3's server")
        yield


def iperf(rig: Rig, seconds: float, *words: str) -> dict[str, dict[str, float]]:
    """iperf3's own summary."""
    command = ["iperf3", "-c", rig.far, "-B", rig.near, "-t", f"{max(1, round(seconds))}", "-J", *words]
    done = subprocess.run([*inside(rig.client), *command], capture_output=True, text=True, check=False, timeout=seconds + 60)
    told = json.loads(done.stdout or "{}")
    if "error" in told or "end" not in told:
        raise Missing(f"iperf3: {told.get('error', done.stderr.strip())}")
    return dict(told["end"])


def pings(rig: Rig, count: int) -> list[float]:
    """Round trips in milliseconds, in order of size."""
    command = ["ping", "-n", "-i", "0.002", "-c", str(count), "-W", "2", "-I", rig.near, rig.far]
    done = subprocess.run([*inside(rig.client), *command], capture_output=True, text=True, check=False, timeout=120)
    return sorted(float(found) for found in re.findall(r"time=([0-9.]+) ms", done.stdout))


def measure(rig: Rig, seconds: float) -> Result:
    found = Result()
    pings(rig, 20)  # neighbours, routes, flows
    found.idle = pings(rig, PINGS)
    with server(rig):
        iperf(rig, 1)
        before = rig.ticks()
        end = iperf(rig, seconds)
        spent = rig.ticks() - before
        received = end["sum_received"]
        found.tcp, found.retransmits = received["bits_per_second"] / 1e9, int(end["sum_sent"].get("retransmits", 0))
        found.packet_ns = spent / (received["bytes"] / SEGMENT) * 1e9
        found.udp, _ = datagrams(rig, seconds, PAYLOAD)
        _, found.small = datagrams(rig, seconds, 64)
        words = ["iperf3", "-c", rig.far, "-B", rig.near, "-t", f"{round(PINGS * 0.002 * 10 + 5)}"]
        with child([*inside(rig.client), *words], {}):
            pings(rig, 50)
            found.loaded = pings(rig, PINGS)
    return found


def datagrams(rig: Rig, seconds: float, octets: int) -> tuple[float, float]:
    """Gbit/s and packets per second that arrived of as many as iperf3 sends."""
    end = iperf(rig, seconds, "-u", "-b", "0", "-l", str(octets))
    total = end["sum"]
    arrived = total["packets"] - total["lost_packets"]
    return arrived * octets * 8 / total["seconds"] / 1e9, arrived / total["seconds"]


def run(seconds: float) -> Iterable[Table]:
    """The tables."""
    absent = [name for name in ("ip", "iperf3", "ping", "ss") if shutil.which(name) is None]
    if os.geteuid() != 0 or absent:
        raise SystemExit(f"end to end needs root and {', '.join(absent) or 'nothing else'}")
    found: dict[str, Result] = {}
    notes = []
    for name, make in SETUPS.items():
        try:
            with tempfile.TemporaryDirectory() as folder, make(Path(folder)) as rig:
                found[name] = measure(rig, 4 * seconds)
        except Missing as error:
            notes.append(f"{name}: {error}.")
    load = f"Load average {os.getloadavg()[0]:.1f}. " + " ".join(notes)
    yield _speeds(found, load)
    yield _delays(found)
    yield _targets(found)


def _speeds(found: dict[str, Result], load: str) -> Table:
    rows = [
        (
            name, f"{one.tcp:.2f}", str(one.retransmits), f"{one.udp:.2f}", f"{one.small / 1e3:,.0f}",
            f"{one.packet_ns:,.0f}" if one.packet_ns else "-",
        )
        for name, one in found.items()
    ]  # fmt: skip
    return Table(
        "endtoend",
        "End to end",
        "iperf3 between network namespaces on two cores that both ends, the client and the server share; AES-128-GCM (but for null "
        "crypto), MTU 1400 inside, one TCP stream, reno. UDP: datagrams of 1300 octets, and of 64 for the packet rate, sent as fast as "
        "iperf3 can, counted where they arrive. cpu: processor time of both daemons for each TCP packet. kernel-libipsec always "
        f"uses ESP in UDP. The plain forwarder is a loop in Python between a TUN and a UDP socket, with nothing between them. {load}",
        ("setup", "TCP, Gbit/s", "retransmits", "UDP, Gbit/s", "small, 1000/s", "cpu, ns"),
        tuple(rows),
    )


def _delays(found: dict[str, Result]) -> Table:
    columns = [(name, part) for part in ("idle", "loaded") for name in ("p50", "p99", "p99.9")]
    rows = []
    for name, one in found.items():
        row = [name]
        for part in (one.idle, one.loaded):
            row += [f"{percentile(part, share) * 1e3:,.0f}" if part else "-" for share in (0.5, 0.99, 0.999)]
        rows.append(tuple(row))
    return Table(
        "endtoend-ping",
        "Round trips",
        f"Microseconds, {PINGS} pings 2 ms apart; loaded: beside one TCP stream as fast as it goes, through the same tunnel.",
        ("setup", *(f"{part} {name}" for name, part in columns)),
        tuple(rows),
    )


@dataclass(frozen=True, slots=True)
class Target:
    """`ours` is at least `ratio` of `other` (most: at most)."""

    what: str
    ours: str
    other: str
    ratio: float
    of: Callable[[Result], float]
    is_most: bool = False


def _tcp(one: Result) -> float:
    return one.tcp


def _at(share: float, part: str) -> Callable[[Result], float]:
    return lambda one: percentile(getattr(one, part), share)


_PEER, _UDP, _ESP = "strongSwan kernel-libipsec", "koura, ESP in UDP", "koura, ESP"
TARGETS = (
    Target("TCP", _UDP, _PEER, 10.0, _tcp),
    Target("TCP", _UDP, "plain veth", 0.2, _tcp),
    Target("TCP", _UDP, "koura, ESP in UDP, null crypto", 0.8, _tcp),
    Target("TCP", _ESP, _PEER, 5.0, _tcp),
    Target("TCP", "koura, gateways, ESP in UDP", _PEER, 5.0, _tcp),
    Target("TCP", "koura, gateways, ESP", _PEER, 5.0, _tcp),
    Target("ping under load, p50", _UDP, _PEER, 1.0, _at(0.5, "loaded"), True),
    Target("ping under load, p99", _UDP, _PEER, 1.0, _at(0.99, "loaded"), True),
    Target("ping idle, p50", _UDP, "plain TUN forwarder", 1.5, _at(0.5, "idle"), True),
)


def _targets(found: dict[str, Result]) -> Table:
    rows = []
    for target in TARGETS:
        if target.ours not in found or target.other not in found or not target.of(found[target.other]):
            continue
        ratio = target.of(found[target.ours]) / target.of(found[target.other])
        is_met = ratio <= target.ratio if target.is_most else ratio >= target.ratio
        wanted = f"{'at most' if target.is_most else 'at least'} {target.ratio:g}"
        rows.append((target.what, target.ours, target.other, f"{ratio:.2f}", wanted, "yes" if is_met else "no"))
    return Table(
        "endtoend-targets", "Targets", "Ratios of the two tables above, against what is wanted of them.",
        ("what", "of", "to", "ratio", "wanted", "met"), tuple(rows),
    )  # fmt: skip
