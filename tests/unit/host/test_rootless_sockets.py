"""Sockets of rootless mode: any free port, shown to the stack as the one that SAs name."""

import errno
import select
import socket

import pytest

from koura.daemon import ends
from koura.daemon.ends import End, Kind
from koura.host.udp import Udp, whole
from koura.wire import ipv4, udp

HERE = bytes((127, 0, 0, 1))


def _attached(opened: tuple[End, ...]) -> Udp:
    ends.close(opened[1:])
    return Udp(opened[0].name, socket.socket(fileno=opened[0].descriptor), opened[0].number)


def test_a_free_port_is_shown_as_the_one_of_the_sas() -> None:
    one = _attached(tuple(end for end in ends.open_rootless(0, 4500)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        one.send([whole(HERE, 4500, HERE, peer.getsockname()[1], 0, b"out")])
        octets, place = peer.recvfrom(100)
        assert octets == b"out"
        assert place[1] != 4500
        peer.sendto(b"in", place)
        select.select([one.fileno()], [], [], 5)
        (packet,) = one.receive()
    header, payload = udp.read(ipv4.read(packet)[1])
    assert (header.dport, payload) == (4500, b"in")
    one.close()


def test_a_port_that_is_taken_is_refused_with_nothing_left_open() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 0))
        with pytest.raises(OSError) as caught:
            ends.open_rootless(other.getsockname()[1], 4500)
        assert caught.value.errno == errno.EADDRINUSE


def test_kinds_have_a_family_each() -> None:
    opened = ends.open_rootless(0, 4500)
    assert {end.kind for end in opened} == {Kind.UDP}
    ends.close(opened)
