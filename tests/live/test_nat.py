"""Peers behind a NAT, with keys from a file: a mapping that changes, two transport mode clients with one address, keepalives. RFC 3948."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from koura.client import Control
from koura.daemon.launch import Running
from tests.live.kit import nat
from tests.live.kit.gateways import run, start
from tests.live.kit.programs import PATIENCE_S
from tests.live.kit.street import Street, street

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(nat.why_not()), reason=nat.why_not())]
PINGS = 20
CLIENTS = (1, 2)
KEEPALIVE_S = 1


def _key(number: int) -> str:
    return f"-r 64 -E aes-gcm-16 0x{number:040x}"


def _sas(client: int, far: str, near: str) -> str:
    """A pair in transport and one in tunnel mode; far, near: the client as this side sees it, and the server."""
    return "".join(
        f"add {src} {dst} esp-udp {0x1000 * client + number:#x} -m {mode} {_key(0x1000 * client + number)};\n"
        for number, src, dst, mode in (
            (1, far, near, f"tunnel -u {client}"), (2, near, far, f"tunnel -u {client}"),
            (3, far, near, "transport"), (4, near, far, "transport"),
        )
    )  # fmt: skip


def _policies(client: int, far: str, ways: tuple[str, str]) -> str:
    to, back = ways
    net = f"10.77.{client}.0/24"
    return (
        f"spdadd {net} 10.77.9.0/24 any -P {to} ipsec esp/tunnel/{far}-192.0.2.2/unique:{client};\n"
        f"spdadd 10.77.9.0/24 {net} any -P {back} ipsec esp/tunnel/192.0.2.2-{far}/unique:{client};\n"
    )


def _transport(far: str, ways: tuple[str, str]) -> str:
    return (
        f"spdadd {far} 192.0.2.2 any -P {ways[0]} ipsec esp/transport//require;\n"
        f"spdadd 192.0.2.2 {far} any -P {ways[1]} ipsec esp/transport//require;\n"
    )


@dataclass
class Site:
    street: Street
    server: Running
    clients: tuple[Running, ...]

    def natt(self, of: Running) -> dict[str, int]:
        with Control(of.directory) as control:
            counters: Any = control.ask("stat", protocol="natt", json=True)["counters"]
        return dict(counters["natt"])

    def says(self) -> str:
        """What every end counted and has: for who reads why a test failed."""
        said = []
        for one in (self.server, *self.clients):
            with Control(one.directory) as control:
                said.append(f"{one.directory.name}: {control.ask('stat', nonzero=True)['text']}\n{one.said}")
        return "\n".join(said)

    def until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline, self.says()
            time.sleep(0.05)

    def until_answered(self, host: str, *words: str) -> None:
        """Until a ping is: the first ones may come before a peer was heard of."""
        line = ["ip", "netns", "exec", host, "ping", "-c", "1", "-W", "1", *words]
        self.until(lambda: subprocess.run(line, capture_output=True, check=False).returncode == 0)


@pytest.fixture(scope="module", params=["fast", pytest.param("reference", marks=pytest.mark.slow)])
def site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The server on one path, the second client on the other. The server's file guesses the ports that the NAT shows: 40001 and 40002;
    it is wrong about both."""
    folder = tmp_path_factory.mktemp("nat")
    with ExitStack() as stack:
        made = stack.enter_context(street("kn", len(CLIENTS)))
        on_reference = {"fast": ("client2",), "reference": ("server", "client1")}[request.param]

        def daemon(name: str, host: str, script: str, *more: str) -> Running:
            (folder / f"{name}.conf").write_text(script)
            (folder / f"{name}.toml").write_text("[host]\n")
            words = ("-f", str(folder / f"{name}.conf"), "-c", str(folder / f"{name}.toml"), *more)
            env = ("env", "KOURA_NO_FAST=1") if name in on_reference else ()
            return stack.enter_context(Running(folder / name, *words, prefix=("ip", "netns", "exec", host, *env)))

        script = "".join(
            _sas(client, f"192.0.2.1[{40000 + client}]", "192.0.2.2[4500]") + _policies(client, "192.0.2.1", ("in", "out"))
            for client in CLIENTS
        )
        server = daemon("server", made.server, script + _transport("192.0.2.1", ("in", "out")))
        clients = []
        for client, host in zip(CLIENTS, made.clients, strict=True):
            made.see(client, 41000 + client)
            far = f"10.88.{client}.2"
            script = _sas(client, f"{far}[4500]", "192.0.2.2[4500]") + _policies(client, far, ("out", "in"))
            script += _transport(far, ("out", "in"))
            clients.append(daemon(f"client{client}", host, script, "-o", f"net.koura.natt_keepalive_s={KEEPALIVE_S}"))
        yield Site(made, server, tuple(clients))


@pytest.mark.covers("M12", "M13", "S26")
def test_two_transport_clients_behind_one_nat_ping_and_talk_tcp_at_once(site: Site) -> None:
    """Same policies, same addresses on the server's side: it answers each through its own SA."""
    street = site.street
    for client in CLIENTS:
        site.until_answered(street.clients[client - 1], "192.0.2.2")
    servers = [start(street.server, "iperf3", "--forceflush", "-s", "-1", "-p", str(5200 + n)) for n in CLIENTS]
    for server in servers:
        assert server.stdout is not None and any("listening" in line for line in server.stdout)
    running = []
    for n, client in zip(CLIENTS, street.clients, strict=True):
        running.append(start(client, "ping", "-q", "-e", str(70 + n), "-i", "0.05", "-c", str(PINGS), "-w", "40", "192.0.2.2"))
        running.append(start(client, "iperf3", "-c", "192.0.2.2", "-p", str(5200 + n), "-n", "256K"))
    said = [one.communicate(timeout=PATIENCE_S)[0] for one in running]
    for server in servers:
        server.communicate(timeout=PATIENCE_S)
    assert [one.returncode for one in running] == [0] * len(running), "\n".join((*said, site.says()))
    assert all(is_complete(text) for text in said[::2]), "\n".join((*said, site.says()))
    counted = site.natt(site.server)
    assert counted["moved"] >= 2, "both were heard from other ports than the file says"
    assert counted["conflict"] == 0


def is_complete(said: str) -> bool:
    """Whether ping has the answers that it was to wait for, or more: it goes on sending while the last ones are late."""
    found = re.search(r"(\d+) received", said)
    return found is not None and int(found[1]) >= PINGS


@pytest.mark.covers("M24", "S26")
def test_a_mapping_changes_in_mid_connection_and_traffic_goes_on_both_ways(site: Site) -> None:
    street, client = site.street, site.street.clients[0]
    site.until_answered(client, "-I", "10.77.1.1", "10.77.9.1")
    for port, address in ((42001, "192.0.2.1"), (42002, "192.0.2.3"), (41001, "192.0.2.1")):
        moved = site.natt(site.server)["moved"]
        street.see(1, port, address)
        site.until_answered(client, "-I", "10.77.1.1", "10.77.9.1")
        site.until_answered(street.server, "-I", "10.77.9.1", "10.77.1.1")
        assert site.natt(site.server)["moved"] > moved
        said = run(client, "ping", "-q", "-i", "0.02", "-c", str(PINGS), "-w", "40", "-I", "10.77.1.1", "10.77.9.1")
        assert is_complete(said), said + site.says()
    site.until_answered(street.clients[1], "-I", "10.77.2.1", "10.77.9.1")


@pytest.mark.covers("S41")
def test_keepalives_go_out_in_silence_and_are_counted_and_nothing_else_comes_of_them(site: Site) -> None:
    before, sent = site.natt(site.server), site.natt(site.clients[1])["keepalives_out"]
    site.until(lambda: site.natt(site.server)["keepalives_in"] >= before["keepalives_in"] + 2)
    assert site.natt(site.clients[1])["keepalives_out"] > sent
    after = site.natt(site.server)
    assert {name: count for name, count in after.items() if name != "keepalives_in"} == {
        name: count for name, count in before.items() if name != "keepalives_in"
    }
