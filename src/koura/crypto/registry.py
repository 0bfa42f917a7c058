"""The registry: which driver serves which algorithm, and the one place where keys become sessions. crypto(4).

A driver is asked for a score per algorithm; the best wins, after it has given the known answer (`selftest`). What nobody
serves is refused by name, at the moment an SA asks for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm

from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.algorithms import ALGORITHMS
from koura.crypto.drivers import deflate, integrity, openssl
from koura.crypto.selftest import known_answer
from koura.crypto.session import Compressor, Description, Digest, Session
from koura.errors import Errno, KouraError, Malformed, Refused, Unauthentic
from koura.secret import Secret


@dataclass(frozen=True, slots=True)
class _Plain:
    """Encrypt, then authenticate: what is no AEAD. RFC 4303 §3.3.2."""

    encrypt: openssl.Crypt
    decrypt: openssl.Crypt
    mac: Digest
    iv_octets: int
    icv_octets: int
    align_octets: int
    block_octets: int

    def seal(self, iv: bytes, clear: bytes, aad: bytes, tail: bytes = b"") -> bytes:
        sealed = self.encrypt(iv, clear)
        return sealed + self.mac.digest(aad + iv + sealed + tail)

    def open(self, iv: bytes, sealed: bytes, aad: bytes, tail: bytes = b"") -> bytes:
        cut = len(sealed) - self.icv_octets
        if cut < 0:
            raise Unauthentic
        self.mac.verify(aad + iv + sealed[:cut] + tail, sealed[cut:])
        if cut % self.block_octets:
            raise Malformed("ciphertext", "not whole blocks")
        return self.decrypt(iv, sealed[:cut])


class Registry:
    """Algorithms that passed their known-answer test, and why the others are missing."""

    def __init__(self) -> None:
        self._lacks: dict[tuple[Kind, str], str] = {}
        for row in ALGORITHMS:
            if (why := _probe(self, row)) is not None:
                self._lacks[(row.kind, row.name)] = why

    def lacks(self) -> tuple[tuple[str, str], ...]:
        """(algorithm, why) for each row of the table that cannot be used here."""
        return tuple((name, why) for (_, name), why in self._lacks.items())

    def has(self, algorithm: Algorithm) -> bool:
        return (algorithm.kind, algorithm.name) not in self._lacks

    def session(self, description: Description) -> Session:
        """A session under these keys. Raises Refused: key size, combination, or an algorithm that is missing here."""
        row = description.encryption
        if row.kind not in (Kind.AEAD, Kind.CIPHER):
            raise Refused(Errno.EINVAL, f"{row.name} does not encrypt")
        self._need(row)
        check_key(row, description.encryption_key)
        key = description.encryption_key.reveal()
        if row.kind is Kind.AEAD:
            if description.integrity is not None:
                raise Refused(Errno.EINVAL, f"{row.name} authenticates by itself: leave {description.integrity.name} out")
            return openssl.aead(row, key)
        mac = _no_mac() if description.integrity is None else self.digest(description.integrity, description.integrity_key)
        encrypt, decrypt = openssl.cipher(row, key)
        return _Plain(encrypt, decrypt, mac, row.iv_octets, mac.icv_octets, max(4, row.align_octets), row.block_octets)

    def digest(self, algorithm: Algorithm, key: Secret) -> Digest:
        """A keyed digest. Raises Refused."""
        if algorithm.kind is not Kind.INTEGRITY:
            raise Refused(Errno.EINVAL, f"{algorithm.name} does not authenticate alone")
        self._need(algorithm)
        check_key(algorithm, key)
        return integrity.open_digest(algorithm, key)

    def compressor(self, algorithm: Algorithm, level: int = 6) -> Compressor:
        """A compressor. Raises Refused."""
        if algorithm.kind is not Kind.COMPRESSION:
            raise Refused(Errno.EINVAL, f"{algorithm.name} does not compress")
        self._need(algorithm)
        return deflate.Deflate(level)

    def _need(self, row: Algorithm) -> None:
        if (why := self._lacks.get((row.kind, row.name))) is not None:
            raise Refused(Errno.EINVAL, f"{row.name} is not available here: {why}")


def check_key(row: Algorithm, key: Secret) -> None:
    """Refuses a key of a size that the algorithm does not take, saying which it takes."""
    if key.bits - 8 * row.salt_octets in row.key_bits:
        return
    sizes = [bits // 8 + row.salt_octets for bits in row.key_bits]
    if len(sizes) > 4:
        wanted = f"{sizes[0]} to {sizes[-1]}"
    else:
        wanted = " or ".join(part for part in (", ".join(map(str, sizes[:-1])), str(sizes[-1])) if part)
    salt = f": key plus {row.salt_octets} of salt" if row.salt_octets else ""
    raise Refused(Errno.EINVAL, f"{row.name} needs {wanted} octets{salt}; this one has {len(key)}")


def _no_mac() -> Digest:
    return integrity.KeyedDigest(lambda octets: b"", 0)


def _probe(registry: Registry, row: Algorithm) -> str | None:
    """Why the row cannot be used, or None: it is tried with a known answer."""
    tries: Mapping[Kind, Callable[[], bool]] = {
        Kind.AEAD: lambda: known_answer(row, lambda key: openssl.aead(row, key)),
        Kind.CIPHER: lambda: known_answer(row, lambda key: registry.session(Description(row, Secret(key)))),
        Kind.INTEGRITY: lambda: known_answer(row, lambda key: integrity.open_digest(row, Secret(key))),
        Kind.COMPRESSION: lambda: row.name == "deflate",
    }
    try:
        return None if tries[row.kind]() else ("no driver" if row.kind is Kind.COMPRESSION else "its known-answer test failed")
    except (UnsupportedAlgorithm, ValueError, KouraError) as error:
        return f"this build of OpenSSL lacks it ({error})"


@lru_cache(maxsize=1)
def default() -> Registry:
    """The registry of this process; algorithms are probed once."""
    return Registry()
