"""IPComp, a test for each rule of RFC 3173 and RFC 2394; the peer's packets are made by zlib, and by isal where it is installed."""

import zlib

import pytest

from koura.reasons import (
    IPCOMP_BOMB,
    IPCOMP_DAMAGED,
    IPCOMP_INNER,
    IPCOMP_INNER_MALFORMED,
    IPCOMP_NESTED,
    IPCOMP_NO_CRYPTO,
    IPCOMP_NO_SA,
    IPCOMP_SHORT,
    IPCOMP_TOO_BIG,
)
from koura.saindex import Protocol
from koura.wire import ipv4, ipv6
from tests.unit.stack.kit import Host, discards
from tests.unit.traffic.kit import A6, B6, A, B, datagram

CPI = 0x1001
PAYLOAD = bytes(place % 9 for place in range(600))


def both(mode: str = "transport") -> Host:
    where = "/192.0.2.1-192.0.2.2/" if mode == "tunnel" else "//"
    return Host(
        f"add 192.0.2.1 192.0.2.2 ipcomp {CPI:#x} -m {mode} -C deflate;"
        f"spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec ipcomp/{mode}{where}use;"
    )


def deflated(octets: bytes, level: int = 9, window: int = 15) -> bytes:
    running = zlib.compressobj(level, zlib.DEFLATED, -window)
    return running.compress(octets) + running.flush()


def packet(body: bytes, next_header: int = 253, cpi: int = CPI, flags: int = 0) -> bytes:
    return ipv4.write(ipv4.Header(A, B, 108, identification=3173), bytes((next_header, flags)) + cpi.to_bytes(2, "big") + body)


@pytest.mark.covers("R6", "R57")
@pytest.mark.parametrize("window", [9, 12, 15])
def test_2_1_what_the_peer_compressed_is_expanded_whatever_its_window(window: int) -> None:
    """FreeBSD deflates with windows of 2^12; RFC 2394 allows up to 2^15."""
    host = both()
    assert ipv4.read(host.delivered(packet(deflated(PAYLOAD, window=window))))[1] == PAYLOAD


@pytest.mark.covers("R6", "R57")
def test_2_1_another_library_reads_and_writes_the_same() -> None:
    isal = pytest.importorskip("isal.isal_zlib", reason="isal is an optional library")
    host = both()
    sealed = host.forwarded(ipv4.write(ipv4.Header(A, B, 253), PAYLOAD))
    assert isal.decompress(ipv4.read(sealed)[1][4:], wbits=-15) == PAYLOAD
    running = isal.compressobj(1, isal.DEFLATED, -15)
    assert ipv4.read(host.delivered(packet(running.compress(PAYLOAD) + running.flush())))[1] == PAYLOAD


def test_2_1_each_packet_stands_alone() -> None:
    host = both()
    first, second = (host.forwarded(ipv4.write(ipv4.Header(A, B, 253), PAYLOAD)) for _ in range(2))
    assert ipv4.read(first)[1] == ipv4.read(second)[1]
    assert host.delivered(second)


@pytest.mark.covers("R57", "S25")
def test_2_2_what_does_not_shrink_by_more_than_its_header_goes_as_it_was() -> None:
    """Random octets with a run at their end, of every length around the point where compression pays by its header's four octets."""
    host = both()
    noise = bytes((place * 167 + place * place * 13 + (place >> 3) * 91) & 0xFF for place in range(300))
    compressed = plain = 0
    for run in range(60):
        payload = noise + bytes(run)
        clear = ipv4.write(ipv4.Header(A, B, 253), payload)
        outcome = host.forwarded(clear)
        packed = deflated(payload, 6)
        if outcome[9] == 108:
            compressed += 1
            assert len(outcome) < len(clear)
            assert len(packed) + 4 < len(payload)
            assert host.delivered(outcome) == clear
        else:
            plain += 1
            assert outcome == clear
            assert len(packed) + 4 >= len(payload)
    assert compressed
    assert plain


def test_2_2_small_packets_are_not_tried() -> None:
    """ipcomp_threshold: the whole packet, IP header included; FreeBSD's 90."""
    host = both()
    small = ipv4.write(ipv4.Header(A, B, 253), bytes(70))
    assert host.forwarded(small) == small
    assert host.forwarded(ipv4.write(ipv4.Header(A, B, 253), bytes(71)))[9] == 108
    assert host.stack.counters["ipcomp.threshold"] == 1


@pytest.mark.reason("ipcomp.short")
@pytest.mark.parametrize("octets", range(8))
def test_3_the_header_has_four_octets_and_no_deflated_payload_fewer(octets: int) -> None:
    host = both()
    discards(host, host.receive(ipv4.write(ipv4.Header(A, B, 108), bytes(octets))), IPCOMP_SHORT)


def test_3_2_flags_are_ignored() -> None:
    assert ipv4.read(both().delivered(packet(deflated(PAYLOAD), flags=0xFF)))[1] == PAYLOAD


@pytest.mark.covers("S42")
def test_3_3_the_cpi_is_the_spis_low_half() -> None:
    sealed = both().forwarded(ipv4.write(ipv4.Header(A, B, 253), PAYLOAD))
    assert ipv4.read(sealed)[1][:4] == bytes((253, 0, 0x10, 0x01))


@pytest.mark.covers("R57", "S1", "S42", "M3")
def test_3_3_the_well_known_cpi_serves_many_peers_at_once_by_their_sources() -> None:
    host = Host("".join(f"add 192.0.2.{n} 192.0.2.200 ipcomp 2 -m transport -C deflate;" for n in range(1, 9)))
    to = bytes((192, 0, 2, 200))
    for number in range(1, 9):
        body = bytes((253, 0, 0, 2)) + deflated(PAYLOAD)
        assert ipv4.read(host.delivered(ipv4.write(ipv4.Header(bytes((192, 0, 2, number)), to, 108), body)))[1] == PAYLOAD
    stranger = ipv4.write(ipv4.Header(bytes((192, 0, 2, 99)), to, 108), bytes((253, 0, 0, 2)) + deflated(PAYLOAD))
    discards(host, host.receive(stranger), IPCOMP_NO_SA)


@pytest.mark.covers("S42")
def test_3_3_a_peer_with_a_negotiated_cpi_may_use_the_well_known_one() -> None:
    assert ipv4.read(both().delivered(packet(deflated(PAYLOAD), cpi=2)))[1] == PAYLOAD


@pytest.mark.reason("ipcomp.nosa")
def test_3_3_an_unknown_cpi() -> None:
    host = both()
    discards(host, host.receive(packet(deflated(PAYLOAD), cpi=CPI + 1)), IPCOMP_NO_SA)


@pytest.mark.reason("ipcomp.damaged")
@pytest.mark.parametrize("body", [b"\xff" * 4, deflated(PAYLOAD)[:-2], bytes(40)], ids=["no deflate", "cut", "stored"])
def test_2_1_what_does_not_expand_is_discarded(body: bytes) -> None:
    host = both()
    discards(host, host.receive(packet(body)), IPCOMP_DAMAGED)


@pytest.mark.reason("ipcomp.bomb")
@pytest.mark.parametrize("octets", [65516, 65536, 40_000_000])
def test_2_1_nothing_expands_beyond_what_an_ip_packet_holds(octets: int) -> None:
    host = both()
    discards(host, host.receive(packet(deflated(bytes(octets)))), IPCOMP_BOMB)
    assert len(host.delivered(packet(deflated(bytes(65515))))) == 65535


@pytest.mark.reason("ipcomp.nested")
def test_2_1_compressed_inside_compressed_is_refused() -> None:
    host = both()
    discards(host, host.receive(packet(deflated(PAYLOAD), next_header=108)), IPCOMP_NESTED)


@pytest.mark.reason("ipcomp.inner", "ipcomp.inner.malformed")
def test_a_tunnel_carries_well_formed_ip_packets() -> None:
    host = both(mode="tunnel")
    discards(host, host.receive(packet(deflated(PAYLOAD))), IPCOMP_INNER)
    discards(host, host.receive(packet(deflated(PAYLOAD), next_header=4)), IPCOMP_INNER_MALFORMED)


@pytest.mark.reason("ipcomp.toobig")
def test_a_tunnel_makes_no_packet_above_65535_octets() -> None:
    host = both(mode="tunnel")
    discards(host, host.send(ipv4.write(ipv4.Header(A, B, 253), bytes(65515))), IPCOMP_TOO_BIG)


@pytest.mark.reason("ipcomp.nocrypto")
def test_an_sa_without_a_compressor() -> None:
    host = both()
    sa = host.stack.sadb.by_spi(B, Protocol.IPCOMP, CPI)
    assert sa is not None
    sa.compressor = None
    discards(host, host.receive(packet(deflated(PAYLOAD))), IPCOMP_NO_CRYPTO)
    discards(host, host.send(ipv4.write(ipv4.Header(A, B, 253), PAYLOAD)), IPCOMP_NO_CRYPTO, 2)


@pytest.mark.covers("R57", "R2", "S10")
def test_2_2_ipv6_extension_headers_that_routers_read_stay_in_clear() -> None:
    hop, late = bytes((60, 0, 1, 4, 0, 0, 0, 0)), bytes((253, 0, 1, 4, 0, 0, 0, 0))
    clear = ipv6.write(ipv6.Header(A6, B6, 0), hop + late + PAYLOAD)
    host = Host(
        f"add 2001:db8::a 2001:db8::b ipcomp {CPI:#x} -m transport -C deflate;"
        "spdadd ::/0 ::/0 any -P out ipsec ipcomp/transport//use;"
    )
    sealed = host.forwarded(clear)
    assert (sealed[6], sealed[40]) == (0, 108)
    assert sealed[48:50] == bytes((60, 0))
    assert zlib.decompress(sealed[52:], -15) == late + PAYLOAD
    assert host.delivered(sealed) == clear


@pytest.mark.covers("M21", "R57")
def test_2_2_what_the_peer_left_uncompressed_is_taken_from_its_tunnel() -> None:
    host = both(mode="tunnel")
    inner = datagram(A, B, 20)
    assert host.delivered(ipv4.write(ipv4.Header(A, B, 4), inner)) == inner


@pytest.mark.covers("R57")
@pytest.mark.parametrize("level", [0, 1, 9])
def test_ipcomp_level_takes_effect_for_new_sas(level: int) -> None:
    host = Host()
    host.tune("net.koura.ipcomp_level", level)
    host.setkey(
        f"add 192.0.2.1 192.0.2.2 ipcomp {CPI:#x} -m transport -C deflate;"
        "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec ipcomp/transport//use;"
    )
    sealed = host.forwarded(ipv4.write(ipv4.Header(A, B, 253), PAYLOAD))
    assert (sealed[9] == 108) == (level > 0)
    if level:
        assert ipv4.read(sealed)[1][4:] == deflated(PAYLOAD, level)
