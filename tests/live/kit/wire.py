"""Hosts on one link with bumps in the wire between them, as namespaces: a - bump - bump - b, or a - bump - b.

    a (v0) -- (in) bump1 (out) ------ (out) bump2 (in) -- (v0) b        addresses 192.0.2.1 and .2, 2001:db8:0:1::1 and ::2
                                                                        behind a and b: 10.77.1.1, 10.77.2.1 on their loopbacks
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from koura.daemon.launch import Running
from tests.live.kit.namespaces import ip

TOML = '[[bump]]\ninside = "in"\noutside = "out"\n'
PATIENCE_S = 60.0


def run(host: str, *words: str, check: bool = True, timeout_s: float = PATIENCE_S) -> str:
    """A command in a namespace, its output."""
    done = subprocess.run(["ip", "netns", "exec", host, *words], check=check, capture_output=True, text=True, timeout=timeout_s)
    return done.stdout


@dataclass(slots=True)
class Line:
    """Hosts, the bumps between them, and a daemon for each that was started."""

    a: str
    b: str
    bumps: tuple[str, ...]
    folder: Path
    daemons: dict[int, Running] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[str, str]:
        return self.a, self.b

    def start(self, number: int, script: str, toml: str = TOML, environment: str = "A=") -> Running:
        """The daemon of a bump, numbered from 1; it says READY when this returns."""
        conf, configuration = self.folder / f"{number}.conf", self.folder / f"{number}.toml"
        conf.write_text(script)
        configuration.write_text(toml)
        prefix = ("ip", "netns", "exec", self.bumps[number - 1], "env", environment)
        self.daemons[number] = Running(self.folder / str(number), "-q", "-f", str(conf), "-c", str(configuration), prefix=prefix)
        self.daemons[number].start()
        return self.daemons[number]

    def stop(self) -> None:
        for daemon in self.daemons.values():
            daemon.stop()
        self.daemons.clear()

    def answers(self, target: str, *more: str) -> None:
        """Until a ping from a is answered: the first ones may be told a size. Raises AssertionError with all counters."""
        words = ("ping", "-n", "-c", "1", "-w", "5", *more, target)
        self.until(lambda: " 1 received" in run(self.a, *words, check=False), f"{target} {more}")

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait for it. Raises AssertionError with all counters."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline, f"not in {PATIENCE_S:.0f} s: {what}\n{self.told()}"
            time.sleep(0.02)

    def counts(self, number: int) -> dict[str, object]:
        """Everything that a bump's daemon counted and that is not zero."""
        words = [sys.executable, "-m", "koura", "stat", "--json", "--socket", str(self.folder / str(number))]
        found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout)
        return {name: {key: value for key, value in counters.items() if value} for name, counters in found.items()}

    def told(self) -> str:
        """The counters of all bumps, for whoever has to explain a loss."""
        return "\n".join(f"bump {number}: {self.counts(number)}" for number in self.daemons)


@contextmanager
def line(name: str, folder: Path, bumps: int = 2) -> Iterator[Line]:
    """Everything up, no daemon yet: nothing passes."""
    made = Line(*(f"{name}{side}{os.getpid()}" for side in "ab"), tuple(f"{name}{n}{os.getpid()}" for n in range(bumps)), folder)
    every = (*made.hosts, *made.bumps)
    try:
        for host in every:
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
            run(host, "sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno")
        ends = [(made.a, "v0"), (made.bumps[0], "in")]
        for left, right in zip(made.bumps, made.bumps[1:], strict=False):
            ends += [(left, "out"), (right, "out")]
        ends += [(made.bumps[-1], "in" if bumps > 1 else "out"), (made.b, "v0")]
        for (left, one), (right, other) in zip(ends[::2], ends[1::2], strict=True):
            ip("-n", left, "link", "add", one, "type", "veth", "peer", "name", other, "netns", right)
        for host, interface in ends:
            ip("-n", host, "link", "set", interface, "up")
        for number, host in enumerate(made.hosts, 1):
            ip("-n", host, "addr", "add", f"192.0.2.{number}/24", "dev", "v0")
            ip("-n", host, "addr", "add", f"2001:db8:0:1::{number}/64", "dev", "v0", "nodad")
            ip("-n", host, "addr", "add", f"10.77.{number}.1/24", "dev", "lo")
            ip("-n", host, "route", "add", f"10.77.{3 - number}.0/24", "via", f"192.0.2.{3 - number}", "src", f"10.77.{number}.1")
        yield made
    finally:
        made.stop()
        for host in every:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)
