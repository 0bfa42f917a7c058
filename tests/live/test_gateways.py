"""Two gateways of Koura with stock iked under `koura run`, hosts behind them: traffic through rekeys, and what is on the wire."""

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from koura.daemon.launch import Running
from koura.wire import capture
from tests.live.kit import gateways, ike, namespaces
from tests.live.kit.capture import TCPDUMP, Capture
from tests.live.kit.gateways import Row, run
from tests.live.kit.programs import PATIENCE_S, why_not
from tests.live.kit.replayer import Replayer

pytestmark = pytest.mark.live
ADDRESSES = (bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)))
FIRST_OCTETS = "96"
_LOST_INBOUND = ("late", "truncated", "unread")  # of what attachments lose: thrown away before it was looked at
_OF_REPLAYS = ("esp.replay", "esp.old", "esp.nosa")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Row]:
    for program in (ike.IKED, TCPDUMP):
        if not os.access(program, os.X_OK):
            pytest.skip(f"no {program} here (Debian: openiked, tcpdump)")
    if why := why_not() or namespaces.why_not():
        pytest.skip(why)
    with gateways.row("kg") as made:
        yield made


@dataclass
class Wire:
    """What a capture between the gateways shows. lost: how many packets it may have missed."""

    lost: int
    sent: dict[bytes, Counter[bytes]]  # by source: each SPI with its number, and how often it was there
    others: list[bytes]  # what is neither ESP nor IKE

    @property
    def spis(self) -> set[bytes]:
        return {number[:4] for numbers in self.sent.values() for number in numbers}


def is_ike(packet: bytes) -> bool:
    """IKE, or the kernel's word that nobody listens there any more."""
    if packet[9] == 1 and packet[20:22] == b"\3\3":
        packet = packet[28:]
    return packet[9] == 17 and int.from_bytes(packet[20:22], "big") in (500, 4500)


def on_the_wire(taken: Capture) -> Wire:
    wire = Wire(taken.lost, {address: Counter() for address in ADDRESSES}, [])
    with taken.file.open("rb") as file:
        for record in capture.read(file):
            packet = capture.network(record.linktype, record.octets)
            if packet is None or packet[0] >> 4 != 4:
                continue
            if packet[9] == 50:
                at = (packet[0] & 0xF) * 4
                if not (int.from_bytes(packet[6:8], "big") & 0x1FFF):
                    wire.sent[packet[12:16]][packet[at : at + 8]] += 1
            elif not is_ike(packet):
                wire.others.append(packet)
    return wire


@dataclass
class Gateway:
    """What one of them counted in all: ends by Reason, what its attachments lost, what sockets and the TUN had no room for."""

    reasons: dict[str, int]
    lost: dict[str, int]
    dropped: int
    dropped_at_tun: int

    @property
    def discarded(self) -> dict[str, int]:
        return {name: count for name, count in self.reasons.items() if not name.startswith(("ok.", "held.", "sa.grace"))}

    @property
    def ended(self) -> int:
        """Every packet that went no further, for whatever reason."""
        return sum(self.discarded.values()) + sum(self.lost.values()) + self.dropped + self.dropped_at_tun

    @property
    def never_looked_at(self) -> int:
        """Packets from the wire that no SA was asked about: sockets had no room, or they had waited too long there."""
        return sum(count for name, count in self.lost.items() if name.endswith(_LOST_INBOUND)) + self.dropped

    @property
    def unsent(self) -> int:
        """Sealed, and not taken by the kernel."""
        return sum(count for name, count in self.lost.items() if not name.endswith((*_LOST_INBOUND, "undelivered")))

    @property
    def ended_inbound(self) -> int:
        """Packets from the wire that ended here, or before they came here."""
        inbound = ("esp.", "sa.larval.", "policy.in.")
        return sum(count for name, count in self.discarded.items() if name.startswith(inbound)) + self.never_looked_at


def settled(hosts: Row, daemons: tuple[Running, Running]) -> list[Gateway]:
    """What both counted when nothing is on its way any more."""
    deadline = time.monotonic() + PATIENCE_S
    before: list[Gateway] = []
    while True:
        found = []
        for daemon, host in zip(daemons, hosts.gateways, strict=True):
            counted = ike.counters(daemon)
            dropped = ike.dropped_at_sockets(host), ike.dropped_at_the_tun(host)
            found.append(Gateway(counted["reasons"], counted["lost"], *dropped))
        if found == before:
            return found
        assert time.monotonic() < deadline, f"packets come and go though nobody speaks: {before} {found}"
        before = found


def through_rekeys(hosts: Row, home: Path, seconds: int, lifetime_s: int, environment: str = "A=") -> None:
    """Hosts speak for so long while a stranger replays, then every packet is accounted for."""
    taken = Capture(hosts.gateway_b, "wan", home / "wan.pcap", "-s", FIRST_OCTETS)
    strangers = [Replayer(gateway, "wan") for gateway in hosts.gateways]
    with taken, ike.two_iked(hosts, home, lifetime_s, environment) as daemons:
        server = gateways.start(hosts.host_b, "iperf3", "-s", "-1", "--forceflush")
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            pass
        with strangers[0], strangers[1]:
            flood = gateways.start(hosts.host_a, "ping", "-q", "-i", "0.004", "-w", str(seconds), "10.77.2.2")
            run(hosts.host_a, "iperf3", "-c", "10.77.2.2", "-t", str(seconds), "-b", "40M", timeout_s=seconds + 60)
            said = flood.communicate()[0]
            server.communicate()
        found = settled(hosts, daemons)
    wire = on_the_wire(taken)
    shown = f"{said} {found} replayed {[one.sent for one in strangers]}, missed by the capture {wire.lost}, SPIs {len(wire.spis)}"
    assert len(wire.spis) >= 2 * (1 + seconds // (2 * lifetime_s)), f"it was rekeyed while packets went: {shown}"
    assert wire.others == [], "nothing is on the wire but ESP and IKE"
    sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", said)[0])
    replayed = sum(one.sent for one in strangers)
    ended = sum(gateway.ended for gateway in found)
    assert received > 0, shown
    assert sent - received <= ended - replayed + 1, shown  # one may be on its way when ping ends
    for (here, there), stranger, address in zip((found, found[::-1]), strangers, ADDRESSES, strict=True):
        account(here, there, stranger.sent, wire.sent[address], wire.lost, shown)


def account(here: Gateway, there: Gateway, replayed: int, numbers: Counter[bytes], missed: int, shown: str) -> None:
    """What one gateway sealed and another opened: each packet is on the wire once, and there it is taken once, or ended for a Reason."""
    on_wire = sum(numbers.values())
    unseen = here.reasons["ok.forwarded"] + replayed - here.unsent - on_wire
    assert -here.reasons.get("ok.bypassed", 0) <= unseen <= missed, f"what was sealed is on the wire: {shown}"
    assert there.reasons["ok.delivered"] <= len(numbers) + missed, f"nothing was taken twice: {shown}"
    assert abs(on_wire - there.reasons["ok.delivered"] - there.ended_inbound) <= missed, f"every packet has its end: {shown}"
    assert replayed > 0, shown
    refused = sum(there.reasons.get(name, 0) for name in _OF_REPLAYS)
    assert refused >= replayed - there.never_looked_at, f"what came again was refused: {shown}"
    assert "esp.icv" not in there.reasons, shown


@pytest.mark.covers("M1", "M34")
def test_hosts_speak_through_two_gateways_while_they_rekey(hosts: Row, tmp_path: Path) -> None:
    through_rekeys(hosts, tmp_path, 8, 4)


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["A=", "KOURA_NO_FAST=1"], ids=["fast", "reference"])
def test_hosts_speak_through_two_gateways_for_a_minute_of_rekeys(hosts: Row, tmp_path: Path, environment: str) -> None:
    through_rekeys(hosts, tmp_path, 60, 5, environment)
