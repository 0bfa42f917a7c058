"""No black hole: packets of every size from 1200 to 9000 octets pass, or their sender learns what does; the path has a narrow hop.

    host a ---- gateway a ---- router (takes less than the links say) ---- gateway b ---- host b

By ping with DF and without, by TCP with segments of many sizes; between hosts behind the gateways and between the gateways themselves,
in tunnels and in transport mode. In CI the sizes at every edge and a seeded sample of the others; all of them in the slow test.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.kit import gateways, namespaces
from tests.live.kit.gateways import run
from tests.live.kit.sited import BACK, GCM, Site, Way, site

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(namespaces.why_not()), reason=namespaces.why_not())]

SEED = 1191
LINK, HOP = 9000, 1400
LEAST, MOST = 1200, 9000
TOML = "[host]\nmtu = 9000\n"
IPV6_LEAST = 1280
MOST_GROWTH = 120  # outer header, UDP, ESP, padding, ICV
CASES = ((Way(4, True, True), 2), (Way(6, False, False), 0))
MORE = (
    (Way(4, False, True), 1), (Way(6, True, True), 1), (Way(4, False, False), 0), (Way(4, True, False), 2), (Way(6, False, True), 2),
    (Way(4, False, True), 2), (Way(4, True, True), 0),
)  # fmt: skip
HOSTS = {4: ("10.77.1.2", "10.77.2.2"), 6: ("fd00:77:1::2", "fd00:77:2::2")}
NEAR = {4: ("10.77.1.1", "10.77.2.1"), 6: ("fd00:77:1::1", "fd00:77:2::1")}
TRANSPORT = {4: ("10.78.1.1", "10.78.2.1"), 6: ("fd00:78:1::1", "fd00:78:2::1")}


def _transport(us: int) -> str:
    """Transport mode between addresses that the gateways have on their loopbacks."""
    lines = []
    for version, spi in ((4, 0x5000), (6, 0x6000)):
        a, b = TRANSPORT[version]
        here, there = (a, b) if us == 1 else (b, a)
        lines += [
            f"add {a} {b} esp {spi:#x} -m transport -u 7 -r 256 {GCM};", f"add {b} {a} esp {spi + 1:#x} -m transport -u 7 -r 256 {BACK};",
            f"spdadd {here} {there} any -P out ipsec esp/transport//require;",
            f"spdadd {there} {here} any -P in ipsec esp/transport//require;",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _made(way: Way, dfbit: int, folder: Path) -> Iterator[Site]:
    with gateways.row("kp", has_v6=True, has_router=True, mtu_octets=LINK) as row:
        row.narrow(HOP)
        for us, gateway in enumerate(row.gateways, 1):
            for version in (4, 6):
                mine, theirs = TRANSPORT[version][us - 1], TRANSPORT[version][2 - us]
                run(gateway, "ip", "addr", "add", mine, "dev", "lo")
                via = ("192.0.2.254", "198.51.100.254") if version == 4 else ("2001:db8:0:1::fe", "2001:db8:0:2::fe")
                run(gateway, "ip", "route", "add", theirs, "via", via[us - 1])
                back = row.outer(version)[us - 1]
                run(row.router, "ip", "route", "add", mine, "via", back, "mtu", "lock", str(HOP))
        with site(row, way, folder, toml=TOML, scripts=(_transport(1), _transport(2))) as made:
            made.tune("net.inet.ipsec.dfbit", dfbit)
            yield made


@pytest.fixture(
    scope="module", ids=lambda case: f"{case[0]}-dfbit{case[1]}",
    params=[*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE)],
)  # fmt: skip
def between(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    way, dfbit = request.param
    yield from _made(way, dfbit, tmp_path_factory.mktemp("sizes"))


def _edges(count: int) -> list[int]:
    """Sizes around every border there is, and as many others from the seed."""
    around = [edge + by for edge in (IPV6_LEAST, HOP - 82, HOP - 74, HOP - 62, HOP - 54, HOP, 1500, 4096, 8192) for by in (-1, 0, 1)]
    drawn = random.Random(SEED).sample(range(LEAST, MOST), count)
    return sorted({LEAST, *around, *drawn, MOST - 1, MOST})


def _sweep(between: Site, where: str, ends: tuple[str, str], sizes: list[int]) -> None:
    """Every size ends well, and a size that was refused is refused for a reason: the one that was told passes."""
    told: set[int] = set()
    asked = [f"{size}:{df}" for size in sizes for df in (1, 0)]
    for start in range(0, len(asked), 2000):
        for answer in between.ask(where, "sizes", *ends, *asked[start : start + 2000]):
            why = f"seed {SEED}: {ends}: {answer}\n"
            assert answer["end"] != "silent", why + between.counters()
            if answer["end"] == "refused":
                assert answer["df"], why
                assert isinstance(answer["mtu"], int)
                assert HOP - MOST_GROWTH <= answer["mtu"] <= LINK, why
                told.add(answer["mtu"])
    for answer in between.ask(where, "sizes", *ends, *(f"{mtu}:1" for mtu in sorted(told))):
        if answer["octets"] == min(told):
            assert answer["end"] == "answered", f"{answer} {sorted(told)}\n{between.counters()}"
            assert answer["octets"] >= min(IPV6_LEAST, HOP - MOST_GROWTH)


@pytest.mark.covers("M23", "S30")
@pytest.mark.parametrize("version", [4, 6])
def test_no_size_is_lost(between: Site, version: int) -> None:
    row = between.row
    for where, ends in (
        (row.host_a, HOSTS[version]), (row.host_b, HOSTS[version][::-1]),
        (row.gateway_a, NEAR[version]), (row.gateway_b, TRANSPORT[version][::-1]),
    ):  # fmt: skip
        _sweep(between, where, ends, _edges(8))


@pytest.mark.covers("M23")
@pytest.mark.parametrize("version", [4, 6])
def test_tcp_of_any_segment_size_gets_through(between: Site, version: int) -> None:
    """Without clamping: the senders learn."""
    row = between.row
    with between.served(row.host_b, row.gateway_b):
        for where, ends in ((row.host_a, HOSTS[version]), (row.gateway_a, NEAR[version]), (row.gateway_a, TRANSPORT[version])):
            for answer in between.ask(where, "tcp", *ends, "0", "1300", "1401", "8900"):
                assert answer["is_right"], f"{ends}: {answer}\n{between.counters()}"


NARROW = 1300


@pytest.mark.covers("M23")
@pytest.mark.parametrize("is_fast", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["fast", "reference"])
def test_what_goes_in_clear_over_a_narrower_link_is_cut_or_refused(is_fast: bool, tmp_path: Path) -> None:
    """A policy about one port leads all packets to a host through the engine; the link to it takes less than the default route's."""
    everybody = {4: "0.0.0.0/0", 6: "::/0"}
    discards = "".join(f"spdadd {everybody[version]} {HOSTS[version][0]}[9999] udp -P out discard;\n" for version in (4, 6))
    with gateways.row("kc", has_v6=True) as row, site(row, Way(4, False, is_fast), tmp_path, scripts=(discards, "")) as made:
        for where, device in ((row.gateway_a, "lan"), (row.host_a, "v0")):
            run(where, "ip", "link", "set", device, "mtu", str(NARROW))
        for version in (4, 6):
            for where, ends in ((row.host_b, HOSTS[version][::-1]), (row.gateway_a, (NEAR[version][0], HOSTS[version][0]))):
                sizes = (NARROW - 1, NARROW, NARROW + 1, 1400, 3000)
                asked = [f"{size}:{df}" for df in (0, 1) for size in sizes]
                for answer in made.ask(where, "sizes", *ends, *asked):
                    fits = answer["octets"] in sizes[:2]
                    assert answer["end"] == ("answered" if fits or not answer["df"] else "refused"), f"{ends}: {answer}\n{made.counters()}"
                    assert answer["end"] == "answered" or answer["mtu"] == NARROW, answer


@pytest.mark.slow
@pytest.mark.parametrize("version", [4, 6])
def test_no_size_at_all_is_lost(between: Site, version: int) -> None:
    row = between.row
    for where, ends in ((row.host_a, HOSTS[version]), (row.gateway_a, NEAR[version]), (row.gateway_a, TRANSPORT[version])):
        _sweep(between, where, ends, list(range(LEAST, MOST + 1)))
