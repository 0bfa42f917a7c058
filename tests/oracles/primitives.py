"""Second implementations of every cryptographic algorithm: pycryptodome, hashlib, and by hand over single blocks. None of ours.

What pycryptodome lacks (XCBC, Camellia) is written out here from its RFC over one-block encryption; GMAC is GCM without plaintext.
"""

import hashlib
import hmac
from collections.abc import Callable

from Crypto.Cipher import AES, CAST, DES, Blowfish, ChaCha20_Poly1305
from Crypto.Hash import CMAC, RIPEMD160
from cryptography.hazmat.decrepit.ciphers.algorithms import Camellia
from cryptography.hazmat.primitives.ciphers import Cipher, modes

_HASHES = {
    "hmac-md5": "md5", "hmac-sha1": "sha1", "hmac-sha2-256": "sha256", "hmac-sha2-256-96": "sha256", "hmac-sha2-384": "sha384",
    "hmac-sha2-512": "sha512",
}  # fmt: skip
ICV_OCTETS = {
    "hmac-md5": 12, "hmac-sha1": 12, "hmac-ripemd160": 12, "hmac-sha2-256": 16, "hmac-sha2-256-96": 12, "hmac-sha2-384": 24,
    "hmac-sha2-512": 32, "aes-xcbc-mac": 12, "aes-cmac": 12, "keyed-md5": 16, "keyed-sha1": 16, "tcp-md5": 16, "null": 0,
}  # fmt: skip


def xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=False))


def aead(name: str, key: bytes, iv: bytes, clear: bytes, aad: bytes) -> bytes:
    """ciphertext || icv; the key ends with its salt."""
    if name.startswith("aes-ccm"):
        made = AES.new(key[:-3], AES.MODE_CCM, nonce=key[-3:] + iv, mac_len=int(name.rpartition("-")[2]))
    elif name == "chacha20-poly1305":
        made = ChaCha20_Poly1305.new(key=key[:-4], nonce=key[-4:] + iv)
    else:
        octets = 16 if name == "aes-gmac" else int(name.rpartition("-")[2])
        made = AES.new(key[:-4], AES.MODE_GCM, nonce=key[-4:] + iv, mac_len=octets)
    if name == "aes-gmac":
        made.update(aad + iv + clear)
        return clear + bytes(made.digest())
    made.update(aad)
    sealed, icv = made.encrypt_and_digest(clear)
    return bytes(sealed) + bytes(icv)


def cipher(name: str, key: bytes, iv: bytes, clear: bytes) -> bytes:
    """The ciphertext of whole blocks (or of any octets in counter modes); a counter mode's key ends with its salt."""
    if name == "null":
        return clear
    if name == "aes-ctr":
        return bytes(AES.new(key[:-4], AES.MODE_CTR, nonce=key[-4:] + iv, initial_value=1).encrypt(clear))
    if name == "camellia-ctr":
        counters = range(1, len(clear) // 16 + 2)
        stream = b"".join(_camellia(key[:-4], key[-4:] + iv + count.to_bytes(4, "big")) for count in counters)
        return xor(clear, stream)
    if name == "camellia-cbc":
        return _chained(lambda block: _camellia(key, block), iv, clear)
    if name == "3des-cbc":
        # pycryptodome refuses triple keys that come down to single DES, so EDE is written out over single blocks.
        return _chained(lambda block: _ede(key, block), iv, clear)
    module = {"aes-cbc": AES, "des-cbc": DES, "blowfish-cbc": Blowfish, "cast128-cbc": CAST}[name]
    return bytes(module.new(key, module.MODE_CBC, iv=iv).encrypt(clear))  # type: ignore[attr-defined]


def mac(name: str, key: bytes, octets: bytes) -> bytes:
    """The whole digest, not cut."""
    if name in _HASHES:
        return hmac.digest(key, octets, _HASHES[name])
    if name == "hmac-ripemd160":
        block = (RIPEMD160.new(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
        inner = RIPEMD160.new(xor(block, b"\x36" * 64) + octets).digest()
        return bytes(RIPEMD160.new(xor(block, b"\x5c" * 64) + inner).digest())
    if name == "aes-cmac":
        return bytes(CMAC.new(key, octets, ciphermod=AES).digest())
    if name == "aes-xcbc-mac":
        return _xcbc(key, octets)
    if name == "tcp-md5":
        return hashlib.md5(octets + key).digest()
    if name == "null":
        return b""
    # RFC 1828 §1.1, RFC 1852: the first key with the padding of its hash, as if it were a message.
    bits = (8 * len(key)).to_bytes(8, "little" if name == "keyed-md5" else "big")
    filled = key + b"\x80"
    filled += bytes(-(len(filled) + 8) % 64) + bits
    return hashlib.new(name.removeprefix("keyed-"), filled + octets + key).digest()


def _camellia(key: bytes, block: bytes) -> bytes:
    return Cipher(Camellia(key), modes.ECB()).encryptor().update(block)


def _ede(key: bytes, block: bytes) -> bytes:
    first, second, third = (DES.new(key[start : start + 8], DES.MODE_ECB) for start in (0, 8, 16))
    return bytes(third.encrypt(second.decrypt(first.encrypt(block))))


def _chained(encrypt: Callable[[bytes], bytes], iv: bytes, clear: bytes) -> bytes:
    out, before = b"", iv
    for start in range(0, len(clear), len(iv)):
        before = encrypt(xor(clear[start : start + len(iv)], before))
        out += before
    return out


def _xcbc(key: bytes, octets: bytes) -> bytes:
    """RFC 3566 §4, step by step."""
    single = AES.new(key, AES.MODE_ECB)
    k1, k2, k3 = (single.encrypt(bytes([number]) * 16) for number in (1, 2, 3))
    blocks = [octets[start : start + 16] for start in range(0, len(octets), 16)] or [b""]
    encrypt = AES.new(k1, AES.MODE_ECB).encrypt
    value = bytes(16)
    for block in blocks[:-1]:
        value = encrypt(xor(value, block))
    last = blocks[-1]
    last = xor(last, k2) if len(last) == 16 else xor((last + b"\x80").ljust(16, b"\0"), k3)
    return bytes(encrypt(xor(value, last)))
