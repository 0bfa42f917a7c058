"""End to end: iperf3 and ping between namespaces, through koura and beside its peers in the same run. Needs root, iperf3, ping."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from koura.cli import rigs
from koura.cli.figures import Table, percentile
from koura.cli.rigs import Missing, Rig, child
from koura.fast import drivers

Make = Callable[[Path], AbstractContextManager[Rig]]
PAYLOAD = 1300  # octets in each datagram of the UDP measurement
SEGMENT = 1348  # octets of TCP payload in a packet of 1400
PINGS = 300
ROUNDS = 7
TRIES = 8
RENO = ("-C", "reno")

SETUPS: dict[str, Make] = {
    "plain veth": rigs.between,
    "plain routing, gateways": lambda folder: rigs.gateways(folder, ""),
    "plain TUN forwarder": rigs.forwarder,
    "strongSwan kernel-libipsec": rigs.libipsec,
    "koura, ESP in UDP": partial(rigs.between, extension="esp-udp"),
    "koura, ESP in UDP, null crypto": partial(rigs.between, extension="esp-udp", algorithm=rigs.NULL),
    "koura, ESP": partial(rigs.between, extension="esp"),
    "koura, ESP by AF_XDP": partial(rigs.between, extension="esp", has_xdp=True),
    "koura, tunnel interfaces, ESP in UDP": rigs.tunnel,
    "koura, rootless, ESP in UDP": rigs.rootless,
    "koura reference, ESP in UDP": partial(rigs.between, extension="esp-udp", prefix=rigs.REFERENCE),
    "koura reference, ESP": partial(rigs.between, extension="esp", prefix=rigs.REFERENCE),
    "koura, gateways, ESP in UDP": partial(rigs.gateways, extension="esp-udp"),
    "koura, gateways, ESP": partial(rigs.gateways, extension="esp"),
    "koura, gateways, ESP by AF_XDP": partial(rigs.gateways, extension="esp", has_xdp=True),
    "koura, bumps, ESP": rigs.bumps,
    "koura, bumps, ESP by AF_XDP": partial(rigs.bumps, has_xdp=True),
}


@dataclass(slots=True)
class Result:
    """What one setup did, a value for each round: Gbit/s; packets per second; nanoseconds of its processes for a TCP packet.

    Round trips are in milliseconds, those of a round in order of size.
    """

    tcp: list[float] = field(default_factory=list)
    retransmits: list[float] = field(default_factory=list)
    udp: list[float] = field(default_factory=list)
    small: list[float] = field(default_factory=list)
    packet_ns: list[float] = field(default_factory=list)
    idle: list[list[float]] = field(default_factory=list)
    loaded: list[list[float]] = field(default_factory=list)


@contextmanager
def server(rig: Rig) -> Iterator[None]:
    with child([*rig.server, "iperf3", "-s", "-B", rig.far], {}):
        rigs.wait(lambda: ":5201" in rigs.run(*rig.server, "ss", "-ltn"), "iperf3's server")
        yield


def iperf(rig: Rig, seconds: float, *words: str) -> dict[str, dict[str, float]]:
    """iperf3's own summary."""
    command = ["iperf3", "-c", rig.far, "-B", rig.near, "-t", f"{max(1, round(seconds))}", "-J", *words]
    for _ in range(TRIES):
        done = subprocess.run([*rig.client, *command], capture_output=True, text=True, check=False, timeout=seconds + 60)
        told = json.loads(done.stdout or "{}")
        if "error" not in told and "end" in told:
            return dict(told["end"])
        time.sleep(0.5)  # its server has not seen yet that the client before has gone
    raise Missing(f"iperf3: {told.get('error', done.stderr.strip())}")


def pings(rig: Rig, count: int) -> list[float]:
    """Round trips in milliseconds, in order of size."""
    command = ["ping", "-n", "-i", "0.002", "-c", str(count), "-W", "2", "-I", rig.near, rig.far]
    done = subprocess.run([*rig.client, *command], capture_output=True, text=True, check=False, timeout=120)
    return sorted(float(found) for found in re.findall(r"time=([0-9.]+) ms", done.stdout))


def measure(rig: Rig, seconds: float, found: Result) -> None:
    """One round."""
    found.idle.append(pings(rig, PINGS))
    before = rig.ticks()
    end = iperf(rig, 2 * seconds, *RENO)
    spent = rig.ticks() - before
    received = end["sum_received"]
    found.tcp.append(received["bits_per_second"] / 1e9)
    found.retransmits.append(end["sum_sent"].get("retransmits", 0))
    found.packet_ns.append(spent / (received["bytes"] / SEGMENT) * 1e9)
    found.udp.append(datagrams(rig, seconds, PAYLOAD)[0])
    found.small.append(datagrams(rig, seconds, 64)[1])
    words = ["iperf3", "-c", rig.far, "-B", rig.near, "-t", f"{round(PINGS * 0.002 * 10 + 5)}", *RENO]
    with child([*rig.client, *words], {}):
        pings(rig, 50)
        found.loaded.append(pings(rig, PINGS))


def datagrams(rig: Rig, seconds: float, octets: int) -> tuple[float, float]:
    """Gbit/s and packets per second that arrived of as many as iperf3 sends."""
    end = iperf(rig, seconds, "-u", "-b", "0", "-l", str(octets))
    total = end["sum"]
    arrived = total["packets"] - total["lost_packets"]
    return arrived * octets * 8 / total["seconds"] / 1e9, arrived / total["seconds"]


def run(seconds: float, wanted: Sequence[str] = (), rounds: int = ROUNDS) -> Iterable[Table]:
    """The tables, of all setups or of those that have a wanted word in their names. Raises Missing.

    All setups stand side by side, and each round measures all of them, every other one backwards.
    """
    absent = [name for name in ("ip", "iperf3", "ping", "ss") if shutil.which(name) is None]
    if os.geteuid() != 0 or absent:
        raise Missing(f"end to end needs root and {', '.join(absent) or 'nothing else'}")
    found: dict[str, Result] = {}
    missing = drivers.why_not()
    notes = [f"Without the fast path: {missing}."] if missing else []
    with ExitStack() as stack:
        standing: dict[str, Rig] = {}
        for name, make in SETUPS.items():
            if wanted and not any(word in name for word in wanted):
                continue
            try:
                standing[name] = rig = stack.enter_context(make(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
                stack.enter_context(server(rig))
                pings(rig, 20)  # neighbours, routes, flows
                iperf(rig, 1)
                found[name] = Result()
            except Missing as error:
                notes.append(f"{name}: {error}.")
        for number in range(rounds):
            for name in sorted(found, key=list(found).index, reverse=number % 2 == 1):
                try:
                    measure(standing[name], seconds, found[name])
                except Missing as error:
                    notes.append(f"{name}: {error}.")
                    del found[name]
    load = f"Median (least to most) of {rounds} rounds, in each of which every setup had its turn. Load average {os.getloadavg()[0]:.1f}. "
    yield _speeds(found, load + " ".join(notes))
    yield _delays(found)
    yield _targets(found)


def _spread(values: list[float], digits: int = 2) -> str:
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})" if values else "-"


def _speeds(found: dict[str, Result], load: str) -> Table:
    rows = [
        (
            name, _spread(one.tcp), f"{median(one.retransmits):,.0f}", _spread(one.udp), _spread([value / 1e3 for value in one.small], 0),
            _spread(one.packet_ns, 0) if any(one.packet_ns) else "-",
        )
        for name, one in found.items()
    ]  # fmt: skip
    return Table(
        "endtoend",
        "End to end",
        "iperf3 between network namespaces on two cores that both ends, the client and the server share; AES-128-GCM (but for null "
        "crypto), MTU 1400 inside, one TCP stream, reno. UDP: datagrams of 1300 octets, and of 64 for the packet rate, sent as fast as "
        "iperf3 can, counted where they arrive. cpu: processor time of both daemons for each TCP packet. kernel-libipsec always "
        "uses ESP in UDP. Reference: KOURA_NO_FAST=1, everything in Python. Rootless: the client alone is. The plain forwarder is a loop "
        f"in Python between a TUN and a UDP socket, with nothing between them. {load}",
        ("setup", "TCP, Gbit/s", "retransmits", "UDP, Gbit/s", "small, 1000/s", "cpu, ns"),
        tuple(rows),
    )


def _delays(found: dict[str, Result]) -> Table:
    columns = [(name, part) for part in ("idle", "loaded") for name in ("p50", "p99", "p99.9")]
    rows = []
    for name, one in found.items():
        row = [name]
        for part in (one.idle, one.loaded):
            every = sorted(value for values in part for value in values)
            row += [f"{percentile(every, share) * 1e3:,.0f}" if every else "-" for share in (0.5, 0.99, 0.999)]
        rows.append(tuple(row))
    return Table(
        "endtoend-ping",
        "Round trips",
        f"Microseconds, {PINGS} pings 2 ms apart in each round, all rounds together; loaded: beside one TCP stream as fast as it goes, "
        "through the same tunnel.",
        ("setup", *(f"{part} {name}" for name, part in columns)),
        tuple(rows),
    )


@dataclass(frozen=True, slots=True)
class Target:
    """In the median of the rounds `ours` is at least `ratio` of `other` (is_most: at most). of: a value for each round."""

    what: str
    ours: str
    other: str
    ratio: float
    of: Callable[[Result], list[float]]
    is_most: bool = False


def _tcp(one: Result) -> list[float]:
    return one.tcp


def _at(share: float, part: str) -> Callable[[Result], list[float]]:
    return lambda one: [percentile(values, share) for values in getattr(one, part)]


_PEER, _UDP, _ESP = "strongSwan kernel-libipsec", "koura, ESP in UDP", "koura, ESP"
TARGETS = (
    Target("TCP", _UDP, _PEER, 10.0, _tcp),
    Target("TCP", _UDP, "plain veth", 0.2, _tcp),
    Target("TCP", _UDP, "koura, ESP in UDP, null crypto", 0.8, _tcp),
    Target("TCP", _ESP, _PEER, 5.0, _tcp),
    Target("TCP", f"{_ESP} by AF_XDP", _PEER, 5.0, _tcp),
    Target("TCP", "koura, gateways, ESP in UDP", _PEER, 5.0, _tcp),
    Target("TCP", "koura, gateways, ESP", _PEER, 5.0, _tcp),
    Target("TCP", "koura, gateways, ESP by AF_XDP", _PEER, 5.0, _tcp),
    Target("ping under load, p50", _UDP, _PEER, 1.0, _at(0.5, "loaded"), True),
    Target("ping under load, p99", _UDP, _PEER, 1.0, _at(0.99, "loaded"), True),
    Target("ping idle, p50", _UDP, "plain TUN forwarder", 1.5, _at(0.5, "idle"), True),
)


def _targets(found: dict[str, Result]) -> Table:
    rows = []
    for target in TARGETS:
        if target.ours not in found or target.other not in found:
            continue
        pairs = zip(target.of(found[target.ours]), target.of(found[target.other]), strict=True)
        ratios = [ours / other for ours, other in pairs if other]
        if not ratios:
            continue
        is_met = median(ratios) <= target.ratio if target.is_most else median(ratios) >= target.ratio
        wanted = f"{'at most' if target.is_most else 'at least'} {target.ratio:g}"
        rows.append((target.what, target.ours, target.other, _spread(ratios), wanted, "yes" if is_met else "no"))
    return Table(
        "endtoend-targets", "Targets", "Ratios of the same round, against what is wanted of them: median (least to most).",
        ("what", "of", "to", "ratio", "wanted", "met"), tuple(rows),
    )  # fmt: skip
