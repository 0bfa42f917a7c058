"""The size of super packets that become one train, and who forwards."""

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from koura.fast import drivers
from koura.host import rtnetlink, supers
from koura.host.supers import TRAIN_OCTETS, USUAL_OCTETS, Supers, octets_for
from tests.unit.host.test_nexthops import attribute, message

TUN, ETH, ETH2 = 7, 3, 4


@pytest.mark.parametrize("mtu", [1280, 1400, 1428, 1500, 4000, 9000])
@pytest.mark.parametrize("header", [40, 52, 60, 72], ids=["IPv4", "IPv4, timestamps", "IPv6", "IPv6, timestamps"])
def test_all_segments_of_a_super_packet_fit_one_train(mtu: int, header: int) -> None:
    """As many as TCP takes (include/linux/tcp.h: of the size, but for 1 + MAX_TCP_HEADER), sealed with the longest headers."""
    segments = (octets_for(mtu) - 1 - 320) // (mtu - header)
    assert segments * (mtu + 78) <= TRAIN_OCTETS
    assert (segments + 2) * (mtu + 78) > TRAIN_OCTETS, "and hardly fewer than would"


@pytest.mark.parametrize("mtu", [68, 576, 900, 65535, 65000])
def test_where_a_train_is_full_by_number_or_has_no_room_all_stays_as_it_is(mtu: int) -> None:
    assert octets_for(mtu) == USUAL_OCTETS


@pytest.mark.skipif(bool(drivers.why_not()), reason=f"no fast path here: {drivers.why_not()}")
def test_a_train_has_room_for_what_is_said_here() -> None:
    io = pytest.importorskip("koura.fast._io")
    packet = b"\x45" + bytes(8) + b"\x11" + bytes(10 + 8 + 1400)
    assert io.trains([packet] * 70)[0] == TRAIN_OCTETS // len(packet)


class Kernel:
    """What Rtnetlink is asked."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.known: list[bytes] = []
        self.dumps = 0

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        assert (kind, body) == (82, bytes(4))
        self.dumps += 1
        return self.known

    def do(self, requests: list[bytes]) -> list[int]:
        for request in requests:
            ((kind, _, body),) = rtnetlink.messages(request)
            assert kind == rtnetlink.RTM_NEWLINK
            (name, value), = rtnetlink.attributes(body[16:])
            assert name == 41
            self.sizes[struct.unpack_from("=BxHi", body)[2]] = struct.unpack("=I", value)[0]
        return [0] * len(requests)

    def close(self) -> None:
        """It is not."""


def conf(index: int, forwards: bool | None, family: int = socket.AF_INET) -> bytes:
    made = struct.pack("=Bxxx", family) + attribute(1, struct.pack("=i", index))
    return made + (attribute(2, struct.pack("=i", forwards)) if forwards is not None else b"")


Made = tuple[Supers, Kernel, socket.socket]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    kernel = Kernel()

    def listener(groups: int) -> Any:
        assert groups == 1 << 23 | 1 << 24
        return near

    monkeypatch.setattr(rtnetlink, "listener", listener)
    monkeypatch.setattr(supers, "Rtnetlink", lambda: kernel)
    with near, far:
        yield Supers(), kernel, far


def test_a_host_that_forwards_nothing_and_one_that_begins_to(made: Made) -> None:
    found, kernel, told = made
    found.add(TUN, 1400)
    assert kernel.sizes == {TUN: octets_for(1400)}
    for said, size in (
        ([conf(-1, True), conf(-2, True)], octets_for(1400)), ([conf(ETH, True)], USUAL_OCTETS),
        ([conf(ETH2, True, socket.AF_INET6)], USUAL_OCTETS),
        ([conf(ETH, False), conf(ETH2, None)], USUAL_OCTETS), ([conf(ETH2, False, socket.AF_INET6)], octets_for(1400)),
        ([conf(TUN, True)], octets_for(1400)), ([conf(ETH, True), conf(ETH, False)], octets_for(1400)),
    ):  # fmt: skip
        for one in said:
            told.send(message(80, one))
        found.drain()
        assert kernel.sizes == {TUN: size}, said
    told.send(message(80, conf(ETH, True)) + message(80, b"")[:17])
    found.drain()
    found.add(9, 9000)
    assert kernel.sizes == {TUN: USUAL_OCTETS}, "a new TUN has the kernel's size"
    told.send(message(81, conf(ETH, None)))
    found.drain()
    assert kernel.sizes == {TUN: octets_for(1400), 9: octets_for(9000)}
    found.drop(9)
    kernel.sizes.clear()
    told.send(message(80, conf(ETH, True)))
    found.drain()
    assert kernel.sizes == {TUN: USUAL_OCTETS}


def test_one_that_forwards_already_is_left_alone(made: Made) -> None:
    _, kernel, _ = made
    kernel.known = [conf(-1, True), conf(ETH, True)]
    found = Supers()
    assert found.is_forwarding
    found.add(TUN, 1400)
    assert kernel.sizes == {}


def test_the_flag_of_our_own_interface_says_nothing(made: Made) -> None:
    _, kernel, _ = made
    kernel.known = [conf(TUN, True), conf(TUN, True, socket.AF_INET6)]
    found = Supers()
    found.add(TUN, 1400)
    assert kernel.sizes == {TUN: octets_for(1400)}


def test_a_real_kernel_says_who_forwards() -> None:
    asking = rtnetlink.Rtnetlink()
    try:
        parts = asking.dump(82, bytes(4))
        assert {part[0] for part in parts} >= {socket.AF_INET}
        assert all(1 in dict(rtnetlink.attributes(part[4:])) for part in parts)
        assert asking.dump(9999, bytes(4)) == []
    finally:
        asking.close()
