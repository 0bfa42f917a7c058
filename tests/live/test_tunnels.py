"""Virtual tunnel interfaces between two hosts: routes choose the SA, and tunnels come and go without the others noticing. M22, M37."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.client.keysocket import KeySocket
from koura.client.setkey import Setkey, Shape
from koura.client.tap import Tap
from koura.daemon import ends
from koura.daemon.ends import is_fast
from koura.daemon.launch import Running
from koura.host.supers import USUAL_OCTETS, octets_for
from koura.reasons import ESP_NO_SA, SA_NONE_OUT
from koura.setkey.compile import numeric
from koura.setkey.parse import parse
from tests.live.kit.endless import Stream
from tests.live.kit.namespaces import are_answered, ip, pair, pings, why_not
from tests.live.kit.programs import until

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
ENDS = ("192.0.2.1 192.0.2.2", "192.0.2.2 192.0.2.1")


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

    def setkey(self, host: int, text: str) -> None:
        """In this process: a stream waits for it."""
        said: list[str] = []
        with KeySocket.connect(self.running[host].directory) as keys:
            asked = Setkey(keys, Shape(), said.append, said.append)
            asked.script(parse(text), numeric)
        assert asked.refused == 0, said

    def counters(self, host: int = 0) -> dict[str, dict[str, int]]:
        """`attachments`, each by its name, and `reasons`."""
        with Control(self.running[host].directory) as control:
            said = control.ask("stat", protocol="", nonzero=False, json=True)["counters"]
        assert isinstance(said, dict)
        return {"reasons": said["reasons"], **said["attachments"]}  # type: ignore[dict-item]

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for it."""
        until(is_so, lambda: f"{self.counters(0)}\n{self.counters(1)}")

    def until_natively(self) -> None:
        """A stream from the first host to the other goes by native I/O, and nothing is on its way that was when this was asked."""

        def moved() -> list[int]:
            return [self.counters(host)["native"][name] for host, name in ((0, "sent"), (1, "delivered"))]

        least = [count + 1000 for count in moved()]
        self.until(lambda: all(now > then for now, then in zip(moved(), least, strict=True)))

    def until_idle(self, host: int) -> None:
        """Its engine, without packets, uses next to no processor time."""
        with Control(self.running[host].directory) as control:
            engine = control.ask("version")["engine"]

        def is_idle() -> bool:
            before = _ticks(engine)
            time.sleep(1)
            return _ticks(engine) - before <= 2

        self.until(is_idle)

    def reload(self, host: int, text: str) -> None:
        """koura.toml anew, and back when it was read."""
        (self.folder / f"{host}.toml").write_text(text)
        with Control(self.running[host].directory) as control:
            control.ask("reload")


def _ticks(process: object) -> int:
    """Processor time so far."""
    return sum(map(int, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]))


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


@pytest.mark.skipif(not ends.is_native(), reason="no native I/O here: super packets are its own")
def test_super_packets_are_as_large_as_a_train_where_nothing_is_forwarded(site: Site) -> None:
    def sizes() -> set[int]:
        return {
            int(re.findall(r"gso_max_size (\d+)", site.run("ip", "-d", "link", "show", name).stdout)[0]) for name in ("koura0", "ipsec0")
        }  # fmt: skip

    for said, wanted in ((0, {octets_for(1400)}), (1, {USUAL_OCTETS}), (0, {octets_for(1400)})):
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.v0.forwarding"):
            assert site.run("sysctl", "-qw", f"{name}={said}").returncode == 0
            if said:
                until(lambda wanted=wanted: sizes() == wanted, lambda: str(sizes()))  # type: ignore[misc]
        until(lambda wanted=wanted: sizes() == wanted, lambda: str(sizes()))  # type: ignore[misc]


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


@pytest.mark.covers("M22")
def test_an_interface_that_is_down_costs_nothing_and_goes_on_when_it_is_up(site: Site) -> None:
    """With its addresses, IPv6's too. Meanwhile the far end sends, and what comes is lost and counted."""

    def lost() -> int:
        return site.counters()["ipsec0"].get("EIO", 0)

    before = lost()
    line = ["ip", "netns", "exec", site.hosts[1], "ping", "-i", "0.01", "10.100.0.1"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as stream:
        site.until_answered("10.100.0.2")
        ip("-n", site.hosts[0], "link", "set", "ipsec0", "down")
        try:
            site.until(lambda: lost() > before + 10)
        finally:
            stream.terminate()
    site.until_idle(0)
    ip("-n", site.hosts[0], "link", "set", "ipsec0", "up")
    for target in ("10.100.0.2", "fd00:100::2"):
        site.until_answered(target)
        assert are_answered(site.ping(target))


# Where to, the octets of headers, and how ping(8) tells a size.
TOLD = (("10.100.0.2", 28, r"Frag needed and DF set \(mtu = (\d+)\)"), ("fd00:100::2", 48, r"too big: mtu=(\d+)"))


@pytest.mark.covers("M22", "M23")
def test_a_sender_into_an_interface_hears_what_the_path_takes(site: Site) -> None:
    """The link between the ends becomes narrower than the interfaces say: the kernel learns that from the answer at the interface."""
    for host in site.hosts:
        ip("-n", host, "link", "set", "v0", "mtu", "1380")
    assert site.koura("sysctl", "net.inet.ipsec.dfbit=1").returncode == 0
    try:
        for target, header, words in TOLD:
            said = site.run("ping", "-n", "-M", "do", "-s", "1340", "-i", "0.1", "-w", "30", target).stdout
            told = re.search(rf"From {target} icmp_seq=\d+ .*{words}", said)
            assert told is not None, said
            assert 1300 < int(told[1]) < 1340
            largest = int(told[1]) - header
            assert are_answered(site.ping(target, "-M", "do", "-s", str(largest)))
            refused = site.run("ping", "-n", "-M", "do", "-s", str(largest + 1), "-c", "1", target).stderr
            assert re.search(rf"message too long, mtu[=:] ?{told[1]}", refused), refused
    finally:
        assert site.koura("sysctl", "net.inet.ipsec.dfbit=0").returncode == 0
        for host in site.hosts:
            ip("-n", host, "link", "set", "v0", "mtu", "1500")


def _rotate(site: Site, older: int, newer: int) -> None:
    """Newer SAs of ipsec0, then the older ones go, as IKE does it: who receives is always ready first, and the last who gives up."""

    def line(word: str, host: int, spi: int) -> str:
        return f"{word} {ENDS[host]} esp {spi + 0x1000 * host:#x}" + (f" -m tunnel -u 100 -r 32 {GCM};\n" if word == "add" else ";\n")

    site.setkey(0, line("add", 1, newer))
    site.setkey(1, line("add", 0, newer) + line("add", 1, newer))
    site.setkey(0, line("add", 0, newer) + line("delete", 0, older))
    site.until_natively()
    site.setkey(1, line("delete", 1, older) + line("delete", 0, older))
    site.until_natively()
    site.setkey(0, line("delete", 1, older))


@pytest.mark.covers("M22", "R10")
@pytest.mark.skipif(not is_fast(), reason="no fast path was built here")
def test_a_stream_goes_on_while_keys_change_and_somebody_looks(site: Site) -> None:
    """Newer SAs, the older ones go, a capture comes and goes: by native I/O before and after, and never a packet without an SA."""
    before = [site.counters(host)["reasons"] for host in (0, 1)]
    with Stream(site.hosts, "10.100.0.1", "10.100.0.2") as stream:
        site.until_natively()
        for older, newer in ((0x1064, 0x3064), (0x3064, 0x5064)):
            _rotate(site, older, newer)
            site.until_natively()
        with Control(site.running[1].directory) as control:
            tap = Tap(control)
            seen = {(one.is_outbound, one.spi) for one in islice(tap.packets(), 1000)}
            assert {(False, 0x5064), (True, 0x6064)} <= seen
            tap.close()
        site.until_natively()
    assert stream.received == stream.sent, f"{site.counters(0)}\n{site.counters(1)}"
    for host in (0, 1):
        after = site.counters(host)["reasons"]
        for reason in (ESP_NO_SA, SA_NONE_OUT):
            assert after.get(reason.name, 0) == before[host].get(reason.name, 0), after


def test_a_tunnel_routed_into_itself_drops_its_packets(site: Site) -> None:
    ip("-n", site.hosts[0], "route", "add", "192.0.2.2/32", "dev", "ipsec1", "src", "192.0.2.1")
    try:
        assert "100% packet loss" in site.ping("192.0.2.2", "-I", "192.0.2.1", "-w", "1")
    finally:
        ip("-n", site.hosts[0], "route", "del", "192.0.2.2/32", "dev", "ipsec1")


@pytest.mark.parametrize("fast", ["1", "0"])
def test_interfaces_that_somebody_deletes_are_missed_and_let_go(tmp_path: Path, fast: str) -> None:
    """Each engine says so once and reads what there is; a tunnel can be made anew."""
    toml = tmp_path / "koura.toml"
    toml.write_text("[host]\n[enc]\n" + _table(1, 100))
    with ExitStack() as stack:
        host = stack.enter_context(pair("kd"))[0]
        prefix = ("ip", "netns", "exec", host, "env", f"KOURA_NO_FAST={'' if fast == '1' else '1'}")
        daemon = stack.enter_context(Running(tmp_path / "koura", "-q", "-c", str(toml), prefix=prefix))
        control = stack.enter_context(Control(daemon.directory))

        def is_missed(times: int) -> bool:
            return all(daemon.said.count(f"{name} was deleted by somebody else") == times for name in ("ipsec0", "koura0"))

        for name in ("enc0", "ipsec0", "koura0"):
            ip("-n", host, "link", "del", name)
        until(lambda: is_missed(1), lambda: daemon.said)
        os.kill(int(str(control.ask("version")["engine"])), signal.SIGKILL)
        until(lambda: is_missed(2), lambda: daemon.said)
        control.ask("tunnel-del", name="ipsec0")
        control.ask("tunnel-add", name="ipsec0", reqid=100, local="192.0.2.1", remote="192.0.2.2")
        ip("-n", host, "link", "show", "ipsec0")
        drivers = control.ask("stat", json=True)["drivers"]
        assert isinstance(drivers, dict) and "ipsec0" in drivers
        assert control.ask("version")["restarts"] == 1, daemon.said
        assert is_missed(2), daemon.said


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
