"""ESP, a test for each rule of RFC 4303, through the doors of a stack; the peer's packets are made by hand."""

import pytest

from koura.reasons import (
    ESP_DUMMY,
    ESP_ICV,
    ESP_INNER,
    ESP_INNER_MALFORMED,
    ESP_LENGTH,
    ESP_NO_CRYPTO,
    ESP_NO_SA,
    ESP_OLD,
    ESP_PAD_LENGTH,
    ESP_PADDING,
    ESP_REPLAY,
    ESP_SEQ_CYCLED,
    ESP_SEQ_OVER,
    ESP_SHORT,
    ESP_TOO_BIG,
    ESP_ZERO,
    Ending,
)
from koura.sadb.association import Association
from koura.sadb.hot import IV_LEFT, SEQUENCE_LAST, WINDOW_TOP
from koura.saindex import Protocol
from koura.wire import ipv4, ipv6
from tests.rfc.kit import SHA_KEY, esp_by_hand
from tests.unit.stack.kit import Host, discards
from tests.unit.traffic.kit import A6, B6, A, B, datagram

SPI = 0x1000
NULL = f'-E null "" -A hmac-sha2-256 0x{SHA_KEY.hex()}'
PAYLOAD = bytes(range(30))
LAST32 = 0xFFFF_FFFF


def receiver(more: str = "-r 4", mode: str = "transport", spi: int = SPI, algorithms: str = NULL) -> Host:
    """A host with one SA from A to B; -r 4 is a window of 32 packets."""
    return Host(f"add 192.0.2.1 192.0.2.2 esp {spi:#x} -m {mode} {more} {algorithms};")


def sender(more: str = "", mode: str = "transport", algorithms: str = NULL) -> Host:
    where = "/192.0.2.1-192.0.2.2/" if mode == "tunnel" else "//"
    return Host(
        f"add 192.0.2.1 192.0.2.2 esp {SPI:#x} -m {mode} {more} {algorithms};"
        f"spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec esp/{mode}{where}require;"
    )


def packet(esp: bytes) -> bytes:
    return ipv4.write(ipv4.Header(A, B, 50, identification=4303), esp)


def good(seq64: int, payload: bytes = PAYLOAD, next_header: int = 253) -> bytes:
    return packet(esp_by_hand(SPI, seq64, payload, next_header=next_header))


def association(host: Host) -> Association:
    sa = host.stack.sadb.by_spi(B, Protocol.ESP, SPI)
    assert sa is not None
    return sa


def top(host: Host) -> int:
    return int(association(host).hot.words[WINDOW_TOP])


# -- §2, the packet --------------------------------------------------------------------------------------------------------


@pytest.mark.covers("R46")
def test_2_a_packet_by_hand_is_delivered() -> None:
    host = receiver()
    assert ipv4.read(host.delivered(good(1)))[1] == PAYLOAD


@pytest.mark.reason("esp.short")
@pytest.mark.parametrize("octets", range(8))
def test_2_fewer_than_eight_octets_are_no_esp(octets: int) -> None:
    host = receiver()
    discards(host, host.receive(packet(esp_by_hand(SPI, 1, b"")[:octets])), ESP_SHORT)
    assert top(host) == 0


@pytest.mark.reason("esp.length")
@pytest.mark.parametrize("clear", [b"", b"\1", b"\0\4\0", bytes(5), bytes(6), bytes(7)], ids=len)
def test_2_4_what_is_encrypted_is_whole_words(clear: bytes) -> None:
    host = receiver()
    discards(host, host.receive(packet(esp_by_hand(SPI, 1, clear))), ESP_LENGTH)
    assert top(host) == 0


@pytest.mark.reason("esp.length")
@pytest.mark.parametrize("octets", [8, 24, 39, 40, 41, 55])
def test_2_4_whole_blocks_for_a_block_cipher(octets: int) -> None:
    host = receiver(algorithms=f"-E aes-cbc 0x{bytes(16).hex()} -A hmac-sha2-256 0x{SHA_KEY.hex()}")
    discards(host, host.receive(packet(SPI.to_bytes(4, "big") + bytes(octets - 4))), ESP_LENGTH)


@pytest.mark.covers("S4")
@pytest.mark.parametrize("payload_octets", range(6))
def test_2_4_the_default_padding_is_1_2_3_and_is_made_and_checked(payload_octets: int) -> None:
    sealed = sender().forwarded(ipv4.write(ipv4.Header(A, B, 253), bytes(payload_octets)))
    clear = ipv4.read(sealed)[1][8:-16]
    octets = -(payload_octets + 2) % 4
    assert clear[payload_octets:] == bytes(range(1, octets + 1)) + bytes((octets, 253))


@pytest.mark.covers("S4")
@pytest.mark.reason("esp.padding")
@pytest.mark.parametrize("padding", [b"\1\3", b"\0\0", b"\2\1", b"\1\0"])
def test_2_4_wrong_padding_is_refused_after_authentication(padding: bytes) -> None:
    host = receiver()
    discards(host, host.receive(packet(esp_by_hand(SPI, 9, bytes(4) + padding + bytes((2, 253))))), ESP_PADDING)
    assert top(host) == 9, "it was authentic: its number is used up"


@pytest.mark.covers("S4")
@pytest.mark.parametrize("flag", ["zero-pad", "random-pad"])
def test_2_4_a_peer_that_is_known_to_pad_otherwise_is_not_checked(flag: str) -> None:
    host = receiver(f"-r 4 -f {flag}")
    assert ipv4.read(host.delivered(packet(esp_by_hand(SPI, 1, bytes(4) + b"\x77\x88" + bytes((2, 253))))))[1] == bytes(4)
    sealed = sender(f"-f {flag}").forwarded(ipv4.write(ipv4.Header(A, B, 253), bytes(4)))
    clear = ipv4.read(sealed)[1][8:-16]
    assert clear[-2:] == bytes((2, 253))
    assert (clear[4:6] == bytes(2)) == (flag == "zero-pad")


@pytest.mark.covers("M20")
@pytest.mark.parametrize(("compatibility", "blocks"), [(1, 16), (0, 4)])
def test_2_4_aes_ctr_pads_to_16_for_old_receivers_or_to_4(compatibility: int, blocks: int) -> None:
    ctr = f"-E aes-ctr 0x{bytes(20).hex()} -A hmac-sha2-256 0x{SHA_KEY.hex()}"
    host = sender(algorithms=ctr)
    host.tune("net.inet.esp.ctr_compatibility", compatibility)
    for octets in range(18):
        clear = ipv4.write(ipv4.Header(A, B, 253), bytes(octets))
        sealed = host.forwarded(clear)
        assert (len(ipv4.read(sealed)[1]) - 8 - 8 - 16) % blocks == 0
        assert len(ipv4.read(sealed)[1]) - 8 - 8 - 16 < octets + 2 + blocks
        assert host.delivered(sealed) == clear, "either is opened"


@pytest.mark.reason("esp.padlength")
@pytest.mark.parametrize("clear", [bytes((0, 1, 3, 253)), bytes((255, 253)).rjust(4, b"\0"), bytes((2, 1, 2, 3, 4, 5, 7, 253))])
def test_2_5_a_pad_length_beyond_the_payload_is_refused(clear: bytes) -> None:
    host = receiver()
    discards(host, host.receive(packet(esp_by_hand(SPI, 1, clear))), ESP_PAD_LENGTH)


def test_2_5_padding_of_255_octets_is_accepted() -> None:
    host = receiver()
    clear = PAYLOAD[:3] + bytes(range(1, 256)) + bytes((255, 253))
    assert ipv4.read(host.delivered(packet(esp_by_hand(SPI, 1, clear))))[1] == PAYLOAD[:3]


@pytest.mark.reason("esp.dummy")
@pytest.mark.parametrize("clear", [b"\7\7\0\x3b", b"\1\2\2\x3b", bytes(98) + b"\0\x3b"], ids=len)
def test_2_6_a_dummy_is_dropped_whatever_is_in_it(clear: bytes) -> None:
    host = receiver()
    discards(host, host.receive(packet(esp_by_hand(SPI, 1, clear))), ESP_DUMMY)
    assert top(host) == 1


@pytest.mark.parametrize("inner_octets", [64, 200, 300, 500])
def test_2_7_tfc_padding_hides_the_inner_length_and_goes_by_it(inner_octets: int) -> None:
    host = sender("-tfc 400", "tunnel")
    inner = datagram(A, B, inner_octets)
    sealed = host.forwarded(inner)
    assert len(ipv4.read(sealed)[1]) - 8 - 16 == -(-(max(len(inner), 400) + 2) // 4) * 4
    assert host.delivered(sealed) == inner


@pytest.mark.covers("R46")
def test_2_8_the_icv_covers_everything_from_spi_to_next_header() -> None:
    whole = esp_by_hand(SPI, 5, PAYLOAD, next_header=253)
    for place in range(4, len(whole)):
        host = receiver()
        damaged = whole[:place] + bytes((whole[place] ^ 0x40,)) + whole[place + 1 :]
        if 4 <= place < 8:
            damaged = whole[:4] + (6).to_bytes(4, "big") + whole[8:]
        discards(host, host.receive(packet(damaged)), ESP_ICV)
        assert top(host) == 0


# -- §3.1, where it stands -------------------------------------------------------------------------------------------------


@pytest.mark.covers("S10")
def test_3_1_1_ipv6_esp_stands_behind_hop_by_hop_and_routing_and_before_destination_options() -> None:
    hop = bytes((60, 0, 1, 4, 0, 0, 0, 0))
    early = bytes((43, 0, 1, 4, 0, 0, 0, 0))
    routing = bytes((60, 2, 0, 0, 0, 0, 0, 0)) + A6
    late = bytes((17, 0, 1, 4, 0, 0, 0, 0))
    udp = bytes.fromhex("0457 08ae 0008 0000".replace(" ", ""))
    clear = ipv6.write(ipv6.Header(A6, B6, 0), hop + early + routing + late + udp)
    host = Host(
        f"add 2001:db8::a 2001:db8::b esp {SPI:#x} -m transport -r 4 {NULL};"
        "spdadd ::/0 ::/0 any -P out ipsec esp/transport//require;"
    )
    sealed = host.forwarded(clear)
    chain = ipv6.read_chain(sealed[6], sealed[40:])
    assert [extension.kind for extension in chain.extensions] == [0, 60, 43]
    assert chain.protocol == 50
    inside = sealed[40 + chain.offset + 8 :][: len(late + udp)]
    assert inside == late + udp
    assert host.delivered(sealed) == clear


# -- §3.3, outbound --------------------------------------------------------------------------------------------------------


def test_3_3_3_the_first_number_is_1_and_each_is_one_more() -> None:
    host = sender()
    for number in (1, 2, 3):
        sealed = host.forwarded(datagram(A, B))
        assert ipv4.read(sealed)[1][4:8] == number.to_bytes(4, "big")


@pytest.mark.covers("S2")
@pytest.mark.reason("esp.seqcycled")
@pytest.mark.parametrize(
    ("more", "algorithms"),
    [("-f nocyclic-seq", NULL), ("-r 4", NULL), ("", f"-E aes-gcm-16 0x{bytes(20).hex()}"), ("", f"-E aes-ctr 0x{bytes(20).hex()} -A null"),
     ("-esn", NULL), ("", f"-E chacha20-poly1305 0x{bytes(36).hex()}")],
)  # fmt: skip
def test_3_3_3_the_counter_does_not_cycle(more: str, algorithms: str) -> None:
    """Not where cycling is off, a replay window is on, numbers are extended, or the cipher counts."""
    host = sender(f"-seq {(1 << 64) - 2 if 'esn' in more else LAST32 - 1} {more}", algorithms=algorithms)
    sealed = host.forwarded(datagram(A, B))
    assert ipv4.read(sealed)[1][4:8] == b"\xff" * 4
    discards(host, host.send(datagram(A, B)), ESP_SEQ_CYCLED)
    discards(host, host.send(datagram(A, B)), ESP_SEQ_CYCLED, 2)


@pytest.mark.covers("S2", "S3")
def test_3_3_3_cyclic_and_without_replay_check_it_begins_again_at_1() -> None:
    host = sender(f"-seq {LAST32 - 1}")
    numbers = [int.from_bytes(ipv4.read(host.forwarded(datagram(A, B)))[1][4:8], "big") for _ in range(3)]
    assert numbers == [LAST32, 1, 2]


@pytest.mark.covers("S3")
def test_3_3_3_a_receiver_with_a_window_follows_a_peer_that_cycles() -> None:
    host = receiver(f"-r 4 -seq {LAST32 - 1} -f cyclic-seq")
    for number in (LAST32, 1, 2):
        host.delivered(good(number))
    discards(host, host.receive(good(1)), ESP_REPLAY)
    discards(host, host.receive(good(LAST32)), ESP_REPLAY, 2)
    discards(host, host.receive(good(LAST32 - 200)), ESP_OLD)


@pytest.mark.covers("S22")
@pytest.mark.reason("esp.seqcycled")
def test_3_3_3_when_every_iv_of_a_counter_mode_is_spent_the_sa_is() -> None:
    host = sender(algorithms=f"-E aes-gcm-16 0x{bytes(20).hex()}")
    association(host).hot.words[IV_LEFT] = 1
    host.forwarded(datagram(A, B))
    discards(host, host.send(datagram(A, B)), ESP_SEQ_CYCLED)
    assert association(host).hot.words[SEQUENCE_LAST] == 1


@pytest.mark.reason("esp.toobig")
def test_3_3_4_a_packet_that_would_exceed_65535_octets_is_refused() -> None:
    host = sender()
    most = 65535 - 20 - 8 - 16
    clear = ipv4.write(ipv4.Header(A, B, 253), bytes(most - 2 - (most % 4)))
    assert len(host.forwarded(clear)) <= 65535
    discards(host, host.send(ipv4.write(ipv4.Header(A, B, 253), bytes(most))), ESP_TOO_BIG)


@pytest.mark.reason("esp.toobig")
@pytest.mark.parametrize("outer", [4, 6])
def test_3_3_4_neither_does_a_tunnel_make_one(outer: int) -> None:
    ends = "192.0.2.1 192.0.2.2" if outer == 4 else "2001:db8::a 2001:db8::b"
    host = Host(
        f"add {ends} esp {SPI:#x} -m tunnel {NULL};"
        f"spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec esp/tunnel/{ends.replace(' ', '-')}/require;"
    )
    discards(host, host.send(ipv4.write(ipv4.Header(A, B, 253), bytes(65515))), ESP_TOO_BIG)


# -- §3.4, inbound ---------------------------------------------------------------------------------------------------------


@pytest.mark.reason("esp.nosa")
def test_3_4_2_an_unknown_spi_is_discarded() -> None:
    host = receiver()
    discards(host, host.receive(packet(esp_by_hand(SPI + 1, 1, PAYLOAD, next_header=253))), ESP_NO_SA)


@pytest.mark.covers("S43")
@pytest.mark.reason("esp.replay")
def test_3_4_3_a_number_is_accepted_once() -> None:
    host = receiver()
    host.delivered(good(7))
    discards(host, host.receive(good(7)), ESP_REPLAY)
    host.delivered(good(6))
    assert top(host) == 7


@pytest.mark.covers("S43", "M15")
@pytest.mark.reason("esp.old")
@pytest.mark.parametrize("octets", [1, 2, 4, 8, 125])
def test_3_4_3_what_lies_left_of_the_window_is_discarded(octets: int) -> None:
    """-r counts octets of bitmap, eight packets each."""
    host = receiver(f"-r {octets}")
    host.delivered(good(1000000))
    discards(host, host.receive(good(1000000 - 8 * octets)), ESP_OLD)
    host.delivered(good(1000000 - 8 * octets + 1))


@pytest.mark.reason("esp.zero")
def test_3_4_3_zero_is_no_number() -> None:
    host = receiver()
    discards(host, host.receive(good(0)), ESP_ZERO)
    host.delivered(good(5))
    discards(host, host.receive(good(0)), ESP_ZERO, 2)


def test_3_4_3_without_a_window_nothing_is_a_replay() -> None:
    host = receiver("-r 0")
    for _ in range(3):
        host.delivered(good(3))


@pytest.mark.covers("S43")
@pytest.mark.reason("esp.icv")
def test_3_4_3_a_forged_packet_does_not_move_the_window() -> None:
    host = receiver()
    host.delivered(good(1))
    forged = good(5000)
    discards(host, host.receive(forged[:-1] + bytes((forged[-1] ^ 1,))), ESP_ICV)
    assert top(host) == 1
    host.delivered(good(2))


@pytest.mark.covers("M14", "S32")
@pytest.mark.parametrize("window", [0, 1, 4, 64])
def test_a_the_high_half_is_inferred_authenticated_and_not_sent(window: int) -> None:
    start = (5 << 32) - 3
    host = receiver(f"-r {window} -esn -seq {start}")
    for number in range(start + 1, start + 6):
        host.delivered(packet(esp_by_hand(SPI, number, PAYLOAD, has_esn=True, next_header=253)))
    wrong = packet(esp_by_hand(SPI, (4 << 32) + 4, PAYLOAD, has_esn=True, next_header=253))
    discards(host, host.receive(wrong), ESP_ICV)


@pytest.mark.reason("esp.seqover")
def test_a_beyond_the_last_64_bit_number_nothing_comes() -> None:
    host = receiver(f"-r 4 -esn -seq {(1 << 64) - 2}")
    host.delivered(packet(esp_by_hand(SPI, (1 << 64) - 1, PAYLOAD, has_esn=True, next_header=253)))
    discards(host, host.receive(packet(esp_by_hand(SPI, 3, PAYLOAD, has_esn=True, next_header=253))), ESP_SEQ_OVER)


@pytest.mark.reason("esp.inner")
def test_3_4_4_a_tunnel_carries_ip_packets_only() -> None:
    host = receiver(mode="tunnel")
    discards(host, host.receive(good(1)), ESP_INNER)


@pytest.mark.reason("esp.inner.malformed")
@pytest.mark.parametrize(
    ("inner", "next_header"),
    [(b"", 4), (bytes(20), 4), (datagram(A, B)[:-1], 4), (datagram(A, B), 41), (datagram(A6, B6), 4), (datagram(A6, B6)[:39], 41)],
)
def test_3_4_4_and_they_are_well_formed(inner: bytes, next_header: int) -> None:
    host = receiver(mode="tunnel")
    discards(host, host.receive(good(1, inner, next_header)), ESP_INNER_MALFORMED)


def test_3_4_4_a_tunnel_takes_both_families() -> None:
    for inner, next_header in ((datagram(A, B), 4), (datagram(A6, B6), 41)):
        assert receiver(mode="tunnel").delivered(good(1, inner, next_header)) == inner


@pytest.mark.reason("esp.nocrypto")
@pytest.mark.parametrize("outcome", [ESP_NO_CRYPTO])
def test_an_sa_without_a_session_seals_and_opens_nothing(outcome: Ending) -> None:
    """It cannot come about by the doors: a stack whose cipher is gone (a driver that was taken away) says so."""
    host = sender()
    association(host).session = None
    discards(host, host.send(datagram(A, B)), outcome)
    discards(host, host.receive(good(1)), outcome, 2)


@pytest.mark.covers("R46", "S37")
def test_old_esp_has_no_sequence_number() -> None:
    """RFC 1827: SPI, then the cipher's own; nothing tells a replay."""
    host = Host(
        f'add 192.0.2.1 192.0.2.2 esp-old {SPI:#x} -m transport -E des-cbc 0x0123456789abcdef;'
        "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec esp/transport//require;"
    )
    clear = datagram(A, B, 40)
    sealed = host.forwarded(clear)
    body = ipv4.read(sealed)[1]
    assert body[:4] == SPI.to_bytes(4, "big")
    assert (len(body) - 4) % 8 == 0
    assert host.delivered(sealed) == clear
    assert host.delivered(sealed) == clear


def test_3_2_1_null_encryption_and_null_integrity_at_once_are_an_operators_own_choice() -> None:
    host = receiver(algorithms='-E null "" -A null')
    clear = esp_by_hand(SPI, 1, PAYLOAD, next_header=253)[:-16]
    assert ipv4.read(host.delivered(packet(clear)))[1] == PAYLOAD


@pytest.mark.covers("M14")
def test_2_2_1_what_esn_sends_is_the_low_half_only() -> None:
    host = sender(f"-esn -seq {(3 << 32) + 7}")
    body = ipv4.read(host.forwarded(datagram(A, B)))[1]
    assert body[:8] == SPI.to_bytes(4, "big") + (8).to_bytes(4, "big")
    wanted = esp_by_hand(SPI, (3 << 32) + 8, body[8:-16], has_esn=True)
    assert body == wanted


@pytest.mark.covers("S43")
def test_3_4_3_without_integrity_no_number_is_believed() -> None:
    """A window that anybody's number moves would silence the peer: where nothing authenticates, nothing is checked."""
    host = receiver(algorithms='-E null ""')
    for seq32 in (1, 0x7FFF_FF00, 2):
        host.delivered(packet(SPI.to_bytes(4, "big") + seq32.to_bytes(4, "big") + PAYLOAD + bytes((0, 253))))
    assert association(host).agreement.window_packets == 32
