"""Wireshark's table of ESP SAs (esp_sa): with it, it decrypts what was captured on the wire. It has keys in it.

Wireshark knows no CCM, ChaCha20-Poly1305, GMAC and Camellia, and takes an ESN for a wrong ICV: such SAs are left out, by name.
"""

from collections.abc import Iterable

from koura.address import show
from koura.sadb.agreement import Agreement
from koura.saindex import Protocol

FILE = "esp_sa"
_CIPHERS = {
    "null": "NULL", "aes-cbc": "AES-CBC [RFC3602]", "aes-ctr": "AES-CTR [RFC3686]", "3des-cbc": "TripleDES-CBC [RFC2451]",
    "des-cbc": "DES-CBC [RFC2405]", "blowfish-cbc": "BLOWFISH-CBC [RFC2451]", "cast128-cbc": "CAST5-CBC [RFC2144]",
    "aes-gcm-8": "AES-GCM with 8 octet ICV [RFC4106]", "aes-gcm-12": "AES-GCM with 12 octet ICV [RFC4106]",
    "aes-gcm-16": "AES-GCM with 16 octet ICV [RFC4106]",
}  # fmt: skip
_DIGESTS = {
    "hmac-md5": "HMAC-MD5-96 [RFC2403]", "hmac-sha1": "HMAC-SHA-1-96 [RFC2404]", "hmac-sha2-256": "HMAC-SHA-256-128 [RFC4868]",
    "hmac-sha2-256-96": "HMAC-SHA-256-96 [draft-ietf-ipsec-ciph-sha-256-00]", "hmac-sha2-384": "HMAC-SHA-384-192 [RFC4868]",
    "hmac-sha2-512": "HMAC-SHA-512-256 [RFC4868]", "hmac-ripemd160": "MAC-RIPEMD-160-96 [RFC2857]",
}  # fmt: skip


def table(agreements: Iterable[Agreement]) -> tuple[str, tuple[str, ...]]:
    """The file's text, and the ESP SAs that Wireshark does not know."""
    lines, unknown = ["# Made by koura capture. This file has keys in it."], []
    for agreement in agreements:
        if agreement.index.protocol is not Protocol.ESP or agreement.encryption is None:
            continue
        line = _line(agreement)
        if line:
            lines.append(line)
        else:
            index = agreement.index
            unknown.append(f"{show(index.src)} {show(index.dst)} {agreement.spi:#x} ({agreement.encryption.name})")
    return "\n".join(lines) + "\n", tuple(unknown)


def _line(agreement: Agreement) -> str:
    """One row; '' for an SA that is beyond it."""
    encryption, integrity, index = agreement.encryption, agreement.integrity, agreement.index
    assert encryption is not None
    cipher = _CIPHERS.get(encryption.name)
    digest = "NULL" if integrity is None else _DIGESTS.get(integrity.name)
    if cipher is None or digest is None or agreement.has_esn:
        return ""
    cells = (
        "IPv6" if len(index.dst) == 16 else "IPv4", show(index.src), show(index.dst), f"{agreement.spi:#x}",
        cipher, _hex(agreement.encryption_key.reveal()), digest, _hex(agreement.integrity_key.reveal()),
    )  # fmt: skip
    return ",".join(f'"{cell}"' for cell in cells)


def _hex(key: bytes) -> str:
    return "0x" + key.hex() if key else ""
