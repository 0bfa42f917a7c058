"""Two gateways of Koura with stock iked under `koura run`, hosts behind them: traffic through rekeys, and what is on the wire."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.wire import capture
from tests.live.kit import gateways, ike, namespaces
from tests.live.kit.capture import TCPDUMP, Capture
from tests.live.kit.gateways import Row, run
from tests.live.kit.programs import why_not

pytestmark = pytest.mark.live
LIFETIME_S = 3
INNER = (bytes((10, 77, 1)), bytes((10, 77, 2)))


@pytest.fixture(scope="module")
def hosts() -> Iterator[Row]:
    for program in (ike.IKED, TCPDUMP):
        if not os.access(program, os.X_OK):
            pytest.skip(f"no {program} here (Debian: openiked, tcpdump)")
    if why := why_not() or namespaces.why_not():
        pytest.skip(why)
    with gateways.row("kg") as made:
        yield made


def on_the_wire(path: Path) -> tuple[set[int], list[bytes]]:
    """The SPIs of all ESP, and every IPv4 packet that is neither ESP nor IKE."""
    spis, others = set(), []
    with path.open("rb") as file:
        for record in capture.read(file):
            packet = capture.network(record.linktype, record.octets)
            if packet is None or packet[0] >> 4 != 4:
                continue
            if packet[9] == 50:
                at = (packet[0] & 0xF) * 4
                if not (int.from_bytes(packet[6:8], "big") & 0x1FFF):
                    spis.add(int.from_bytes(packet[at : at + 4], "big"))
            elif not (packet[9] == 17 and int.from_bytes(packet[20:22], "big") in (500, 4500)):
                others.append(packet)
    return spis, others


def through_rekeys(hosts: Row, home: Path, seconds: int) -> None:
    with ike.two_iked(hosts, home, LIFETIME_S) as daemons, Capture(hosts.gateway_b, "wan", home / "wan.pcap", "-s", "96"):
        server = gateways.start(hosts.host_b, "iperf3", "-s", "-1", "--forceflush")
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            pass
        flood = gateways.start(hosts.host_a, "ping", "-q", "-i", "0.005", "-w", str(seconds), "10.77.2.2")
        run(hosts.host_a, "iperf3", "-c", "10.77.2.2", "-t", str(seconds), "-b", "40M", timeout_s=seconds + 60)
        said = flood.communicate()[0]
        server.communicate()
        counted = [ike.esp_counters(one) for one in daemons]
        dropped = sum(ike.dropped_by_the_kernel(gateway) for gateway in hosts.gateways)
    spis, others = on_the_wire(home / "wan.pcap")
    assert len(spis) >= 2 * (1 + seconds // (2 * LIFETIME_S)), "it was rekeyed while packets went"
    assert others == [], "nothing is on the wire but ESP and IKE"
    sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", said)[0])
    assert received > 0
    explained = sum(one["notdb"] for one in counted) + dropped
    assert sent - received <= explained + 1, f"{sent - received} lost, {counted}"  # one may be on its way when ping ends
    for one in counted:
        assert one["replay"] == 0
        assert one["badauth"] == 0
        assert one["notdb"] < one["input"] // 20


@pytest.mark.covers("M1")
def test_hosts_speak_through_two_gateways_while_they_rekey(hosts: Row, tmp_path: Path) -> None:
    through_rekeys(hosts, tmp_path, 8)


@pytest.mark.slow
def test_hosts_speak_through_two_gateways_for_a_minute_of_rekeys(hosts: Row, tmp_path: Path) -> None:
    through_rekeys(hosts, tmp_path, 60)
