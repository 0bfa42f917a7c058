"""Two machines in host mode, in namespaces: ordinary ping between them is protected on the wire, in every mode and family."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from koura.daemon.launch import Running
from tests.live.kit.namespaces import are_answered, pair, pings, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

GCM = "-E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f1011121314"
BACK = "-E aes-gcm-16 0xf102030405060708090a0b0c0d0e0f1011121314"
ONE, TWO = "2001:db8:0:1::1", "2001:db8:0:1::2"
SAS = f"""
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -u 1 -r 32 {GCM};
add 192.0.2.2 192.0.2.1 esp 0x1002 -m tunnel -u 1 -r 32 {BACK};
add 192.0.2.1 192.0.2.2 esp 0x2001 -m transport -u 3 -r 32 {GCM};
add 192.0.2.2 192.0.2.1 esp 0x2002 -m transport -u 3 -r 32 {BACK};
add {ONE} {TWO} esp 0x3001 -m transport -u 5 -r 32 {GCM};
add {TWO} {ONE} esp 0x3002 -m transport -u 5 -r 32 {BACK};
"""

TO_GROUPS = """
import errno, socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("192.0.2.1"))
    for group in ("239.77.1.1", "239.78.1.1"):
        try:
            one.sendto(b"to whom it may concern", (group, 9))
            print(group, "sent")
        except OSError as error:
            print(group, errno.errorcode[error.errno])
"""


def _policies(us: int, them: int) -> str:
    lines = []
    for way, one, other in (("out", us, them), ("in", them, us)):
        lines += [
            f"spdadd 10.77.{one}.0/24 10.77.{other}.0/24 any -P {way} ipsec esp/tunnel/192.0.2.{one}-192.0.2.{other}/require;",
            f"spdadd 192.0.2.{one} 192.0.2.{other} any -P {way} ipsec esp/transport//require;",
            f"spdadd 192.0.2.{one} 239.77.0.0/16 any -P {way} ipsec esp/transport//require;",
            f"spdadd 2001:db8:0:1::{one} 2001:db8:0:1::{other} any -P {way} ipsec esp/transport//require;",
        ]
    return "\n".join(lines)


def run(host: str, *words: str) -> str:
    return subprocess.run(["ip", "netns", "exec", host, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("host")
    with ExitStack() as stack:
        hosts = stack.enter_context(pair("kh"))
        for us, them, host in ((1, 2, hosts[0]), (2, 1, hosts[1])):
            conf, toml = folder / f"{us}.conf", folder / f"{us}.toml"
            conf.write_text(SAS + _policies(us, them))
            toml.write_text("[host]\n")
            arguments = ("-f", str(conf), "-c", str(toml))
            stack.enter_context(Running(folder / str(us), *arguments, prefix=("ip", "netns", "exec", host)))
        yield hosts


@pytest.mark.parametrize("size", [56, 1400, 8000])
@pytest.mark.parametrize(
    ("source", "target"), [("10.77.1.1", "10.77.2.1"), ("192.0.2.1", "192.0.2.2"), (ONE, TWO)], ids=["tunnel", "ipv4", "ipv6"]
)
def test_ping_is_answered_through_the_sas(two: tuple[str, str], source: str, target: str, size: int) -> None:
    assert are_answered(run(two[0], "ping", *pings(), "-s", str(size), "-I", source, target))


def test_what_comes_in_clear_is_dropped_by_the_guard(two: tuple[str, str]) -> None:
    """A packet past our routes, as an attacker on the wire would send it."""
    with pytest.raises(subprocess.CalledProcessError):
        run(two[0], "ping", "-c", "1", "-W", "1", "-m", str(0x4B6F), "-I", "192.0.2.1", "192.0.2.2")
    dropped = [line for line in run(two[1], "nft", "list", "ruleset").splitlines() if "192.0.2.1" in line and "drop" in line]
    assert dropped
    assert "packets 0" not in dropped[0]


def test_what_a_policy_protects_does_not_go_to_its_group_in_clear(two: tuple[str, str]) -> None:
    """The sender of a datagram to a group names an interface, which no route of ours can change: the kernel refuses it."""
    said = run(two[0], sys.executable, "-c", TO_GROUPS)
    assert said.split() == ["239.77.1.1", "EPERM", "239.78.1.1", "sent"]


def _into_the_tun(host: str) -> list[str]:
    """Destinations that have a route there."""
    said = "".join(run(host, "ip", family, "route", "show", "table", "19311") for family in ("-4", "-6"))
    return [line.split()[0] for line in said.splitlines() if "dev koura0" in line]


def test_a_tun_that_was_taken_down_has_its_routes_again_when_it_is_up(two: tuple[str, str]) -> None:
    """The kernel takes them away without a word; until then blackholes stand."""
    before = _into_the_tun(two[0])
    run(two[0], "ip", "link", "set", "koura0", "down")
    with pytest.raises(subprocess.CalledProcessError):
        run(two[0], "ping", "-c", "1", "-W", "1", "10.77.2.1")
    run(two[0], "ip", "link", "set", "koura0", "up")
    deadline = time.monotonic() + 60
    while _into_the_tun(two[0]) != before:
        assert time.monotonic() < deadline, before
        time.sleep(0.1)
    for source, target in (("10.77.1.1", "10.77.2.1"), (ONE, TWO)):
        assert are_answered(run(two[0], "ping", *pings(), "-I", source, target))
