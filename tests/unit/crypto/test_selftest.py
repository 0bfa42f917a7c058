"""The known answers, computed by implementations that are not ours; and all algorithms against them on random inputs."""

import hashlib
import random

import pytest

from koura.crypto import registry, selftest
from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.algorithms import ALGORITHMS
from koura.crypto.drivers.deflate import Deflate
from koura.crypto.session import Description, Overflow
from koura.errors import Malformed, Unauthentic
from koura.secret import Secret
from tests.oracles import primitives

ROWS = [row for row in ALGORITHMS if row.kind is not Kind.COMPRESSION]


def answer(row: Algorithm, key: bytes, iv: bytes, clear: bytes, aad: bytes) -> bytes:
    """What the second implementation gives."""
    if row.kind is Kind.AEAD:
        return primitives.aead(row.name, key, iv, clear, aad)
    if row.kind is Kind.CIPHER:
        return primitives.cipher(row.name, key, iv, clear)
    return primitives.mac(row.name, key, clear)[: row.icv_octets]


@pytest.mark.covers("R8")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind.value}-{row.name}")
def test_the_known_answers_are_right(row: Algorithm) -> None:
    key = bytes(place & 0xFF for place in range(row.key_bits[-1] // 8 + row.salt_octets))
    given = answer(row, key, bytes(range(row.iv_octets)), selftest.CLEAR, selftest.AAD)
    assert hashlib.sha256(given).hexdigest()[:16] == selftest.ANSWERS[(row.kind, row.name)]


@pytest.mark.covers("R8", "M16", "M17", "M18", "M19", "S36")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind.value}-{row.name}")
def test_random_inputs_give_what_the_second_implementation_gives(row: Algorithm) -> None:
    dice = random.Random(row.name)
    known = registry.default()
    for bits in dict.fromkeys((row.key_bits[0], row.key_bits[len(row.key_bits) // 2], row.key_bits[-1])):
        key = dice.randbytes(bits // 8 + row.salt_octets)
        if row.name == "blowfish-cbc":
            key = key[:56]
        for count in range(8):
            clear = dice.randbytes(count * row.align_octets)
            iv, aad = dice.randbytes(row.iv_octets), dice.randbytes(8 + 4 * (count % 2))
            wanted = answer(row, key, iv, clear, aad)
            if row.kind is Kind.INTEGRITY:
                assert known.digest(row, Secret(key)).digest(clear) == wanted, f"seed {row.name}"
            else:
                session = known.session(Description(row, Secret(key)))
                assert session.seal(iv, clear, aad) == wanted, f"seed {row.name}"
                assert session.open(iv, wanted, aad) == clear


@pytest.mark.parametrize("tail", [b"", b"\0\0\0\1"])
def test_encrypt_then_authenticate_covers_aad_iv_ciphertext_and_tail(tail: bytes) -> None:
    cipher = next(row for row in ROWS if row.name == "aes-cbc")
    mac = next(row for row in ROWS if row.name == "hmac-sha2-256")
    key, mac_key, iv, aad, clear = bytes(range(16)), bytes(range(32)), bytes(range(9, 25)), b"12345678", bytes(48)
    session = registry.default().session(Description(cipher, Secret(key), mac, Secret(mac_key)))
    sealed = primitives.cipher("aes-cbc", key, iv, clear)
    icv = primitives.mac("hmac-sha2-256", mac_key, aad + iv + sealed + tail)[:16]
    assert session.seal(iv, clear, aad, tail) == sealed + icv
    assert session.open(iv, sealed + icv, aad, tail) == clear
    with pytest.raises(Unauthentic):
        session.open(iv, sealed + icv, aad, tail + b"\0")


def test_authentic_but_not_whole_blocks_is_malformed() -> None:
    cipher = next(row for row in ROWS if row.name == "aes-cbc")
    session = registry.default().session(Description(cipher, Secret(bytes(16))))
    with pytest.raises(Malformed, match="not whole blocks"):
        session.open(bytes(16), bytes(17), b"")


@pytest.mark.covers("R6")
@pytest.mark.parametrize("octets", [0, 1, 100, 65535])
def test_deflate_expands_what_it_packed_and_not_an_octet_beyond_the_limit(octets: int) -> None:
    clear = bytes(place % 251 for place in range(octets))
    packed = Deflate(6).compress(clear)
    assert Deflate().expand(packed, octets) == clear
    if octets:
        with pytest.raises(Overflow):
            Deflate().expand(packed, octets - 1)
        for cut in range(0, len(packed), max(1, len(packed) // 50)):
            with pytest.raises((Malformed, Overflow)):
                Deflate().expand(packed[:cut], octets)


def test_a_bomb_is_not_expanded_further_than_the_limit() -> None:
    bomb = Deflate(9).compress(bytes(50_000_000))
    with pytest.raises(Overflow):
        Deflate().expand(bomb, 65535)


def test_what_is_no_deflate_is_malformed() -> None:
    with pytest.raises(Malformed):
        Deflate().expand(b"\xff\xff\xff", 100)
