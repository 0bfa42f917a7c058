"""Host mode with thousands of policies: it starts, each has its route and its rule, and one more costs what the first did."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from koura.daemon.launch import Running
from tests.live.kit.namespaces import pair, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

COUNT = 1200
WAIT_S = 60.0
ROUTES = 3000  # of somebody else, in one go: more than any queue of changes holds


def _tunnel(number: int, command: str = "spdadd") -> str:
    net = f"10.{100 + number // 256}.{number % 256}.0/24"
    return f"""
{command} 192.0.2.1 {net} any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.{number % 200 + 1}/require;
{command} {net} 192.0.2.1 any -P in ipsec esp/tunnel/198.51.100.{number % 200 + 1}-192.0.2.1/require;
"""


def run(host: str, *words: str, said: str = "") -> str:
    return subprocess.run(["ip", "netns", "exec", host, *words], check=True, capture_output=True, text=True, input=said).stdout


def _setkey(daemon: Running, script: str) -> str:
    words = [sys.executable, "-m", "koura", "setkey", "-c", "--socket", str(daemon.directory)]
    return subprocess.run(words, check=True, capture_output=True, text=True, input=script).stdout


def _until(host: str, rules: int) -> str:
    """The guard, once it has so many rules of policies."""
    deadline = time.monotonic() + WAIT_S
    while True:
        said = run(host, "nft", "list", "table", "inet", "koura")
        found = len(re.findall(r'comment "policy \d+"', said))
        if found == rules:
            return said
        assert time.monotonic() < deadline, f"{found} rules, not {rules}"
        time.sleep(0.1)


def _needs_a_large_table(host: str) -> None:
    """Skips where nft may not send that much at once, for which it needs rights in the kernel's own user namespace."""
    rules = "\n".join(f"ip saddr 10.{n // 256}.{n % 256}.0/24 counter drop comment \"{n}\"" for n in range(4 * COUNT))
    words = ["ip", "netns", "exec", host, "nft", "-f", "-"]
    tried = subprocess.run(words, capture_output=True, text=True, check=False, input=f"table inet probe {{\nchain a {{\n{rules}\n}}\n}}\n")
    if "Message too long" in tried.stderr:
        pytest.skip("nft(8) may not send so many rules at once here: no right to a larger socket buffer")
    assert tried.returncode == 0, tried.stderr
    run(host, "nft", "delete", "table", "inet", "probe")


def _routes(host: str) -> list[str]:
    return run(host, "ip", "route", "show", "table", "19311").splitlines()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Running]]:
    folder: Path = tmp_path_factory.mktemp("many")
    with ExitStack() as stack:
        host, _ = stack.enter_context(pair("km"))
        run(host, "ip", "route", "add", "default", "via", "192.0.2.2")
        (folder / "conf").write_text("".join(map(_tunnel, range(COUNT))))
        (folder / "toml").write_text("[host]\n")
        arguments = ("-q", "-f", str(folder / "conf"), "-c", str(folder / "toml"))
        yield host, stack.enter_context(Running(folder / "run", *arguments, prefix=("ip", "netns", "exec", host)))


def test_each_policy_has_its_route_and_its_rule(site: tuple[str, Running]) -> None:
    host, _ = site
    routes = _routes(host)
    assert len([line for line in routes if "dev koura0" in line and "src 192.0.2.1" in line]) == COUNT
    assert len([line for line in routes if line.startswith("blackhole")]) == COUNT
    _needs_a_large_table(host)
    _until(host, COUNT)


def test_what_comes_and_goes_later_has_too(site: tuple[str, Running]) -> None:
    host, daemon = site
    _needs_a_large_table(host)
    assert _setkey(daemon, _tunnel(COUNT) + _tunnel(COUNT + 1)) == ""
    added = [f"10.{100 + number // 256}.{number % 256}.0/24" for number in (COUNT, COUNT + 1)]
    for net in added:
        assert len([line for line in _routes(host) if net in line]) == 2
    _until(host, COUNT + 2)
    assert _setkey(daemon, _tunnel(COUNT, "spddelete")) == ""
    assert [line for line in _routes(host) if added[0] in line] == []
    said = _until(host, COUNT + 1)
    assert added[0] not in said
    assert added[1] in said


def test_a_flood_of_changes_outside_ends_nothing(site: tuple[str, Running]) -> None:
    """More than the kernel keeps for one who listens: it says so with ENOBUFS. What changed last is seen all the same."""
    host, daemon = site
    flood = [f"route add 172.{16 + number // 256}.{number % 256}.0/24 dev v0" for number in range(ROUTES)]
    run(host, "ip", "-batch", "-", said="\n".join([*flood, "addr add 192.0.2.77/32 dev v0"]) + "\n")
    run(host, "ip", "-batch", "-", said="\n".join(flood).replace("route add", "route del") + "\n")
    assert _setkey(daemon, "spdadd 192.0.2.77 10.250.0.0/16 any -P out discard;") == ""
    deadline = time.monotonic() + WAIT_S
    while not any("10.250.0.0/16" in line and "src 192.0.2.77" in line for line in _routes(host)):
        assert time.monotonic() < deadline, daemon.said
        time.sleep(0.1)
