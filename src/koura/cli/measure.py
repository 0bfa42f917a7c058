"""The fast path measured in memory: one case is an algorithm, a size, a direction and a number of SAs.

Each case has a stack of its own, filled as an operator would (SAs, policies, the first packets through the reference); then the engine
alone is timed, burst by burst, in processor time, and so is the limit in the same run: the same bursts' crypto alone with as many
keys in the same order, nothing fetched ahead, and memcpy of such packets. Of bursts beside them the ledger is kept: where the time goes.
"""

import mmap
import platform
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from koura.address import Prefix
from koura.crypto.algorithm import Kind
from koura.crypto.algorithms import by_name
from koura.fast import drivers
from koura.fast.path import FastPath
from koura.host.entropy import System
from koura.moment import Moment
from koura.sadb.agreement import Agreement
from koura.sadb.hot import Arena
from koura.saindex import Direction, Mode, Protocol, SaIndex
from koura.secret import Secret
from koura.spd.policy import Action, Level, Policy, Requirement
from koura.spd.selector import Selector
from koura.stack import Stack
from koura.traffic.outcome import Forward
from koura.wire import ipv4, udp

SUITES: dict[str, tuple[str, int, str]] = {  # name -> encryption, octets of key and salt, integrity
    "aes-128-gcm": ("aes-gcm-16", 20, ""), "aes-256-gcm": ("aes-gcm-16", 36, ""), "chacha20-poly1305": ("chacha20-poly1305", 36, ""),
    "aes-128-cbc-sha256": ("aes-cbc", 16, "hmac-sha2-256"), "aes-128-ctr-sha256": ("aes-ctr", 20, "hmac-sha2-256"),
    "null-sha256": ("null", 0, "hmac-sha2-256"), "ah-sha256": ("", 0, "hmac-sha2-256"),
}  # fmt: skip
MAIN = ("aes-128-gcm", "aes-256-gcm", "chacha20-poly1305", "aes-128-cbc-sha256")
IMIX = "imix"
SIZES: dict[str, tuple[int, ...]] = {
    "64": (64,), "256": (256,), "576": (576,), "1400": (1400,), "8192": (8192,), IMIX: (64,) * 7 + (576,) * 4 + (1400,),
}  # fmt: skip
COUNTS = (1, 100, 10_000, 100_000)
STAGES = ("parse", "fetch", "find", "write", "crypt", "finish", "count")  # koura.fast.engine's Stage
AT = Moment.of_s(1_800_000_000)
_A = bytes((192, 0, 2, 1))
_SRC = bytes((10, 0, 0, 1))


@dataclass(frozen=True, slots=True)
class Figure:
    """Nanoseconds for each packet: all of it, the crypto alone, memcpy, and what of `all_ns` went where (STAGES).

    octets: of clear packets, on average. busy: to how many of the SAs there is traffic.
    """

    suite: str
    size: str
    direction: str
    sas: int
    busy: int
    octets: float
    all_ns: float
    crypto_ns: float
    memcpy_ns: float
    stages: dict[str, float]

    @property
    def ratio(self) -> float:
        """To what the crypto alone could do; 1 is the limit."""
        return self.crypto_ns / self.all_ns

    @property
    def gbits(self) -> float:
        return 8 * self.octets / self.all_ns

    @property
    def mpps(self) -> float:
        return 1000 / self.all_ns


@dataclass(frozen=True, slots=True)
class Ground:
    """A stack whose engine knows `count` SAs of one suite."""

    stack: Stack
    engine: Any
    places: "array[int]"
    dsts: bytes


def machine() -> dict[str, str]:
    """What the figures were measured on, and with."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(), "cores": str(len(names)), "python": platform.python_version(),
        "drivers": ", ".join(f"{name} {version}" for name, version in drivers.found().items()),
    }  # fmt: skip


def ground(suite: str, count: int) -> Ground:
    """Fill a stack. Raises Absent where there is no fast path."""
    if drivers.why_not():
        raise drivers.Absent(drivers.why_not())
    stack = Stack(System(), fast=FastPath, arena=Arena(lambda octets: memoryview(mmap.mmap(-1, octets))))  # pages, as a daemon's
    fast = stack.fast_path
    assert isinstance(fast, FastPath)
    inners = [bytes((10, 1 + (n >> 16), n >> 8 & 255, n & 255)) for n in range(count)]
    packets = []
    for number, dst in enumerate(inners):
        _add(stack, suite, number, dst)
        packets.append(ipv4.write(ipv4.Header(_SRC, dst, udp.PROTOCOL), udp.write(udp.Header(1, 2), bytes(36))))
    for start in range(0, count, 128):
        few = packets[start : start + 128]
        for _ in range(2):  # Each way the reference answers the first, and what it decided is learned.
            sealed = [piece for outcome in stack.outbound(few, AT).outcomes if isinstance(outcome, Forward) for piece in outcome.packets]
            stack.inbound(sealed, AT)
    places = array("I", [fast.place_of(sa) for sa in stack.sadb])
    return Ground(stack, fast.engine, places, b"".join(inners))


def _add(stack: Stack, suite: str, number: int, dst: bytes) -> None:
    name, octets, mac = SUITES[suite]
    protocol = Protocol.ESP if name else Protocol.AH
    peer = bytes((172, 16 + (number >> 16), number >> 8 & 255, number & 255))
    index = SaIndex(_A, peer, protocol, Mode.TUNNEL, 0)
    stuff = number.to_bytes(4, "big") * 16
    stack.sadb.add(
        Agreement(
            index, 0x1000 + number, by_name(Kind.CIPHER, name) if name else None, Secret(stuff[:octets]),
            by_name(Kind.INTEGRITY, mac) if mac else None, Secret(stuff[:32] if mac else b""), window_packets=64,
        ), AT,
    )  # fmt: skip
    wanted = Requirement(protocol, Mode.TUNNEL, Level.REQUIRE, 0, _A, peer)
    for direction in (Direction.OUTBOUND, Direction.INBOUND):
        selector = Selector(direction, Prefix(_SRC, 32), Prefix(dst, 32))
        stack.spd.add(Policy(direction, Action.IPSEC, selector, (wanted,)), AT)


def figures(on: Ground, suite: str, size: str, seconds: float, busy: int = 0) -> Iterator[Figure]:
    """Both directions of one size, `seconds` each, the best of five parts: nothing but noise makes it slower.

    busy: traffic goes to so many of the SAs only, spread over all of them; 0: to every one.
    """
    module = import_module("koura.fast._measure")
    sizes = SIZES[size]
    most = max(sizes)
    template = ipv4.write(ipv4.Header(_SRC, bytes(4), udp.PROTOCOL), udp.write(udp.Header(1, 2), bytes(most - 28)))
    copied = min(sum(module.memcpy_ns(octets, 40) for octets in sizes) / (40 * 256 * len(sizes)) for _ in range(5))
    step = len(on.places) // busy if 0 < busy < len(on.places) else 1
    places = on.places[::step][: busy or None]
    dsts = b"".join(on.dsts[4 * n : 4 * n + 4] for n in range(0, len(on.places), step))
    for direction in ("out", "in"):
        best: Figure | None = None
        for _ in range(5):
            measure = module.Measure(on.engine, template, dsts, places, array("I", sizes), AT.ns, 4 if len(places) < 1000 else 24)
            while measure.all_ns < seconds / 5 * 1e9:
                fine = measure.outbound(16) if direction == "out" else measure.inbound(1)
                if not fine:
                    raise RuntimeError(f"the engine left packets to the reference: {suite} {size} {direction}")
            n = measure.packets
            all_ns = measure.all_ns / n
            stages = {name: all_ns * share for name, share in zip(STAGES, measure.shares(), strict=True)}
            found = Figure(
                suite, size, direction, len(on.places), len(places), measure.octets / n, all_ns, measure.crypto_ns / n, copied, stages
            )
            best = found if best is None or found.all_ns < best.all_ns else best
        assert best is not None
        yield best


def as_values(found: list[Figure]) -> dict[str, object]:
    """For a JSON file: the machine, and each figure with what follows from it."""
    rows = [{**asdict(one), "ratio": one.ratio, "gbits": one.gbits, "mpps": one.mpps} for one in found]
    return {"machine": machine(), "figures": rows}
