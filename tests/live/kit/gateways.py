"""Two gateways with a host behind each: namespaces in a row, made by the test and removed by it, with a router in the middle or without.

    host a          gateway a                       gateway b          host b
    10.77.1.2 ----- 10.77.1.1   192.0.2.1 ===== 192.0.2.2   10.77.2.1 ----- 10.77.2.2

and, where it is asked for, IPv6 beside it: fd00:77:1::2 and 2001:db8:a::2, ::1, 2001:db8:0:1::1, ::2, fd00:77:2::1 and 2001:db8:b::1, ::2.
With the router, gateway b is 198.51.100.2 and 2001:db8:0:2::2, and the router has .254 and ::fe on both sides.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.live.kit.namespaces import ip


@dataclass(frozen=True)
class Row:
    """The names of the namespaces. Interfaces: `v0` of a host, `lan` and `wan` of a gateway, `west` and `east` of the router."""

    host_a: str
    gateway_a: str
    gateway_b: str
    host_b: str
    router: str = ""

    @property
    def gateways(self) -> tuple[str, str]:
        return self.gateway_a, self.gateway_b

    @property
    def hosts(self) -> tuple[str, str]:
        return self.host_a, self.host_b

    def outer(self, version: int) -> tuple[str, str]:
        """The gateways' addresses on the wire."""
        if version == 4:
            return "192.0.2.1", "198.51.100.2" if self.router else "192.0.2.2"
        return "2001:db8:0:1::1", "2001:db8:0:2::2" if self.router else "2001:db8:0:1::2"

    def narrow(self, octets: int) -> None:
        """The router passes on packets of so many octets at the most, in both directions."""
        mtu = ("mtu", "lock", str(octets))
        for network, device in (("192.0.2.0/24", "west"), ("198.51.100.0/24", "east")):
            ip("-n", self.router, "route", "replace", network, "dev", device, *mtu)
        for network, device in (("2001:db8:0:1::/64", "west"), ("2001:db8:0:2::/64", "east")):
            ip("-n", self.router, "-6", "route", "replace", network, "dev", device, "metric", "1", *mtu)


def run(host: str, *words: str, timeout_s: float = 60) -> str:
    """A command in a namespace, its output. Raises CalledProcessError."""
    return subprocess.run(["ip", "netns", "exec", host, *words], check=True, capture_output=True, text=True, timeout=timeout_s).stdout


def start(host: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(["ip", "netns", "exec", host, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def row(name: str, *, has_v6: bool = False, has_router: bool = False, mtu_octets: int = 1500) -> Iterator[Row]:
    """mtu_octets: of every link."""
    names = [f"{name}{place}{os.getpid()}" for place in ("a", "ga", "gb", "b", "r")]
    made = Row(*names) if has_router else Row(*names[:4])
    spaces = tuple(one for one in (*made.hosts, *made.gateways, made.router) if one)
    try:
        for one in spaces:
            ip("netns", "add", one)
            ip("-n", one, "link", "set", "lo", "up")
            settings = ("net.ipv4.tcp_congestion_control=reno", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
            run(one, "sysctl", "-qw", *settings)
        for one in (*made.gateways, *((made.router,) if made.router else ())):
            run(one, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for number, (host, gateway) in enumerate(zip(made.hosts, made.gateways, strict=True), 1):
            _link((host, "v0"), (gateway, "lan"), mtu_octets)
            _address(host, "v0", f"10.77.{number}.2/24")
            _address(gateway, "lan", f"10.77.{number}.1/24")
            ip("-n", host, "route", "add", "default", "via", f"10.77.{number}.1")
            if has_v6:
                nets = (f"fd00:77:{number}:", f"2001:db8:{' ab'[number]}:")
                _address(host, "v0", *(f"{net}:2/64" for net in nets))
                _address(gateway, "lan", *(f"{net}:1/64" for net in nets))
                ip("-n", host, "route", "add", "default", "via", f"{nets[0]}:1")
        _wan(made, mtu_octets, has_v6=has_v6)
        yield made
    finally:
        for one in spaces:
            subprocess.run(["ip", "netns", "del", one], check=False, capture_output=True)


def _wan(made: Row, mtu_octets: int, *, has_v6: bool) -> None:
    """What is between the gateways."""
    near, far = made.gateways
    if made.router:
        _link((near, "wan"), (made.router, "west"), mtu_octets)
        _link((far, "wan"), (made.router, "east"), mtu_octets)
        _address(made.router, "west", "192.0.2.254/24", "2001:db8:0:1::fe/64")
        _address(made.router, "east", "198.51.100.254/24", "2001:db8:0:2::fe/64")
    else:
        _link((near, "wan"), (far, "wan"), mtu_octets)
    for number, gateway in enumerate(made.gateways):
        _address(gateway, "wan", made.outer(4)[number] + "/24", *((made.outer(6)[number] + "/64",) if has_v6 else ()))
        if made.router:
            ip("-n", gateway, "route", "add", "default", "via", ("192.0.2.254", "198.51.100.254")[number])
            if has_v6:
                ip("-n", gateway, "route", "add", "default", "via", f"2001:db8:0:{number + 1}::fe")


def _link(one: tuple[str, str], other: tuple[str, str], mtu_octets: int) -> None:
    ip("-n", one[0], "link", "add", one[1], "mtu", str(mtu_octets), "type", "veth",
       "peer", "name", other[1], "mtu", str(mtu_octets), "netns", other[0])  # fmt: skip


def _address(host: str, interface: str, *addresses: str) -> None:
    for address in addresses:
        ip("-n", host, "addr", "add", address, "dev", interface, *(("nodad",) if ":" in address else ()))
    ip("-n", host, "link", "set", interface, "up")
