"""Whole ESP packets under AEADs: RFC 4106 and RFC 4543 by McGrew's test cases, RFC 7634 by its Appendix A. In and out, octet for octet."""

from typing import Any

import pytest

from koura.crypto.algorithm import Kind
from koura.sadb.agreement import SaFlags
from koura.sadb.hot import WINDOW_TOP
from koura.secret import Secret
from koura.wire import ipv4
from koura.xform import esp, place
from tests.oracles import primitives
from tests.rfc import kit
from tests.unit.traffic.kit import A, B
from tests.unit.xform.kit import esp as agreed
from tests.unit.xform.kit import opened
from tests.vectors.rfc.load import table

CASES = [(name, number, case) for name, rows in table("esp-aead.json").items() for number, case in enumerate(rows["cases"], 1)]
IDS = [f"{name}-{number}" for name, number, _ in CASES]


@pytest.mark.covers("M14", "M16", "M17", "S34", "R46")
@pytest.mark.parametrize(("name", "number", "case"), CASES, ids=IDS)
def test_4_the_packet_is_made_and_opened(name: str, number: int, case: dict[str, Any]) -> None:
    clear, packet, iv = (bytes.fromhex(case[field]) for field in ("clear", "esp", "iv"))
    pad_octets, next_header = clear[-2], clear[-1]
    payload = clear[: len(clear) - 2 - pad_octets]
    flags = SaFlags.ESN if case["has_esn"] else SaFlags.NONE
    agreement = agreed(kit.algorithm(Kind.AEAD, name), encryption_key=Secret(bytes.fromhex(case["key"])), flags=flags)
    head = ipv4.Header(A, B, next_header)
    sender = kit.standing_at(agreement, case["sequence"] - 1, iv, case["spi"])
    sealed = esp.output(sender, place.for_output(ipv4.write(head, payload)), kit.context())
    assert ipv4.read(sealed)[1] == packet

    receiver = kit.standing_at(agreement, case["sequence"] - 1, spi=case["spi"])
    found = esp.input(receiver, place.for_input(sealed), kit.context())
    assert (found.next_header, found.seq64) == (next_header, case["sequence"])
    assert ipv4.read(found.packet)[1] == payload
    assert receiver.hot.words[WINDOW_TOP] == case["sequence"]


@pytest.mark.parametrize(("name", "number", "case"), CASES, ids=IDS)
def test_4_the_second_implementation_agrees(name: str, number: int, case: dict[str, Any]) -> None:
    key, clear, packet, iv = (bytes.fromhex(case[field]) for field in ("key", "clear", "esp", "iv"))
    sequence = case["sequence"].to_bytes(8 if case["has_esn"] else 4, "big")
    aad = case["spi"].to_bytes(4, "big") + sequence
    assert packet == case["spi"].to_bytes(4, "big") + sequence[-4:] + iv + primitives.aead(name, key, iv, clear, aad)


@pytest.mark.covers("S22")
def test_3_1_an_iv_is_a_counter_of_its_own_not_the_sequence_number() -> None:
    sender = opened(agreed(kit.algorithm(Kind.AEAD, "aes-gcm-16")), seed=3)
    ivs = []
    for _ in range(3):
        sealed = esp.output(sender, place.for_output(ipv4.write(ipv4.Header(A, B, 17), bytes(8))), kit.context())
        ivs.append(int.from_bytes(ipv4.read(sealed)[1][8:16], "big"))
    assert [iv - ivs[0] for iv in ivs] == [0, 1, 2]
    assert ivs[0] not in (0, 1)


@pytest.mark.parametrize("octets", [8, 12, 16])
def test_6_icvs_of_8_12_and_16_octets_are_one_tag_cut(octets: int) -> None:
    key, iv, aad, clear = bytes(range(20)), bytes(8), b"\0\0\1\0\0\0\0\1", bytes(range(32))
    whole = kit.aead("aes-gcm-16", key).seal(iv, clear, aad)
    cut = kit.aead(f"aes-gcm-{octets}", key).seal(iv, clear, aad)
    assert cut == whole[: 32 + octets] == primitives.aead(f"aes-gcm-{octets}", key, iv, clear, aad)
