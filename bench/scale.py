"""Many SAs and policies: how long they take to load, what one costs in memory, and whether a packet notices how many there are."""

import gc
import random
import time
from dataclasses import dataclass

from bench.host import AT, compiled, feed, opened, sealed, stack
from bench.machine import resident_octets, us_each
from bench.table import Table
from koura.address import parse
from koura.host import garbage
from koura.stack import Stack
from koura.wire import ipv4

LOCAL, FROM = "192.0.2.1", "172.16.0.1"
KEY = "0x" + bytes(range(20)).hex()
SAMPLE = 256


def peer(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def associations(count: int) -> str:
    """`count` ESP tunnels to as many peers."""
    return "".join(
        f"add {LOCAL} {peer(n)} esp {0x1000 + n:#x} -m tunnel -r 8 -E aes-gcm-16 {KEY};\n" for n in range(count)
    )  # fmt: skip


def policies(count: int, direction: str) -> str:
    """A policy for each of those tunnels."""
    return "".join(
        f"spdadd {FROM} {peer(n)} any -P {direction} ipsec esp/tunnel/{LOCAL}-{peer(n)}/require;\n" for n in range(count)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Loaded:
    """Seconds of processor time from text to messages, and from messages into the stack; octets of memory for each entry."""

    text_s: float
    pfkey_s: float
    octets: float


def load(into: Stack, script: str, count: int) -> Loaded:
    """Garbage is not looked for meanwhile, as in the daemon and in `koura replay`."""
    with garbage.resting():
        start = time.process_time()
        octets = compiled(script)
        middle = time.process_time()
        before = resident_octets()
        again = time.process_time()
        feed(into, octets)
        end = time.process_time()
    gc.collect()
    return Loaded(middle - start, end - again, (resident_octets() - before) / count)


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds per packet with so many tunnels."""

    out: float
    into: float


def costs(full: Stack, count: int, seconds: float) -> Costs:
    """Packets to a random sample of the peers, out and back in."""
    dice = random.Random(count)
    src = parse(FROM)
    packets = [ipv4.write(ipv4.Header(src, parse(peer(dice.randrange(count))), 17), bytes(44)) for _ in range(SAMPLE)]
    out = us_each(lambda: len(full.outbound(packets, AT).outcomes), seconds)
    into = float("inf")
    for _ in range(12):  # Each packet can be opened once: the window is in force.
        protected = sealed(full, packets)
        start = time.process_time()
        found = full.inbound(protected, AT).outcomes
        into = min(into, (time.process_time() - start) / len(found) * 1e6)
    assert opened(full, sealed(full, packets)) == packets
    return Costs(out, into)


def filled(count: int) -> tuple[Stack, Loaded, Loaded]:
    """A stack with `count` tunnels, and what loading its SAs and its outbound policies took."""
    full = stack()
    sas = load(full, associations(count), count)
    out = load(full, policies(count, "out"), count)
    feed(full, compiled(policies(count, "in")))
    return full, sas, out


def run(seconds: float, counts: tuple[int, ...] = (10, 1_000, 100_000)) -> tuple[Table, Table]:
    """Loading, and costs per packet."""
    loads, rows = [], []
    first: Costs | None = None
    for count in counts:
        full, sas, out = filled(count)
        found = costs(full, count, seconds)
        first = first or found
        ratio = max(found.out / first.out, found.into / first.into)
        rows.append((f"{count:,}", f"{2 * count:,}", f"{found.out:.1f}", f"{found.into:.1f}", f"{ratio:.2f}"))
        if count >= 10_000:
            loads = [_row("SAs", count, sas), _row("policies", count, out)]
        del full
    return (
        Table(
            "load", "Loading", "Seconds of processor time: setkey text into PF_KEY messages, and those through the PF_KEY server into the "
            "databases, replies included. Memory is what the process grew by, for each entry.",
            ("what", "how many", "text to messages, s", "PF_KEY server, s", "memory of each, octets"), tuple(loads),
        ),
        Table(
            "scale", "Cost of a packet by number of entries", "Microseconds per packet of 64 octets to a random peer, AES-128-GCM tunnels, "
            "one SA and two policies for each peer. ratio: the worse of both against the first line.",
            ("SAs", "policies", "out, us", "in, us", "ratio"), tuple(rows),
        ),
    )  # fmt: skip


def _row(what: str, count: int, loaded: Loaded) -> tuple[str, ...]:
    return what, f"{count:,}", f"{loaded.text_s:.1f}", f"{loaded.pfkey_s:.1f}", f"{loaded.octets:,.0f}"
