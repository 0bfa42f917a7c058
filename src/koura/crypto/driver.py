"""A driver: one provider of algorithms, asked for a score for each. crypto(4).

The registry gives an algorithm to the driver with the highest score among those that passed its known-answer test; which of them an
SA may use is said when it is made (`Support`, net.inet.ipsec.crypto_support).
"""

from collections.abc import Callable
from enum import IntEnum

from koura.crypto.algorithm import Algorithm
from koura.crypto.session import Compressor, Digest, Session
from koura.errors import Bug

Crypt = Callable[[bytes, bytes], bytes]  # (iv, octets) -> octets


class Support(IntEnum):
    """Which drivers an SA may use, crypto_support's numbers."""

    SOFTWARE = -1
    ANY = 0
    HARDWARE = 1


class Driver:
    """What a provider offers. One that scores above 0 for a row implements the method of the row's kind.

    Each method may raise ValueError or UnsupportedAlgorithm where the library behind it lacks the algorithm: the registry asks
    when the driver is registered, and reports it by name.
    """

    name = ""
    is_hardware = False

    @property
    def version(self) -> str:
        """Of the library behind it; '' where it has none of its own."""
        return ""

    def score(self, row: Algorithm) -> int:
        """How well the driver serves a row; 0: not at all."""
        return 0

    def aead(self, row: Algorithm, key: bytes) -> Session:
        """A session of an AEAD row; `key` with its salt at the end, its size already checked."""
        raise Bug(f"{self.name} promised {row.name}")

    def cipher(self, row: Algorithm, key: bytes) -> tuple[Crypt, Crypt]:
        """(encrypt, decrypt) of a CIPHER row; `key` likewise."""
        raise Bug(f"{self.name} promised {row.name}")

    def digest(self, row: Algorithm, key: bytes) -> Digest:
        """A keyed digest of an INTEGRITY row."""
        raise Bug(f"{self.name} promised {row.name}")

    def compressor(self, row: Algorithm, level: int) -> Compressor:
        """A compressor of a COMPRESSION row; level 0 stores, 1 is fast, 9 small."""
        raise Bug(f"{self.name} promised {row.name}")
