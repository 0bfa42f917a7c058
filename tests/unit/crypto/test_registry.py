"""The registry: drivers probe with a score and a known answer; what is missing or not allowed is refused by name (R8, M40)."""

import pytest

from koura.crypto import registry, selftest
from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.algorithms import ALGORITHMS, by_name, by_number
from koura.crypto.driver import Crypt, Driver, Support
from koura.crypto.drivers.openssl import OpenSsl
from koura.crypto.registry import Registry
from koura.crypto.session import Description, Session
from koura.errors import Bug, Errno, Refused, Unauthentic
from koura.secret import Secret


def row(kind: Kind, name: str) -> Algorithm:
    found = by_name(kind, name)
    assert found is not None
    return found


GCM = row(Kind.AEAD, "aes-gcm-16")
CBC = row(Kind.CIPHER, "aes-cbc")
SHA256 = row(Kind.INTEGRITY, "hmac-sha2-256")
DEFLATE = row(Kind.COMPRESSION, "deflate")
GCM_KEY = Secret(bytes(range(20)))


class Card(OpenSsl):
    """A driver that says it is hardware, for AEADs only, and does as OpenSSL does."""

    name = "card"
    is_hardware = True

    def __init__(self, score: int = 5) -> None:
        self._score = score
        self.opened = 0

    def score(self, row: Algorithm) -> int:
        return self._score if row.kind is Kind.AEAD else 0

    def aead(self, row: Algorithm, key: bytes) -> Session:
        self.opened += 1
        return super().aead(row, key)


class Wrong(OpenSsl):
    """A driver with a better score and a wrong answer."""

    name = "wrong"

    def score(self, row: Algorithm) -> int:
        return 9 if row.name == "aes-cbc" else 0

    def cipher(self, row: Algorithm, key: bytes) -> tuple[Crypt, Crypt]:
        encrypt, decrypt = super().cipher(row, key)
        return lambda iv, octets: encrypt(iv[::-1], octets), lambda iv, octets: decrypt(iv[::-1], octets)


class Lacking(Driver):
    """A driver whose library turns out to lack what it promised."""

    name = "lacking"

    def score(self, row: Algorithm) -> int:
        return 1 if row.name == "camellia-cbc" else 0

    def cipher(self, row: Algorithm, key: bytes) -> tuple[Crypt, Crypt]:
        raise ValueError("unsupported")


@pytest.mark.covers("R8")
def test_every_algorithm_of_the_table_has_a_driver_here_but_oui_and_lzs() -> None:
    known = registry.default()
    assert dict(known.lacks()) == {"oui": "no driver", "lzs": "no driver"}
    assert all(known.drivers(each) for each in ALGORITHMS if each.name not in ("oui", "lzs"))


@pytest.mark.covers("R8", "M40")
def test_the_driver_with_the_best_score_serves() -> None:
    card, known = Card(), registry.Registry((OpenSsl(),))
    known.register(card)
    assert known.drivers(GCM) == ("card", "openssl")
    probes = card.opened
    known.session(Description(GCM, GCM_KEY))
    assert card.opened == probes + 1
    assert Registry((Card(score=-1), OpenSsl())).drivers(GCM) == ("openssl",)


@pytest.mark.covers("R8")
def test_a_driver_that_fails_its_known_answer_serves_nothing_and_is_named() -> None:
    known = Registry((Wrong(),))
    assert not known.has(CBC)
    assert dict(known.lacks())["aes-cbc"] == "wrong fails its known-answer test"
    both = Registry((Wrong(), OpenSsl()))
    assert both.drivers(CBC) == ("openssl",)
    with pytest.raises(Refused, match="aes-cbc is not available here: wrong fails its known-answer test") as refused:
        known.session(Description(CBC, Secret(bytes(16))))
    assert refused.value.errno is Errno.EINVAL


@pytest.mark.covers("R8")
def test_what_a_build_lacks_is_reported_by_name_when_it_is_asked_for() -> None:
    known = Registry((Lacking(),))
    with pytest.raises(Refused, match=r"camellia-cbc is not available here: lacking lacks it \(unsupported\)"):
        known.session(Description(row(Kind.CIPHER, "camellia-cbc"), Secret(bytes(16))))
    with pytest.raises(Refused, match="hmac-sha2-256 is not available here: no driver"):
        known.digest(SHA256, Secret(bytes(32)))
    with pytest.raises(Refused, match="lzs is not available here: no driver"):
        registry.default().compressor(row(Kind.COMPRESSION, "lzs"))


@pytest.mark.covers("M40")
@pytest.mark.parametrize(
    ("support", "served_by_card"), [(Support.ANY, True), (Support.HARDWARE, True), (Support.SOFTWARE, False)]
)
def test_crypto_support_says_which_drivers_may_serve(support: Support, served_by_card: bool) -> None:
    card = Card()
    known = Registry((OpenSsl(), card))
    probes = card.opened
    known.session(Description(GCM, GCM_KEY), support)
    assert (card.opened == probes + 1) is served_by_card


@pytest.mark.covers("M40")
def test_without_hardware_an_operator_who_asks_for_it_is_refused_with_the_reason() -> None:
    known = registry.default()
    for ask in (
        lambda: known.session(Description(GCM, GCM_KEY), Support.HARDWARE),
        lambda: known.digest(SHA256, Secret(bytes(32)), Support.HARDWARE),
        lambda: known.compressor(DEFLATE, 6, Support.HARDWARE),
    ):
        with pytest.raises(Refused, match=r"no hardware driver serves .*crypto_support"):
            ask()


@pytest.mark.parametrize("each", [one for one in ALGORITHMS if one.kind is not Kind.COMPRESSION], ids=lambda one: one.name)
def test_a_key_of_another_size_is_refused_and_the_sizes_are_named(each: Algorithm) -> None:
    known = registry.default()
    octets = (max(each.key_bits) + 8) // 8 + each.salt_octets
    with pytest.raises(Refused) as refused:
        if each.kind is Kind.INTEGRITY:
            known.digest(each, Secret(bytes(octets)))
        else:
            known.session(Description(each, Secret(bytes(octets))))
    assert each.name in refused.value.why
    assert f"this one has {octets}" in refused.value.why


def test_the_salt_is_explained() -> None:
    with pytest.raises(Refused, match="aes-gcm-16 needs 20, 28 or 36 octets: key plus 4 of salt; this one has 16"):
        registry.default().session(Description(GCM, Secret(bytes(16))))


def test_combinations_that_make_no_sense_are_refused() -> None:
    known = registry.default()
    with pytest.raises(Refused, match="authenticates by itself"):
        known.session(Description(GCM, GCM_KEY, SHA256, Secret(bytes(32))))
    with pytest.raises(Refused, match="does not encrypt"):
        known.session(Description(SHA256, Secret(bytes(32))))
    with pytest.raises(Refused, match="does not authenticate alone"):
        known.digest(GCM, GCM_KEY)
    with pytest.raises(Refused, match="does not compress"):
        known.compressor(GCM)


def test_names_and_numbers_are_unique_within_their_space() -> None:
    for each in ALGORITHMS:
        assert by_name(each.kind, each.name) is each
        assert by_number(each.kind, each.number) is each
    assert by_name(Kind.CIPHER, "aes-gcm-16") is GCM
    assert by_number(Kind.AEAD, 12) is CBC
    assert by_name(Kind.CIPHER, "hmac-sha1") is None


def test_a_driver_that_promises_and_has_no_method_is_our_bug() -> None:
    class Promising(Driver):
        name = "promising"

    for call in (
        lambda one: one.aead(GCM, b""),
        lambda one: one.cipher(CBC, b""),
        lambda one: one.digest(SHA256, b""),
        lambda one: one.compressor(DEFLATE, 6),
    ):
        with pytest.raises(Bug, match="promising promised"):
            call(Promising())
    assert Promising().score(GCM) == 0


def test_every_row_that_has_a_driver_has_a_known_answer() -> None:
    wanted = {(each.kind, each.name) for each in ALGORITHMS if each.kind is not Kind.COMPRESSION}
    assert set(selftest.ANSWERS) == wanted


@pytest.mark.parametrize("each", [one for one in ALGORITHMS if one.kind in (Kind.AEAD, Kind.CIPHER)], ids=lambda one: one.name)
def test_one_changed_bit_anywhere_does_not_open(each: Algorithm) -> None:
    key = Secret(bytes(range(each.key_bits[0] // 8 + each.salt_octets)))
    known = registry.default()
    mac = None if each.kind is Kind.AEAD else SHA256
    session = known.session(Description(each, key, mac, Secret(bytes(32) if mac else b"")))
    iv, aad = bytes(range(session.iv_octets)), b"\x01\x02\x03\x04\0\0\0\x05"
    sealed = session.seal(iv, b"\x5a" * 32, aad)
    assert session.open(iv, sealed, aad) == b"\x5a" * 32
    for place in range(len(sealed)):
        with pytest.raises(Unauthentic):
            session.open(iv, sealed[:place] + bytes((sealed[place] ^ 1,)) + sealed[place + 1 :], aad)
    for octets in range(len(sealed)):
        with pytest.raises(Unauthentic):
            session.open(iv, sealed[:octets], aad)
    with pytest.raises(Unauthentic):
        session.open(iv, sealed, aad[:-1] + b"\x06")
