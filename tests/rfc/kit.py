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
