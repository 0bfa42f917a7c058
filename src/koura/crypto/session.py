"""What crypto offers the rooms above: sessions made from keys, and nothing about packets."""

from dataclasses import dataclass, field
from typing import Protocol

from koura.crypto.algorithm import Algorithm
from koura.errors import KouraError
from koura.secret import Secret


class Overflow(KouraError):
    """Compressed octets would expand beyond the limit."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a session is to do. Keys carry their salt at the end. An AEAD takes no integrity algorithm."""

    encryption: Algorithm
    encryption_key: Secret = field(default_factory=Secret)
    integrity: Algorithm | None = None
    integrity_key: Secret = field(default_factory=Secret)


class Session(Protocol):
    """Encrypts and authenticates under one key. Not safe for two threads at once."""

    @property
    def iv_octets(self) -> int: ...

    @property
    def icv_octets(self) -> int: ...

    @property
    def align_octets(self) -> int: ...

    def seal(self, iv: bytes, clear: bytes, aad: bytes, tail: bytes = b"") -> bytes:
        """ciphertext || icv. aad comes before, tail (ESN's high half) after what is authenticated; an AEAD takes no tail."""
        ...

    def open(self, iv: bytes, sealed: bytes, aad: bytes, tail: bytes = b"") -> bytes:
        """The clear octets of ciphertext || icv. Raises Unauthentic, and Malformed when the ciphertext is not whole blocks."""
        ...


class Digest(Protocol):
    """A keyed digest, cut to its ICV."""

    @property
    def icv_octets(self) -> int: ...

    def digest(self, octets: bytes) -> bytes: ...

    def verify(self, octets: bytes, icv: bytes) -> None:
        """Raises Unauthentic unless `icv` is that of `octets`; takes the same time wherever they differ."""
        ...


class Compressor(Protocol):
    """Compression without state between packets. RFC 3173 §2.2."""

    def compress(self, octets: bytes) -> bytes: ...

    def expand(self, octets: bytes, limit_octets: int) -> bytes:
        """Raises Malformed when damaged, Overflow beyond the limit."""
        ...
