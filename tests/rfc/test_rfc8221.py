"""RFC 8221's table of algorithms: what must be there is there, and what must not be used is flagged, and refused where weak_crypto is 0."""

import pytest

from koura.crypto import registry
from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.algorithms import ALGORITHMS, by_name
from tests.unit.stack.kit import Host

ENCRYPTION = {
    "des-cbc": "MUST NOT", "3des-cbc": "SHOULD NOT", "blowfish-cbc": "MUST NOT", "null": "MUST", "aes-cbc": "MUST", "aes-ccm-8": "SHOULD",
    "aes-gcm-16": "MUST", "chacha20-poly1305": "SHOULD",
}  # fmt: skip
INTEGRITY = {
    "hmac-md5": "MUST NOT", "hmac-sha1": "MUST-", "keyed-md5": "MUST NOT", "aes-xcbc-mac": "SHOULD / MAY", "hmac-sha2-256": "MUST",
    "hmac-sha2-512": "SHOULD",
}  # fmt: skip


def row(kind: Kind, name: str) -> Algorithm:
    found = by_name(kind, name)
    assert found is not None
    return found


@pytest.mark.covers("M19")
def test_5_6_what_is_wanted_is_there_and_what_is_not_wanted_is_weak() -> None:
    known = registry.default()
    for kind, table in ((Kind.CIPHER, ENCRYPTION), (Kind.INTEGRITY, INTEGRITY)):
        for name, status in table.items():
            found = row(kind, name)
            assert known.has(found)
            assert found.is_weak == ("NOT" in status), name
            assert bool(found.warning) == found.is_weak


def test_5_key_sizes_of_aes_are_128_and_256_and_192() -> None:
    for name in ("aes-cbc", "aes-gcm-16", "aes-ccm-8"):
        assert row(Kind.CIPHER, name).key_bits == (128, 192, 256)


@pytest.mark.covers("M19", "R8")
@pytest.mark.parametrize("weak", [one for one in ALGORITHMS if one.is_weak and one.name != "tcp-md5"], ids=lambda one: one.name)
def test_weak_ones_work_offline_and_are_refused_where_the_tunable_says_so(weak: Algorithm) -> None:
    key = f"0x{bytes(range(1, weak.key_bits[-1] // 8 + 1)).hex()}" if weak.name != "null" else ""
    if weak.kind is Kind.CIPHER:
        text = f"add 192.0.2.1 192.0.2.2 esp 0x1000 -E {weak.name} {key} -A hmac-sha1 0x{bytes(20).hex()};"
    else:
        text = f"add 192.0.2.1 192.0.2.2 ah 0x1000 -A {weak.name} {key};"
    Host(text)
    host = Host()
    host.tune("net.koura.weak_crypto", 0)
    with pytest.raises(AssertionError, match=f"{weak.name} is weak"):
        host.setkey(text)
    assert len(host.stack.sadb) == 0
