"""A host behind a NAT: three network namespaces, the middle one translating with nftables."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.live.kit import namespaces
from tests.live.kit.namespaces import ip

RULES = "table ip koura { chain post { type nat hook postrouting priority 100; oifname v1 masquerade; }; }"


def why_not() -> str:
    """Why there can be no NAT here; "" if there can."""
    if shutil.which("nft") is None:
        return "no nft(8) here (Debian: nftables)"
    if why := namespaces.why_not():
        return why
    tried = subprocess.run(["unshare", "-n", "nft", RULES.replace("oifname v1 ", "")], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"this kernel does no NAT for us: {tried.stderr.strip()}"


@contextmanager
def path(name: str) -> Iterator[tuple[str, str]]:
    """The inner host has 10.88.0.2 and is seen as 192.0.2.1; the outer one has 192.0.2.2. Behind them 10.77.1.1 and 10.77.2.1."""
    inner, nat, outer = hosts = tuple(f"{name}{place}{os.getpid()}" for place in "ino")
    try:
        for host in hosts:
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
        ip("-n", inner, "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", nat)
        ip("-n", outer, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", nat)
        for host, device, address in (
            (inner, "v0", "10.88.0.2/24"), (nat, "v0", "10.88.0.1/24"), (nat, "v1", "192.0.2.1/24"), (outer, "v0", "192.0.2.2/24"),
            (inner, "lo", "10.77.1.1/24"), (outer, "lo", "10.77.2.1/24"),
        ):  # fmt: skip
            ip("-n", host, "addr", "add", address, "dev", device)
            ip("-n", host, "link", "set", device, "up")
        ip("-n", inner, "route", "add", "default", "via", "10.88.0.1")
        ip("netns", "exec", nat, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        ip("netns", "exec", nat, "nft", RULES)
        yield inner, outer
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)
