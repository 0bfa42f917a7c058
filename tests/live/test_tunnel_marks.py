"""Congestion that a router marks on the outer packets of tunnel interfaces is heard by the TCP inside: RFC 6040, in every encapsulation.

The marks are put on some of what comes from the wire, before the daemon has it, and only on what says that it minds them. They arrive in
trains of which a few are marked; the receiving TCP tells the sending one of those that came out of the tunnel.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.daemon.ends import is_fast
from koura.daemon.launch import Running
from tests.live.kit.endless import PATIENCE_S, Stream
from tests.live.kit.gateways import run
from tests.live.kit.namespaces import pair, why_not
from tests.live.kit.programs import until

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(shutil.which("nft") is None, reason="no nft(8) here (Debian: nftables)"),
]

GCM = "-E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f1011121314"
WAYS = (("esp", "192.0.2."), ("esp", "2001:db8:0:1::"), ("esp-udp", "192.0.2."), ("esp-udp", "2001:db8:0:1::"))
NAMES = [f"{extension}-{'v6' if ':' in net else 'v4'}" for extension, net in WAYS]
SAS = "".join(
    f"add {net}{one} {net}{3 - one} {extension} {0x1000 * one + number:#x} -m tunnel -u {100 + number} -r 32 {GCM};\n"
    for number, (extension, net) in enumerate(WAYS)
    for one in (1, 2)
)
TABLE = """[[tunnel]]
name = "ipsec{number}"
reqid = {reqid}
local = "{net}{us}"
remote = "{net}{them}"
addresses = ["10.{reqid}.0.{us}/24", "fd00:{reqid}::{us}/64"]
"""
# Of the packets that are ECT(0), one in twenty.
_RULE = "{0} {1} {{ esp, udp }} {0} ecn ect0 numgen random mod 20 == 0 {0} ecn set ce;"
MARKS = "\n".join((
    "table netdev marks { chain wire { type filter hook ingress device v0 priority 0;",
    _RULE.format("ip", "protocol"), _RULE.format("ip6", "nexthdr"), "}; }",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    hosts: tuple[str, str]
    running: tuple[Running, Running]
    is_native: bool

    def heard(self) -> int:
        """How many of its packets the sending host's TCP was told of as marked."""
        names, counts = (line.split() for line in run(self.hosts[0], "cat", "/proc/net/netstat").splitlines() if line.startswith("TcpExt:"))
        return int(dict(zip(names, counts, strict=True))["TCPDeliveredCE"])

    def told(self) -> str:
        said = []
        for one in self.running:
            with Control(one.directory) as control:
                said.append(str(control.ask("stat", protocol="", nonzero=True, json=True)["counters"]))
        return "\n".join(said)

    def natively(self) -> int:
        with Control(self.running[1].directory) as control:
            counters = control.ask("stat", protocol="", nonzero=False, json=True)["counters"]
        return int(counters["attachments"].get("native", {}).get("delivered", 0))  # type: ignore[index, call-overload, union-attr]


@pytest.fixture(scope="module", params=["native", pytest.param("reference", marks=pytest.mark.slow)])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if request.param == "native" and not is_fast():
        pytest.skip("no fast path was built here")
    folder: Path = tmp_path_factory.mktemp("marks")
    with ExitStack() as stack:
        hosts = stack.enter_context(pair("km"))
        running = []
        for number, host in enumerate(hosts):
            run(host, "sysctl", "-qw", "net.ipv4.tcp_ecn=1")
            conf, toml = folder / f"{number}.conf", folder / f"{number}.toml"
            us = number + 1
            conf.write_text(SAS)
            toml.write_text("[host]\n" + "".join(
                TABLE.format(number=at, reqid=100 + at, net=net, us=us, them=3 - us) for at, (_, net) in enumerate(WAYS)
            ))  # fmt: skip
            fast = "A=" if request.param == "native" else "KOURA_NO_FAST=1"
            prefix = ("ip", "netns", "exec", host, "env", fast)
            running.append(stack.enter_context(Running(folder / str(number), "-f", str(conf), "-c", str(toml), prefix=prefix)))
        made = Site(hosts, (running[0], running[1]), request.param == "native")
        for one in running:
            with Control(one.directory) as control:
                for name in ("net.inet.ipsec.ecn", "net.inet6.ipsec6.ecn"):
                    control.ask("sysctl", name=name, value="1")
        yield made


@pytest.mark.covers("M22")
def test_what_a_router_marks_is_heard_inside(site: Site) -> None:
    subprocess.run(["ip", "netns", "exec", site.hosts[1], "nft", MARKS], check=True, timeout=PATIENCE_S)
    for number, name in enumerate(NAMES):
        for near, far in ((f"10.{100 + number}.0.1", f"10.{100 + number}.0.2"), (f"fd00:{100 + number}::1", f"fd00:{100 + number}::2")):
            _hears(site, name, near, far)
    assert bool(site.natively()) == site.is_native, site.told()


def _hears(site: Site, name: str, near: str, far: str) -> None:
    def told() -> str:
        return f"{name} {near}\n{site.told()}"

    before = site.heard()
    with Stream(site.hosts, near, far) as stream:
        until(lambda: site.heard() > before, told)
    assert stream.received == stream.sent, told()
