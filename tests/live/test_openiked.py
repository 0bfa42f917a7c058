"""Two stock iked (OpenIKED) under `koura run`: IKEv2 with a pre-shared key, SAs and policies in two engines, packets between them."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from koura.address import parse
from koura.sadb.agreement import Agreement
from koura.sadb.association import Association
from koura.saindex import Direction, Mode, Protocol
from koura.traffic.outcome import Deliver, Forward, Held
from koura.wire import ipv4, ipv6
from tests.live.kit import namespaces, nat
from tests.live.kit.engine import Engine
from tests.live.kit.ike import IKED, establish, with_etc
from tests.live.kit.programs import PATIENCE_S, command, why_not
from tests.live.kit.users import why_no_dropping
from tests.unit.traffic.kit import datagram

pytestmark = pytest.mark.live
SECRET = "a-secret-of-this-test-only"
HARD_OCTETS = 1 << 16


@dataclass(frozen=True)
class Case:
    """One connection. childsa: what iked.conf(5) says of its algorithms; cipher, integrity: what the engines must have then."""

    name: str
    childsa: str = "enc aes-128 auth hmac-sha1"
    cipher: str = "aes-cbc"
    integrity: str = "hmac-sha1"
    kind: str = "esp"
    is_transport: bool = False
    is_v6: bool = False
    extra: str = ""
    flow: str = ""
    options: tuple[str, ...] = ("-T",)
    ends: tuple[tuple[str, str], ...] = ()

    def end(self, side: int) -> tuple[str, str]:
        """The outer addresses as one side knows them: its own first."""
        return self.ends[side] if self.ends else (self.outer[side], self.outer[1 - side])

    @property
    def is_encapsulated(self) -> bool:
        return bool(self.ends) or "-t" in self.options

    @property
    def outer(self) -> tuple[str, str]:
        return ("2001:db8:0:1::1", "2001:db8:0:1::2") if self.is_v6 else ("192.0.2.1", "192.0.2.2")

    @property
    def inner(self) -> tuple[str, str]:
        """The hosts that speak through it."""
        if self.is_transport:
            return self.outer
        return ("2001:db8:a::1", "2001:db8:b::1") if self.is_v6 else ("10.77.1.1", "10.77.2.1")

    def conf(self, side: int) -> str:
        """iked.conf of one side; the first begins."""
        behind = ("2001:db8:a::/64", "2001:db8:b::/64") if self.is_v6 else ("10.77.1.0/24", "10.77.2.0/24")
        nets = self.outer if self.is_transport else behind
        here, there = (nets[side], nets[1 - side])
        names = ("a.test", "b.test")
        ports = self.flow.split("|")[side] if self.flow else f"from {here} to {there}"
        words = [
            "ikev2", '"test"', ("active", "passive")[side], "ipcomp" if self.kind == "ipcomp" else "",
            "transport" if self.is_transport else "", "ah" if self.kind == "ah" else "esp", ports,
            "local {} peer {}".format(*self.end(side)), f"childsa {self.childsa}" if self.childsa else "",
            f"srcid {names[side]} dstid {names[1 - side]}", self.extra, f'psk "{SECRET}"',
        ]  # fmt: skip
        return " ".join(word for word in words if word) + "\n"


slow = pytest.mark.slow
TCP_FLOW = "proto tcp from 192.0.2.1 to 192.0.2.2 port 5001|proto tcp from 192.0.2.2 port 5001 to 192.0.2.1"
CASES = [
    Case("as-it-comes", childsa="", integrity="hmac-sha2-384"),
    Case("cbc-sha384-v6", "enc aes-256 auth hmac-sha2-384", integrity="hmac-sha2-384", is_v6=True),
    Case("natt", options=("-t",)),
    Case("transport-ctr", "enc aes-128-ctr auth hmac-sha1", cipher="aes-ctr", is_transport=True),
    Case("ipcomp", kind="ipcomp"),
    Case("ah", "auth hmac-sha1", cipher="", kind="ah"),
]
MORE = [
    Case("cbc192-sha512", "enc aes-192 auth hmac-sha2-512", integrity="hmac-sha2-512"),
    Case("ctr256-sha384", "enc aes-256-ctr auth hmac-sha2-384", cipher="aes-ctr", integrity="hmac-sha2-384"),
    Case("3des-md5", "enc 3des auth hmac-md5", cipher="3des-cbc", integrity="hmac-md5"),
    Case("null", "enc null auth hmac-sha1", cipher="null"),
    Case("ah-sha512-transport", "auth hmac-sha2-512", cipher="", integrity="hmac-sha2-512", kind="ah", is_transport=True),
    Case("transport-v6", is_transport=True, is_v6=True),
    Case("natt-v6", is_v6=True, options=("-t",)),
    Case("ports", "enc aes-256 auth hmac-sha2-512", integrity="hmac-sha2-512", is_transport=True, flow=TCP_FLOW),
]


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[str, str]]:
    if not os.access(IKED, os.X_OK):
        pytest.skip("no iked here (Debian: openiked)")
    if why := why_not() or why_no_dropping() or namespaces.why_not():
        pytest.skip(why)
    with namespaces.pair("ki") as made:
        yield made


@dataclass
class Side:
    """One host: its engine, its iked."""

    engine: Engine
    process: "subprocess.Popen[bytes]"
    log: Path

    def sas(self) -> list[Association]:
        return [sa for sa in self.engine.stack.sadb if sa.state]

    def policies(self) -> int:
        return sum(1 for _ in self.engine.stack.spd.entries())


@contextmanager
def connection(case: Case, hosts: tuple[str, str], tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    """Both iked, with their SAs up."""
    with ExitStack() as stack:
        sides = []
        for number in (1, 0):
            home = tmp_path / "ab"[number]
            home.mkdir()
            conf, log = home / "iked.conf", home / "log"
            conf.write_text(case.conf(number))
            conf.chmod(0o600)
            engine = stack.enter_context(Engine(home, seed=number + 1))
            program = command(home, IKED, "-d", "-v", "-f", str(conf), "-s", str(home / "iked.sock"), *case.options)
            output = stack.enter_context(log.open("wb"))
            line = ["ip", "netns", "exec", hosts[number], *with_etc(program, home)]
            process = subprocess.Popen(line, stdout=output, stderr=output, cwd=home)
            stack.callback(end, process)
            sides.insert(0, Side(engine, process, log))
        a, b = sides
        establish(a.process, a.log)
        count = 3 if not case.flow else 2
        for side in sides:
            assert side.engine.wait(lambda side=side: side.policies() >= count and len(side.sas()) >= 2), side.log.read_text()
        yield a, b


def end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def agreed(side: Side) -> dict[tuple[Protocol, bytes, int], tuple[object, ...]]:
    """What matters of each SA to both sides, by what they know it by."""
    found: dict[tuple[Protocol, bytes, int], tuple[object, ...]] = {}
    for sa in side.sas():
        a: Agreement = sa.agreement
        index = a.index
        found[index.protocol, index.dst, a.spi] = (
            index.src, index.mode, a.encryption, a.encryption_key.reveal(), a.integrity, a.integrity_key.reveal(), a.compression,
        )  # fmt: skip
    return found


def packet(case: Case, sender: int) -> bytes:
    src, dst = parse(case.inner[sender]), parse(case.inner[1 - sender])
    if not case.flow:
        return datagram(src, dst, 400)
    ports = (1234).to_bytes(2, "big"), (5001).to_bytes(2, "big")
    segment = b"".join(ports if sender == 0 else ports[::-1]) + bytes(8) + b"\x50\x10\xff\xff" + bytes(4)
    return ipv6.write(ipv6.Header(src, dst, 6), segment) if case.is_v6 else ipv4.write(ipv4.Header(src, dst, 6), segment)


def send(case: Case, sides: tuple[Side, Side], sender: int) -> bytes:
    """One packet from a side's engine to the other's; what crossed the wire."""
    clear = packet(case, sender)
    sealed = sides[sender].engine.outbound(clear)
    assert isinstance(sealed, Forward), sealed
    (wire,) = sealed.packets
    assert clear[28:] not in wire or case.kind == "ah" or case.cipher == "null"
    opened = sides[1 - sender].engine.inbound(wire)
    assert isinstance(opened, Deliver), opened
    assert opened.packet == clear
    return wire


def check(case: Case, sides: tuple[Side, Side]) -> None:
    """The pairs agree in everything, are of the kind that was configured, and carry packets both ways."""
    mine, theirs = (agreed(side) for side in sides)
    assert mine == theirs
    expected = {"esp": {Protocol.ESP}, "ah": {Protocol.AH}, "ipcomp": {Protocol.ESP, Protocol.IPCOMP}}[case.kind]
    assert {protocol for protocol, _, _ in mine} == expected
    for sa in sides[0].sas():
        a = sa.agreement
        # With IPComp it is the compression that tunnels, and ESP protects that.
        is_outermost_tunnel = not case.is_transport and case.kind != "ipcomp"
        is_tunnel = a.index.protocol is Protocol.IPCOMP or is_outermost_tunnel
        assert a.index.mode == (Mode.TUNNEL if is_tunnel else Mode.TRANSPORT)
        if a.index.protocol is not Protocol.IPCOMP:
            assert (a.encryption.name if a.encryption else "", a.integrity.name if a.integrity else "") == (case.cipher, case.integrity)
            assert (a.encapsulation is not None) == case.is_encapsulated
    if case.kind == "ipcomp":
        for side in sides:
            side.engine.mend_ipcomp_policies()
    for sender in (0, 1):
        wire = send(case, sides, sender)
        protocol = wire[6] if case.is_v6 else wire[9]
        assert protocol == (17 if case.is_encapsulated else {"ah": 51}.get(case.kind, 50))


def run_case(case: Case, hosts: tuple[str, str], tmp_path: Path) -> None:
    with connection(case, hosts, tmp_path) as sides:
        check(case, sides)
        for side in sides:
            # iked's own sockets bypass, ports 500 and 4500; so they stand beside the SPD.
            bypassing = [number for number in side.engine.places if side.engine.stack.spd.socket_policy(number, Direction.INBOUND)]
            assert {side.engine.places[number].port for number in bypassing} <= {500, 4500}
            assert len(bypassing) >= 2
        a, b = sides
        for side in (a, b):
            end(side.process)
            assert side.process.returncode == 0, side.log.read_text()
        for side in (a, b):
            # DELETE on shutdown: nothing of it is left, and its sockets' policies went with it.
            assert (side.sas(), side.policies()) == ([], 0)
            assert side.engine.wait(lambda side=side: not side.engine.places)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_iked_connect_two_engines(case: Case, hosts: tuple[str, str], tmp_path: Path) -> None:
    run_case(case, hosts, tmp_path)


@slow
@pytest.mark.parametrize("case", MORE, ids=lambda case: case.name)
def test_two_iked_connect_two_engines_otherwise(case: Case, hosts: tuple[str, str], tmp_path: Path) -> None:
    run_case(case, hosts, tmp_path)


@pytest.mark.covers("M12")
def test_through_a_nat_both_have_sas_in_udp_with_the_translated_ports(tmp_path: Path) -> None:
    if why := why_not() or why_no_dropping() or nat.why_not():
        pytest.skip(why)
    if not os.access(IKED, os.X_OK):
        pytest.skip("no iked here (Debian: openiked)")
    case = Case("nat", options=(), ends=(("10.88.0.2", "192.0.2.2"), ("192.0.2.2", "any")))
    with nat.path("kn") as hosts, connection(case, hosts, tmp_path) as sides:
        inner, outer = ({sa.agreement.spi: sa.agreement for sa in side.sas()} for side in sides)
        assert set(inner) == set(outer)
        for spi, mine in inner.items():
            theirs = outer[spi]
            assert (mine.encryption_key, mine.integrity_key) == (theirs.encryption_key, theirs.integrity_key)
            assert mine.encapsulation is not None and theirs.encapsulation is not None
            is_outbound = mine.index.src == parse("10.88.0.2")
            assert (theirs.index.src if is_outbound else theirs.index.dst) == parse("192.0.2.1")
            assert (mine.encapsulation.sport if is_outbound else mine.encapsulation.dport) == 4500
            assert (theirs.encapsulation.dport if is_outbound else theirs.encapsulation.sport) == 4500
        clear = packet(case, 0)
        sealed = sides[0].engine.outbound(clear)
        assert isinstance(sealed, Forward)
        (wire,) = sealed.packets
        opened = sides[1].engine.inbound(translated(wire, outer, sides[1]))
        assert isinstance(opened, Deliver) and opened.packet == clear


def translated(wire: bytes, outer: dict[int, Agreement], side: Side) -> bytes:
    """An IPv4 packet as it leaves the NAT: the source as the outer host's SA has it."""
    header, body = ipv4.read(wire)
    assert header.protocol == 17
    inbound = next(one for one in outer.values() if one.index.dst == parse("192.0.2.2"))
    assert inbound.encapsulation is not None
    seen = ipv4.Header(inbound.index.src, header.dst, 17, identification=header.identification)
    return ipv4.write(seen, inbound.encapsulation.sport.to_bytes(2, "big") + body[2:])


def spis(side: Side) -> set[int]:
    return {sa.agreement.spi for sa in side.sas()}


def rekeyed(case: Case, sides: tuple[Side, Side], before: set[int]) -> None:
    """Both sides have a new pair and nothing of the old one, and traffic goes on."""
    for side in sides:
        assert side.engine.wait(lambda side=side: len(spis(side)) == 2 and not spis(side) & before), side.log.read_text()
    check(case, sides)


def test_a_soft_lifetime_in_seconds_makes_iked_rekey(hosts: tuple[str, str], tmp_path: Path) -> None:
    case = Case("rekey-time", extra="lifetime 3600 bytes 1G")
    with connection(case, hosts, tmp_path) as sides:
        check(case, sides)
        before = spis(sides[0])
        soft = {sa.agreement.soft.add_s or sa.agreement.soft.use_s for sa in sides[0].sas()}
        sides[0].engine.jump(max(soft) + 1)
        rekeyed(case, sides, before)


def test_a_soft_lifetime_in_octets_makes_iked_rekey(hosts: tuple[str, str], tmp_path: Path) -> None:
    case = Case("rekey-octets", extra=f"lifetime 3600 bytes {HARD_OCTETS}")
    with connection(case, hosts, tmp_path) as sides:
        before = spis(sides[0])
        sent = 0
        while sent < HARD_OCTETS * 0.97 and spis(sides[0]) == before:
            sent += len(send(case, sides, 0))
        rekeyed(case, sides, before)


@pytest.mark.covers("R19")
def test_an_acquire_makes_iked_negotiate(hosts: tuple[str, str], tmp_path: Path) -> None:
    """The SAs are gone, the policies stand: the first packet waits, ACQUIRE goes out, and the SAs that iked then makes carry it."""
    case = Case("acquire")
    with connection(case, hosts, tmp_path) as sides:
        engine, before = sides[0].engine, spis(sides[0])
        with engine.changed:
            engine.stack.sadb.flush()
        clear = packet(case, 0)
        assert isinstance(engine.outbound(clear), Held)
        assert engine.wait(lambda: bool(engine.released)), sides[0].log.read_text()
        (sealed,) = engine.released
        assert isinstance(sealed, Forward)
        peer = sides[1].engine
        opened = peer.inbound(sealed.packets[0])
        if isinstance(opened, Held):  # the other iked has not given its keys yet: the packet waits for them
            assert peer.wait(lambda: bool(peer.released)), sides[1].log.read_text()
            (opened,) = peer.released
        assert isinstance(opened, Deliver) and opened.packet == clear
        assert not spis(sides[0]) & before
