"""Virtual tunnel interfaces between two hosts: routes choose the SA, and tunnels come and go without the others noticing. M22, M37."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.daemon.launch import Running
from tests.live.kit.namespaces import are_answered, ip, pair, pings, why_not

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump(8) here"),
]

PATIENCE_S = 60
GCM = "-E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f1011121314"
SAS = "".join(
    f"add 192.0.2.1 192.0.2.2 esp {reqid + 0x1000:#x} -m tunnel -u {reqid} -r 32 {GCM};\n"
    f"add 192.0.2.2 192.0.2.1 esp {reqid + 0x2000:#x} -m tunnel -u {reqid} -r 32 {GCM};\n"
    for reqid in (100, 101, 102)
)


def _table(us: int, reqid: int) -> str:
    """One [[tunnel]]: 10.REQID.0.1 to 10.REQID.0.2, fd00:REQID::1 to ::2."""
    return f"""
[[tunnel]]
name = "ipsec{reqid - 100}"
reqid = {reqid}
local = "192.0.2.{us}"
remote = "192.0.2.{3 - us}"
addresses = ["10.{reqid}.0.{us}/24", "fd00:{reqid}::{us}/64"]
"""


@dataclass(frozen=True, slots=True)
class Site:
    hosts: tuple[str, str]
    running: tuple[Running, Running]
    folder: Path

    def run(self, *words: str, host: int = 0) -> "subprocess.CompletedProcess[str]":
        line = ["ip", "netns", "exec", self.hosts[host], *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=os.environ | self._where(host))

    def koura(self, *words: str, host: int = 0) -> "subprocess.CompletedProcess[str]":
        return self.run(sys.executable, "-m", "koura", *words, host=host)

    def _where(self, host: int) -> dict[str, str]:
        return {"KOURA_SOCKET": str(self.running[host].directory)}

    def ping(self, target: str, *more: str) -> str:
        return self.run("ping", *pings(), *more, target).stdout

    def until_answered(self, target: str) -> None:
        """What was under way when an engine died may be lost; after it, nothing."""
        said = self.run("ping", "-c", "1", "-i", "0.1", "-w", str(PATIENCE_S // 2), target).stdout
        assert "bytes from" in said, said

    def reload(self, host: int, text: str) -> None:
        """koura.toml anew, and back when it was read."""
        (self.folder / f"{host}.toml").write_text(text)
        with Control(self.running[host].directory) as control:
            control.ask("reload")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("tunnels")
    with ExitStack() as stack:
        hosts = stack.enter_context(pair("kt"))
        running = []
        for number, host in enumerate(hosts):
            conf, toml = folder / f"{number}.conf", folder / f"{number}.toml"
            conf.write_text(SAS)
            toml.write_text("[host]\n" + _table(number + 1, 100) + _table(number + 1, 101))
            prefix = ("ip", "netns", "exec", host)
            running.append(stack.enter_context(Running(folder / str(number), "-f", str(conf), "-c", str(toml), prefix=prefix)))
        yield Site(hosts, (running[0], running[1]), folder)


@pytest.mark.covers("M22", "M8")
def test_a_tunnel_has_four_policies_of_its_own_and_carries_both_families(site: Site) -> None:
    dumped = site.koura("setkey", "-DP", "-t").stdout
    assert len(re.findall(r"scope=ifnet ifname=ipsec0", dumped)) == 4
    assert dumped.count("esp/tunnel/192.0.2.1-192.0.2.2/unique:100") == 2
    assert dumped.count("esp/tunnel/192.0.2.2-192.0.2.1/unique:100") == 2
    assert are_answered(site.ping("10.100.0.2"))
    assert are_answered(site.ping("fd00:100::2"))
    assert are_answered(site.ping("10.100.0.2", "-s", "8000"))


@pytest.mark.covers("M22")
def test_the_route_chooses_the_sa_and_the_packet_comes_out_of_the_tunnel(site: Site) -> None:
    """The same destination, routed first into one, then into the other."""
    ip("-n", site.hosts[1], "route", "add", "10.77.1.0/24", "dev", "ipsec0")
    for number, name in enumerate(("ipsec0", "ipsec1")):
        ip("-n", site.hosts[0], "route", "replace", "10.77.2.0/24", "dev", name)
        before = _moved(site, 1, name), _moved(site, 0, name)
        line = ["ip", "netns", "exec", site.hosts[0], "tcpdump", "-nlc", "1", "-i", "v0", "src", "192.0.2.1", "and", "esp"]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tcpdump:
            assert tcpdump.stderr is not None
            assert any("listening on" in said for said in tcpdump.stderr)
            said = site.ping("10.77.2.1", "-I", "10.77.1.1")
            if not are_answered(said):
                tcpdump.terminate()
            assert are_answered(said)
            assert tcpdump.stdout is not None
            assert f"spi=0x{0x1000 + 100 + number:08x}" in tcpdump.stdout.read()
        # The kernel says a word of its own there now and then (router solicitations, multicast reports).
        assert _moved(site, 1, name)[0] >= before[0][0] + 3, "what was sealed for a tunnel comes out of it"
        assert _moved(site, 0, name)[1] >= before[1][1] + 3
    for host, net in ((0, "10.77.2.0/24"), (1, "10.77.1.0/24")):
        ip("-n", site.hosts[host], "route", "del", net)


def _moved(site: Site, host: int, name: str) -> tuple[int, int]:
    """Packets that came out of an interface, and that went into it."""
    received, sent = site.run("sh", "-c", f"grep {name}: /proc/net/dev", host=host).stdout.split(":")[1].split()[1:10:8]
    return int(received), int(sent)


def test_tunnels_come_and_go_while_another_works(site: Site) -> None:
    """A stream of pings through ipsec0, and meanwhile another is added and removed, by command and by the file."""
    line = ["ip", "netns", "exec", site.hosts[0], "ping", "-i", "0.01", "-W", "5", "10.100.0.2"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as stream:
        options = ("--reqid", "102", "--local", "192.0.2.1", "--remote", "192.0.2.2", "--address", "10.102.0.1/24")
        assert site.koura("tunnel", "add", "extra", *options).stderr == ""
        assert "extra  reqid 102  192.0.2.1 -> 192.0.2.2  mtu 1400  10.102.0.1/24" in site.koura("tunnel", "list").stdout
        site.reload(1, "[host]\n" + "".join(_table(2, reqid) for reqid in (100, 101, 102)))
        assert are_answered(site.ping("10.102.0.2"))
        assert site.koura("tunnel", "del", "extra").returncode == 0
        assert "extra" not in site.koura("setkey", "-DP", "-t").stdout + site.run("ip", "link").stdout
        site.reload(1, "[host]\n" + "".join(_table(2, reqid) for reqid in (100, 101)))
        assert "ipsec2" not in site.koura("tunnel", "list", host=1).stdout
        stream.send_signal(signal.SIGINT)
        said, _ = stream.communicate(timeout=PATIENCE_S)
    answered = [int(number) for number in re.findall(r"icmp_seq=(\d+)", said)]
    assert answered == list(range(1, len(answered) + 1))  # the last ones may be on their way still
    assert len(answered) > 50


def test_the_next_engine_has_the_tunnels_with_the_same_policies(site: Site) -> None:
    def ids() -> list[str]:
        return re.findall(r"spid=(\d+)", site.koura("setkey", "-DP", "-t").stdout)

    before = ids()
    with Control(site.running[0].directory) as control:
        engine = control.ask("version")["engine"]
        assert isinstance(engine, int)
        os.kill(engine, signal.SIGKILL)
        while control.ask("version")["engine"] in (0, engine):
            pass
    site.until_answered("10.100.0.2")
    assert are_answered(site.ping("10.100.0.2"))
    assert ids() == before


def test_a_tunnel_routed_into_itself_drops_its_packets(site: Site) -> None:
    ip("-n", site.hosts[0], "route", "add", "192.0.2.2/32", "dev", "ipsec1", "src", "192.0.2.1")
    try:
        assert "100% packet loss" in site.ping("192.0.2.2", "-I", "192.0.2.1", "-w", "1")
    finally:
        ip("-n", site.hosts[0], "route", "del", "192.0.2.2/32", "dev", "ipsec1")


def test_what_cannot_be_is_refused_in_one_line(site: Site) -> None:
    ends = ("--local", "192.0.2.1", "--remote", "192.0.2.2")
    for words, said in (
        (("add", "ipsec0", "--reqid", "105", *ends), "there is a tunnel ipsec0"),
        (("add", "other", "--reqid", "100", *ends), "reqid 100 is that of ipsec0"),
        (("add", "other", "--reqid", "20000", *ends), "tunnel.reqid: 20000 is not between 1 and 16383"),
        (("add", "other", "--reqid", "105", "--local", "192.0.2.1", "--remote", "fd00::1"),
         "tunnel: local and remote are two addresses of one family"),
        (("add", "v0", "--reqid", "105", *ends), "v0: Invalid argument"),
        (("del", "nothing"), "there is no tunnel nothing"),
    ):  # fmt: skip
        done = site.koura("tunnel", *words)
        assert (done.returncode, done.stderr) == (1, f"koura: {said}\n")
    assert site.run("ip", "link", "show", "v0").returncode == 0
