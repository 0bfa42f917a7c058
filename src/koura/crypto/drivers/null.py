"""The null algorithms: nothing is encrypted (RFC 2410), nothing authenticated."""

from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.driver import Crypt, Driver
from koura.crypto.drivers.integrity import KeyedDigest
from koura.crypto.session import Digest


class Null(Driver):
    """Serves `null` of both kinds."""

    name = "null"

    def score(self, row: Algorithm) -> int:
        return 1 if row.name == "null" and row.kind in (Kind.CIPHER, Kind.INTEGRITY) else 0

    def cipher(self, row: Algorithm, key: bytes) -> tuple[Crypt, Crypt]:
        return _same, _same

    def digest(self, row: Algorithm, key: bytes) -> Digest:
        return KeyedDigest(_nothing, 0)


def _same(iv: bytes, octets: bytes) -> bytes:
    return octets


def _nothing(octets: bytes) -> bytes:
    return b""
