"""Next hops from the kernel's answers: routes, neighbours, links; which changes count, and how much is asked."""

import socket
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest

from koura.address import parse
from koura.host import rtnetlink
from koura.host.nexthops import LIFE_NS, PER_SECOND, UNKNOWN_NS, Hop, NextHops

US, PEER, GATEWAY = b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2", b"\x02\0\0\0\0\3"
NEAR, FAR, ELSEWHERE, LOCAL, SILENT = (parse(text) for text in ("192.0.2.2", "198.51.100.9", "203.0.113.1", "192.0.2.1", "192.0.2.7"))
ROUTER = parse("192.0.2.3")
NEAR6, FAR6, ROUTER6 = parse("2001:db8::2"), parse("2001:db8:9::9"), parse("fe80::3")
OWN_TABLE, SECOND_NS = 19311, 1_000_000_000
REACHABLE, FAILED = 0x02, 0x20


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes, number: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, number, 0) + body


def neighbour(address: bytes, station: bytes, state: int = REACHABLE, interface: int = 3) -> bytes:
    return struct.pack("=BxxxiHBB", socket.AF_INET, interface, state, 0, 0) + attribute(1, address) + attribute(2, station)


def route(kind: int = 1, interface: int = 3, gateway: bytes = b"", mtu: int = 0, table: int = 254) -> bytes:
    made = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 0, 0, table % 256, 0, 0, kind, 0) + attribute(4, struct.pack("=I", interface))
    made += attribute(15, struct.pack("=I", table))
    made += attribute(5, gateway) if gateway else b""
    return made + (attribute(8, attribute(2, struct.pack("=I", mtu))) if mtu else b"")


class Kernel:
    """Answers as the kernel would, of what it is told to know."""

    def __init__(self) -> None:
        self.routes = {
            NEAR: route(), FAR: route(gateway=ROUTER, mtu=1400), ELSEWHERE: route(interface=4), LOCAL: route(kind=2, interface=1),
            SILENT: route(), NEAR6: route(), FAR6: route(gateway=ROUTER6),
        }  # fmt: skip
        self.stations = {NEAR: neighbour(NEAR, PEER), ROUTER: neighbour(ROUTER, GATEWAY), SILENT: neighbour(SILENT, PEER, FAILED)}
        self.stations |= {NEAR6: neighbour(NEAR6, PEER), ROUTER6: neighbour(ROUTER6, GATEWAY)}
        self.kind, self.flags, self.mtu = 1, 1, 1500
        self.marks: list[int] = []
        self._answers: list[bytes] = []

    def settimeout(self, _seconds: float) -> None:
        """It answers at once."""

    def send(self, octets: bytes) -> None:
        ((kind, number, body),) = rtnetlink.messages(octets)
        if kind == rtnetlink.RTM_GETROUTE:
            named = dict(rtnetlink.attributes(body[12:]))
            self.marks.append(struct.unpack("=I", named[rtnetlink.RTA_MARK])[0])
            answer, found = rtnetlink.RTM_NEWROUTE, self.routes.get(named[rtnetlink.RTA_DST])
        elif kind == rtnetlink.RTM_GETNEIGH:
            assert struct.unpack_from("=Bxxxi", body)[1] == 3
            answer, found = rtnetlink.RTM_NEWNEIGH, self.stations.get(dict(rtnetlink.attributes(body[12:]))[1])
        else:
            answer = rtnetlink.RTM_NEWLINK
            found = struct.pack("=BxHiII", 0, self.kind, 3, self.flags, 0) + attribute(1, US) + attribute(4, struct.pack("=I", self.mtu))
        other = message(answer, bytes(40), number - 1)  # of a question before this one
        self._answers += [other, message(answer, found, number) if found else message(2, struct.pack("=i", -3), number)]

    def recv(self, _octets: int) -> bytes:
        return self._answers.pop(0)


@pytest.fixture
def made() -> Iterator[tuple[NextHops, Kernel, socket.socket]]:
    kernel = Kernel()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        yield NextHops(cast(Any, kernel), near, {3: 5}, 0x4B6F, OWN_TABLE), kernel, far


Made = tuple[NextHops, Kernel, socket.socket]


def test_a_neighbour_and_what_is_behind_a_gateway(made: Made) -> None:
    hops, kernel, _ = made
    assert hops.find(NEAR, 0) == Hop(LIFE_NS, 5, PEER + US + b"\x08\x00", 1500)
    assert hops.find(FAR, 0) == Hop(LIFE_NS, 5, GATEWAY + US + b"\x08\x00", 1400)
    assert hops.find(NEAR6, 0) == Hop(LIFE_NS, 5, PEER + US + b"\x86\xdd", 1500)
    assert hops.find(FAR6, 0) == Hop(LIFE_NS, 5, GATEWAY + US + b"\x86\xdd", 1500)
    assert hops.find(ROUTER6, 0) == Hop(LIFE_NS), "of which link?"
    assert set(kernel.marks) == {0x4B6F}


def test_what_the_kernel_must_send_itself(made: Made) -> None:
    """Another interface, an address of the host's own, nowhere, a gateway of the other family; nobody knows the station; no Ethernet."""
    hops, kernel, _ = made
    for dst in (ELSEWHERE, LOCAL, parse("192.0.2.99")):
        assert hops.find(dst, 0) == Hop(LIFE_NS)
    kernel.routes[NEAR] += attribute(18, struct.pack("=H", 10) + bytes(16))
    assert hops.find(NEAR, 0) == Hop(LIFE_NS)
    assert hops.find(SILENT, 0) == Hop(UNKNOWN_NS)
    del kernel.stations[ROUTER]
    assert hops.find(FAR, 0) == Hop(UNKNOWN_NS)


@pytest.mark.parametrize(("kind", "flags"), [(65534, 1), (1, 0)], ids=["no Ethernet", "down"])
def test_a_link_that_has_no_stations(made: Made, kind: int, flags: int) -> None:
    hops, kernel, _ = made
    kernel.kind, kernel.flags = kind, flags
    assert hops.find(NEAR, 0) == Hop(LIFE_NS)


def test_only_so_much_is_asked_in_a_second(made: Made) -> None:
    hops, kernel, _ = made
    for _ in range(PER_SECOND):
        assert hops.find(NEAR, 7).most == 1500
    assert hops.find(NEAR, 7) == Hop(SECOND_NS)
    assert len(kernel.marks) == PER_SECOND
    assert hops.find(NEAR, 7 + SECOND_NS).most == 1500


def test_changes_that_matter_and_those_that_do_not(made: Made) -> None:
    hops, _, changes = made

    def matters(*said: bytes) -> bool:
        changes.send(b"".join(said))
        return hops.drain()

    assert not hops.drain()
    assert not matters(message(28, neighbour(NEAR, GATEWAY))), "nobody's way leads there"
    hops.find(NEAR, 0)
    assert not matters(message(28, neighbour(NEAR, PEER, 0x04))), "it is where it was, only not heard for a while"
    assert not matters(message(28, neighbour(NEAR, GATEWAY, interface=9)))
    assert not matters(message(24, route(table=OWN_TABLE)), message(25, route(table=OWN_TABLE)))
    assert not matters(message(28, b"short"), message(28, neighbour(NEAR, PEER)[:12]))
    for said in (
        message(28, neighbour(NEAR, GATEWAY)), message(28, neighbour(NEAR, PEER, FAILED)), message(29, neighbour(NEAR, PEER)),
        message(24, route()), message(16, bytes(16)), message(20, bytes(8)), message(32, bytes(12)),
    ):  # fmt: skip
        hops.find(NEAR, 0)
        assert matters(message(24, route(table=OWN_TABLE)), said)
        assert not hops.drain()


def test_a_station_that_nobody_knew_is_news(made: Made) -> None:
    hops, _, changes = made
    hops.find(SILENT, 0)
    changes.send(message(28, neighbour(SILENT, b"", FAILED)))
    assert not hops.drain()
    changes.send(message(28, neighbour(SILENT, PEER)))
    assert hops.drain()


def test_a_kernel_that_cannot_be_asked_sends_itself(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    hops, kernel, _ = made

    def fail(_octets: bytes) -> None:
        raise TimeoutError

    monkeypatch.setattr(kernel, "send", fail)
    assert hops.find(NEAR, 0) == Hop(SECOND_NS)


def test_a_real_kernel_knows_that_its_own_address_is_no_neighbour() -> None:
    with rtnetlink.listener(0) as ask, rtnetlink.listener(0) as changes:
        assert NextHops(ask, changes, {1: 0}, 0, OWN_TABLE).find(parse("127.0.0.1"), 0) == Hop(LIFE_NS)
