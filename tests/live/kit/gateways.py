"""Two gateways with a host behind each: four network namespaces in a row, made by the test and removed by it.

    host a          gateway a                       gateway b          host b
    10.77.1.2 ----- 10.77.1.1   192.0.2.1 ===== 192.0.2.2   10.77.2.1 ----- 10.77.2.2

and, where it is asked for, IPv6 beside it: 2001:db8:a::2, ::1, 2001:db8:0:1::1, ::2, 2001:db8:b::1, ::2.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.live.kit.namespaces import ip


@dataclass(frozen=True)
class Row:
    """The names of the namespaces. Interfaces: `v0` of a host, `lan` and `wan` of a gateway."""

    host_a: str
    gateway_a: str
    gateway_b: str
    host_b: str

    @property
    def gateways(self) -> tuple[str, str]:
        return self.gateway_a, self.gateway_b


def run(host: str, *words: str, timeout_s: float = 60) -> str:
    """A command in a namespace, its output. Raises CalledProcessError."""
    return subprocess.run(["ip", "netns", "exec", host, *words], check=True, capture_output=True, text=True, timeout=timeout_s).stdout


def start(host: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(["ip", "netns", "exec", host, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def row(name: str, *, has_v6: bool = False) -> Iterator[Row]:
    made = Row(*(f"{name}{place}{os.getpid()}" for place in ("a", "ga", "gb", "b")))
    hosts = (made.host_a, made.gateway_a, made.gateway_b, made.host_b)
    try:
        for host in hosts:
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
            settings = ("net.ipv4.tcp_congestion_control=reno", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
            run(host, "sysctl", "-qw", *settings)
        for number, (host, gateway) in enumerate(((made.host_a, made.gateway_a), (made.host_b, made.gateway_b)), 1):
            ip("-n", host, "link", "add", "v0", "type", "veth", "peer", "name", "lan", "netns", gateway)
            _address(host, "v0", f"10.77.{number}.2/24")
            _address(gateway, "lan", f"10.77.{number}.1/24")
            ip("-n", host, "route", "add", "default", "via", f"10.77.{number}.1")
            run(gateway, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        ip("-n", made.gateway_a, "link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", made.gateway_b)
        for number, gateway in enumerate(made.gateways, 1):
            _address(gateway, "wan", f"192.0.2.{number}/24")
            if has_v6:
                _address_v6(gateway, "wan", f"2001:db8:0:1::{number}/64")
        for number, (host, gateway) in enumerate(((made.host_a, made.gateway_a), (made.host_b, made.gateway_b)) if has_v6 else ()):
            net = f"2001:db8:{'ab'[number]}:"
            run(gateway, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
            _address_v6(gateway, "lan", f"{net}:1/64")
            _address_v6(host, "v0", f"{net}:2/64")
            ip("-n", host, "-6", "route", "add", "default", "via", f"{net}:1")
        yield made
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)


def _address(host: str, interface: str, address: str) -> None:
    ip("-n", host, "addr", "add", address, "dev", interface)
    ip("-n", host, "link", "set", interface, "up")


def _address_v6(host: str, interface: str, address: str) -> None:
    ip("-n", host, "addr", "add", address, "dev", interface, "nodad")
