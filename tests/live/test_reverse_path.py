"""Host mode where the kernel wants the way back of a packet to be the way it came (rp_filter 1): our routes lead to the TUN."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from koura.daemon.launch import Running
from tests.live.kit.namespaces import are_answered, pair, pings, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

KEYS = ("0x0102030405060708090a0b0c0d0e0f1011121314", "0xf102030405060708090a0b0c0d0e0f1011121314")
CLEAR = 7777
ANSWER = """
import socket
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind(("192.0.2.2", {port}))
print("ready", flush=True)
octets, source = end.recvfrom(100)
end.sendto(octets, source)
"""
ASK = """
import socket
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind(("192.0.2.1", {port}))
end.settimeout(20)
end.sendto(b"in clear", ("192.0.2.2", {port}))
print(end.recv(100).decode())
"""


def script(us: int, them: int) -> str:
    lines = [
        f"add 192.0.2.{one} 192.0.2.{3 - one} esp {0x1000 * kind + one} -m {mode} -u {kind} -E aes-gcm-16 {KEYS[one - 1]};"
        for kind, mode in ((1, "tunnel"), (2, "transport")) for one in (1, 2)
    ]  # fmt: skip
    for way, one, other in (("out", us, them), ("in", them, us)):
        lines += [
            f"spdadd 192.0.2.{one}[{CLEAR}] 192.0.2.{other}[{CLEAR}] udp -P {way} none;",
            f"spdadd 10.77.{one}.0/24 10.77.{other}.0/24 any -P {way} ipsec esp/tunnel/192.0.2.{one}-192.0.2.{other}/require;",
            f"spdadd 192.0.2.{one} 192.0.2.{other} any -P {way} ipsec esp/transport//require;",
        ]
    return "\n".join(lines)


def run(host: str, *words: str) -> str:
    return subprocess.run(["ip", "netns", "exec", host, *words], check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("reverse")
    with ExitStack() as stack:
        hosts = stack.enter_context(pair("krp"))
        for us, them, host in ((1, 2, hosts[0]), (2, 1, hosts[1])):
            run(host, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1", "net.ipv4.conf.v0.rp_filter=1")
            conf, toml = folder / f"{us}.conf", folder / f"{us}.toml"
            conf.write_text(script(us, them))
            toml.write_text("[host]\n")
            stack.enter_context(Running(folder / str(us), "-f", str(conf), "-c", str(toml), prefix=("ip", "netns", "exec", host)))
        yield hosts


def filtered(host: str) -> int:
    names, numbers = (line.split() for line in run(host, "cat", "/proc/net/netstat").splitlines() if line.startswith("TcpExt:"))
    return int(numbers[names.index("IPReversePathFilter")])


@pytest.mark.covers("R41")
@pytest.mark.parametrize(("source", "target"), [("10.77.1.1", "10.77.2.1"), ("192.0.2.1", "192.0.2.2")], ids=["tunnel", "transport"])
def test_protected_packets_pass_a_strict_reverse_path_filter(two: tuple[str, str], source: str, target: str) -> None:
    before = [filtered(host) for host in two]
    assert are_answered(run(two[0], "ping", *pings(), "-I", source, target))
    assert [filtered(host) for host in two] == before


def test_what_policy_lets_pass_in_clear_passes_it_too(two: tuple[str, str]) -> None:
    """From an address that is else protected, and whose way back therefore leads into our TUN."""
    words = ["ip", "netns", "exec", two[1], "python3", "-c", ANSWER.format(port=CLEAR)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None and program.stdout.readline() == "ready\n"
        try:
            assert run(two[0], "python3", "-c", ASK.format(port=CLEAR)) == "in clear\n"
        finally:
            program.kill()
