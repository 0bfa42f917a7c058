"""ESP in UDP, TFC padding and dummy packets through the doors. RFC 3948; RFC 4303 §2.6, §2.7; M12, M13, S26, S41."""

import pytest

from koura.errors import Errno, Refused
from koura.notices import EncapsulationPort, KeySocketOpened, PeerMoved, SendDummy
from koura.pfkey.dialect import LINUX
from koura.pfkey.message import Message
from koura.pfkey.numbers import SaType, Type
from koura.reasons import (
    ESP_DUMMY,
    ESP_NO_SA,
    ESP_PORT,
    ESP_REPLAY,
    NATT_CHECKSUM,
    NATT_KEEPALIVE,
    NATT_SHORT,
    NATT_UDP,
    NATT_UDP_CHECKSUM,
    PUNTED_IKE,
)
from koura.traffic.outcome import Deliver, Emit, Punt
from koura.wire import checksum, ipv4, ipv6, udp
from tests.unit.stack.kit import GCM, Host, discards
from tests.unit.traffic.kit import A6, B6, INNER_A, INNER_B, A, B, datagram

NAT = b"\xc6\x33\x64\x07"  # the address that the NAT puts in the place of A
OUT = "spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require;"


def natted(packet: bytes, src: bytes = NAT, sport: int = 40000) -> bytes:
    """The packet as the NAT sends it on."""
    header, payload = ipv4.read(packet)
    return ipv4.write(ipv4.Header(src, header.dst, header.protocol), sport.to_bytes(2, "big") + payload[2:])


@pytest.mark.covers("M12")
def test_esp_travels_in_udp_with_the_ports_of_its_sa() -> None:
    host = Host(OUT + f"add 192.0.2.1[4500] 192.0.2.2[4501] esp-udp 0x1000 {GCM};")
    host.notice(EncapsulationPort(4501))
    sealed = host.forwarded(datagram(A, B))
    header, payload = udp.read(ipv4.read(sealed)[1])
    assert (header.sport, header.dport, header.checksum) == (4500, 4501, 0)
    assert payload[:4] == (0x1000).to_bytes(4, "big")
    assert host.delivered(sealed) == datagram(A, B)
    host.notice(EncapsulationPort(4501, False))
    assert host.delivered(host.forwarded(datagram(A, B))) == datagram(A, B), "the port of an SA is one as well"
    host.setkey("flush;")
    assert host.delivered(sealed) == sealed, "no encapsulation port any more: a datagram like others"


@pytest.mark.covers("M12", "S26")
def test_ipv6_lengths_and_checksums_are_right() -> None:
    host = Host(f"spdadd 2001:db8::a 2001:db8::b any -P out ipsec esp/transport//require;"
                f"add 2001:db8::a[4500] 2001:db8::b[4500] esp-udp 0x1000 {GCM};")  # fmt: skip
    sealed = host.forwarded(datagram(A6, B6))
    header, payload = ipv6.read(sealed)
    assert len(payload) == len(sealed) - 40
    assert checksum.upper(header.src, header.dst, 17, payload) == 0
    assert host.delivered(sealed) == datagram(A6, B6)


def receiver(oai: str = "192.0.2.1") -> Host:
    """B, which sees A as 198.51.100.7:40000 and knows its original address."""
    original = f"-natt {oai}[40000] 192.0.2.2[4500]" if oai else ""
    ends = "198.51.100.7 192.0.2.2 esp" if oai else "198.51.100.7[40000] 192.0.2.2[4500] esp-udp"
    return Host(f"add {ends} 0x1000 {original} -r 8 {GCM};")


def sender() -> Host:
    return Host(OUT + f"add 192.0.2.1[4500] 192.0.2.2[4500] esp-udp 0x1000 {GCM};")


@pytest.mark.covers("M13")
@pytest.mark.reason("natt.checksum")
@pytest.mark.parametrize("oai", ["192.0.2.1", ""])
@pytest.mark.parametrize("policy", [0, 1])
def test_transport_checksums_are_repaired_behind_a_nat(oai: str, policy: int) -> None:
    host = receiver(oai)
    host.tune("net.inet.ipsec.natt_cksum_policy", policy)
    inner = host.delivered(natted(sender().forwarded(datagram(A, B))))
    assert inner[12:20] == NAT + B
    assert checksum.upper(NAT, B, 17, inner[20:]) == 0
    broken = bytearray(datagram(A, B))
    broken[-1] ^= 1
    one = sender()
    one.forwarded(datagram(A, B))
    outcome = host.receive(natted(one.forwarded(bytes(broken))))
    if oai and policy == 0:
        discards(host, outcome, NATT_CHECKSUM)
    else:
        assert isinstance(outcome, Deliver), "without the original address a wrong checksum cannot be told from NAT's work"


def to_4500(payload: bytes) -> bytes:
    return ipv4.write(ipv4.Header(A, B, 17), udp.write(udp.Header(4500, 4500), payload))


@pytest.mark.reason("natt.udp.checksum")
def test_a_wrong_udp_checksum_around_esp_ends_the_packet_and_0_says_there_is_none() -> None:
    host = Host(OUT + f"add 192.0.2.1[4500] 192.0.2.2[4500] esp-udp 0x1000 {GCM};")
    sealed = host.forwarded(datagram(A, B))
    header, payload = ipv4.read(sealed)
    right = ipv4.write(header, udp.write_checked(A, B, 4500, 4500, payload[8:]))
    wrong = ipv4.write(header, payload[:6] + bytes.fromhex("1234") + payload[8:])
    discards(host, host.receive(wrong), NATT_UDP_CHECKSUM)
    assert host.delivered(right) == datagram(A, B)
    ike = ipv4.write(header, payload[:6] + bytes.fromhex("1234") + bytes(4) + payload[12:])
    discards(host, host.receive(ike), NATT_UDP_CHECKSUM, 2)


@pytest.mark.covers("S41", "R19")
@pytest.mark.reason("natt.keepalive", "natt.short", "punt.ike", "natt.udp", "esp.nosa")
def test_what_else_comes_to_an_encapsulation_port() -> None:
    host = Host()
    discards(host, host.receive(to_4500(b"\xff")), NATT_KEEPALIVE)
    discards(host, host.receive(to_4500(b"\1\2\3")), NATT_SHORT)
    ike = to_4500(bytes(4) + b"an IKE header")
    assert host.receive(ike) == Punt(ike, PUNTED_IKE)
    assert host.count(PUNTED_IKE) == 1
    bad = ipv4.write(ipv4.Header(A, B, 17), bytes.fromhex("1194119400ff0000") + b"12345678")
    discards(host, host.receive(bad), NATT_UDP)
    discards(host, host.receive(to_4500(bytes(range(1, 60)))), ESP_NO_SA)


@pytest.mark.covers("S26")
@pytest.mark.reason("esp.port", "esp.replay")
def test_a_peer_whose_port_changed_is_refused_or_followed_and_told_of() -> None:
    host, one = receiver(""), sender()
    host.stack.notice(KeySocketOpened(2, "linux", 0, True), host.at)
    host.stack.control(2, Message(Type.REGISTER, SaType.ESP, 1).write(LINUX), host.at)
    sealed = natted(one.forwarded(datagram(A, B)), sport=40001)
    discards(host, host.receive(sealed), ESP_PORT)
    host.tune("net.koura.natt_roaming", 1)
    results = host.stack.inbound([sealed], host.at)
    assert isinstance(results.outcomes[0], Deliver)
    (told,) = [Message.read(event.octets, LINUX) for event in results.events if getattr(event, "socket", 0) == 2]
    assert told.type == Type.X_NAT_T_NEW_MAPPING
    (sa,) = host.stack.sadb
    assert sa.agreement.encapsulation is not None
    assert sa.agreement.encapsulation.sport == 40001
    discards(host, host.receive(natted(sealed, sport=40002)), ESP_REPLAY)
    assert sa.agreement.encapsulation.sport == 40001, "a copy does not move the peer"


@pytest.mark.covers("M24", "S26")
def test_the_host_may_say_that_a_peer_moved() -> None:
    host = Host(OUT + f"add 192.0.2.1[4500] 192.0.2.2[4500] esp-udp 0x1000 {GCM};")
    host.notice(PeerMoved(B, 4500, NAT, 4600))
    (sa,) = host.stack.sadb
    assert (sa.agreement.index.dst, sa.agreement.encapsulation.dport) == (NAT, 4600)  # type: ignore[union-attr]


# -- traffic-flow confidentiality ------------------------------------------------------------------------------------------

TUNNEL = "spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;"


@pytest.mark.covers("R5", "R46")
def test_tfc_padding_makes_small_packets_alike_and_comes_off_again() -> None:
    host = Host(TUNNEL + f"add 192.0.2.1 192.0.2.2 esp 0x1000 -m tunnel -tfc 500 {GCM};")
    sizes = set()
    for octets in (1, 100, 400):
        sealed = host.forwarded(datagram(INNER_A, INNER_B, octets))
        sizes.add(len(sealed))
        assert host.delivered(sealed) == datagram(INNER_A, INNER_B, octets)
    assert len(sizes) == 1
    assert len(host.forwarded(datagram(INNER_A, INNER_B, 900))) > max(sizes)


@pytest.mark.covers("R46")
@pytest.mark.reason("esp.dummy")
@pytest.mark.parametrize("kind", ["esp", "esp-udp"])
def test_a_dummy_packet_is_emitted_and_swallowed_after_authentication(kind: str) -> None:
    host = Host(f"add 192.0.2.1 192.0.2.2 {kind} 0x1000 -r 8 {GCM};")
    host.notice(SendDummy(B, 0x1000, 333))
    (dummy,) = host.take(Emit)
    assert isinstance(dummy, Emit)
    assert dummy.why == "dummy"
    discards(host, host.receive(dummy.packet), ESP_DUMMY)
    discards(host, host.receive(dummy.packet), ESP_REPLAY)
    with pytest.raises(Refused) as caught:
        host.notice(SendDummy(B, 0x2000, 1))
    assert caught.value.errno is Errno.ESRCH
