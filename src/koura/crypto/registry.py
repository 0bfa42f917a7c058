"""The registry: which driver serves which algorithm, and the one place where keys become sessions. crypto(4).

A driver is asked for a score per algorithm and must give the known answer (`selftest`); the best one that crypto_support allows serves
an SA, from the moment it is made to its end. What nobody serves is refused by name, at the moment an SA asks for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InternalError, UnsupportedAlgorithm

from koura.crypto import selftest
from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.algorithms import ALGORITHMS
from koura.crypto.driver import Crypt, Driver, Support
from koura.crypto.drivers.deflate import Zlib
from koura.crypto.drivers.integrity import Hashes, KeyedDigest
from koura.crypto.drivers.null import Null
from koura.crypto.drivers.openssl import OpenSsl
from koura.crypto.session import Compressor, Description, Digest, Session
from koura.errors import Errno, KouraError, Malformed, Refused, Unauthentic
from koura.secret import Secret


@dataclass(frozen=True, slots=True)
class _Plain:
    """Encrypt, then authenticate: what is no AEAD. RFC 4303 §3.3.2."""

    encrypt: Crypt
    decrypt: Crypt
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


_Row = tuple[Kind, str]


class Registry:
    """Drivers by algorithm, each after its known-answer test, and why the other algorithms are missing."""

    def __init__(self, drivers: Iterable[Driver] = ()) -> None:
        self._serving: dict[_Row, list[Driver]] = {}
        self._faults: dict[_Row, str] = {}
        for driver in drivers:
            self.register(driver)

    def register(self, driver: Driver) -> None:
        """Ask a driver about every algorithm. One that it gets wrong, or lacks, it does not serve; SAs that exist keep their driver."""
        for row in ALGORITHMS:
            if driver.score(row) <= 0:
                continue
            why = fault(driver, row)
            if why is not None:
                self._faults[(row.kind, row.name)] = f"{driver.name} {why}"
                continue
            serving = self._serving.setdefault((row.kind, row.name), [])
            serving.append(driver)
            serving.sort(key=lambda one: -one.score(row))

    def lacks(self) -> tuple[tuple[str, str], ...]:
        """(algorithm, why) for each row of the table that cannot be used here."""
        return tuple((row.name, self._why(row)) for row in ALGORITHMS if not self.has(row))

    def has(self, algorithm: Algorithm) -> bool:
        return (algorithm.kind, algorithm.name) in self._serving

    def drivers(self, algorithm: Algorithm) -> tuple[str, ...]:
        """The names of the drivers that serve an algorithm, the best one first."""
        return tuple(driver.name for driver in self._serving.get((algorithm.kind, algorithm.name), ()))

    def providers(self) -> tuple[tuple[str, str], ...]:
        """(driver, version of its library) of everyone who serves anything, in the order of their registration."""
        return tuple(dict.fromkeys((driver.name, driver.version) for serving in self._serving.values() for driver in serving))

    def session(self, description: Description, support: Support = Support.ANY) -> Session:
        """A session under these keys. Raises Refused: key size, combination, or an algorithm that is missing here."""
        row = description.encryption
        if row.kind not in (Kind.AEAD, Kind.CIPHER):
            raise Refused(Errno.EINVAL, f"{row.name} does not encrypt")
        driver = self._choose(row, support)
        check_key(row, description.encryption_key)
        key = description.encryption_key.reveal()
        if row.kind is Kind.AEAD:
            if description.integrity is not None:
                raise Refused(Errno.EINVAL, f"{row.name} authenticates by itself: leave {description.integrity.name} out")
            return driver.aead(row, key)
        mac = _NO_MAC if description.integrity is None else self.digest(description.integrity, description.integrity_key, support)
        return _plain(row, driver.cipher(row, key), mac)

    def digest(self, algorithm: Algorithm, key: Secret, support: Support = Support.ANY) -> Digest:
        """A keyed digest. Raises Refused."""
        if algorithm.kind is not Kind.INTEGRITY:
            raise Refused(Errno.EINVAL, f"{algorithm.name} does not authenticate alone")
        driver = self._choose(algorithm, support)
        check_key(algorithm, key)
        return driver.digest(algorithm, key.reveal())

    def compressor(self, algorithm: Algorithm, level: int = 6, support: Support = Support.ANY) -> Compressor:
        """A compressor. Raises Refused."""
        if algorithm.kind is not Kind.COMPRESSION:
            raise Refused(Errno.EINVAL, f"{algorithm.name} does not compress")
        return self._choose(algorithm, support).compressor(algorithm, level)

    def _choose(self, row: Algorithm, support: Support) -> Driver:
        """The best driver that the operator allows (M40). Raises Refused."""
        serving = self._serving.get((row.kind, row.name), [])
        if not serving:
            raise Refused(Errno.EINVAL, f"{row.name} is not available here: {self._why(row)}")
        for driver in serving:
            if support is Support.ANY or driver.is_hardware == (support is Support.HARDWARE):
                return driver
        kind = "hardware" if support is Support.HARDWARE else "software"
        raise Refused(Errno.EINVAL, f"no {kind} driver serves {row.name}, and net.inet.ipsec.crypto_support asks for one")

    def _why(self, row: Algorithm) -> str:
        return self._faults.get((row.kind, row.name), "no driver")


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


_NO_MAC: Digest = KeyedDigest(lambda octets: b"", 0)


def _plain(row: Algorithm, crypt: tuple[Crypt, Crypt], mac: Digest) -> Session:
    return _Plain(*crypt, mac, row.iv_octets, mac.icv_octets, row.align_octets, row.block_octets)


def fault(driver: Driver, row: Algorithm) -> str | None:
    """What is wrong with a driver's version of an algorithm: it is tried with a known answer. None: nothing."""
    try:
        match row.kind:
            case Kind.AEAD:
                is_right = selftest.is_session_right(row, lambda key: driver.aead(row, key))
            case Kind.CIPHER:
                is_right = selftest.is_session_right(row, lambda key: _plain(row, driver.cipher(row, key), _NO_MAC))
            case Kind.INTEGRITY:
                is_right = selftest.is_digest_right(row, lambda key: driver.digest(row, key))
            case Kind.COMPRESSION:
                is_right = selftest.is_compressor_right(driver.compressor(row, 6))
    except (UnsupportedAlgorithm, InternalError, ValueError, KouraError) as error:
        return f"lacks it ({error})"
    return None if is_right else "fails its known-answer test"


@lru_cache(maxsize=1)
def default() -> Registry:
    """The registry of this process; algorithms are probed once."""
    return Registry((OpenSsl(), Hashes(), Zlib(), Null()))
