"""Ciphers and AEADs by `cryptography` (OpenSSL). A cipher that the build lacks raises UnsupportedAlgorithm when it is first used."""

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.decrepit.ciphers import algorithms as decrepit
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.driver import Crypt, Driver
from koura.crypto.session import Session
from koura.errors import Malformed, Unauthentic

# Where `cryptography` keeps Camellia has changed once; TripleDES, Blowfish and CAST5 are in `decrepit` since 43.
_Camellia: Callable[[bytes], BlockCipherAlgorithm] = getattr(decrepit, "Camellia", None) or algorithms.Camellia

_BLOCKS: dict[str, Callable[[bytes], BlockCipherAlgorithm]] = {
    "aes-cbc": algorithms.AES, "camellia-cbc": _Camellia, "3des-cbc": decrepit.TripleDES, "des-cbc": decrepit.TripleDES,
    "blowfish-cbc": decrepit.Blowfish, "cast128-cbc": decrepit.CAST5,
}  # fmt: skip
_COUNTERS: dict[str, Callable[[bytes], BlockCipherAlgorithm]] = {"aes-ctr": algorithms.AES, "camellia-ctr": _Camellia}


class OpenSsl(Driver):
    """Serves every AEAD and every cipher but null."""

    name = "openssl"

    @property
    def version(self) -> str:
        return backend.openssl_version_text()

    def score(self, row: Algorithm) -> int:
        return 1 if row.kind is Kind.AEAD or (row.kind is Kind.CIPHER and (row.name in _BLOCKS or row.name in _COUNTERS)) else 0

    def aead(self, row: Algorithm, key: bytes) -> Session:
        return Gmac(row, key) if row.name == "aes-gmac" else Aead(row, key)

    def cipher(self, row: Algorithm, key: bytes) -> tuple[Crypt, Crypt]:
        if row.name == "aes-ctr":
            return _ctr(algorithms.AES(key[:-4]), key[-4:])
        if row.name == "camellia-ctr":
            return _camellia_ctr(key)
        # RFC 2405: single DES is triple DES with one key three times.
        block = _BLOCKS[row.name](key * 3 if row.name == "des-cbc" else key)

        def crypt(context: CipherContext, octets: bytes) -> bytes:
            try:
                return context.update(octets) + context.finalize()
            except ValueError as error:
                raise Malformed(row.name, "not whole blocks") from error

        return (
            lambda iv, octets: crypt(Cipher(block, modes.CBC(iv)).encryptor(), octets),
            lambda iv, octets: crypt(Cipher(block, modes.CBC(iv)).decryptor(), octets),
        )


class Aead:
    """GCM, CCM or ChaCha20-Poly1305: nonce = salt || iv.

    The key is expanded when the first packet wants it: of many SAs most wait long, and where the fast path serves, all do.
    """

    __slots__ = ("_key", "_name", "_ready", "_salt", "align_octets", "icv_octets", "iv_octets")

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        salt = algorithm.salt_octets
        self._key, self._salt, self._name = key[:-salt], key[-salt:], algorithm.name
        self.iv_octets, self.icv_octets, self.align_octets = algorithm.iv_octets, algorithm.icv_octets, algorithm.align_octets
        self._ready: AESGCM | AESCCM | ChaCha20Poly1305 | None = None

    def _expanded(self) -> AESGCM | AESCCM | ChaCha20Poly1305:
        if self._name == "chacha20-poly1305":
            self._ready = ChaCha20Poly1305(self._key)
        elif self._name.startswith("aes-ccm"):
            self._ready = AESCCM(self._key, tag_length=self.icv_octets)
        else:
            self._ready = AESGCM(self._key)
        return self._ready

    def seal(self, iv: bytes, clear: bytes, aad: bytes, tail: bytes = b"") -> bytes:
        assert not tail
        sealed = (self._ready or self._expanded()).encrypt(self._salt + iv, clear, aad)
        return sealed[: len(clear) + self.icv_octets]

    def open(self, iv: bytes, sealed: bytes, aad: bytes, tail: bytes = b"") -> bytes:
        assert not tail
        if len(sealed) < self.icv_octets:
            raise Unauthentic
        aead = self._ready or self._expanded()
        try:
            if self.icv_octets < 16 and isinstance(aead, AESGCM):
                return self._open_truncated(iv, sealed, aad)
            return aead.decrypt(self._salt + iv, sealed, aad)
        except InvalidTag as error:
            raise Unauthentic from error

    def _open_truncated(self, iv: bytes, sealed: bytes, aad: bytes) -> bytes:
        """GCM with an ICV of 8 or 12 octets. RFC 4106 §6."""
        cut = len(sealed) - self.icv_octets
        mode = modes.GCM(self._salt + iv, sealed[cut:], min_tag_length=self.icv_octets)
        running = Cipher(algorithms.AES(self._key), mode).decryptor()
        running.authenticate_additional_data(aad)
        return running.update(sealed[:cut]) + running.finalize()


class Gmac:
    """ENCR_NULL_AUTH_AES_GMAC: nothing is encrypted; aad || iv || clear is authenticated. RFC 4543 §3."""

    __slots__ = ("_aead", "_salt", "align_octets", "icv_octets", "iv_octets")

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        self._aead, self._salt = AESGCM(key[:-4]), key[-4:]
        self.iv_octets, self.icv_octets, self.align_octets = algorithm.iv_octets, algorithm.icv_octets, algorithm.align_octets

    def seal(self, iv: bytes, clear: bytes, aad: bytes, tail: bytes = b"") -> bytes:
        assert not tail
        return clear + self._aead.encrypt(self._salt + iv, b"", aad + iv + clear)

    def open(self, iv: bytes, sealed: bytes, aad: bytes, tail: bytes = b"") -> bytes:
        assert not tail
        cut = len(sealed) - self.icv_octets
        if cut < 0:
            raise Unauthentic
        try:
            self._aead.decrypt(self._salt + iv, sealed[cut:], aad + iv + sealed[:cut])
        except InvalidTag as error:
            raise Unauthentic from error
        return sealed[:cut]


def _ctr(block: BlockCipherAlgorithm, salt: bytes) -> tuple[Crypt, Crypt]:
    """Counter block: salt || iv || 1. RFC 3686 §4."""

    def crypt(iv: bytes, octets: bytes) -> bytes:
        return Cipher(block, modes.CTR(salt + iv + b"\0\0\0\1")).encryptor().update(octets)

    return crypt, crypt


def _camellia_ctr(key: bytes) -> tuple[Crypt, Crypt]:
    """Camellia in counter mode over single blocks: OpenSSL's binding has no CTR for it. RFC 5529 §2.1."""
    cipher_, salt = Cipher(_Camellia(key[:-4]), modes.ECB()), key[-4:]

    def crypt(iv: bytes, octets: bytes) -> bytes:
        count = -(-len(octets) // 16)
        blocks = b"".join(salt + iv + number.to_bytes(4, "big") for number in range(1, count + 1))
        stream = cipher_.encryptor().update(blocks)[: len(octets)]
        return (int.from_bytes(octets, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(octets), "big")

    return crypt, crypt
