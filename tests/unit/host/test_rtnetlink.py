"""The octets of requests for routes, what the kernel says of changes, and answers that are none."""

import errno
import socket
import struct
from typing import cast

import pytest

from koura.address import Prefix, parse
from koura.host import rtnetlink
from koura.host.rtnetlink import Rtnetlink

TABLE = 19311


def test_a_route_in_octets() -> None:
    made = rtnetlink.replace(Prefix(parse("10.1.0.0"), 16), TABLE, interface=3, source=parse("192.0.2.1"))
    length, kind, flags, _, _ = struct.unpack_from("=IHHII", made)
    assert (length, kind, flags) == (len(made), 24, 0x1 | 0x4 | 0x100 | 0x400)
    assert made[16:28] == bytes((socket.AF_INET, 16, 0, 0, 0, 4, 253, 1, 0, 0, 0, 0))
    named = dict(rtnetlink.attributes(made[28:]))
    assert named == {
        rtnetlink.RTA_TABLE: struct.pack("=I", TABLE), rtnetlink.RTA_DST: parse("10.1.0.0"), rtnetlink.RTA_OIF: struct.pack("=I", 3),
        rtnetlink.RTA_PREFSRC: parse("192.0.2.1"),
    }  # fmt: skip


def test_a_blackhole_has_its_metric_and_no_interface() -> None:
    made = rtnetlink.replace(Prefix(bytes(16), 0), TABLE, blackhole_metric=4096)
    assert made[16:24] == bytes((socket.AF_INET6, 0, 0, 0, 0, 4, 0, 6))
    assert set(dict(rtnetlink.attributes(made[28:]))) == {rtnetlink.RTA_TABLE, rtnetlink.RTA_PRIORITY}
    gone = rtnetlink.delete(Prefix(bytes(16), 0), TABLE, blackhole_metric=4096)
    assert struct.unpack_from("=HH", gone, 4) == (25, 0x5)


def test_a_route_says_its_table_and_octets_that_are_none_say_nothing() -> None:
    made = rtnetlink.replace(Prefix(parse("10.1.0.0"), 16), TABLE, interface=3)
    assert rtnetlink.table_of(made[16:]) == TABLE
    assert rtnetlink.table_of(made[16:28]) == 0
    assert rtnetlink.table_of(bytes((2, 0, 0, 0, 254)) + bytes(7)) == 254
    for cut in range(12):
        assert rtnetlink.table_of(made[16 : 16 + cut]) == 0
    for length in (0, 3, 200):
        assert list(rtnetlink.attributes(struct.pack("=HH", length, 1) + bytes(8))) == []
    assert list(rtnetlink.messages(made + made[:20])) == [(24, 0, made[16:])]


def test_the_kernel_says_which_of_many_requests_it_refused() -> None:
    """Nothing is changed: without the right nothing can be, and no interface has this number."""
    asking = Rtnetlink()
    try:
        wrong = rtnetlink.replace(Prefix(parse("198.51.100.7"), 32), TABLE, interface=0x7FFFFFF0)
        codes = asking.do([wrong] * 150)
        assert len(codes) == 150
        assert set(codes) <= {errno.ENODEV, errno.EPERM}
        assert asking.do([]) == []
        found = asking.find(parse("127.0.0.1"), 0)
        assert found is not None
        assert found.interface > 0
    finally:
        asking.close()


class Listener:
    """Says what it is to say, and then that there is nothing."""

    def __init__(self, *said: bytes | int) -> None:
        self._said = list(said)

    def recv(self, _octets: int) -> bytes:
        one = self._said.pop(0) if self._said else errno.EAGAIN
        if isinstance(one, int):
            raise OSError(one, "said nothing")
        return one


def test_what_was_told_by_now_and_that_there_was_more() -> None:
    made = rtnetlink.replace(Prefix(parse("10.1.0.0"), 16), TABLE, interface=3)
    heard = cast(socket.socket, Listener(made + made, errno.ENOBUFS, made))
    body = made[16:]
    assert list(rtnetlink.told(heard)) == [(24, body), (24, body), (rtnetlink.TOO_MUCH, b""), (24, body)]
    assert list(rtnetlink.told(heard)) == []
    with pytest.raises(OSError, match="said nothing"):
        list(rtnetlink.told(cast(socket.socket, Listener(errno.EBADF))))
