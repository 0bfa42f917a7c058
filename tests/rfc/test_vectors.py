"""Every vector of the RFCs on primitives: ours gives it, and so does an implementation that is not ours."""

import pytest

from koura.errors import Unauthentic
from tests.oracles import primitives
from tests.rfc import kit
from tests.vectors.rfc.load import table

_MACS = [(file, name) for file in ("hmac.json", "mac.json") for name in table(file)]


@pytest.mark.covers("R8", "R45", "M18", "M19", "S36")
@pytest.mark.parametrize(("file", "name"), _MACS, ids=[name for _, name in _MACS])
def test_rfc2202_rfc2286_rfc4231_rfc3566_rfc4493_macs(file: str, name: str) -> None:
    rows = table(file)[name]["cases"]
    assert len(rows) >= 4
    for row in rows:
        key, message, mac = (bytes.fromhex(row[field]) for field in ("key", "message", "mac"))
        assert primitives.mac(name, key, message) == mac, "the vector or the second implementation is wrong"
        made = kit.digest(name, key)
        assert made.icv_octets == primitives.ICV_OCTETS[name]
        assert made.digest(message) == mac[: made.icv_octets]
        made.verify(message, mac[: made.icv_octets])
        with pytest.raises(Unauthentic):
            made.verify(message + b"\0", mac[: made.icv_octets])


@pytest.mark.covers("R8", "M16", "M19")
@pytest.mark.parametrize("name", list(table("cipher.json")))
def test_rfc3602_rfc3686_rfc3713_rfc5528_rfc2144_rfc2451_rfc2405_ciphers(name: str) -> None:
    rows = table("cipher.json")[name]["cases"]
    assert rows
    for row in rows:
        key, iv, clear, sealed = (bytes.fromhex(row[field]) for field in ("key", "iv", "clear", "sealed"))
        assert primitives.cipher(name, key, iv, clear) == sealed, "the vector or the second implementation is wrong"
        encrypt, decrypt = kit.crypt(name, key)
        assert encrypt(iv, clear) == sealed
        assert decrypt(iv, sealed) == clear


@pytest.mark.covers("R8", "M16", "M17", "S34")
@pytest.mark.parametrize("name", list(table("wycheproof-aead.json")))
def test_wycheproof_aeads(name: str) -> None:
    """GMAC's groups authenticate one message: here the AAD, IV and payload of RFC 4543 are that message, from which the IV is cut."""
    rows = table("wycheproof-aead.json")[name]
    good = bad = 0
    assert rows
    for number, key_hex, iv_hex, aad_hex, clear_hex, sealed_hex, tag_hex, verdict in rows:
        key, iv, aad, clear, sealed, tag = (bytes.fromhex(text) for text in (key_hex, iv_hex, aad_hex, clear_hex, sealed_hex, tag_hex))
        salt_octets = 3 if name.startswith("aes-ccm") else 4
        session = kit.aead(name, key + iv[:salt_octets])
        rest = iv[salt_octets:]
        if name == "aes-gmac":
            # RFC 4543 puts the IV in the middle of what is covered, so only messages that have it there can be shown as they are;
            # the tag of every message is checked through the GCM session instead, which takes any AAD.
            session, aad, clear, sealed = kit.aead("aes-gcm-16", key + iv[:salt_octets]), clear, b"", b""
        if verdict == "invalid":
            bad += 1
            with pytest.raises(Unauthentic):
                session.open(rest, sealed + tag, aad)
        else:
            good += 1
            assert session.open(rest, sealed + tag, aad) == clear, number
            assert session.seal(rest, clear, aad) == sealed + tag, number
            with pytest.raises(Unauthentic):
                session.open(rest, sealed + tag[:-1] + bytes((tag[-1] ^ 0x80,)), aad)
    assert good
    assert bad or name.startswith("aes-ccm"), "the group with CCM's nonces of 11 octets has valid ones only"


@pytest.mark.covers("R8", "M18")
@pytest.mark.parametrize("name", list(table("wycheproof-mac.json")))
def test_wycheproof_macs(name: str) -> None:
    """Tags there are as long as ESP's ICV or longer; ours must be their beginning, and a wrong tag must not be."""
    good = bad = 0
    for number, key_hex, message_hex, tag_hex, verdict in table("wycheproof-mac.json")[name]:
        key, message, tag = (bytes.fromhex(text) for text in (key_hex, message_hex, tag_hex))
        made = kit.digest(name, key)
        if verdict == "valid":
            good += 1
            made.verify(message, tag[: made.icv_octets])
        elif primitives.mac(name, key, message)[: made.icv_octets] != tag[: made.icv_octets]:
            bad += 1
            with pytest.raises(Unauthentic):
                made.verify(message, tag[: made.icv_octets])
        assert number
    assert good
    assert bad
