"""Two hosts as network namespaces joined by a veth, made by the test and removed by it; their names have our pid in them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


def why_not() -> str:
    """Why no namespaces can be made here; "" if they can."""
    if shutil.which("ip") is None:
        return "no ip(8) here (Debian: iproute2)"
    name = f"kw{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"no network namespaces: {tried.stderr.strip()}"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def pings(count: int = 3) -> tuple[str, ...]:
    """Options of ping(8): until so many are answered. With -W it would leave two round trips after the last: early, on a busy machine."""
    return "-n", "-c", str(count), "-i", "0.05", "-w", "30"


def are_answered(said: str, count: int = 3) -> bool:
    """Whether ping(8) says that its first ones are; when answers are late, it has sent more meanwhile."""
    return [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", said)] == list(range(1, count + 1))


@contextmanager
def pair(name: str) -> Iterator[tuple[str, str]]:
    """192.0.2.1 and 2001:db8:0:1::1 in the first, .2 and ::2 in the second; 10.77.1.1 and 10.77.2.1 behind them, on their loopbacks."""
    hosts = tuple(f"{name}{side}{os.getpid()}" for side in "ab")
    try:
        for host in hosts:
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
        ip("-n", hosts[0], "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", hosts[1])
        for number, host in enumerate(hosts, 1):
            ip("-n", host, "addr", "add", f"192.0.2.{number}/24", "dev", "v0")
            ip("-n", host, "addr", "add", f"2001:db8:0:1::{number}/64", "dev", "v0", "nodad")
            ip("-n", host, "link", "set", "v0", "up")
            ip("-n", host, "addr", "add", f"10.77.{number}.1/24", "dev", "lo")
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)
