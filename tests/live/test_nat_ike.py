"""Stock iked under `koura run`, ESP in UDP beside it on its port 4500: through a NAT whose mapping changes, and over IPv6. RFC 3948."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from koura.client import Control
from koura.daemon.launch import Running
from tests.live.kit import ike, namespaces, nat
from tests.live.kit.gateways import run, start
from tests.live.kit.programs import PATIENCE_S, why_not
from tests.live.kit.street import street
from tests.live.kit.users import why_no_dropping

pytestmark = pytest.mark.live
SECRET = 'psk "for-this-test-only"'
CHILD = "childsa enc aes-128-ctr auth hmac-sha1"


def _skips() -> None:
    if not os.access(ike.IKED, os.X_OK):
        pytest.skip("no iked here (Debian: openiked)")
    if why := why_not() or why_no_dropping() or nat.why_not():
        pytest.skip(why)


@contextmanager
def connected(home: Path, hosts: tuple[str, str], confs: tuple[str, str], *options: str) -> Iterator[tuple[Running, Running]]:
    """Daemons in host mode with iked beside them; the second begins."""
    with ExitStack() as stack:
        daemons = [stack.enter_context(ike.daemon(host, home / str(n), "[host]\nports = []\n")) for n, host in enumerate(hosts)]
        for n, (host, conf) in enumerate(zip(hosts, confs, strict=True)):
            process, log = stack.enter_context(ike.started(host, home / str(n), f'ikev2 "t" {conf.format(CHILD)} {SECRET}\n', *options))
        ike.establish(process, log)
        yield daemons[0], daemons[1]


def says(daemons: tuple[Running, Running], home: Path) -> str:
    """What both ends counted, and what both iked said."""
    said = []
    for n, daemon in enumerate(daemons):
        with Control(daemon.directory) as control:
            said.append(f"{n}: {control.ask('stat', nonzero=True)['text']}\n{(home / str(n) / 'log').read_text()}")
    return "\n".join(said)


def counted(daemon: Running, section: str) -> dict[str, int]:
    with Control(daemon.directory) as control:
        counters = control.ask("stat", protocol=section, json=True)["counters"]
    assert isinstance(counters, dict)
    return {name: int(value) for name, value in counters[section].items()}


def talks_tcp(client: str, server: str, source: str, target: str) -> None:
    """A short iperf3 one way."""
    with start(server, "iperf3", "--forceflush", "-s", "-1", "-B", target) as listening:
        assert listening.stdout is not None
        assert any("listening" in line for line in listening.stdout)
        said = run(client, "iperf3", "-c", target, "-B", source, "-n", "256K", timeout_s=PATIENCE_S)
        assert "iperf Done" in said
        listening.communicate(timeout=PATIENCE_S)


@pytest.mark.covers("M12", "S26")
def test_iked_through_a_nat_and_its_mapping_changes(tmp_path: Path) -> None:
    _skips()
    with street("kq", 1) as made:
        (client,) = made.clients
        made.see(1, 41001)
        near = "passive esp from 10.77.9.0/24 to 10.77.1.0/24 local 192.0.2.2 peer any {} srcid b.test dstid a.test"
        far = "active esp from 10.77.1.0/24 to 10.77.9.0/24 local 10.88.1.2 peer 192.0.2.2 {} srcid a.test dstid b.test"
        with connected(tmp_path, (made.server, client), (near, far)) as daemons:
            server, _ = daemons

            def explained() -> str:
                return says(daemons, tmp_path)

            ike.answers(client, "10.77.9.1", explained, "-I", "10.77.1.1")
            talks_tcp(client, made.server, "10.77.1.1", "10.77.9.1")
            for port, address in ((42001, "192.0.2.1"), (42002, "192.0.2.3")):
                made.see(1, port, address)
                ike.answers(client, "10.77.9.1", explained, "-I", "10.77.1.1")
                ike.answers(made.server, "10.77.1.1", explained, "-I", "10.77.9.1")
            talks_tcp(made.server, client, "10.77.9.1", "10.77.1.1")
            assert counted(server, "natt")["moved"] >= 2, explained()
            assert (counted(server, "esp")["badauth"], counted(server, "esp")["replay"]) == (0, 0)


@pytest.mark.covers("M12", "S26")
def test_esp_in_udp_over_ipv6_on_the_port_that_iked_has(tmp_path: Path) -> None:
    _skips()
    one, two = "2001:db8:0:1::1", "2001:db8:0:1::2"
    with namespaces.pair("ku") as hosts:
        confs = (
            f"passive transport esp from {one} to {two} local {one} peer {two} {{}} srcid a.test dstid b.test",
            f"active transport esp from {two} to {one} local {two} peer {one} {{}} srcid b.test dstid a.test",
        )
        with connected(tmp_path, hosts, confs, "-t") as daemons:
            ike.answers(hosts[1], one, lambda: says(daemons, tmp_path))
            talks_tcp(hosts[0], hosts[1], one, two)
            talks_tcp(hosts[1], hosts[0], two, one)
            for daemon in daemons:
                with Control(daemon.directory) as control:
                    attached = control.ask("stat", json=True)["counters"]
                assert isinstance(attached, dict)
                assert attached["attachments"]["raw6/17"]["received"] > 0, says(daemons, tmp_path)
