"""AH, a test for each rule of RFC 4302: every IPv4 option, every IPv6 option and routing header; what may change, and what may not."""

import pytest

from koura.reasons import (
    AH_HEADERS,
    AH_HEADERS_OUT,
    AH_ICV,
    AH_INNER,
    AH_INNER_MALFORMED,
    AH_LENGTH,
    AH_NO_CRYPTO,
    AH_NO_SA,
    AH_OLD,
    AH_REPLAY,
    AH_SEQ_CYCLED,
    AH_SEQ_OVER,
    AH_SHORT,
    AH_TOO_BIG,
    AH_ZERO,
)
from koura.sadb.association import Association
from koura.sadb.hot import WINDOW_TOP
from koura.saindex import Protocol
from koura.wire import ipv4, ipv6
from tests.oracles import ah as oracle
from tests.rfc.kit import SHA_KEY, ah_by_hand
from tests.unit.stack.kit import Host, discards
from tests.unit.traffic.kit import A6, B6, A, B, datagram

SPI = 0x1000
SHA = f"-A hmac-sha2-256 0x{SHA_KEY.hex()}"
OUT = "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec ah/{mode}{where}require; spdadd ::/0 ::/0 any -P out ipsec ah/{mode}{where6}require;"
LAST32 = 0xFFFF_FFFF
PAYLOAD = bytes(range(24))


def both(more: str = "-r 4", mode: str = "transport", algorithms: str = SHA) -> Host:
    """A host that sends and receives AH from A to B, of both families."""
    where, where6 = ("/192.0.2.1-192.0.2.2/", "/2001:db8::a-2001:db8::b/") if mode == "tunnel" else ("//", "//")
    return Host(
        f"add 192.0.2.1 192.0.2.2 ah {SPI:#x} -m {mode} {more} {algorithms};"
        f"add 2001:db8::a 2001:db8::b ah {SPI:#x} -m {mode} {more} {algorithms};" + OUT.format(mode=mode, where=where, where6=where6)
    )


def association(host: Host) -> Association:
    sa = host.stack.sadb.by_spi(B, Protocol.AH, SPI)
    assert sa is not None
    return sa


def top(host: Host) -> int:
    return int(association(host).hot.words[WINDOW_TOP])


def one_more(host: Host, packet: bytes) -> None:
    """It ends for its ICV, which is counted once more."""
    before = host.count(AH_ICV)
    discards(host, host.receive(packet), AH_ICV, before + 1)


def by_hand(seq64: int, payload: bytes = PAYLOAD, next_header: int = 253, *, options: bytes = b"", has_esn: bool = False) -> bytes:
    """A whole IPv4 packet of the peer."""
    body = bytes(28) + payload
    head = ipv4.write(ipv4.Header(A, B, 51, identification=4302, tos=0x2E, options=options), body)[: 20 + len(options)]
    return ipv4.write(
        ipv4.Header(A, B, 51, identification=4302, tos=0x2E, options=options),
        ah_by_hand(oracle.blank4(head), SPI, seq64, payload, next_header, has_esn=has_esn),
    )


# -- §2, the header --------------------------------------------------------------------------------------------------------


@pytest.mark.covers("R4", "R45")
def test_2_a_packet_by_hand_is_delivered_and_ours_is_as_by_hand() -> None:
    host = both()
    assert ipv4.read(host.delivered(by_hand(1)))[1] == PAYLOAD
    clear = ipv4.write(ipv4.Header(A, B, 253, identification=4302, tos=0x2E), PAYLOAD)
    assert host.forwarded(clear) == by_hand(1)


@pytest.mark.reason("ah.short")
@pytest.mark.parametrize("octets", [0, 7, 8, 11, 12, 27])
def test_2_shorter_than_it_says(octets: int) -> None:
    host = both()
    discards(host, host.receive(ipv4.write(ipv4.Header(A, B, 51), ipv4.read(by_hand(1))[1][:octets])), AH_SHORT)


@pytest.mark.reason("ah.length")
@pytest.mark.parametrize("words", [2, 4, 6, 9])
def test_2_2_the_length_is_that_of_the_sas_icv(words: int) -> None:
    host = both()
    body = bytearray(ipv4.read(by_hand(1, bytes(64)))[1])
    body[1] = words
    discards(host, host.receive(ipv4.write(ipv4.Header(A, B, 51), bytes(body))), AH_LENGTH)
    assert top(host) == 0


@pytest.mark.covers("R45")
def test_2_3_the_reserved_field_is_sent_as_zero_ignored_and_covered() -> None:
    host = both()
    sealed = host.forwarded(ipv4.write(ipv4.Header(A, B, 253), PAYLOAD))
    assert sealed[22:24] == b"\0\0"
    damaged = sealed[:22] + b"\0\1" + sealed[24:]
    discards(host, host.receive(damaged), AH_ICV)


@pytest.mark.reason("ah.nosa")
def test_2_4_an_unknown_spi() -> None:
    host = both()
    packet = bytearray(by_hand(1))
    packet[27] ^= 1
    discards(host, host.receive(bytes(packet)), AH_NO_SA)


@pytest.mark.parametrize(("align", "octets"), [(4, 28), (8, 32)])
def test_2_6_the_icv_is_padded_to_words_on_ipv4_and_to_two_words_on_ipv6(align: int, octets: int) -> None:
    host = both(f"-align {align}")
    assert ipv4.read(host.forwarded(datagram(A, B)))[1][1] == octets // 4 - 2
    assert host.forwarded(datagram(A6, B6))[41] == 32 // 4 - 2


# -- §3.1, where it stands -------------------------------------------------------------------------------------------------


@pytest.mark.covers("S10")
def test_3_1_1_ipv6_ah_stands_behind_hop_by_hop_and_routing_and_before_destination_options() -> None:
    hop, routing, late = bytes((43, 0, 1, 4, 0, 0, 0, 0)), bytes((60, 2, 0, 0)) + bytes(4) + A6, bytes((253, 0, 1, 4, 0, 0, 0, 0))
    clear = ipv6.write(ipv6.Header(A6, B6, 0), hop + routing + late + PAYLOAD)
    host = both()
    sealed = host.forwarded(clear)
    chain = ipv6.read_chain(sealed[6], sealed[40:])
    assert [extension.kind for extension in chain.extensions] == [0, 43]
    assert chain.protocol == 51
    assert sealed.endswith(late + PAYLOAD)
    assert host.delivered(sealed) == clear


# -- §3.3, sequence numbers and sizes --------------------------------------------------------------------------------------


@pytest.mark.covers("S2")
@pytest.mark.reason("ah.seqcycled")
@pytest.mark.parametrize("more", ["-f nocyclic-seq", "-r 4", "-esn"])
def test_3_3_2_the_counter_does_not_cycle(more: str) -> None:
    host = both(f"{more} -seq {(1 << 64) - 2 if 'esn' in more else LAST32 - 1}")
    assert ipv4.read(host.forwarded(datagram(A, B)))[1][8:12] == b"\xff" * 4
    discards(host, host.send(datagram(A, B)), AH_SEQ_CYCLED)


@pytest.mark.covers("S3")
def test_3_3_2_cyclic_and_without_replay_check_it_begins_again_at_1() -> None:
    host = both(f"-seq {LAST32 - 1}")
    assert [host.forwarded(datagram(A, B))[28:32] for _ in range(2)] == [b"\xff" * 4, b"\0\0\0\1"]


@pytest.mark.reason("ah.toobig")
def test_3_3_4_a_packet_that_would_exceed_65535_octets_is_refused() -> None:
    host = both()
    most = 65535 - 20 - 28
    assert len(host.forwarded(ipv4.write(ipv4.Header(A, B, 253), bytes(most)))) == 65535
    discards(host, host.send(ipv4.write(ipv4.Header(A, B, 253), bytes(most + 1))), AH_TOO_BIG)
    host = both(mode="tunnel")
    discards(host, host.send(ipv4.write(ipv4.Header(A, B, 253), bytes(65515))), AH_TOO_BIG, 1)


# -- §3.3.3.1, Appendix A: what is covered ---------------------------------------------------------------------------------


@pytest.mark.covers("R4", "R45")
def test_3_3_3_1_1_of_the_ipv4_header_tos_flags_offset_ttl_and_checksum_may_change() -> None:
    clear = ipv4.write(ipv4.Header(A, B, 253, ttl=64, tos=0x10, identification=7, is_df=True), PAYLOAD)
    host = both("-r 0")
    sealed = host.forwarded(clear)
    head, body = ipv4.read(sealed)
    changed = ipv4.write(ipv4.Header(A, B, 51, ttl=3, tos=0xFF, identification=7), body)
    assert ipv4.read(host.delivered(changed))[1] == PAYLOAD
    assert head.is_df
    for place in (4, 5, 12, 15):  # the identification, the source
        damaged = bytearray(sealed)
        damaged[place] ^= 1
        rewritten = ipv4.write(ipv4.read(bytes(damaged))[0], body)
        one_more(host, rewritten)


@pytest.mark.covers("R4")
@pytest.mark.reason("ah.icv")
def test_3_3_3_the_icv_covers_ah_and_everything_behind_it() -> None:
    whole = by_hand(3)
    for place in range(20, len(whole)):
        if 24 <= place < 28 or place in (20 + 1,):
            continue  # another SPI is another SA; another length is another reason
        host = both()
        damaged = whole[:place] + bytes((whole[place] ^ 0x10,)) + whole[place + 1 :]
        discards(host, host.receive(damaged), AH_ICV)
        assert top(host) == 0


@pytest.mark.covers("R34")
@pytest.mark.parametrize(("cleartos", "delivered"), [(1, True), (0, False)])
def test_ah_cleartos_says_whether_tos_is_covered_both_ways(cleartos: int, delivered: bool) -> None:
    host = both("-r 0")
    host.tune("net.inet.ipsec.ah_cleartos", cleartos)
    sealed = host.forwarded(ipv4.write(ipv4.Header(A, B, 253, tos=0x10), PAYLOAD))
    head = sealed[:20]
    blanked = oracle.blank4(head, covers_tos=not cleartos)
    assert ipv4.read(sealed)[1] == ah_by_hand(blanked, SPI, 1, PAYLOAD, 253)
    host.delivered(sealed)
    marked = ipv4.write(ipv4.Header(A, B, 51, tos=0x11), ipv4.read(sealed)[1])
    if delivered:
        host.delivered(marked)
    else:
        discards(host, host.receive(marked), AH_ICV)


@pytest.mark.covers("R35", "S6")
@pytest.mark.parametrize("mask", [0, 0x4000, 0xFFFF, 0x2000])
def test_ah_offsetmask_says_which_flags_are_covered_both_ways(mask: int) -> None:
    host = both("-r 0")
    host.tune("net.inet.ipsec.ah_offsetmask", mask)
    sealed = host.forwarded(ipv4.write(ipv4.Header(A, B, 253, is_df=True), PAYLOAD))
    assert ipv4.read(sealed)[1] == ah_by_hand(oracle.blank4(sealed[:20], offset_mask=mask), SPI, 1, PAYLOAD, 253)
    host.delivered(sealed)
    without_df = ipv4.write(ipv4.Header(A, B, 51), ipv4.read(sealed)[1])
    if mask & 0x4000:
        discards(host, host.receive(without_df), AH_ICV)
    else:
        host.delivered(without_df)


def option(kind: int, length: int = 8) -> bytes:
    """An IPv4 option of this kind, whole words."""
    if kind in (0, 1):
        return bytes((kind,)) * 4
    if kind in oracle.SOURCE_ROUTES:
        return bytes((kind, 11, 4)) + bytes((10, 9, 8, 7)) + bytes((10, 6, 6, 6)) + b"\0"
    return bytes((kind, length, *(place + 5 for place in range(length - 2))))


@pytest.mark.covers("R4", "R45")
@pytest.mark.parametrize("group", range(8))
def test_a1_every_ipv4_option_is_covered_or_counts_as_zeros(group: int) -> None:
    host = both("-r 0")
    for kind in range(32 * group, 32 * group + 32):
        options = option(kind)
        header = ipv4.Header(A, B, 253, options=options, identification=1)
        sealed = host.forwarded(ipv4.write(header, PAYLOAD))
        body = ipv4.read(sealed)[1]
        sequence = int.from_bytes(body[8:12], "big")
        assert body == ah_by_hand(oracle.blank4(sealed[: 20 + len(options)]), SPI, sequence, PAYLOAD, 253), kind
        if kind not in oracle.SOURCE_ROUTES:
            assert ipv4.read(host.delivered(sealed))[1] == PAYLOAD, kind
            if kind > 1:
                changed = ipv4.write(ipv4.Header(A, B, 51, options=options[:-1] + b"\xee", identification=1), body)
                if kind in oracle.IMMUTABLE4:
                    one_more(host, changed)
                else:
                    assert ipv4.read(host.delivered(changed))[1] == PAYLOAD, kind


@pytest.mark.parametrize("kind", oracle.SOURCE_ROUTES)
def test_a1_a_source_route_is_covered_as_it_is_at_its_end(kind: int) -> None:
    """Sent towards the first hop; at the end the last address is the destination, and the pointer is past the list."""
    last = bytes((192, 0, 2, 2))
    route = bytes((kind, 7, 4)) + last + b"\0"
    host = both("-r 0")
    first_hop = bytes((10, 9, 8, 7))
    host.setkey(f"add 192.0.2.1 10.9.8.7 ah 0x1001 -m transport -r 0 {SHA};")
    sealed = host.forwarded(ipv4.write(ipv4.Header(A, first_hop, 253, options=route, identification=5), PAYLOAD))
    body = ipv4.read(sealed)[1]
    at_the_end = ipv4.write(ipv4.Header(A, last, 51, options=bytes((kind, 7, 8)) + first_hop + b"\0", identification=5), body)
    assert body == ah_by_hand(oracle.blank4(at_the_end[:28]), 0x1001, 1, PAYLOAD, 253)
    host.setkey(f"add 192.0.2.1 192.0.2.2 ah 0x1001 -m transport -r 0 {SHA};")
    assert ipv4.read(host.delivered(at_the_end))[1] == PAYLOAD


@pytest.mark.reason("ah.headers", "ah.headers.out")
@pytest.mark.parametrize("options", [b"\x44\x01\0\0", b"\x44\x20\0\0", b"\x07\0\0\0", b"\1\1\1\x44"])
def test_3_3_3_options_that_make_no_sense_are_refused_both_ways(options: bytes) -> None:
    host = both()
    discards(host, host.send(ipv4.write(ipv4.Header(A, B, 253, options=options), PAYLOAD)), AH_HEADERS_OUT)
    body = ah_by_hand(b"\x45" + bytes(19), SPI, 1, PAYLOAD, 253)
    discards(host, host.receive(ipv4.write(ipv4.Header(A, B, 51, options=options), body)), AH_HEADERS)


@pytest.mark.covers("R4", "S40")
@pytest.mark.parametrize("place", ["hop-by-hop", "destination"])
def test_a2_every_ipv6_option_is_covered_or_its_data_counts_as_zero(place: str) -> None:
    host = both("-r 0")
    number, follower = (0, 43) if place == "hop-by-hop" else (60, 43)
    routing = bytes((253, 2, 0, 0)) + bytes(4) + A6
    for kind in range(2, 256):
        header = bytes((follower, 0, kind, 4, 9, 8, 7, 6))
        clear = ipv6.write(ipv6.Header(A6, B6, number, traffic_class=0x28, flow_label=5), header + routing + PAYLOAD)
        sealed = host.forwarded(clear)
        covered = oracle.blank6(sealed) + oracle.blank_options6(header) + sealed[48:72]
        sequence = int.from_bytes(sealed[72 + 8 : 72 + 12], "big")
        assert sealed[72:] == ah_by_hand(covered, SPI, sequence, PAYLOAD, 253), kind
        assert host.delivered(sealed) == clear
        changed = sealed[:47] + b"\xee" + sealed[48:]
        if kind & 0x20:
            host.delivered(changed)
        else:
            one_more(host, changed)


@pytest.mark.covers("R4", "R45")
@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a2_a_type_0_routing_header_is_covered_as_it_arrives(left: int) -> None:
    hops = [bytes((0x20, 1, 0xD, 0xB8, *bytes(11), n)) for n in (1, 2)]
    addresses = [*hops, B6]
    routing = bytes((253, 6, 0, left)) + bytes(4) + b"".join(addresses)
    first = B6 if left == 0 else bytes((0x20, 1, 0xD, 0xB8, *bytes(11), 9))
    host = Host(
        f"add 2001:db8::a {'2001:db8::b' if left == 0 else '2001:db8::9'} ah {SPI:#x} -m transport {SHA};"
        "spdadd ::/0 ::/0 any -P out ipsec ah/transport//require;"
    )
    sealed = host.forwarded(ipv6.write(ipv6.Header(A6, first, 43, hop_limit=9), routing + PAYLOAD))
    there, final = oracle.arrived(bytes((51,)) + routing[1:], first)
    fixed = sealed[:24] + final
    assert sealed[96:] == ah_by_hand(oracle.blank6(fixed) + there, SPI, 1, PAYLOAD, 253)
    # What arrives: the route exchanged hop by hop, the segments used up.
    receiver = both("-r 0") if final == B6 else None
    if receiver is not None:
        packet = ipv6.write(ipv6.Header(A6, final, 43, hop_limit=2), there + sealed[96:])
        assert ipv6.read(receiver.delivered(packet))[1][56:] == PAYLOAD


@pytest.mark.reason("ah.headers.out", "ah.headers")
@pytest.mark.parametrize(
    "extension",
    [bytes((253, 0, 0, 3)) + bytes(4), bytes((253, 2, 9, 1)) + bytes(20), bytes((253, 0, 4, 1)) + bytes(4),
     bytes((253, 0, 3, 2, 0, 0, 0, 0)), bytes((253, 1, 3, 1, 0, 0xF0, 0, 0)) + bytes(8)],
    ids=["more segments than addresses", "an unknown type in use", "no segments", "RPL without room", "RPL padded beyond its length"],
)  # fmt: skip
def test_a2_routing_headers_that_cannot_be_foretold_are_refused(extension: bytes) -> None:
    host = both()
    discards(host, host.send(ipv6.write(ipv6.Header(A6, B6, 43), extension + PAYLOAD)), AH_HEADERS_OUT)
    hop = bytes((51, 0, 0x1E, 9, 0, 0, 0, 0))
    body = ah_by_hand(b"\x60" + bytes(39), SPI, 1, PAYLOAD, 253)
    discards(host, host.receive(ipv6.write(ipv6.Header(A6, B6, 0), hop + body)), AH_HEADERS)


@pytest.mark.covers("R4")
def test_a2_a_type_2_and_a_segment_routing_header() -> None:
    """RFC 6275 §6.4: one home address, exchanged with the destination. RFC 8754 §2: the list is not changed, its first is the last hop."""
    care_of, home = bytes((0x20, 1, 0xD, 0xB8, *bytes(11), 9)), B6
    script = f"add 2001:db8::a 2001:db8::9 ah {SPI:#x} -m transport {SHA}; spdadd ::/0 ::/0 any -P out ipsec ah/transport//require;"
    sealed = Host(script).forwarded(ipv6.write(ipv6.Header(A6, care_of, 43), bytes((253, 2, 2, 1)) + bytes(4) + home + PAYLOAD))
    there = bytes((51, 2, 2, 0)) + bytes(4) + care_of
    assert sealed[64:] == ah_by_hand(oracle.blank6(sealed[:24] + home) + there, SPI, 1, PAYLOAD, 253)
    segments = bytes((253, 4, 4, 1, 1, 0, 0, 0)) + home + care_of
    sealed = Host(script).forwarded(ipv6.write(ipv6.Header(A6, care_of, 43), segments + PAYLOAD))
    there = bytes((51, 4, 4, 0, 1, 0, 0, 0)) + home + care_of
    assert sealed[80:] == ah_by_hand(oracle.blank6(sealed[:24] + home) + there, SPI, 1, PAYLOAD, 253)


@pytest.mark.covers("R4")
def test_a2_an_rpl_source_route_with_elided_addresses() -> None:
    """RFC 6554 §3: 15 octets are those of the destination; two hops of one octet each, six octets of padding."""
    first = bytes((0x20, 1, 0xD, 0xB8, *bytes(11), 9))
    routing = bytes((253, 1, 3, 2, 0xFF, 0x60, 0, 0)) + bytes((7, 0x0B)) + bytes(6)
    script = f"add 2001:db8::a 2001:db8::9 ah {SPI:#x} -m transport {SHA}; spdadd ::/0 ::/0 any -P out ipsec ah/transport//require;"
    sealed = Host(script).forwarded(ipv6.write(ipv6.Header(A6, first, 43), routing + PAYLOAD))
    there = bytes((51, 1, 3, 0, 0xFF, 0x60, 0, 0)) + bytes((9, 7)) + bytes(6)
    assert sealed[56:] == ah_by_hand(oracle.blank6(sealed[:24] + B6) + there, SPI, 1, PAYLOAD, 253)


# -- §3.4, inbound ---------------------------------------------------------------------------------------------------------


@pytest.mark.covers("S43")
@pytest.mark.reason("ah.replay", "ah.old", "ah.zero")
def test_3_4_3_the_window() -> None:
    host = both()
    host.delivered(by_hand(100))
    discards(host, host.receive(by_hand(100)), AH_REPLAY)
    discards(host, host.receive(by_hand(68)), AH_OLD)
    host.delivered(by_hand(69))
    discards(host, host.receive(by_hand(0)), AH_ZERO)
    forged = by_hand(5000)
    discards(host, host.receive(forged[:-1] + b"\xff"), AH_ICV)
    assert top(host) == 100


@pytest.mark.covers("M14", "S32")
@pytest.mark.reason("ah.seqover")
@pytest.mark.parametrize("window", [0, 1, 4])
def test_b_esn_is_inferred_authenticated_and_not_sent(window: int) -> None:
    start = (2 << 32) - 2
    host = both(f"-r {window} -esn -seq {start}")
    for number in range(start + 1, start + 4):
        host.delivered(by_hand(number, has_esn=True))
    assert host.forwarded(ipv4.write(ipv4.Header(A, B, 253, identification=4302, tos=0x2E), PAYLOAD)) == by_hand(start + 1, has_esn=True)
    host = both(f"-r 4 -esn -seq {(1 << 64) - 1}")
    discards(host, host.receive(by_hand(5, has_esn=True)), AH_SEQ_OVER)


@pytest.mark.reason("ah.inner")
def test_3_1_2_a_tunnel_carries_ip_packets_only() -> None:
    host = both(mode="tunnel")
    discards(host, host.receive(by_hand(1)), AH_INNER)


@pytest.mark.reason("ah.inner.malformed")
@pytest.mark.parametrize(("inner", "next_header"), [(bytes(24), 4), (datagram(A, B)[:-4], 4), (datagram(A, B), 41)])
def test_3_1_2_and_they_are_well_formed(inner: bytes, next_header: int) -> None:
    host = both(mode="tunnel")
    discards(host, host.receive(by_hand(1, inner, next_header)), AH_INNER_MALFORMED)


@pytest.mark.reason("ah.nocrypto")
def test_an_sa_without_a_digest_authenticates_nothing() -> None:
    host = both()
    association(host).digest = None
    discards(host, host.send(datagram(A, B)), AH_NO_CRYPTO)
    discards(host, host.receive(by_hand(1)), AH_NO_CRYPTO, 2)


@pytest.mark.covers("R45", "S37")
def test_old_ah_has_no_sequence_number_and_16_octets_of_icv() -> None:
    """RFC 1826 and 1828: key, padding, packet, key."""
    host = Host(
        f"add 192.0.2.1 192.0.2.2 ah-old {SPI:#x} -m transport -A keyed-md5 0x{bytes(16).hex()};"
        "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec ah/transport//require;"
    )
    clear = datagram(A, B)
    sealed = host.forwarded(clear)
    body = ipv4.read(sealed)[1]
    assert (body[0], body[1], body[4:8]) == (17, 4, SPI.to_bytes(4, "big"))
    assert body[24:] == ipv4.read(clear)[1]
    assert host.delivered(sealed) == clear
    discards(host, host.receive(sealed[:-1] + b"\xff"), AH_ICV)


@pytest.mark.covers("S37")
def test_null_integrity_is_an_operators_own_choice() -> None:
    host = both(algorithms="-A null")
    sealed = host.forwarded(datagram(A, B))
    assert ipv4.read(sealed)[1][1] == 12 // 4 - 2
    assert host.delivered(sealed) == datagram(A, B)
