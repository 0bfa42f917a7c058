"""Gateways whose engine and keeper are killed under load: outside nothing is in clear, inside nothing that did not come protected.

Meanwhile a stranger on the wire sends packets in clear as if they came from the other net. Captured on the wire and behind the gateway.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.wire import capture, udp
from koura.wire.summary import summarise
from tests.live.kit import gateways, namespaces
from tests.live.kit.capture import TCPDUMP, Capture
from tests.live.kit.gateways import Row
from tests.live.kit.sited import Site, Way, ping, site

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(namespaces.why_not()), reason=namespaces.why_not()),
    pytest.mark.skipif(not os.access(TCPDUMP, os.X_OK), reason="no tcpdump(8) here"),
]

WAIT_S = 60.0
FORGED = b"nobody protected this"
HOSTS = {4: ("10.77.1.2", "10.77.2.2"), 6: ("fd00:77:1::2", "fd00:77:2::2")}
STRANGER = """
import socket, sys, time
ends = []
for line in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in line else socket.AF_INET
    src, dst = line.split("=")
    end = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET:
        end.setsockopt(0, 19, 1)  # transparent: any source
    else:
        end.setsockopt(41, 75, 1)
    end.setsockopt(socket.SOL_SOCKET, 36, 0x4b6f)
    end.bind((src, 0))
    end.connect((dst, 9))
    ends.append(end)
print("ready", flush=True)
while True:
    for end in ends:
        try:
            end.send(b"nobody protected this")
        except OSError:
            pass
    time.sleep(0.002)
"""


@pytest.fixture(params=[Way(4, False, True), pytest.param(Way(6, True, False), marks=pytest.mark.slow)], ids=str)
def between(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """No replay windows: the SAs of a keeper that was killed begin anew. Without us everything would go in clear, and be answered."""
    with gateways.row("kx", has_v6=True) as row:
        for us, gateway in enumerate(row.gateways, 1):
            for version, net in ((4, "10.77.{}.0/24"), (6, "fd00:77:{}::/64")):
                namespaces.ip("-n", gateway, "route", "add", net.format(3 - us), "via", row.outer(version)[2 - us])
        with site(row, request.param, tmp_path, window=0) as made:
            yield made


@contextmanager
def _floods(row: Row) -> Iterator[None]:
    """Pings, answered or not, from both hosts: IPv4 as fast as they go, IPv6 many."""
    lines = [
        ["ip", "netns", "exec", row.host_a, "ping", "-n", "-q", "-f", HOSTS[4][1]],
        ["ip", "netns", "exec", row.host_b, "ping", "-n", "-q", "-i", "0.005", HOSTS[6][0]],
    ]
    floods = [subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for line in lines]
    try:
        yield
    finally:
        for flood in floods:
            flood.terminate()
            flood.wait()


@contextmanager
def _stranger(row: Row) -> Iterator[None]:
    """In gateway b, past its routes: it says that it is host b, to host a."""
    pairs = [f"{theirs}={ours}" for ours, theirs in HOSTS.values()]
    line = ["ip", "netns", "exec", row.gateway_b, sys.executable, "-c", STRANGER, *pairs]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.kill()


def _until(is_so: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def _answers(row: Row) -> bool:
    return all(" 0% packet loss" in ping(row.host_a, "-c", "1", "-W", "1", targets[1]) for targets in HOSTS.values())


def _engine(between: Site, us: int) -> int:
    with Control(between.folder / str(us)) as control:
        return int(str(control.ask("version")["engine"]))


def _packets(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for record in capture.read(file):
            packet = capture.network(record.linktype, record.octets)
            if packet is not None and packet[0] >> 4 in (4, 6):
                yield packet


def _is_inner(packet: bytes) -> bool:
    src = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
    return src[:2] == b"\x0a\x4d" or src[:4] == bytes.fromhex("fd000077")


def _is_forged(packet: bytes) -> bool:
    return FORGED in packet and summarise(packet).protocol == udp.PROTOCOL


def _in_clear(wire: Path) -> list[bytes]:
    return [packet for packet in _packets(wire) if _is_inner(packet) and not _is_forged(packet)]


def test_nothing_in_clear_outside_and_nothing_unprotected_inside_whoever_dies(between: Site, tmp_path: Path) -> None:
    """The engine of one gateway is killed, the keeper of the other, both keepers; then all start again."""
    row = between.row
    wire, inside = tmp_path / "wire.pcap", tmp_path / "inside.pcap"
    with Capture(row.gateway_a, "wan", wire), Capture(row.host_a, "v0", inside), _floods(row), _stranger(row):
        _until(lambda: _answers(row), between.counters)
        before = _engine(between, 1)
        os.kill(before, signal.SIGKILL)
        _until(lambda: _engine(between, 1) not in (0, before), lambda: "no new engine")
        _until(lambda: _answers(row), between.counters)
        for dying in ((2,), (1,), (1, 2)):
            for us in dying:
                between.daemons[us].signal(signal.SIGKILL)
                between.daemons[us].stop()
            assert not _answers(row)
            for us in dying:
                between.start(us)
            _until(lambda: _answers(row), between.counters)
    assert _in_clear(wire) == []
    assert any(_is_forged(packet) for packet in _packets(wire)), "the stranger was on the wire"
    came = list(_packets(inside))
    assert not any(_is_forged(packet) for packet in came)
    assert len([packet for packet in came if _is_inner(packet)]) > 20, "the capture saw what passed"
    assert len([packet for packet in _packets(wire) if summarise(packet).protocol in (50, 17)]) > 20


def test_killed_and_left_the_gateway_is_a_wall(between: Site, tmp_path: Path) -> None:
    """Both keepers are dead for good: no packet passes either way, and `koura down` opens it again."""
    row = between.row
    _until(lambda: _answers(row), between.counters)
    wire, inside = tmp_path / "wire.pcap", tmp_path / "inside.pcap"
    for daemon in between.daemons.values():
        daemon.signal(signal.SIGKILL)
        daemon.stop()
    with Capture(row.gateway_a, "wan", wire), Capture(row.host_a, "v0", inside), _stranger(row):
        assert not _answers(row)
        _until(lambda: sum(map(_is_forged, _packets(wire))) >= 10, lambda: "the stranger is silent")
    assert _in_clear(wire) == []
    assert not any(_is_forged(packet) for packet in _packets(inside))
    for us in (1, 2):
        between.koura(us, "down")
    assert _answers(row), "in clear, as nobody wants it otherwise any more"
