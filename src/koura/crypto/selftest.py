"""Known-answer tests at registration: a driver that gets one wrong does not serve that algorithm.

Answers were made once with key 00 01 02 ..., iv 00 01 ..., and 32 octets of 0xa5, and checked against the RFC vectors' second
implementations (tests/vectors/crypto/PROVENANCE.md); the RFCs' own vectors run in the test suite.
"""

import hashlib
from collections.abc import Callable

from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.session import Compressor, Digest, Session

CLEAR = b"\xa5" * 32
AAD = bytes(range(8))

# SHA-256 over what the algorithm gives, its first eight octets.
ANSWERS: dict[tuple[Kind, str], str] = {
    (Kind.AEAD, "aes-gcm-16"): "a2552ba0a11a100f",
    (Kind.AEAD, "aes-gcm-12"): "7b40a0c6f1c8a9cb",
    (Kind.AEAD, "aes-gcm-8"): "6e25388c64c69eb4",
    (Kind.AEAD, "aes-ccm-16"): "f473f15a1dfa1625",
    (Kind.AEAD, "aes-ccm-12"): "f0f780dd9c07e63c",
    (Kind.AEAD, "aes-ccm-8"): "a5cd35490b022653",
    (Kind.AEAD, "chacha20-poly1305"): "44257ea8758cdfc9",
    (Kind.AEAD, "aes-gmac"): "e383b7c3e79dd7c2",
    (Kind.CIPHER, "aes-cbc"): "aee79bbe856cd3b4",
    (Kind.CIPHER, "aes-ctr"): "ecf6656e2194b453",
    (Kind.CIPHER, "camellia-cbc"): "27cb766ef4061f6d",
    (Kind.CIPHER, "camellia-ctr"): "ede07fda65594a51",
    (Kind.CIPHER, "3des-cbc"): "831e3d29637b9f63",
    (Kind.CIPHER, "des-cbc"): "187c819005103fe9",
    (Kind.CIPHER, "blowfish-cbc"): "3ccf79895b64bb2c",
    (Kind.CIPHER, "cast128-cbc"): "5365c09361390f88",
    (Kind.CIPHER, "null"): "fc8b64001c5fdd0f",
    (Kind.INTEGRITY, "hmac-sha2-256"): "f336a1612bf74f4d",
    (Kind.INTEGRITY, "hmac-sha2-384"): "2ce9a360cc2d084c",
    (Kind.INTEGRITY, "hmac-sha2-512"): "234b8b980ba7e0de",
    (Kind.INTEGRITY, "hmac-sha1"): "741d086dfd1b8bdf",
    (Kind.INTEGRITY, "aes-xcbc-mac"): "e9ca1077ec027e2a",
    (Kind.INTEGRITY, "aes-cmac"): "f2640c5b37cb6dcc",
    (Kind.INTEGRITY, "hmac-sha2-256-96"): "b2f19441e00503c6",
    (Kind.INTEGRITY, "hmac-ripemd160"): "ede88bf3ebbddced",
    (Kind.INTEGRITY, "hmac-md5"): "1e29ef6286ad4f5f",
    (Kind.INTEGRITY, "keyed-md5"): "a44a248178bdae4c",
    (Kind.INTEGRITY, "keyed-sha1"): "c46f1ae802bfc3a5",
    (Kind.INTEGRITY, "tcp-md5"): "8a8d9be25bebeb47",
    (Kind.INTEGRITY, "null"): "e3b0c44298fc1c14",
}


# "a" 300 times and "b", as one block of raw deflate with fixed Huffman codes (RFC 1951 §3.2.6).
PACKED = bytes.fromhex("4b4c1c05c4822400")
UNPACKED = b"a" * 300 + b"b"


def is_session_right(row: Algorithm, open_with: Callable[[bytes], Session]) -> bool:
    """Whether a cipher or AEAD gives the recorded answer and opens it again. Whatever it raises goes through."""
    made = open_with(_key(row))
    iv = bytes(range(row.iv_octets))
    sealed = made.seal(iv, CLEAR, AAD)
    return _is_known(row, sealed) and made.open(iv, sealed, AAD) == CLEAR


def is_digest_right(row: Algorithm, open_with: Callable[[bytes], Digest]) -> bool:
    """Whether a keyed digest gives the recorded answer."""
    return _is_known(row, open_with(_key(row)).digest(CLEAR))


def is_compressor_right(made: Compressor) -> bool:
    """Whether it expands what others compress, and what it compresses itself."""
    return made.expand(PACKED, len(UNPACKED)) == UNPACKED and made.expand(made.compress(CLEAR), len(CLEAR)) == CLEAR


def _key(row: Algorithm) -> bytes:
    return bytes(range(row.key_bits[-1] // 8 + row.salt_octets))


def _is_known(row: Algorithm, answer: bytes) -> bool:
    return hashlib.sha256(answer).hexdigest()[:16] == ANSWERS[(row.kind, row.name)]
