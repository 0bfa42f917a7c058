"""TCP-MD5 through the doors: segments of a pair with a key are signed and checked. RFC 2385; M25.

The judges are a Linux kernel's own segments, and Scapy's digest.
"""

import json
import struct
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, calc_tcp_md5_hash
from scapy.layers.inet6 import IPv6

from koura.reasons import TCPMD5_BAD, TCPMD5_FRAGMENT, TCPMD5_MISSING, TCPMD5_OPTIONS, TCPMD5_ROOM, Ending
from koura.sadb import hot
from koura.traffic.outcome import Bypass, Discard, Origin
from koura.wire import checksum, ipv4, ipv6, tcp
from koura.wire.summary import summarise
from tests.unit.stack.kit import Host
from tests.unit.traffic.kit import A6, B6, A, B

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "tcpmd5" / "linux.json").read_text())
KEY = bytes.fromhex(VECTORS["key"])
PACKETS = [bytes.fromhex(text) for text in VECTORS["packets"]]
PAIRS = "".join(
    f'add {src} {dst} tcp 0x1000 -A tcp-md5 0x{KEY.hex()};'
    for src, dst in (("192.0.2.1", "192.0.2.2"), ("2001:db8::a", "2001:db8::b"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1"))
)


def segment(options: bytes = b"", data: bytes = b"payload", *, family: int = 4) -> bytes:
    src, dst = (A, B) if family == 4 else (A6, B6)
    octets = 20 + len(options)
    body = struct.pack("!HHIIBBHHH", 179, 30000, 7, 9, octets << 2, tcp.ACK, 1000, 0, 0) + options + data
    body = body[:16] + struct.pack("!H", checksum.upper(src, dst, 6, body)) + body[18:]
    if family == 4:
        return ipv4.write(ipv4.Header(src, dst, 6, identification=5), body)
    return ipv6.write(ipv6.Header(src, dst, 6), body)


def sent(host: Host, packet: bytes) -> bytes:
    outcome = host.send(packet)
    assert isinstance(outcome, Bypass), outcome
    return outcome.packets[0]


def tcp_of(packet: bytes) -> bytes:
    return packet[summarise(packet).offset :]


def without_signature(packet: bytes) -> bytes:
    """A kernel's segment before it was signed: its option and the two no-operations taken out, checksums right."""
    body = tcp_of(packet)
    rest = body[40:] if body[20:24] == b"\x01\x01\x13\x12" else None
    assert rest is not None
    octets = (body[12] >> 4) * 4 - 20
    body = body[:12] + bytes((octets << 2,)) + body[13:16] + b"\0\0" + body[18:20] + rest
    if packet[0] >> 4 == 4:
        header, _ = ipv4.read(packet)
        return ipv4.write(header, body[:16] + struct.pack("!H", checksum.upper(header.src, header.dst, 6, body)) + body[18:])
    header6, _ = ipv6.read(packet)
    return ipv6.write(header6, body[:16] + struct.pack("!H", checksum.upper(header6.src, header6.dst, 6, body)) + body[18:])


@pytest.mark.covers("M25")
@pytest.mark.parametrize("packet", PACKETS, ids=lambda p: f"v{p[0] >> 4}-{len(p)}")
def test_a_linux_kernels_segments(packet: bytes) -> None:
    host = Host(PAIRS)
    got = host.delivered(packet)
    assert tcp_of(got)[40:] == tcp_of(packet)[40:]
    assert tcp_of(got)[22:40] == b"\x01" * 18
    summary = summarise(got)
    assert checksum.upper(summary.src, summary.dst, 6, tcp_of(got)) == 0
    ours = sent(host, without_signature(packet))
    assert tcp_of(ours)[20:] == tcp_of(packet)[20:], "the same option in the same place, the same digest"
    assert ours[: summary.offset] == packet[: summary.offset]


@pytest.mark.covers("M25")
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("options", [b"", b"\x02\x04\x05\xb4", b"\x02\x04\x05\xb4\x04\x02\x08\x0a" + bytes(8) + b"\x01\x03\x03\x0a"])
def test_what_is_signed_is_what_scapy_says_and_opens_again(family: int, options: bytes) -> None:
    packet = segment(options, family=family)
    signed = sent(Host(PAIRS), packet)
    body = tcp_of(signed)
    layer = (IP if family == 4 else IPv6)(signed)
    if family == 4:  # Scapy's digest is of IPv4 only
        assert body[24:40] == calc_tcp_md5_hash(layer[TCP], KEY)
    summary = summarise(signed)
    assert summary.octets == len(signed)
    assert checksum.upper(summary.src, summary.dst, 6, body) == 0
    assert body[40 : 40 + len(options)] == options
    assert layer[TCP].dataofs == 5 + 5 + len(options) // 4
    got = Host(PAIRS).delivered(signed)
    assert tcp_of(got)[-7:] == b"payload"
    assert len(got) == len(signed)


def test_room_that_was_left_is_used_and_signing_twice_changes_nothing() -> None:
    host = Host(PAIRS)
    once = sent(host, segment(b"\x13\x12" + bytes(16) + b"\x01\x01"))
    assert len(once) == len(segment()) + 20
    assert sent(host, once) == once
    (sa,) = [sa for sa in host.stack.sadb if sa.agreement.index.src == A]
    assert sa.hot.words[hot.PACKETS] == 2


def test_other_pairs_protocols_and_forwarded_segments_are_left_alone() -> None:
    host = Host(PAIRS)
    for packet in (
        ipv4.write(ipv4.Header(B, A, 6, identification=5), tcp_of(segment())), ipv4.write(ipv4.Header(A, B, 17), tcp_of(segment())),
    ):  # fmt: skip
        assert sent(host, packet) == packet
        assert host.delivered(packet) == packet
    forwarded = host.send(segment(), Origin(is_forwarded=True))
    assert isinstance(forwarded, Bypass)
    assert forwarded.packets == (segment(),)
    assert not [sa for sa in host.stack.sadb if sa.failures]


def _forged(at: int) -> bytes:
    octets = bytearray(sent(Host(PAIRS), segment()))
    octets[at] ^= 1
    return bytes(octets)


def _cut(octets: int) -> bytes:
    """A segment that ends within its header."""
    header, payload = ipv4.read(segment())
    return ipv4.write(header, payload[:octets])


@pytest.mark.reason("tcpmd5.missing", "tcpmd5.bad", "tcpmd5.options")
@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (segment(), TCPMD5_MISSING),
        (_forged(-1), TCPMD5_BAD),
        (_forged(21), TCPMD5_BAD),
        (_forged(50), TCPMD5_BAD),
        (segment(b"\x13\x12" + bytes(16) + b"\x01\x01"), TCPMD5_BAD),
        (segment(b"\x13\x11" + bytes(18)), TCPMD5_OPTIONS),
        (segment(b"\x02\x00\x00\x00"), TCPMD5_OPTIONS),
        (segment((b"\x13\x12" + bytes(16)) * 2 + b"\x01" * 4), TCPMD5_OPTIONS),
        (_cut(15), TCPMD5_OPTIONS),
    ],
)
def test_what_is_refused_on_the_way_in(packet: bytes, reason: Ending) -> None:
    host = Host(PAIRS)
    assert host.receive(packet) == Discard(reason)
    assert host.count(reason) == 1
    (sa,) = [sa for sa in host.stack.sadb if sa.failures]
    assert sa.failures == {reason.name: 1}


@pytest.mark.reason("tcpmd5.room", "tcpmd5.fragment")
def test_what_cannot_be_signed_does_not_leave() -> None:
    host = Host(PAIRS)
    assert host.send(segment(b"\x01" * 24)) == Discard(TCPMD5_ROOM)
    assert host.count(TCPMD5_ROOM) == 1
    header, payload = ipv4.read(segment(data=bytes(64)))
    first = ipv4.write(ipv4.Header(header.src, header.dst, 6, identification=9, is_mf=True), payload[:40])
    assert host.send(first) == Discard(TCPMD5_FRAGMENT)
    assert host.count(TCPMD5_FRAGMENT) == 1


def test_policy_comes_after_signing_and_before_checking() -> None:
    rules = "spdadd 192.0.2.1 192.0.2.2 tcp -P {} ipsec esp/transport//require;"
    key = f'add 192.0.2.1 192.0.2.2 esp 0x1000 -m transport -E null "" -A hmac-sha2-256 0x{bytes(32).hex()};'
    sender, receiver = Host(PAIRS + rules.format("out") + key), Host(PAIRS + rules.format("in") + key)
    sealed = sender.forwarded(segment())
    assert b"\x01\x01\x13\x12" in sealed, "what is protected is signed"
    assert tcp_of(receiver.delivered(sealed))[-7:] == b"payload"


def test_without_keys_nobody_looks() -> None:
    host = Host(PAIRS)
    host.setkey("flush tcp;")
    assert host.stack.sadb.tcp_keys == 0
    assert sent(host, segment()) == segment()
    assert host.delivered(segment()) == segment()
