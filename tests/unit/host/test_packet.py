"""Which packets the engine takes from the wire itself: exactly those that no raw socket gives."""

import socket

import pytest

from koura.host import packet, raw
from koura.wire import icmp, ipv4, ipv6

OURS, THEIRS = bytes(15) + b"\1", bytes(15) + b"\2"
ESP, AH, IPCOMP, UDP = 50, 51, 108, 17
HOP_BY_HOP, FRAGMENT, DESTINATION = 0, 44, 60


def _ipv6(*headers: int, cut: tuple[int, bool] = (0, False)) -> bytes:
    """Headers by number in front of 16 octets; the last number is the protocol."""
    payload = bytes(16)
    following = headers[-1]
    for kind in reversed(headers[:-1]):
        if kind == FRAGMENT:
            payload = ipv6.Fragment(following, *cut, 7).write() + payload
        else:
            payload = bytes((following, 0, 1, 4)) + bytes(4) + payload
        following = kind
    return ipv6.write(ipv6.Header(THEIRS, OURS, following), payload)


@pytest.mark.parametrize(
    ("octets", "is_taken"),
    [
        (_ipv6(AH), True),
        (_ipv6(ESP), False),
        (_ipv6(IPCOMP), False),
        (_ipv6(UDP), False),
        (_ipv6(HOP_BY_HOP, ESP), True),
        (_ipv6(DESTINATION, IPCOMP), True),
        (_ipv6(DESTINATION, UDP), False),
        (_ipv6(FRAGMENT, ESP), True),  # whole all the same, RFC 6946
        (_ipv6(FRAGMENT, ESP, cut=(0, True)), False),
        (_ipv6(FRAGMENT, ESP, cut=(1400, False)), False),
        (_ipv6(FRAGMENT, AH, cut=(0, True)), True),
        (_ipv6(FRAGMENT, AH, cut=(1400, False)), True),
        (_ipv6(HOP_BY_HOP, FRAGMENT, ESP, cut=(1400, False)), True),
        (_ipv6(FRAGMENT, DESTINATION, ESP, cut=(0, True)), True),
        (_ipv6(AH)[:39], False),
        (b"", False),
    ],
)
def test_what_raw_sockets_give_is_not_taken_twice(octets: bytes, is_taken: bool) -> None:
    assert packet._is_ours(octets) is is_taken


def _run(program: tuple[tuple[int, int, int, int], ...], octets: bytes) -> bool:
    """A classic BPF machine, as far as our programs need one; packets were received, not sent. Whether the packet passes."""
    a = x = place = 0
    while True:
        code, then, otherwise, k = program[place]
        place += 1
        if code == packet._RET:
            return k > 0
        if code == packet._LDB:
            a = 0 if k == packet._PACKET_TYPE else octets[k - packet._NETWORK if k >= packet._NETWORK else k]
        elif code == packet._LDH:
            a = int.from_bytes(octets[k : k + 2], "big")
        elif code == packet._LDB_X:
            a = octets[x + k]
        elif code == packet._LDXB_MSH:
            x = 4 * (octets[k] & 0xF)
        elif code == packet._JEQ:
            place += then if a == k else otherwise
        else:
            assert code == packet._JSET
            place += then if a & k else otherwise


def _error(kind: int, code: int) -> bytes:
    quoted = ipv4.write(ipv4.Header(bytes(4), bytes(4), ESP, 64, options=bytes(4)), bytes(40))
    return icmp.error(b"\x0a\0\0\1", kind, code, 1400, quoted)


def test_the_kernels_filter_lets_pass_what_may_be_ours() -> None:
    v6 = packet._program(socket.AF_INET6)
    for octets in (_ipv6(AH), _ipv6(HOP_BY_HOP, ESP), _ipv6(FRAGMENT, ESP), _ipv6(DESTINATION, IPCOMP)):
        assert _run(v6, octets)
    for octets in (_ipv6(ESP), _ipv6(UDP), _ipv6(6)):
        assert not _run(v6, octets)
    too_big = ipv6.write(ipv6.Header(THEIRS, OURS, 58), b"\2" + bytes(20))
    assert _run(v6, too_big)
    assert packet._is_ours(too_big)
    assert not _run(v6, ipv6.write(ipv6.Header(THEIRS, OURS, 58), b"\x80" + bytes(20)))
    v4 = packet._program(socket.AF_INET)
    assert _run(v4, _error(3, 4))
    assert not _run(v4, _error(3, 1))
    assert not _run(v4, _error(11, 0))
    assert not _run(v4, ipv4.write(ipv4.Header(bytes(4), bytes(4), UDP, 64), bytes(40)))


@pytest.mark.parametrize("protocol", [raw.IPPROTO_ESP, raw.IPPROTO_IPCOMP, raw.IPPROTO_AH])
def test_raw_sockets_give_what_stands_right_behind_the_fixed_header(protocol: int) -> None:
    program = packet.straight(protocol)
    assert _run(program, _ipv6(protocol)) is (protocol != AH)
    assert not _run(program, _ipv6(HOP_BY_HOP, protocol))
