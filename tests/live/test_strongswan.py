"""strongSwan's charon with its user-space ESP (kernel-libipsec) against stock iked under `koura run`: keys, traffic, rekeys, DPD, delete.

Both directions of everything: who rekeys, who deletes, who dies. Traffic is pings; every one that is missing is in a Reason's counter.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.daemon.launch import Running
from tests.live.kit import gateways, ike, namespaces
from tests.live.kit.charon import CHARON, LIBIPSEC, SWANCTL, Connection, Ends, connected
from tests.live.kit.gateways import Row
from tests.live.kit.pinger import Pinger
from tests.live.kit.programs import until, why_not

pytestmark = pytest.mark.live
_ENDED_WELL = ("ok.", "held.", "sa.grace")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Row]:
    for file in (ike.IKED, CHARON, LIBIPSEC, SWANCTL):
        if not os.path.exists(file):
            pytest.skip(f"no {file} here (Debian: openiked, strongswan-charon, libcharon-extra-plugins, strongswan-swanctl)")
    if why := why_not() or namespaces.why_not():
        pytest.skip(why)
    if subprocess.run(["unshare", "-nm", "mount", "-t", "tmpfs", "none", "/run"], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a /run of charon's own")
    with gateways.row("ks", has_v6=True) as made:
        yield made


def sas(ours: Running) -> str:
    """The SAs of our engine, as setkey -D shows them."""
    words = [sys.executable, "-m", "koura", "setkey", "--socket", str(ours.directory), "-D"]
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout


class Pings:
    """A flood of pings from the host behind iked to the one behind charon; `end` says that every loss is explained: by a Reason of ours, by
    charon's log, or by the kernel that charon's sockets and TUN are of."""

    def __init__(self, hosts: Row, connection: Connection, ours: Running, ends: Ends) -> None:
        self._ours, self._ends, self._gateway = ours, ends, hosts.gateway_b
        self._before = self._discarded()
        self._pinger = Pinger(hosts.host_a, connection.target)

    def _discarded(self) -> dict[str, int]:
        counted = ike.counters(self._ours)
        found = {name: count for name, count in counted["reasons"].items() if not name.startswith(_ENDED_WELL)}
        return found | counted["lost"] | {"charon": self._ends.lost(), "kernel": ike.dropped_anywhere(self._gateway)}

    def end(self) -> None:
        ends, said = self._ends, self._pinger.end()
        ended = {name: count - self._before.get(name, 0) for name, count in self._discarded().items()}
        assert said.received > 0 and not said.twice, f"{said} {ends.logs()}"
        assert said.sent - said.received <= sum(ended.values()), f"{said} {ended} {ends.logs()}"
        assert not {"esp.icv", "esp.replay", "esp.old"} & {name for name, count in ended.items() if count}, f"{ended} {ends.logs()}"


def answers(hosts: Row, connection: Connection, ends: Ends) -> None:
    ike.answers(hosts.host_a, connection.target, ends.logs)


def is_silent(hosts: Row, connection: Connection) -> bool:
    """Nothing comes back; in clear it would."""
    words = ["ip", "netns", "exec", hosts.host_a, "ping", "-c", "1", "-W", "1", connection.target]
    return bool(subprocess.run(words, capture_output=True, check=False).returncode)


def child_rekeys(ends: Ends) -> int:
    return ends.iked.said("loaded SPIs") - 1


@pytest.mark.covers("M12")
def test_charon_rekeys_both_kinds_under_load_and_misses_an_iked_that_died(hosts: Row, tmp_path: Path) -> None:
    """A secret. Dead peer detection (RFC 7296 §2.4): while iked lives it answers; when it no longer does, charon deletes what it had."""
    connection = Connection(rekey_s=2)
    with ike.daemon(hosts.gateway_a, tmp_path / "1") as ours, connected(hosts.gateways, tmp_path, connection) as ends:
        answers(hosts, connection, ends)
        until(lambda: ends.iked.said("send INFORMATIONAL res") >= 1, ends.logs)
        pings = Pings(hosts, connection, ours, ends)
        rekeyed = child_rekeys(ends)
        until(lambda: child_rekeys(ends) > rekeyed, ends.logs)
        before = ends.swanctl("--list-sas", "--raw")
        ends.swanctl("--rekey", "--ike", "t")
        until(lambda: _ike_spi(ends.swanctl("--list-sas", "--raw")) != _ike_spi(before), ends.logs)
        rekeyed = child_rekeys(ends)
        until(lambda: child_rekeys(ends) > rekeyed, ends.logs)
        pings.end()
        assert "t:" in ends.swanctl("--list-sas")
        ends.iked.die()
        until(lambda: "t:" not in ends.swanctl("--list-sas"), ends.logs)


@pytest.mark.covers("M12")
def test_with_certificates_and_ipv6_inside_iked_rekeys_under_load_and_deletes(hosts: Row, tmp_path: Path) -> None:
    connection = Connection("aes256-sha512", "enc aes-256 auth hmac-sha2-512", has_certificates=True, is_v6=True, child_s=5)
    with ike.daemon(hosts.gateway_a, tmp_path / "1") as ours, connected(hosts.gateways, tmp_path, connection) as ends:
        assert re.search("authentication of 'g1.test' with ECDSA.* successful", ends.charon_log.read_text())
        answers(hosts, connection, ends)
        pings = Pings(hosts, connection, ours, ends)
        rekeyed = child_rekeys(ends)
        until(lambda: child_rekeys(ends) > rekeyed, ends.logs)
        pings.end()
        ends.iked.stop()
        until(lambda: "t:" not in ends.swanctl("--list-sas"), ends.logs)
        assert "esp" not in sas(ours), ends.logs()
        assert is_silent(hosts, connection)


SUITES = [
    Connection("aes128-sha384", "enc aes-128 auth hmac-sha2-384"),
    Connection("aes192-sha1", "enc aes-192 auth hmac-sha1", is_v6=True),
    Connection("aes128ctr-sha1", "enc aes-128-ctr auth hmac-sha1"),
    Connection("aes256ctr-sha512", "enc aes-256-ctr auth hmac-sha2-512", has_certificates=True),
    Connection("aes256-sha384", "enc aes-256 auth hmac-sha2-384", outer=("2001:db8:0:1::1", "2001:db8:0:1::2")),
    Connection("aes128-sha1", is_v6=True, outer=("2001:db8:0:1::1", "2001:db8:0:1::2")),
]


@pytest.mark.slow
@pytest.mark.covers("M12")
@pytest.mark.parametrize("connection", SUITES, ids=lambda one: f"{one.esp}-{one.nets[0].split('/')[0]}-{one.outer[0]}")
def test_every_suite_that_both_have_is_rekeyed_and_deleted_by_charon(hosts: Row, tmp_path: Path, connection: Connection) -> None:
    with ike.daemon(hosts.gateway_a, tmp_path / "1") as ours, connected(hosts.gateways, tmp_path, connection) as ends:
        answers(hosts, connection, ends)
        pings = Pings(hosts, connection, ours, ends)
        rekeyed = child_rekeys(ends)
        ends.swanctl("--rekey", "--child", "net")
        until(lambda: child_rekeys(ends) > rekeyed, ends.logs)
        pings.end()
        ends.swanctl("--terminate", "--ike", "t", "--timeout", "20")
        until(lambda: "esp" not in sas(ours), ends.logs)
        assert is_silent(hosts, connection)


def _ike_spi(raw: str) -> str:
    return "".join(re.findall(r"initiator-spi=(\w+)", raw))
