"""Seal then open is the identity: every algorithm x mode x family x ESN x encapsulation, at every boundary of size, and sampled to 9000."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koura.crypto.algorithm import Algorithm
from koura.sadb.hot import SEQUENCE_LAST, WINDOW_TOP
from koura.wire import ipv4, ipv6
from koura.xform import base, natt
from tests.unit.xform.kit import (
    AEADS,
    CIPHERS,
    GCM,
    INTEGRITIES,
    NULL,
    SHA1,
    SHA256,
    Ends,
    Shape,
    ah,
    context,
    esp,
    ipcomp,
    key,
    shapes,
)

SUITES: list[tuple[Algorithm, Algorithm | None]] = [
    *((aead, None) for aead in AEADS),
    *((cipher, integrity) for cipher in CIPHERS for integrity in INTEGRITIES),
    *((cipher, None) for cipher in CIPHERS),
]
NAMES = [f"{cipher.name}+{mac.name}" if mac is not None else cipher.name for cipher, mac in SUITES]
USUAL = [(cipher, mac) for cipher, mac in SUITES if mac in (None, SHA256) or cipher is NULL]
SIZES = (0, 1, 13, 14, 15, 30, 61)


def round_trip(ends: Ends, shape: Shape, octets: int) -> None:
    """One packet through; sizes as promised; the sequence number and the window moved by one."""
    ctx = context(octets)
    packet = shape.packet(octets)
    sealed = ends.seal(packet, ctx)
    assert ends.open(sealed, ctx) == packet, (shape, octets)
    agreement = ends.sender.agreement
    header = 20 if shape.outer == 4 else 40
    payload = len(packet) if agreement.is_tunnel else octets
    assert len(sealed) == header + payload + base.overhead(ends.sender, payload, ctx.settings) + natt.overhead(ends.sender)


@pytest.mark.covers("R2", "R3", "R5", "R7", "R46", "M14", "M16", "M17", "M18", "M19", "S26", "S29", "S34", "S36", "S37")
@pytest.mark.parametrize(("encryption", "integrity"), SUITES, ids=NAMES)
def test_esp(encryption: Algorithm, integrity: Algorithm | None) -> None:
    # An ICV does not care what the cipher was: the pairs that are not the usual ones go through every shape with two sizes.
    sizes = SIZES if (encryption, integrity) in USUAL else SIZES[:2]
    for shape in shapes():
        ends = Ends.of(shape.apply(esp(encryption, integrity)))
        for count, octets in enumerate(sizes, 1):
            round_trip(ends, shape, octets)
            assert ends.sender.hot.words[SEQUENCE_LAST] == ends.receiver.hot.words[WINDOW_TOP] == count


@pytest.mark.covers("R2", "R3", "R4", "R7", "R45", "M14", "M18", "M19", "S36", "S37")
@pytest.mark.parametrize("integrity", INTEGRITIES, ids=lambda row: row.name)
@pytest.mark.parametrize("align_octets", [4, 8])
def test_ah(integrity: Algorithm, align_octets: int) -> None:
    for shape in shapes(udp=(False,)):
        ends = Ends.of(shape.apply(ah(integrity, align_octets=align_octets)))
        for octets in SIZES:
            # AH covers the header, so what routers may change is what does not come back: nothing here changes it.
            round_trip(ends, shape, octets)


@pytest.mark.covers("R2", "R3", "R6", "R7", "R57", "S25")
@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_ipcomp(level: int) -> None:
    for shape in shapes(esn=(False,), udp=(False,)):
        agreement = shape.apply(ipcomp())
        for octets in (0, 50, 91, 400, 1400, 9000):
            ends = Ends.of(agreement)
            ctx = context(octets)
            packet = shape.packet(octets)
            sealed = ends.seal(packet, ctx)
            header = 20 if shape.outer == 4 else 40
            assert len(sealed) <= len(packet) + (header if agreement.is_tunnel else 0), "never larger"
            protocol = sealed[9] if shape.outer == 4 else sealed[6]
            if octets >= 400:
                assert protocol == 108
                assert ends.open(sealed, ctx) == packet
            elif protocol != 108:
                assert octets <= 91


@pytest.mark.parametrize(("encryption", "integrity"), USUAL, ids=[f"{one.name}+{mac.name if mac else None}" for one, mac in USUAL])
def test_every_size_around_two_blocks(encryption: Algorithm, integrity: Algorithm | None) -> None:
    shape = next(shapes())
    ends = Ends.of(shape.apply(esp(encryption, integrity)))
    for octets in range(2 * max(16, encryption.align_octets) + 3):
        round_trip(ends, shape, octets)


@pytest.mark.parametrize("encryption", (*AEADS, *CIPHERS), ids=lambda row: row.name)
def test_every_key_size(encryption: Algorithm) -> None:
    shape = next(shapes())
    for bits in encryption.key_bits[:60]:
        mac = None if encryption in AEADS else SHA256
        ends = Ends.of(shape.apply(esp(encryption, mac, encryption_key=key(encryption, bits))))
        round_trip(ends, shape, 37)


@settings(max_examples=120, deadline=None)
@given(
    suite=st.sampled_from(SUITES),
    shape=st.sampled_from(list(shapes())),
    octets=st.one_of(st.integers(0, 9000), st.sampled_from((1399, 1400, 1401, 1499, 1500, 1501, 8999, 9000))),
)
def test_sampled_to_9000(suite: tuple[Algorithm, Algorithm | None], shape: Shape, octets: int) -> None:
    round_trip(Ends.of(shape.apply(esp(*suite))), shape, octets)


@pytest.mark.parametrize("suite", [(GCM, None), (NULL, SHA1)], ids=["gcm", "null-sha1"])
def test_the_largest_packets(suite: tuple[Algorithm, Algorithm | None]) -> None:
    for shape in shapes(esn=(False,), udp=(False,)):
        agreement = shape.apply(esp(*suite))
        ends = Ends.of(agreement)
        most = (65535 - 20) if shape.outer == 4 else 65535
        fits = base.fits(ends.sender, most, context().settings)
        header = len(shape.packet(0)) if agreement.is_tunnel else 0
        assert base.overhead(ends.sender, fits, context().settings) + fits <= most
        round_trip(ends, shape, fits - header)


def test_what_is_sealed_parses_as_ip() -> None:
    for shape in shapes():
        sealed = Ends.of(shape.apply(esp(GCM))).seal(shape.packet(100), context())
        if shape.outer == 4:
            assert ipv4.is_checksum_right(sealed)
            assert ipv4.read(sealed)[0].protocol == (17 if shape.is_in_udp else 50)
        else:
            header, payload = ipv6.read(sealed)
            assert header.next_header == (17 if shape.is_in_udp else 50)
            assert len(payload) == len(sealed) - 40
