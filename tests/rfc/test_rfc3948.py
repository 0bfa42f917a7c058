"""ESP in UDP, a test for each rule of RFC 3948: the header, what is told apart, checksums that a NAT breaks."""

from dataclasses import replace

import pytest

from koura.reasons import IP_MALFORMED, NATT_CHECKSUM, NATT_KEEPALIVE, NATT_SHORT, PUNTED_IKE
from koura.saindex import Protocol
from koura.traffic.outcome import Punt
from koura.wire import checksum, ipv4, ipv6, udp
from tests.rfc.kit import SHA_KEY, esp_by_hand
from tests.unit.stack.kit import Host, discards
from tests.unit.traffic.kit import A6, B6, A, B, datagram

SPI = 0x1000
NULL = f'-E null "" -A hmac-sha2-256 0x{SHA_KEY.hex()}'
INSIDE = bytes((10, 0, 0, 9))


def both(more: str = "") -> Host:
    return Host(
        f"add 192.0.2.1[4500] 192.0.2.2[4500] esp-udp {SPI:#x} -m transport {more} {NULL};"
        "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec esp/transport//require;"
    )


def arriving(payload: bytes) -> bytes:
    return ipv4.write(ipv4.Header(A, B, 17), udp.write(udp.Header(4500, 4500), payload))


@pytest.mark.covers("M12", "S26")
def test_2_1_the_udp_header_has_the_sas_ports_and_no_checksum_on_ipv4_and_one_on_ipv6() -> None:
    header, payload = udp.read(ipv4.read(both().forwarded(datagram(A, B)))[1])
    assert (header.sport, header.dport, header.checksum) == (4500, 4500, 0)
    assert payload[:4] == SPI.to_bytes(4, "big")
    host = Host(
        f"add 2001:db8::a[4500] 2001:db8::b[4500] esp-udp {SPI:#x} -m transport {NULL};"
        "spdadd ::/0 ::/0 any -P out ipsec esp/transport//require;"
    )
    sealed = host.forwarded(datagram(A6, B6))
    outer, body = ipv6.read(sealed)
    assert outer.next_header == 17
    assert len(body) == len(sealed) - 40 == int.from_bytes(body[4:6], "big")
    assert checksum.upper(A6, B6, 17, body) == 0
    assert host.delivered(sealed) == datagram(A6, B6)


def test_2_2_ike_stands_behind_four_zeros() -> None:
    host = both()
    packet = arriving(bytes(4) + b"an IKE message")
    assert host.receive(packet) == Punt(packet, PUNTED_IKE)


@pytest.mark.covers("S41")
@pytest.mark.reason("natt.keepalive", "natt.short")
def test_2_3_a_keepalive_is_swallowed_and_so_is_what_is_too_short() -> None:
    host = both()
    discards(host, host.receive(arriving(b"\xff")), NATT_KEEPALIVE)
    discards(host, host.receive(arriving(b"\xff\xff\xff\xff\xff")), NATT_SHORT)


@pytest.mark.covers("M13")
def test_3_1_2_the_inner_checksum_was_made_for_addresses_that_a_nat_replaced() -> None:
    """The sender is 10.0.0.9 to itself, and 192.0.2.1 to us; without OAI the checksum is made anew."""
    inner = udp.write_checked(INSIDE, B, 7, 8, b"payload")
    body = esp_by_hand(SPI, 1, inner, next_header=17)
    assert ipv4.read(both().delivered(arriving(body)))[1] == udp.write_checked(A, B, 7, 8, b"payload")


@pytest.mark.covers("M13")
def test_3_1_2_a_udp_checksum_of_zero_stays_zero() -> None:
    inner = udp.write(udp.Header(7, 8), b"payload")
    assert ipv4.read(both().delivered(arriving(esp_by_hand(SPI, 1, inner, next_header=17))))[1] == inner


@pytest.mark.covers("M13")
@pytest.mark.reason("natt.checksum")
def test_3_1_2_with_the_original_address_known_it_is_verified_too() -> None:
    host = both()
    sa = host.stack.sadb.by_spi(B, Protocol.ESP, SPI)
    assert sa is not None
    around = sa.agreement.encapsulation
    assert around is not None
    sa.agreement = replace(sa.agreement, encapsulation=replace(around, oai=INSIDE))
    good, bad = udp.write_checked(INSIDE, B, 7, 8, b"payload"), udp.write_checked(INSIDE, B, 7, 8, b"Payload")
    assert ipv4.read(host.delivered(arriving(esp_by_hand(SPI, 1, good, next_header=17))))[1] == udp.write_checked(A, B, 7, 8, b"payload")
    damaged = bad[:8] + b"payload"
    discards(host, host.receive(arriving(esp_by_hand(SPI, 2, damaged, next_header=17))), NATT_CHECKSUM)


def test_broken_headers_inside_are_a_discard_and_no_exception() -> None:
    """Transport mode on IPv6: what was inside begins with an extension header that is cut."""
    host = Host(f"add 2001:db8::a[4500] 2001:db8::b[4500] esp-udp {SPI:#x} -m transport {NULL};")
    body = esp_by_hand(SPI, 1, bytes((17, 9)), next_header=60)
    packet = ipv6.write(ipv6.Header(A6, B6, 17), udp.write_checked(A6, B6, 4500, 4500, body))
    discards(host, host.receive(packet), IP_MALFORMED)
