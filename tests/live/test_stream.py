"""A TCP stream through two daemons arrives as it was sent, by native I/O and by the reference: every octet, in both families."""

import hashlib
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.daemon.ends import NO_FAST, is_fast
from koura.daemon.launch import Running
from tests.live.kit.namespaces import ip, pair, why_not

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not())]

KEYS = ("0x0102030405060708090a0b0c0d0e0f1011121314", "0xf102030405060708090a0b0c0d0e0f1011121314")
ALGORITHMS = {
    "aes-gcm-16": "-E aes-gcm-16 {0}",
    "cbc": "-f nocyclic-seq -E aes-cbc 0x000102030405060708090a0b0c0d0e0f -A hmac-sha2-256 0x" + "5a" * 32,
}
V6 = ("2001:db8:7:1::1", "2001:db8:7:2::1")

# Sends what `random.Random(seed)` says, or reads all of it and tells its digest; argv: send|serve, address, octets, seed, own address.
_PEER = """
import hashlib, random, socket, sys
what, address, octets, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
if what == "serve":
    with socket.create_server((address, 7777), family=family) as listener:
        print("ready", flush=True)
        made, _ = listener.accept()
        digest = hashlib.sha256()
        while part := made.recv(1 << 18):
            digest.update(part)
        made.sendall(digest.hexdigest().encode())
else:
    dice = random.Random(seed)
    with socket.create_connection((address, 7777), 60, (sys.argv[5], 0)) as made:
        left = octets
        while left:
            size = min(left, dice.choice((1, 100, 1400, 9000, 65536, 262144)))
            made.sendall(dice.randbytes(size))
            left -= size
        made.shutdown(socket.SHUT_WR)
        print(made.recv(64).decode())
"""


def sent(octets: int, seed: int) -> str:
    """The digest of what _PEER sends."""
    dice, digest, left = random.Random(seed), hashlib.sha256(), octets
    while left:
        size = min(left, dice.choice((1, 100, 1400, 9000, 65536, 262144)))
        digest.update(dice.randbytes(size))
        left -= size
    return digest.hexdigest()


def script(us: int, extension: str, algorithm: str, spi: int = 0x1000) -> str:
    them = 3 - us
    lines = [
        f"add 192.0.2.{one} 192.0.2.{3 - one} {extension} {spi + one} -m tunnel -r 128 {algorithm.format(KEYS[one - 1])};" for one in (1, 2)
    ]
    for way, one, other in (("out", us, them), ("in", them, us)):
        tunnel = f"ipsec esp/tunnel/192.0.2.{one}-192.0.2.{other}/require"
        lines += [f"spdadd 10.77.{one}.0/24 10.77.{other}.0/24 any -P {way} {tunnel};",
                  f"spdadd {V6[one - 1]} {V6[other - 1]} any -P {way} {tunnel};"]  # fmt: skip
    return "\n".join(lines) + "\n"


@contextmanager
def daemons(
    folder: Path, extension: str, algorithm: str = "aes-gcm-16", mtu: int = 1400, environment: str = "A="
) -> Iterator[tuple[str, str]]:
    """Two hosts whose daemons have this in their environment (A=: nothing that matters)."""
    with ExitStack() as stack:
        hosts = stack.enter_context(pair("kt"))
        for us, host in enumerate(hosts, 1):
            ip("-n", host, "link", "set", "v0", "mtu", "9200" if mtu > 1400 else "1500")
            ip("-n", host, "addr", "add", f"{V6[us - 1]}/128", "dev", "lo", "nodad")
            conf, toml = folder / f"{us}.conf", folder / f"{us}.toml"
            conf.write_text(script(us, extension, ALGORITHMS[algorithm]))
            toml.write_text(f"[host]\nmtu = {mtu}\n")
            prefix = ("ip", "netns", "exec", host, "env", environment)
            stack.enter_context(Running(folder / str(us), "-f", str(conf), "-c", str(toml), prefix=prefix))
        yield hosts


def digest_through(hosts: tuple[str, str], near: str, far: str, octets: int, seed: int, during: str = "") -> str:
    """What the far end says it got. during: nothing, or the folder of daemons whose SAs change meanwhile."""
    command = [sys.executable, "-c", _PEER]
    with subprocess.Popen(
        ["ip", "netns", "exec", hosts[1], *command, "serve", far, "0", "0"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        with subprocess.Popen(
            ["ip", "netns", "exec", hosts[0], *command, "send", far, str(octets), str(seed), near], stdout=subprocess.PIPE, text=True
        ) as client:
            if during:
                change(Path(during))
            said, _ = client.communicate(timeout=120)
        server.wait(20)
    return said.strip()


def change(folder: Path) -> None:
    """Newer SAs on both sides, then the older ones go: inbound before outbound, as an IKE daemon does."""
    for spi in (0x2000, 0x3000, 0x4000):
        for us in (2, 1):
            lines = script(us, "esp-udp", ALGORITHMS["aes-gcm-16"], spi).splitlines()
            setkey(folder / str(us), "\n".join(line for line in lines if line.startswith("add")))
        for us in (1, 2):
            older = spi - 0x1000
            setkey(folder / str(us), "".join(f"delete 192.0.2.{one} 192.0.2.{3 - one} esp {older + one};\n" for one in (1, 2)))


def setkey(directory: Path, text: str) -> None:
    words = [sys.executable, "-m", "koura", "setkey", "--socket", str(directory), "-c"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("extension", "algorithm", "mtu", "environment", "octets"),
    [
        ("esp-udp", "aes-gcm-16", 1400, "A=", 40_000_000), ("esp", "aes-gcm-16", 1400, "A=", 30_000_000),
        ("esp-udp", "cbc", 1400, "A=", 20_000_000), ("esp-udp", "aes-gcm-16", 9000, "A=", 40_000_000),
        ("esp", "aes-gcm-16", 9000, "A=", 30_000_000), ("esp-udp", "aes-gcm-16", 1500, "A=", 20_000_000),
        ("esp-udp", "aes-gcm-16", 1400, f"{NO_FAST}=1", 1_500_000), ("esp", "aes-gcm-16", 9000, f"{NO_FAST}=1", 1_500_000),
    ],
)  # fmt: skip
def test_a_stream_arrives_as_it_was_sent(tmp_path: Path, extension: str, algorithm: str, mtu: int, environment: str, octets: int) -> None:
    with daemons(tmp_path, extension, algorithm, mtu, environment) as hosts:
        for near, far in (("10.77.1.1", "10.77.2.1"), V6):
            assert digest_through(hosts, near, far, octets, 7) == sent(octets, 7)


@pytest.mark.skipif(not is_fast(), reason="no fast path was built here")
def test_a_stream_goes_on_while_sas_come_and_go(tmp_path: Path) -> None:
    with daemons(tmp_path, "esp-udp") as hosts:
        assert digest_through(hosts, "10.77.1.1", "10.77.2.1", 100_000_000, 8, str(tmp_path)) == sent(100_000_000, 8)
        with Control(tmp_path / "2") as control:
            said = str(control.ask("stat", protocol="", nonzero=False, json=False)["text"])
        found = re.search(r"native: .*?(\d+) received, (\d+) delivered", said)
        assert found is not None, said
        assert 60_000 < int(found[2]) <= int(found[1])
