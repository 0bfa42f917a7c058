"""What the RFC tests share: primitives without the key-size rules of SAs, exact IVs, and an SA that stands at a given number."""

from dataclasses import replace

from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.driver import Crypt
from koura.crypto.drivers.integrity import Hashes
from koura.crypto.drivers.openssl import OpenSsl
from koura.crypto.session import Digest, Session
from koura.sadb.agreement import Agreement
from koura.sadb.association import Association
from koura.sadb.hot import IV_NEXT
from koura.settings import Settings
from koura.xform.context import Context
from tests.oracles import primitives
from tests.unit.traffic.kit import AT
from tests.unit.xform import kit


class Given:
    """Entropy that gives these octets, in order, and no others."""

    def __init__(self, *octets: bytes) -> None:
        self._octets = b"".join(octets)

    def octets(self, count: int) -> bytes:
        given, self._octets = self._octets[:count], self._octets[count:]
        assert len(given) == count, "more dice than the test gave"
        return given

    def below(self, limit: int) -> int:
        return 0


def context(*octets: bytes, **tunables: object) -> Context:
    return Context(replace(Settings(), **tunables), AT, Given(*octets))  # type: ignore[arg-type]


def digest(name: str, key: bytes) -> Digest:
    return Hashes().digest(kit.row(Kind.INTEGRITY, name), key)


def crypt(name: str, key: bytes) -> tuple[Crypt, Crypt]:
    return OpenSsl().cipher(kit.row(Kind.CIPHER, name), key)


def aead(name: str, key: bytes) -> Session:
    return OpenSsl().aead(kit.row(Kind.AEAD, name), key)


def algorithm(kind: Kind, name: str) -> Algorithm:
    return kit.row(kind, name)


def standing_at(agreement: Agreement, last: int, iv: bytes = b"", spi: int | None = None) -> Association:
    """A sender that sent `last`, whose next counter IV is `iv`; an SPI that no SA may have is written in behind the checks."""
    sa = kit.opened(replace(agreement, sequence=last))
    if iv:
        sa.hot.words[IV_NEXT] = int.from_bytes(iv, "big")
    if spi is not None:
        sa.agreement = replace(sa.agreement, spi=spi)
    return sa


# -- packets made by hand, with nothing of ours but the IP header -----------------------------------------------------------
SHA_KEY = bytes(range(32))


def esp_by_hand(spi: int, seq64: int, clear: bytes, *, has_esn: bool = False, next_header: int | None = None) -> bytes:
    """ESP with NULL and HMAC-SHA-256-128 under SHA_KEY.

    clear: payload, padding and trailer; with next_header: the payload only, which is padded 1, 2, 3.
    """
    if next_header is not None:
        octets = -(len(clear) + 2) % 4
        clear += bytes(range(1, octets + 1)) + bytes((octets, next_header))
    covered = spi.to_bytes(4, "big") + (seq64 & 0xFFFF_FFFF).to_bytes(4, "big") + clear
    tail = (seq64 >> 32).to_bytes(4, "big") if has_esn else b""
    return covered + primitives.mac("hmac-sha2-256", SHA_KEY, covered + tail)[:16]


def ah_by_hand(head: bytes, spi: int, seq64: int, payload: bytes, next_header: int, *, has_esn: bool = False) -> bytes:
    """AH with HMAC-SHA-256-128 under SHA_KEY, 28 octets in all on IPv4, 32 on IPv6; its ICV covers `head`, blanked by the caller."""
    pad = b"" if head[0] >> 4 == 4 else bytes(4)
    words = (12 + 16 + len(pad)) // 4 - 2
    fixed = bytes((next_header, words, 0, 0)) + spi.to_bytes(4, "big") + (seq64 & 0xFFFF_FFFF).to_bytes(4, "big")
    tail = (seq64 >> 32).to_bytes(4, "big") if has_esn else b""
    return fixed + primitives.mac("hmac-sha2-256", SHA_KEY, head + fixed + bytes(16) + pad + payload + tail)[:16] + pad + payload
