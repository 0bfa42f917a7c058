"""enc0 as an interface, koura capture and koura filter, on two hosts in host mode: what tcpdump and tshark see, what the filter stops."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.daemon.launch import Running
from tests.live.kit.namespaces import are_answered, pair, pings, why_not

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(shutil.which("tcpdump") is None or shutil.which("tshark") is None, reason="no tcpdump(8) or tshark(1) here"),
]

PATIENCE_S = 60
GCM = "-E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f1011121314"
CONF = f"""
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -u 1 -r 32 {GCM};
add 192.0.2.2 192.0.2.1 esp 0x1002 -m tunnel -u 1 -r 32 {GCM};
"""
POLICIES = """
spdadd 10.77.1.0/24 10.77.2.0/24 any -P {0} ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;
spdadd 10.77.2.0/24 10.77.1.0/24 any -P {1} ipsec esp/tunnel/192.0.2.2-192.0.2.1/require;
"""


@dataclass(frozen=True, slots=True)
class Site:
    hosts: tuple[str, str]
    running: tuple[Running, Running]
    folder: Path

    def words(self, *words: str, number: int = 0) -> list[str]:
        return ["ip", "netns", "exec", self.hosts[number], *words]

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self.words(*words), capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def koura(self, *words: str) -> "subprocess.CompletedProcess[str]":
        head, *rest = words
        where = ("--socket", str(self.running[0].directory))
        line = (head, rest[0], *where, *rest[1:]) if head == "filter" else (head, *where, *rest)
        return self.run(sys.executable, "-m", "koura", *line)

    def capture(self, *words: str) -> list[str]:
        return self.words(sys.executable, "-m", "koura", "capture", "--socket", str(self.running[0].directory), *words)

    def ping(self, count: int = 1, wait: str = "30") -> str:
        """For one that is to be answered, or some that are not to be: with -W ping does not wait for a late second one."""
        return self.run("ping", "-c", str(count), "-i", "0.5", "-W", wait, "-I", "10.77.1.1", "10.77.2.1").stdout

    def answers(self) -> bool:
        said = self.run("ping", *pings(), "-I", "10.77.1.1", "10.77.2.1").stdout
        return are_answered(said) and "DUP" not in said

    @contextmanager
    def beside(self, words: Sequence[str], sign: str) -> Iterator["subprocess.Popen[str]"]:
        """A program that says on stderr when it looks; ended with SIGINT if it has not ended by itself."""
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
            assert program.stderr is not None
            for line in program.stderr:
                if sign in line:
                    break
            try:
                yield program
            finally:
                if program.poll() is None:
                    program.send_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("enc")
    with ExitStack() as stack:
        hosts = stack.enter_context(pair("ke"))
        running = []
        for number, ways in enumerate((("out", "in"), ("in", "out"))):
            conf, toml = folder / f"{number}.conf", folder / f"{number}.toml"
            conf.write_text(CONF + POLICIES.format(*ways))
            toml.write_text("[host]\n[enc]\n" if number == 0 else "[host]\n")
            prefix = ("ip", "netns", "exec", hosts[number])
            running.append(stack.enter_context(Running(folder / str(number), "-f", str(conf), "-c", str(toml), prefix=prefix)))
        yield Site(hosts, (running[0], running[1]), folder)


def _tshark(path: Path, *words: str) -> list[str]:
    done = subprocess.run(["tshark", "-n", "-r", str(path), *words], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return done.stdout.splitlines()


@pytest.mark.covers("R10")
def test_a_capture_without_promiscuous_mode_is_seen_too(site: Site) -> None:
    """It begins to see packets when it has been found, and while no one looks nothing is shown."""
    with site.beside(site.words("tcpdump", "-p", "-l", "-ni", "enc0", "-c", "3"), "listening on") as tcpdump:
        words = site.words("ping", "-i", "0.1", "-w", "60", "-I", "10.77.1.1", "10.77.2.1")
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as ping:
            tcpdump.wait(PATIENCE_S)
            ping.terminate()
        assert tcpdump.stdout is not None
        assert "10.77.1.1 > 10.77.2.1: ICMP echo request" in tcpdump.stdout.read()


@pytest.mark.covers("R10")
def test_tcpdump_sees_the_clear_packets_on_enc0_and_the_host_gets_none_of_them(site: Site) -> None:
    """FreeBSD's masks: out before and after the outer header, in before it comes off."""
    path = site.folder / "enc0.pcap"
    with site.beside(site.words("tcpdump", "-Z", "root", "-U", "-i", "enc0", "-c", "3", "-w", str(path)), "listening on") as tcpdump:
        assert "1 received" in site.ping(1)
        tcpdump.wait(PATIENCE_S)
    lines = subprocess.run(["tcpdump", "-nr", str(path)], capture_output=True, text=True, check=True).stdout
    out, wrapped, back = lines.splitlines()
    assert "10.77.1.1 > 10.77.2.1: ICMP echo request" in out
    assert "192.0.2.1 > 192.0.2.2: IP 10.77.1.1 > 10.77.2.1: ICMP echo request" in wrapped
    assert "192.0.2.2 > 192.0.2.1: IP 10.77.2.1 > 10.77.1.1: ICMP echo reply" in back
    assert site.answers()
    received = re.search(r"enc0:\s*\d+\s+(\d+)", site.run("cat", "/proc/net/dev").stdout)
    assert received is not None and received.group(1) == "0"


def test_capture_links_what_is_one_packet_and_wireshark_decrypts_its_wire_form(site: Site) -> None:
    path, table = site.folder / "both.pcapng", site.folder / "esp_sa"
    with site.beside(site.capture("-o", str(path), "-c", "3", "--esp-sa", str(table)), "looking at") as program:
        assert "1 received" in site.ping(1)
        assert program.wait(PATIENCE_S) == 0
    assert os.stat(path).st_mode & 0o777 == os.stat(table).st_mode & 0o777 == 0o600
    fields = ("-T", "fields", "-E", "separator=|", "-e", "frame.interface_name", "-e", "frame.comment", "-e", "_ws.col.Protocol")
    rows = [line.split("|") for line in _tshark(path, *fields)]
    assert [row[0] for row in rows] == ["enc0", "enc0", "wire", "wire", "enc0"]
    assert len({row[1].split(",")[0] for row in rows}) == 2  # the request's three, the reply's two
    assert [row[2] for row in rows] == ["ICMP", "ICMP", "ESP", "ESP", "ICMP"]
    row = next(line for line in table.read_text().splitlines() if "0x1001" in line)
    opened = _tshark(path, "-o", "esp.enable_encryption_decode:TRUE", "-o", f"uat:esp_sa:{row}", "-Y", "icmp && esp")
    assert len(opened) == 1


def test_capture_without_a_file_prints_lines(site: Site) -> None:
    with site.beside(site.capture("-c", "2"), "looking") as program:
        site.ping(1)
        assert program.wait(PATIENCE_S) == 0
        assert program.stdout is not None
        lines = program.stdout.read().splitlines()
    assert " out before  10.77.1.1 > 10.77.2.1 icmp 8,0" in lines[0]
    assert " out wire    192.0.2.1 > 192.0.2.2 esp 0x00001001" in lines[2]


@pytest.mark.covers("R10")
def test_masks_say_what_is_shown(site: Site) -> None:
    site.koura("sysctl", "net.enc.out.ipsec_bpf_mask=2", "net.enc.in.ipsec_bpf_mask=2")
    try:
        with site.beside(site.capture("-c", "2", "--no-wire"), "looking") as program:
            site.ping(1)
            program.wait(PATIENCE_S)
            assert program.stdout is not None
            lines = program.stdout.read().splitlines()
        assert " out after   192.0.2.1 > 192.0.2.2" in lines[0]
        assert " in after    10.77.2.1 > 10.77.1.1 icmp" in lines[1]
    finally:
        site.koura("sysctl", "net.enc.out.ipsec_bpf_mask=3", "net.enc.in.ipsec_bpf_mask=1")


@pytest.mark.covers("R10")
def test_a_rule_blocks_what_it_matches_and_counts_it(site: Site) -> None:
    assert site.koura("filter", "add", "100 pass out tcp port 80").stdout == "rule 100\n"
    assert site.koura("filter", "add", "block", "out", "before", "icmp", "and", "dst", "host", "10.77.2.1").stdout == "rule 110\n"
    assert "0 received" in site.ping(2, wait="1")
    listed = site.koura("filter", "list").stdout.splitlines()
    assert listed[0].split() == ["0", "0", "100", "pass", "out", "tcp", "port", "80"]
    assert listed[1].split() == ["2", "168", "110", "block", "out", "before", "icmp", "and", "dst", "host", "10.77.2.1"]
    assert site.koura("filter", "del", "110").returncode == 0
    assert site.answers()
    assert site.koura("filter", "flush").stdout == "1 rules\n"


def test_rules_outlive_the_engine(site: Site) -> None:
    site.koura("filter", "add", "block out icmp[icmptype] == icmp-echo")
    with Control(site.running[0].directory) as control:
        engine = control.ask("version")["engine"]
        assert isinstance(engine, int)
        os.kill(engine, signal.SIGKILL)
        while control.ask("version")["restarts"] == 0:
            pass
    assert "0 received" in site.ping(2, wait="1")
    assert site.koura("filter", "flush").stdout == "1 rules\n"
    path = site.folder / "again.pcap"
    with site.beside(site.words("tcpdump", "-Z", "root", "-U", "-i", "enc0", "-c", "1", "-w", str(path)), "listening on") as tcpdump:
        assert "1 received" in site.ping(1)
        assert tcpdump.wait(PATIENCE_S) == 0


@pytest.mark.covers("R11", "M1")
def test_with_filtertunnel_rules_of_the_input_see_what_tunnels_brought(site: Site) -> None:
    site.koura("filter", "add", "block in input icmp")
    assert site.answers()
    site.koura("sysctl", "net.inet.ipsec.filtertunnel=1")
    try:
        assert "0 received" in site.ping(2, wait="1")
        assert site.koura("filter", "list").stdout.split()[:2] == ["2", "168"]
    finally:
        site.koura("sysctl", "net.inet.ipsec.filtertunnel=0")
        site.koura("filter", "flush")


def test_a_bad_rule_is_refused_in_one_line(site: Site) -> None:
    for words, status, said in (
        (("block", "no such words"), 1, "koura: 'no such words': "),
        (("drop",), 64, "koura: a rule begins with pass or block, not drop\n"),
        (("99999 pass",), 1, "koura: a rule's number is 1 to 65535, not 99999\n"),
    ):
        done = site.koura("filter", "add", *words)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1
    assert site.koura("filter", "del", "7").stderr == "koura: there is no rule 7\n"
