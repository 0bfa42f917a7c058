"""Bumps in the wire between hosts that know nothing of IPsec: every protocol and mode, sizes, tags, and nothing in clear, whoever dies."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from koura.client.control import Control
from koura.daemon.ends import NO_FAST, is_fast
from koura.daemon.launch import DidNotStart, Running
from koura.wire import capture
from koura.wire.summary import summarise
from tests.live.kit.capture import TCPDUMP, Capture
from tests.live.kit.namespaces import ip, why_not
from tests.live.kit.wire import Line, line, run
from tests.live.test_stream import digest_through, sent

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(shutil.which("nft") is None, reason="no nft(8) here (Debian: nftables)"),
    pytest.mark.skipif(not os.access(TCPDUMP, os.X_OK), reason="no tcpdump(8) here (Debian: tcpdump)"),
]

GCM = ("0x0102030405060708090a0b0c0d0e0f1011121314", "0xf102030405060708090a0b0c0d0e0f1011121314")
SHA = ("0x" + "11" * 32, "0x" + "22" * 32)
PATHS = {"fast": "A=", "reference": f"{NO_FAST}=1"}
SIZES = (56, 1472, 8000)
TAGS = (bytes.fromhex("81006005"), bytes.fromhex("88a8000781006005"))


@dataclass(frozen=True)
class Case:
    """Pings from one address to another; `ends` are those of the SAs."""

    name: str
    pair: tuple[str, str]
    rule: str
    kinds: tuple[str, ...] = ("esp",)
    ends: tuple[str, str] | None = None
    behind: tuple[str, str] | None = None

    def script(self, us: int, spi: int) -> str:
        ends = self.ends or self.pair
        lines = []
        for number, kind in enumerate(self.kinds):
            for way in (0, 1):
                what = {"esp": f"-r 32 -E aes-gcm-16 {GCM[way]}", "esp-udp": f"-r 32 -E aes-gcm-16 {GCM[way]}",
                        "ah": f"-r 32 -A hmac-sha2-256 {SHA[way]}", "ipcomp": "-C deflate"}[kind]  # fmt: skip
                lines.append(f"add {ends[way]} {ends[1 - way]} {kind} {spi + 2 * number + way:#x} -u {spi} {what};")
        selectors = self.behind or self.pair
        for direction, src in (("out", us), ("in", 1 - us)):
            rule = self.rule.format(ends[src], ends[1 - src]).replace("/require", f"/unique:{spi}")
            lines.append(f"spdadd {selectors[src]} {selectors[1 - src]} any -P {direction} ipsec {rule};")
        return "\n".join(lines) + "\n"


CASES = (
    Case("esp", ("192.0.2.1", "192.0.2.2"), "esp/transport//require"),
    Case("esp6", ("2001:db8:0:1::1", "2001:db8:0:1::2"), "esp/transport//require"),
    Case("ah", ("192.0.2.11", "192.0.2.12"), "ah/transport//require", ("ah",)),
    Case("ah6", ("2001:db8:0:1::11", "2001:db8:0:1::12"), "ah/transport//require", ("ah",)),
    Case("ipcomp-esp", ("192.0.2.21", "192.0.2.22"), "ipcomp/transport//require esp/transport//require", ("ipcomp", "esp")),
    Case("tunnel", ("10.77.1.1", "10.77.2.1"), "esp/tunnel/{0}-{1}/require", ("esp",), ("192.0.2.31", "192.0.2.32"),
         ("10.77.1.0/24", "10.77.2.0/24")),
    Case("tunnel6-udp", ("2001:db8:7:1::1", "2001:db8:7:2::1"), "esp/tunnel/{0}-{1}/require", ("esp-udp",), ("192.0.2.41", "192.0.2.42")),
)  # fmt: skip


def script(number: int) -> str:
    """What the bump before host `number` (0, 1) has."""
    return "".join(case.script(number, 0x1000 + 16 * index) for index, case in enumerate(CASES))


def furnish(made: Line, mtu: int = 1500) -> None:
    """The addresses of all cases."""
    for number, host in enumerate(made.hosts):
        ip("-n", host, "link", "set", "v0", "mtu", str(mtu))
        for tens in (11, 21, 31, 41):
            ip("-n", host, "addr", "add", f"192.0.2.{tens + number}/24", "dev", "v0")
        ip("-n", host, "addr", "add", f"2001:db8:0:1::{11 + number}/64", "dev", "v0", "nodad")
        ip("-n", host, "addr", "add", f"2001:db8:7:{number + 1}::1/128", "dev", "lo", "nodad")
        ip("-n", host, "route", "add", f"2001:db8:7:{2 - number}::/64", "via", f"2001:db8:0:1::{2 - number}")
    for bump in made.bumps:
        for name in ("in", "out"):
            ip("-n", bump, "link", "set", name, "mtu", str(mtu))


def clear(file: Path) -> list[str]:
    """What of a capture is neither protected nor the link's own business."""
    found = []
    with file.open("rb") as opened:
        for record in capture.read(opened):
            packet = capture.network(record.linktype, record.octets)
            if packet is None or packet[0] >> 4 not in (4, 6):
                continue
            seen = summarise(packet)
            is_ours = seen.protocol in (50, 51, 108) or (seen.protocol == 17 and (seen.is_fragment or seen.dport == 4500))
            is_links = seen.protocol == 58 and seen.sport in (130, 131, 132, 133, 134, 135, 136, 143)
            if not is_ours and not is_links:
                found.append(f"{seen}")
    return found


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    if request.param == "fast" and not is_fast():
        pytest.skip("no fast path was built here")
    return str(request.param)


def ping_everything(made: Line, tmp_path: Path, path: str) -> None:
    for number in (1, 2):
        made.start(number, script(number - 1), environment=PATHS[path])
    with Capture(made.bumps[0], "out", tmp_path / "wire.pcap"):
        for case in CASES:
            for size in SIZES:
                made.answers(case.pair[1], "-I", case.pair[0], "-s", str(size))
        for host in made.hosts:  # who is where must be asked anew
            run(host, "ip", "neigh", "flush", "all")
        for case in CASES:
            made.answers(case.pair[1], "-I", case.pair[0])
    assert clear(tmp_path / "wire.pcap") == []


@pytest.mark.covers("M1")
def test_hosts_behind_bumps_reach_one_another_protected_whatever_the_protocol_and_the_size(tmp_path: Path, path: str) -> None:
    with line("kw", tmp_path) as made:
        furnish(made)
        ping_everything(made, tmp_path, path)
        send_tagged(made, tmp_path)
        octets = 3_000_000 if path == "fast" else 300_000
        for near, far in (CASES[0].pair, CASES[6].pair):
            assert digest_through(made.hosts, near, far, octets, 7) == sent(octets, 7), made.told()


@pytest.mark.slow
@pytest.mark.parametrize("mtu", [1280, 9000])
def test_other_sizes_of_links(tmp_path: Path, path: str, mtu: int) -> None:
    with line("kw", tmp_path) as made:
        furnish(made, mtu)
        ping_everything(made, tmp_path, path)
        # Over IPv6, and in tunnels, links of 1280 have fragments, which the reference puts together.
        octets = 1_000_000 if path == "reference" else 20_000_000 if mtu > 1280 else 4_000_000
        for case in CASES:
            near, far = case.pair
            assert digest_through(made.hosts, near, far, octets, 7) == sent(octets, 7), f"{case.name}\n{made.told()}"


_TAGGED = """
import socket, sys
end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
end.bind(("v0", 0))
for _ in range(3):
    end.send(bytes.fromhex(sys.argv[1]))
"""


def send_tagged(made: Line, tmp_path: Path, end: int = 0) -> None:
    """From a's interface, as a host with a VLAN sends; on the wire (at which end of it) and behind the other bump the tags are there."""
    packet = bytes(IP(src="192.0.2.1", dst="192.0.2.2") / ICMP() / Raw(b"tagged, and hidden on the wire"))
    front, kind = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02"))[:12], b"\x08\0"
    files = [tmp_path / name for name in ("tagged.pcap", "b.pcap")]
    before = int(str(made.counts(2)["esp"]["input"]))  # type: ignore[index]
    with Capture(made.bumps[end], "out", files[0]), Capture(made.b, "v0", files[1]):
        for tags in TAGS:
            run(made.a, sys.executable, "-c", _TAGGED, (front + tags + kind + packet).hex())
        made.until(lambda: int(str(made.counts(2)["esp"]["input"])) >= before + 3 * len(TAGS), "tagged packets")  # type: ignore[index]
    seen = [[record.octets for record in capture.read(file.open("rb")) if record.octets[:12] == front] for file in files]
    assert seen[1] == [front + tags + kind + packet for tags in TAGS for _ in range(3)], made.told()
    assert len(seen[0]) == 3 * len(TAGS)
    for number, sealed in enumerate(seen[0]):
        tags = TAGS[number // 3]
        assert sealed[12 : 12 + len(tags)] == tags
        assert IP(sealed[14 + len(tags) :]).proto == 50
        assert b"tagged" not in sealed


def host_script(us: int) -> str:
    chosen = [(index, case) for index, case in enumerate(CASES) if case.name in ("esp", "esp6", "tunnel")]
    return "".join(case.script(us, 0x1000 + 16 * index) for index, case in chosen)


def test_a_host_behind_a_bump_speaks_with_one_in_host_mode(tmp_path: Path) -> None:
    """The bump on the fast path, where there is one, the host on the reference."""
    with line("kw", tmp_path, 1) as made:
        furnish(made)
        made.start(1, host_script(0))
        (tmp_path / "b.conf").write_text(host_script(1))
        (tmp_path / "b.toml").write_text("[host]\n")
        prefix = ("ip", "netns", "exec", made.b, "env", PATHS["reference"])
        with Running(tmp_path / "b", "-q", "-f", str(tmp_path / "b.conf"), "-c", str(tmp_path / "b.toml"), prefix=prefix):
            for case in (CASES[0], CASES[1], CASES[5]):
                for size in (56, 8000):
                    made.answers(case.pair[1], "-I", case.pair[0], "-s", str(size))


@pytest.mark.reason("policy.in.clear")
def test_what_comes_in_clear_from_outside_is_refused_and_counted(tmp_path: Path) -> None:
    """b speaks plainly: what policy wants protected does not reach a, everything else does."""
    with line("kw", tmp_path, 1) as made:
        furnish(made)
        made.start(1, script(0))
        run(made.b, "ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", "-I", "192.0.2.2", "192.0.2.1", check=False)
        made.until(lambda: int(str(made.counts(1)["ipsec"].get("in_polvio", 0))) >= 3, "three pings refused")  # type: ignore[attr-defined]
        assert " 0 received" in run(made.b, "ping", "-n", "-c", "1", "-W", "1", "-I", "192.0.2.2", "192.0.2.1", check=False)
        made.answers("192.0.2.12", "-I", "192.0.2.1")


# -- whoever dies --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def flooded(tmp_path: Path) -> Iterator[tuple[Line, Callable[[], object]]]:
    """Two bumps that work, and pings from a, 200 a second, until they are ended."""
    with line("kw", tmp_path) as made:
        furnish(made)
        for number in (1, 2):
            made.start(number, script(number - 1).replace("-r 32 ", ""))
        made.answers("192.0.2.2")
        flood = subprocess.Popen(["ip", "netns", "exec", made.a, "ping", "-n", "-q", "-i", "0.005", "192.0.2.2"], stdout=subprocess.DEVNULL)
        try:
            yield made, flood.terminate
        finally:
            flood.terminate()
            flood.wait()


def _engine(made: Line, number: int) -> int:
    with Control(made.folder / str(number)) as control:
        return int(str(control.ask("version")["engine"]))


def _passes(made: Line) -> bool:
    return " 0% packet loss" in run(made.a, "ping", "-n", "-c", "1", "-W", "1", "192.0.2.2", check=False)


def assert_is_given_back(bump: str) -> None:
    """The interfaces are the kernel's own again."""
    assert "koura" not in run(bump, "nft", "list", "tables", "netdev")
    for side in ("in", "out"):
        assert "NOARP" not in run(bump, "ip", "link", "show", side)
    switches = [run(bump, "cat", f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6") for name in ("default", "in", "out")]
    assert len(set(switches)) == 1


def test_nothing_passes_in_clear_whoever_dies(flooded: tuple[Line, Callable[[], object]], tmp_path: Path) -> None:
    """Engine killed, keeper killed, down for a while, started again, under pings: on the wire only ESP, and nothing without an engine."""
    (made, end), file = flooded, tmp_path / "wire.pcap"
    with Capture(made.bumps[0], "out", file):
        before = _engine(made, 1)
        os.kill(before, signal.SIGKILL)
        made.until(lambda: _passes(made), "pings pass after the engine was killed")
        assert _engine(made, 1) != before
        made.daemons[1].signal(signal.SIGKILL)
        made.daemons[1].stop()
        assert not _passes(made)
        tables = run(made.bumps[0], "nft", "list", "tables", "netdev")
        assert "koura-bump-out" in tables
        with pytest.raises(DidNotStart) as ended:
            made.start(1, "spdadd 10.0.0.0/8 bogus;\n")
        assert ended.value.status == 65
        assert not _passes(made)
        made.start(1, script(0).replace("-r 32 ", ""))
        made.until(lambda: _passes(made), "pings pass again")
        end()
    assert clear(file) == []
    assert made.daemons.pop(1).stop() == 0
    assert_is_given_back(made.bumps[0])
    assert not _passes(made)


def test_an_interface_that_goes_and_comes_back_is_taken_again(tmp_path: Path, path: str) -> None:
    """First the inside's, then the outside's, and links that go down and up; what a new engine inherits is the same."""
    with line("kw", tmp_path) as made:
        furnish(made)
        for number in (1, 2):
            made.start(number, script(number - 1), environment=PATHS[path])
        made.answers("192.0.2.2")
        bump, (near, far) = made.bumps[0], CASES[5].pair
        for side, host, name in (("in", made.a, "v0"), ("out", made.bumps[1], "out")):
            ip("-n", bump, "link", "del", side)
            made.until(lambda side=side: f"nothing passes: there is no interface {side};" in made.daemons[1].said, "it is missed")  # type: ignore[misc]
            ip("-n", bump, "link", "add", side, "type", "veth", "peer", "name", name, "netns", host)
            ip("-n", host, "link", "set", name, "up")
            if host == made.a:
                ip("-n", host, "addr", "add", "192.0.2.1/24", "dev", name)
                ip("-n", host, "addr", "add", "192.0.2.31/24", "dev", name)
                ip("-n", host, "route", "add", "10.77.2.0/24", "via", "192.0.2.2", "src", "10.77.1.1")
            made.answers("192.0.2.2")
            made.answers(far, "-I", near)
        assert run(bump, "nft", "list", "chains", "netdev").count("type filter hook ingress") == 1
        for each in (made.bumps[0], made.bumps[1]):
            for state in ("down", "up"):
                ip("-n", each, "link", "set", "out", state)
        made.answers("192.0.2.2", "-s", "4000")
        os.kill(_engine(made, 1), signal.SIGKILL)
        made.answers("192.0.2.2", "-s", "4000")


def test_one_that_comes_back_with_an_address_is_not_taken_before_it_has_gone(tmp_path: Path) -> None:
    with line("kw", tmp_path, 1) as made:
        made.start(1, "", environment=PATHS["reference"])
        made.answers("192.0.2.2")
        ip("-n", made.bumps[0], "link", "del", "in")
        made.until(lambda: "there is no interface in" in made.daemons[1].said, "the interface is missed")
        ip("-n", made.bumps[0], "link", "add", "new", "type", "veth", "peer", "name", "other")
        ip("-n", made.bumps[0], "addr", "add", "192.0.2.77/24", "dev", "new")
        ip("-n", made.bumps[0], "link", "set", "new", "name", "in")
        made.until(lambda: "in has the address 192.0.2.77" in made.daemons[1].said, "the address is seen")
        ip("-n", made.bumps[0], "addr", "flush", "dev", "in")
        made.until(lambda: "NOARP" in run(made.bumps[0], "ip", "link", "show", "in"), "it is taken")


def test_down_opens_what_a_killed_daemon_left_shut(tmp_path: Path) -> None:
    with line("kw", tmp_path, 1) as made:
        made.start(1, "").signal(signal.SIGKILL)
        made.daemons[1].stop()
        words = ["ip", "netns", "exec", made.bumps[0], sys.executable, "-m", "koura", "down", "--socket", str(tmp_path / "1")]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "koura-bump-out" in done.stdout
        assert_is_given_back(made.bumps[0])


_CHECK = """
import sys
from koura.daemon import bumps
from koura.daemon.network import NoNetwork
for name in sys.argv[1:]:
    try:
        bumps.check(name)
        print("fine")
    except NoNetwork as error:
        print(error)
"""


def test_interfaces_that_cannot_be_sides_are_refused(tmp_path: Path) -> None:
    with line("kw", tmp_path, 1) as made:
        bump = made.bumps[0]
        ip("-n", bump, "addr", "add", "192.0.2.77/24", "dev", "in")
        with pytest.raises(DidNotStart) as ended:
            made.start(1, "")
        made.daemons.clear()
        ip("-n", bump, "link", "add", "br0", "type", "bridge")
        ip("-n", bump, "link", "set", "out", "master", "br0")
        said = run(bump, sys.executable, "-c", _CHECK, "in", "out", "nowhere", "lo", "br0").splitlines()
    assert (ended.value.status, "Traceback" in ended.value.said) == (1, False)
    assert "in has the address 192.0.2.77: an interface of a bump has none" in ended.value.said
    for line_said, what in zip(said, ("192.0.2.77", "part of a bridge", "no interface nowhere", "lo is no Ethernet", "fine"), strict=True):
        assert what in line_said
