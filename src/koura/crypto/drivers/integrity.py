"""Keyed digests: HMACs by hashlib, AES-CMAC and AES-XCBC by OpenSSL's block cipher, the keyed forms of 1995."""

import hashlib
import hmac
from collections.abc import Callable
from typing import Literal

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.driver import Driver
from koura.crypto.session import Digest
from koura.errors import Unauthentic

_HASHES = {
    "hmac-sha1": "sha1", "hmac-sha2-256": "sha256", "hmac-sha2-256-96": "sha256", "hmac-sha2-384": "sha384",
    "hmac-sha2-512": "sha512", "hmac-md5": "md5", "hmac-ripemd160": "ripemd160",
}  # fmt: skip
_KEYED = {"keyed-md5": "md5", "keyed-sha1": "sha1", "tcp-md5": "md5"}
_BLOCK_MACS = frozenset(("aes-cmac", "aes-xcbc-mac"))


class KeyedDigest:
    """A digest function with its cut; verification in constant time."""

    __slots__ = ("_function", "icv_octets")

    def __init__(self, function: Callable[[bytes], bytes], icv_octets: int) -> None:
        self._function = function
        self.icv_octets = icv_octets

    def digest(self, octets: bytes) -> bytes:
        return self._function(octets)[: self.icv_octets]

    def verify(self, octets: bytes, icv: bytes) -> None:
        if not hmac.compare_digest(self.digest(octets), icv):
            raise Unauthentic


class Hashes(Driver):
    """Serves every INTEGRITY row but null. A hash that this build lacks (ValueError) is found out at registration."""

    name = "hashlib"

    def score(self, row: Algorithm) -> int:
        return 1 if row.kind is Kind.INTEGRITY and (row.name in _HASHES or row.name in _KEYED or row.name in _BLOCK_MACS) else 0

    def digest(self, row: Algorithm, key: bytes) -> Digest:
        return KeyedDigest(_function(row.name, key), row.icv_octets)


def _function(name: str, key: bytes) -> Callable[[bytes], bytes]:
    if name in _HASHES:
        base = hmac.new(key, digestmod=_HASHES[name])

        def by_hmac(octets: bytes) -> bytes:
            running = base.copy()
            running.update(octets)
            return running.digest()

        return by_hmac
    if name == "aes-cmac":
        return lambda octets: _cmac(key, octets)
    if name == "aes-xcbc-mac":
        return _xcbc(key)
    if name == "tcp-md5":  # RFC 2385 §2.0: the key comes last.
        return lambda octets: hashlib.md5(octets + key).digest()
    hash_name = _KEYED[name]
    # RFC 1828 §1.1, RFC 1852 §1.1: key, filled to a block as the hash fills; the octets; key again.
    filled = _filled(key, "big" if hash_name == "sha1" else "little")
    return lambda octets: hashlib.new(hash_name, filled + octets + key).digest()


def _filled(key: bytes, order: Literal["big", "little"]) -> bytes:
    """The key with the hash's own padding to whole 64-octet blocks: MD5 counts bits from the low octet, SHA1 from the high one."""
    return key + b"\x80" + bytes((55 - len(key)) % 64) + (8 * len(key)).to_bytes(8, order)


def _cmac(key: bytes, octets: bytes) -> bytes:
    running = CMAC(algorithms.AES(key))
    running.update(octets)
    return running.finalize()


def _xcbc(key: bytes) -> Callable[[bytes], bytes]:
    """AES-XCBC-MAC. RFC 3566 §4: CBC-MAC under K1, the last block mixed with K2 (whole) or K3 (padded)."""
    # ECB of three constant blocks derives the subkeys; it is no mode of operation here. RFC 3566 §4 (1).
    derive = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    k1, k2, k3 = (derive.update(bytes((n,)) * 16) for n in (1, 2, 3))
    cipher = Cipher(algorithms.AES(k1), modes.CBC(bytes(16)))

    def digest(octets: bytes) -> bytes:
        whole = len(octets) % 16 == 0 and octets != b""
        if not whole:
            octets += b"\x80" + bytes(-(len(octets) + 1) % 16)
        mixed = bytes(a ^ b for a, b in zip(octets[-16:], k2 if whole else k3, strict=True))
        return cipher.encryptor().update(octets[:-16] + mixed)[-16:]

    return digest
