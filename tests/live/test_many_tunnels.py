"""Two hundred tunnels in one engine, and hundreds of changes while others' traffic flows: none of it is lost. M37."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.daemon.launch import Running
from tests.live.kit import gateways, namespaces, prober
from tests.live.kit.capture import Capture
from tests.live.kit.clear import others_than_protected, spis
from tests.live.kit.gateways import Row, run
from tests.live.kit.sited import Site, Way, site

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(namespaces.why_not()), reason=namespaces.why_not())]

TUNNELS = 200
CHANGED = 40
HANDED = 300
FIRST_SPI = 0x10000
NETS = ("10.1{}.{n}.0/24", "fd00:1{}:{n}::/64")
ADDRESSES = ("10.1{us}.{n}.2", "fd00:1{us}:{n}::2")


def _nets(number: int) -> tuple[str, ...]:
    """What tunnel `number` connects: IPv4 where it is even, IPv6 where it is odd."""
    return (NETS[number % 2].replace("{n}", str(number)),)


def _address(us: int, number: int) -> str:
    return ADDRESSES[number % 2].format(us=us, n=number)


def _scripts(row: Row, way: Way) -> tuple[str, str]:
    sas = "".join(way.sas(row, FIRST_SPI + number, 100 + number) for number in range(TUNNELS))
    one, other = ("".join(way.policies(row, us, _nets(number), f"unique:{100 + number}") for number in range(TUNNELS)) for us in (1, 2))
    return sas + one, sas + other


@pytest.fixture(scope="module", params=[Way(4, False, True), pytest.param(Way(6, True, False), marks=pytest.mark.slow)], ids=str)
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with gateways.row("kn", has_v6=True) as row:
        for us, (host, gateway) in enumerate(zip(row.hosts, row.gateways, strict=True), 1):
            lines = [f"addr add {_address(us, number)}/{32 if number % 2 == 0 else 128} dev lo" for number in range(TUNNELS)]
            subprocess.run(["ip", "-n", host, "-b", "-"], input="\n".join(lines), text=True, check=True)
            run(gateway, "ip", "route", "add", f"10.1{us}.0.0/16", "via", f"10.77.{us}.2")
            run(gateway, "ip", "route", "add", f"fd00:1{us}::/32", "via", f"fd00:77:{us}::2")
        with site(row, request.param, tmp_path_factory.mktemp("many"), scripts=_scripts(row, request.param)) as made:
            yield made


@pytest.mark.covers("M37")
def test_two_hundred_tunnels_carry_traffic_at_once(many: Site, tmp_path: Path) -> None:
    row = many.row
    pairs = [f"{_address(1, number)}={_address(2, number)}" for number in range(TUNNELS)]
    with many.served(row.host_b), Capture(row.gateway_a, "wan", tmp_path / "wan.pcap"):
        (answer,) = many.ask(row.host_a, "flows", *pairs)
        assert answer["silent"] == [], many.counters()
    assert others_than_protected(tmp_path / "wan.pcap") == []
    expected = {FIRST_SPI + number + way for number in range(TUNNELS) for way in (0, 0x1000)}
    assert expected <= spis(tmp_path / "wan.pcap")


class Streams:
    """UDP streams with numbers, one for each family, from host a to host b and back."""

    def __init__(self, row: Row) -> None:
        ends = (("10.77.1.2", "10.77.2.2"), ("fd00:77:1::2", "fd00:77:2::2"))
        line = ["ip", "netns", "exec", row.host_a, sys.executable, "-I", prober.__file__, "stream"]
        self._running = [subprocess.Popen([*line, *pair], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for pair in ends]

    def ended(self) -> list[dict[str, object]]:
        return [json.loads(one.communicate("", timeout=120)[0]) for one in self._running]


@contextmanager
def _streams(many: Site) -> Iterator[list[dict[str, object]]]:
    """While they run, the block does what it does; then what they say is in the list."""
    said: list[dict[str, object]] = []
    with many.served(many.row.host_b):
        streams = Streams(many.row)
        try:
            yield said
        finally:
            said += streams.ended()


def _changes(many: Site, us: int) -> str:
    """SAs and policies of forty other tunnels that come and go one by one, some of them for the streams' own destinations."""
    row, way = many.row, many.way
    ends = row.outer(way.outer)
    here, there = ends[us - 1], ends[2 - us]
    lines = []
    for number in range(CHANGED):
        spi = 0x30000 + number
        lines.append(way.sas(row, spi, 500 + number))
        lines.append(way.policies(row, us, (f"10.{150 if number % 2 else 77}.{{}}.{number + 100}/32",), f"unique:{500 + number}"))
        if number >= CHANGED // 2:
            gone = number - CHANGED // 2
            theirs = f"10.{150 if gone % 2 else 77}.{3 - us}.{gone + 100}/32"
            ours = f"10.{150 if gone % 2 else 77}.{us}.{gone + 100}/32"
            lines.append(f"spddelete {ours} {theirs} any -P out; spddelete {theirs} {ours} any -P in;")
            lines.append(f"delete {here} {there} esp {0x30000 + gone + (0 if us == 1 else 0x1000):#x};")
    return "\n".join(lines)


@pytest.mark.covers("M37")
def test_changes_lose_nothing_of_others(many: Site) -> None:
    """SAs and policies by setkey, tunnels by command, the file by reload, on both gateways."""
    ends = many.row.outer(many.way.outer)
    with _streams(many) as said:
        for us in (1, 2):
            many.koura(us, "setkey", "-c", text=_changes(many, us))
        options = ("--reqid", "900", "--local", ends[0], "--remote", ends[1])
        for _ in range(3):
            many.koura(1, "tunnel", "add", "extra", *options)
            many.koura(1, "tunnel", "del", "extra")
        for us in (1, 2):
            many.tune("net.koura.mss_clamp", us % 2)
            conf = many.folder / f"{us}.conf"
            conf.write_text(re.sub(f"add [^;]* esp(-udp)? {FIRST_SPI + 7:#x} [^;]*;\n", "", conf.read_text()))
            many.reload(us)
    for one in said:
        assert isinstance(one["sent"], int)
        assert one["sent"] > 100
        assert one["missing"] == [], f"{one}\n{many.counters()}"


def _engine_and_tunnels(control: Control) -> tuple[int, int]:
    """The engine's process, and how many tunnels it reads."""
    drivers = control.ask("stat", json=True)["drivers"]
    assert isinstance(drivers, dict)
    engine = control.ask("version")["engine"]
    assert isinstance(engine, int)
    return engine, sum(name.startswith("vpn") for name in drivers)


@pytest.mark.slow  # making and removing that many interfaces takes the kernel its time
@pytest.mark.covers("M22")
def test_each_engine_has_all_tunnels_however_many(tmp_path: Path) -> None:
    """More than the socket they are handed over by has room for, of the file; and again when the engine was killed."""
    toml = tmp_path / "koura.toml"
    rows = (f'[[tunnel]]\nname = "vpn{n}"\nreqid = {n + 1}\nlocal = "192.0.2.1"\nremote = "192.0.2.2"\n' for n in range(HANDED))
    toml.write_text("[host]\n" + "".join(rows))
    with ExitStack() as stack:
        host, _ = stack.enter_context(namespaces.pair("kh"))
        prefix = ("ip", "netns", "exec", host, "env", "KOURA_NO_FAST=1")  # one queue each, which takes less time to make
        daemon = stack.enter_context(Running(tmp_path / "koura", "-q", "-c", str(toml), prefix=prefix))
        control = stack.enter_context(Control(daemon.directory))
        first, tunnels = _engine_and_tunnels(control)
        assert tunnels == HANDED
        os.kill(first, signal.SIGKILL)
        while control.ask("version")["engine"] in (0, first):
            pass
        second, tunnels = _engine_and_tunnels(control)
        assert second != first and tunnels == HANDED
