"""AES-CBC in ESP: the whole packets of RFC 3602 §4, in and out, octet for octet."""

from typing import Any

import pytest

from koura.address import parse
from koura.saindex import Mode
from koura.secret import Secret
from koura.wire import ipv4
from koura.xform import esp, place
from tests.oracles import primitives
from tests.rfc import kit
from tests.unit.xform.kit import CBC
from tests.unit.xform.kit import esp as agreed
from tests.vectors.rfc.load import table

CASES = table("esp-cbc.json")["cases"]


@pytest.mark.covers("R46")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case-{case['case']}")
def test_4_the_packet_is_made_and_opened(case: dict[str, Any]) -> None:
    payload, packet = bytes.fromhex(case["payload"]), bytes.fromhex(case["esp"])
    spi, sequence, iv = int.from_bytes(packet[:4], "big"), int.from_bytes(packet[4:8], "big"), packet[8:24]
    agreement = agreed(CBC, encryption_key=Secret(bytes.fromhex(case["key"])))
    head = ipv4.Header(parse(case["src"]), parse(case["dst"]), case["next_header"])
    assert (case["mode"] == "tunnel") == (case["next_header"] == 4) == (agreement.index.mode is Mode.TUNNEL or case["mode"] == "tunnel")
    sealed = esp.output(kit.standing_at(agreement, sequence - 1, spi=spi), place.for_output(ipv4.write(head, payload)), kit.context(iv))
    assert ipv4.read(sealed)[1] == packet
    found = esp.input(kit.standing_at(agreement, sequence - 1, spi=spi), place.for_input(sealed), kit.context())
    assert found.next_header == case["next_header"]
    assert ipv4.read(found.packet)[1] == payload


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case-{case['case']}")
def test_4_the_second_implementation_agrees(case: dict[str, Any]) -> None:
    payload, packet = bytes.fromhex(case["payload"]), bytes.fromhex(case["esp"])
    octets = -(len(payload) + 2) % 16
    clear = payload + bytes(range(1, octets + 1)) + bytes((octets, case["next_header"]))
    assert primitives.cipher("aes-cbc", bytes.fromhex(case["key"]), packet[8:24], clear) == packet[24:]


def test_3_the_iv_is_random_and_never_chained() -> None:
    sender = kit.standing_at(agreed(CBC), 0)
    clear = ipv4.write(ipv4.Header(parse("192.0.2.1"), parse("192.0.2.2"), 17), bytes(30))
    ivs = [bytes((number,)) * 16 for number in (1, 2, 3)]
    for iv in ivs:
        sealed = esp.output(sender, place.for_output(clear), kit.context(iv))
        assert ipv4.read(sealed)[1][8:24] == iv
