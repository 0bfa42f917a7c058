"""Hosts behind one NAT, and a server beyond it: network namespaces, the middle one translating with nftables as the test says."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.live.kit.gateways import run
from tests.live.kit.namespaces import ip

RULES = "table ip koura { chain post { type nat hook postrouting priority 100; oifname v1 masquerade; }; }"
_FLUSH = "from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket as S; S().flush()"


@dataclass
class Street:
    """Client N has 10.88.N.2, and 10.77.N.1 on its loopback; the server 192.0.2.2 and 10.77.9.1; the NAT 192.0.2.1 and 192.0.2.3."""

    nat: str
    server: str
    clients: tuple[str, ...]
    _seen: dict[int, str] = field(default_factory=dict)

    def see(self, client: int, port: int, address: str = "192.0.2.1") -> None:
        """From now on what a client sends from a UDP port of 1024 or more is seen from here; every mapping there was is forgotten."""
        self._seen[client] = f"ip saddr 10.88.{client}.2 udp sport >= 1024 snat to {address}:{port}"
        rules = [*self._seen.values(), "oifname v1 masquerade"]
        run(self.nat, "nft", "; ".join(("flush chain ip koura post", *(f"add rule ip koura post {rule}" for rule in rules))))
        run(self.nat, sys.executable, "-c", _FLUSH)


@contextmanager
def street(name: str, clients: int) -> Iterator[Street]:
    made = Street(*(f"{name}{place}{os.getpid()}" for place in "ns"), tuple(f"{name}{n}x{os.getpid()}" for n in range(1, clients + 1)))
    hosts = (made.nat, made.server, *made.clients)
    try:
        for host in hosts:
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
            run(host, "sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno", "net.ipv4.ip_forward=1")
        ip("-n", made.server, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", made.nat)
        addresses = [
            (made.server, "v0", "192.0.2.2/24"), (made.server, "lo", "10.77.9.1/24"), (made.nat, "v1", "192.0.2.1/24"),
            (made.nat, "v1", "192.0.2.3/24"),
        ]  # fmt: skip
        for number, client in enumerate(made.clients, 1):
            ip("-n", client, "link", "add", "v0", "type", "veth", "peer", "name", f"c{number}", "netns", made.nat)
            addresses += [(client, "v0", f"10.88.{number}.2/24"), (client, "lo", f"10.77.{number}.1/24")]
            addresses.append((made.nat, f"c{number}", f"10.88.{number}.1/24"))
        for host, device, address in addresses:
            ip("-n", host, "addr", "add", address, "dev", device)
            ip("-n", host, "link", "set", device, "up")
        for number, client in enumerate(made.clients, 1):
            ip("-n", client, "route", "add", "default", "via", f"10.88.{number}.1")
        run(made.nat, "nft", RULES)
        yield made
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)
