"""What the kernel's answers about sockets say, and what octets that are none say: nothing."""

import socket
import struct

import pytest

from koura.host import sockdiag
from koura.host.sockdiag import Diag, Listed, Place

LOCAL, REMOTE = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))


def described(family: int, src: bytes, sport: int, dst: bytes, dport: int, cookie: int = 7, inode: int = 9) -> bytes:
    """An inet_diag_msg."""
    ports = struct.pack("!HH", sport, dport)
    ends = src.ljust(16, b"\0") + dst.ljust(16, b"\0")
    return struct.pack("=4B", family, 7, 0, 0) + ports + ends + struct.pack("=IQ5I", 0, cookie, 0, 0, 0, 1000, inode)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (described(2, LOCAL, 500, bytes(4), 0), Place(LOCAL, 500)),
        (described(2, bytes(4), 500, bytes(4), 0), Place(b"", 500)),
        (described(2, LOCAL, 500, REMOTE, 4500), Place(LOCAL, 500, REMOTE, 4500)),
        (described(2, LOCAL, 500, REMOTE, 0), Place(LOCAL, 500)),  # what a disconnected UDP socket leaves behind
        (described(10, bytes(16), 500, bytes(16), 0), Place(b"", 500)),
        (described(10, bytes(10) + b"\xff\xff" + LOCAL, 1, bytes(10) + b"\xff\xff" + REMOTE, 2), Place(LOCAL, 1, REMOTE, 2)),
    ],
    ids=["bound", "any", "connected", "disconnected", "any6", "mapped"],
)  # fmt: skip
def test_a_socket_is_where_its_ids_say(octets: bytes, expected: Place) -> None:
    assert sockdiag._listed(octets) == Listed(7, expected, 9)


def test_messages_end_where_their_lengths_lie() -> None:
    one = sockdiag._HEADER.pack(20, 20, 0, 5, 0) + b"body"
    two = sockdiag._HEADER.pack(18, 3, 0, 6, 0) + b"xy\0\0"
    assert list(sockdiag._messages(one + two)) == [(20, b"body"), (3, b"xy")]
    assert list(sockdiag._messages(one + two, 6)) == [(3, b"xy")]
    for length in (0, 15, 21, 1 << 31):
        assert list(sockdiag._messages(struct.pack("=I", length) + one[4:])) == []
    for cut in range(len(one)):
        assert list(sockdiag._messages(one[:cut])) == []


def test_the_kernel_lists_our_own_socket_and_tells_of_its_end() -> None:
    try:
        diag = Diag()
    except OSError as error:
        pytest.skip(f"no sock_diag here: {error}")
    try:
        assert diag.watch(socket.AF_INET, socket.IPPROTO_UDP)
        assert not diag.watch(socket.AF_INET, 253)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.bind(("127.0.0.1", 0))
            cookie, port = sockdiag.cookie_of(end), end.getsockname()[1]
            place = Place(bytes((127, 0, 0, 1)), port)
            assert [one.place for one in diag.sockets(socket.AF_INET, socket.IPPROTO_UDP, port) if one.cookie == cookie] == [place]
            assert cookie in {one.cookie for one in diag.sockets(socket.AF_INET, socket.IPPROTO_UDP)}
        diag.events.setblocking(True)
        diag.events.settimeout(10)
        gone: set[int] = set()
        while cookie not in gone:
            gone |= {sockdiag._listed(body).cookie for _, body in sockdiag._messages(diag.events.recv(65536))}
    finally:
        diag.close()
