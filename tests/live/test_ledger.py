"""kill -9 of a whole daemon under traffic, at random moments: on the wire no nonce comes twice, and the peer accepts what comes after."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from koura.daemon.launch import DidNotStart, Running
from koura.wire import capture
from tests.live.kit.capture import Capture
from tests.live.kit.namespaces import are_answered, pair, pings, why_not
from tests.live.test_host import GCM, run

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

SAS = f"add 192.0.2.1 192.0.2.2 esp 0x1001 -r 64 {GCM};\nadd 192.0.2.2 192.0.2.1 esp 0x1002 -r 64 {GCM}22;\n"
SAS = SAS.replace("1314" + "22", "1322")
ROUNDS = 5
IV_AT, IV_OCTETS = 8, 8


def _conf(us: int, them: int) -> str:
    ways = (("out", us, them), ("in", them, us))
    return SAS + "".join(f"spdadd 192.0.2.{a} 192.0.2.{b} any -P {way} ipsec esp/transport//require;\n" for way, a, b in ways)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[tuple[str, str], list[Running]]]:
    with ExitStack() as stack:
        hosts = stack.enter_context(pair("kl"))
        daemons = []
        for us, them, host in ((1, 2, hosts[0]), (2, 1, hosts[1])):
            (tmp_path / f"{us}.conf").write_text(_conf(us, them))
            (tmp_path / f"{us}.toml").write_text("[host]\n")
            arguments = ("-f", str(tmp_path / f"{us}.conf"), "-c", str(tmp_path / f"{us}.toml"))
            daemons.append(stack.enter_context(Running(tmp_path / str(us), *arguments, prefix=("ip", "netns", "exec", host))))
        yield hosts, daemons


def _esp(path: Path) -> list[tuple[int, int, bytes]]:
    """SPI, sequence number and IV of every ESP packet of a capture."""
    found = []
    with path.open("rb") as file:
        for record in capture.read(file):
            packet = capture.network(record.linktype, record.octets)
            if packet is not None and packet[0] >> 4 == 4 and packet[9] == 50:
                esp = packet[20:]
                found.append((int.from_bytes(esp[:4], "big"), int.from_bytes(esp[4:8], "big"), esp[IV_AT : IV_AT + IV_OCTETS]))
    return found


@pytest.mark.covers("S22")
def test_no_nonce_comes_twice_over_kills_of_the_whole_daemon(two: tuple[tuple[str, str], list[Running]], tmp_path: Path) -> None:
    hosts, (daemon, _) = two
    dice = random.Random(20261125)
    with Capture(hosts[1], "v0", tmp_path / "wire.pcap"):
        for _ in range(ROUNDS):
            words = ["ip", "netns", "exec", hosts[0], "ping", "-q", "-i", "0.002", "192.0.2.2"]
            ping = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(dice.random())  # traffic, until an arbitrary moment
            daemon.signal(signal.SIGKILL)
            daemon.stop()
            ping.kill()
            ping.wait()
            daemon.start()
            assert are_answered(run(hosts[0], "ping", *pings(2), "192.0.2.2"), 2)
    for spi in (0x1001, 0x1002):
        seen = [(number, iv) for found, number, iv in _esp(tmp_path / "wire.pcap") if found == spi]
        assert len(seen) > 2 * ROUNDS
        assert len({iv for _, iv in seen}) == len(seen), "an IV came twice"
        assert len({number for number, _ in seen}) == len(seen), "a number came twice"


@pytest.mark.parametrize("is_clean", [False, True], ids=["killed", "stopped"])
def test_a_replay_across_a_restart_is_refused(two: tuple[tuple[str, str], list[Running]], tmp_path: Path, is_clean: bool) -> None:
    """What was received before the mark was saved is refused by the daemon that comes after; a clean stop saves it, and leaves no gap."""
    hosts, (_, daemon) = two
    with Capture(hosts[1], "v0", tmp_path / "wire.pcap"):
        run(hosts[0], "ping", *pings(3), "192.0.2.2")
    if not is_clean:
        time.sleep(1.5)  # marks are saved each second
        daemon.signal(signal.SIGKILL)
    daemon.stop()
    daemon.start()
    with Capture(hosts[1], "v0", tmp_path / "after.pcap"):
        run(hosts[0], "ping", *pings(1), "192.0.2.2")
    number = next(number for spi, number, _ in _esp(tmp_path / "after.pcap") if spi == 0x1002)
    answers = [number for spi, number, _ in _esp(tmp_path / "wire.pcap") if spi == 0x1002]
    assert (number == len(answers) + 1) == is_clean
    before = _counter(daemon, "replay")
    packets = [record for record in _whole(tmp_path / "wire.pcap") if record[20:24] == (0x1001).to_bytes(4, "big")]
    assert len(packets) >= 3
    script = (
        "import socket,sys\ns = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)\ns.setsockopt(1, 36, 0x4b6f)\n"
        "for line in sys.argv[1:]: s.sendto(bytes.fromhex(line), ('192.0.2.2', 0))\n"
    )
    deadline = time.monotonic() + 60
    while _counter(daemon, "replay") < before + 3:
        run(hosts[0], "python3", "-c", script, *(packet.hex() for packet in packets))
        assert time.monotonic() < deadline


def _whole(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        found = [capture.network(record.linktype, record.octets) for record in capture.read(file)]
    return [packet for packet in found if packet is not None and packet[0] >> 4 == 4 and packet[9] == 50]


def _counter(daemon: Running, name: str) -> int:
    words = [sys.executable, "-m", "koura", "stat", "-p", "esp", "--json", "--socket", str(daemon.directory)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return int(json.loads(said)["esp"][name])


# -- a ledger that cannot be believed --------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "setkey.conf").write_text(_conf(1, 2))
    with Running(tmp_path / "koura", "-f", str(tmp_path / "setkey.conf")):
        pass
    return tmp_path / "koura" / "state" / "ledger"


@pytest.mark.parametrize("damage", ["torn", "unreadable"])
def test_a_ledger_that_cannot_be_believed_refuses_static_counter_mode_keys(file: Path, tmp_path: Path, damage: str) -> None:
    if damage == "torn":
        os.truncate(file, file.stat().st_size - 7)
    else:
        file.unlink()
        file.mkdir()
    arguments = ("-f", str(tmp_path / "setkey.conf"))
    with pytest.raises(DidNotStart) as refused, Running(tmp_path / "koura", *arguments):
        pass
    assert "--accept-lost-state" in refused.value.said
    assert refused.value.status == 65
    with Running(tmp_path / "koura", *arguments, "--accept-lost-state"):
        pass
    if damage == "torn":
        assert file.with_name("ledger.damaged").exists()
        with Running(tmp_path / "koura", *arguments):
            pass


def test_one_state_directory_serves_one_daemon(file: Path, tmp_path: Path) -> None:
    state = ("--state", str(file.parent))
    with Running(tmp_path / "one", *state):
        with pytest.raises(DidNotStart) as refused, Running(tmp_path / "two", *state):
            pass
        assert "--state" in refused.value.said
