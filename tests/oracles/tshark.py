"""tshark as a witness: decrypts and authenticates ESP with code of its own (libgcrypt), many packets in one run.

It has no CCM, ChaCha20-Poly1305, GMAC or Camellia, checks no XCBC or CMAC, takes ESN for a bad ICV, and does not check AH.
A malformed packet inside hides its verdict.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from koura.address import show
from koura.sadb.agreement import Agreement
from koura.saindex import Protocol
from koura.wire import capture

PROGRAM = shutil.which("tshark")
_ENCRYPTION = {
    "null": "NULL", "aes-cbc": "AES-CBC [RFC3602]", "aes-ctr": "AES-CTR [RFC3686]", "3des-cbc": "TripleDES-CBC [RFC2451]",
    "des-cbc": "DES-CBC [RFC2405]", "blowfish-cbc": "BLOWFISH-CBC [RFC2451]", "cast128-cbc": "CAST5-CBC [RFC2144]",
    "aes-gcm-8": "AES-GCM with 8 octet ICV [RFC4106]", "aes-gcm-12": "AES-GCM with 12 octet ICV [RFC4106]",
    "aes-gcm-16": "AES-GCM with 16 octet ICV [RFC4106]",
}  # fmt: skip
_INTEGRITY = {
    "hmac-md5": "HMAC-MD5-96 [RFC2403]", "hmac-sha1": "HMAC-SHA-1-96 [RFC2404]", "hmac-sha2-256": "HMAC-SHA-256-128 [RFC4868]",
    "hmac-sha2-256-96": "HMAC-SHA-256-96 [draft-ietf-ipsec-ciph-sha-256-00]", "hmac-sha2-384": "HMAC-SHA-384-192 [RFC4868]",
    "hmac-sha2-512": "HMAC-SHA-512-256 [RFC4868]", "hmac-ripemd160": "MAC-RIPEMD-160-96 [RFC2857]",
}  # fmt: skip
_ONLY_128 = ("blowfish-cbc", "cast128-cbc")  # libgcrypt takes no other key
_CLEAR = ("Decrypted Data", "IPcomp inflated data")
_SOURCE = re.compile(r"^(.+) \((\d+) bytes\):$")


def knows(agreement: Agreement) -> bool:
    """Whether tshark can decrypt and authenticate what this ESP SA seals."""
    encryption, integrity = agreement.encryption, agreement.integrity
    if agreement.index.protocol is not Protocol.ESP or agreement.has_esn or encryption is None or encryption.name not in _ENCRYPTION:
        return False
    if encryption.name in _ONLY_128 and agreement.encryption_key.bits != 128:
        return False
    return integrity is None or integrity.name in _INTEGRITY


@dataclass(slots=True)
class Seen:
    """What tshark saw in one packet: for each ESP header an ICV that is good or bad, and what it decrypted or inflated, outermost first."""

    good: int = 0
    bad: int = 0
    clear: list[bytes] = field(default_factory=list)


def look(packets: Sequence[bytes], agreements: Iterable[Agreement]) -> list[Seen]:
    """One Seen for each packet."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sealed.pcap"
        with path.open("wb") as file:
            writer = capture.Writer(file)
            for packet in packets:
                writer.write(0, packet)
        known = list(agreements)
        options = [f"-ouat:esp_sa:{_row(agreement)}" for agreement in known]
        ports = {agreement.encapsulation.dport for agreement in known if agreement.encapsulation is not None}
        options += [f"-dudp.port=={port},udpencap" for port in sorted(ports)]
        seen = [Seen() for _ in packets]
        for line in _run(path, options, "-Tfields", "-eframe.number", "-eesp.icv_good", "-eesp.icv_bad").splitlines():
            number, good, bad = line.split("\t")
            one = seen[int(number) - 1]
            one.good, one.bad = good.count("1"), bad.count("1")
        for one, clear in zip(seen, _sources(_run(path, options, "-x")), strict=True):
            one.clear = clear
    return seen


def _run(path: Path, options: list[str], *arguments: str) -> str:
    assert PROGRAM is not None
    command = [PROGRAM, "-n", "-r", str(path), "-oesp.enable_encryption_decode:TRUE", "-oesp.enable_authentication_check:TRUE"]
    ran = subprocess.run([*command, *options, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _row(agreement: Agreement) -> str:
    """A row of tshark's table esp_sa: addresses, SPI, the two algorithms with their keys."""
    encryption, integrity = agreement.encryption, agreement.integrity
    assert encryption is not None
    index = agreement.index
    cells = (
        "IPv6" if len(index.dst) == 16 else "IPv4", show(index.src), show(index.dst), f"{agreement.spi:#x}",
        _ENCRYPTION[encryption.name], _hex(agreement.encryption_key.reveal()),
        _INTEGRITY[integrity.name] if integrity is not None else "NULL", _hex(agreement.integrity_key.reveal()),
    )  # fmt: skip
    return ",".join(f'"{cell}"' for cell in cells)


def _hex(key: bytes) -> str:
    return "0x" + key.hex() if key else ""


def _sources(text: str) -> list[list[bytes]]:
    """The hex dumps of -x: for each packet what was decrypted or inflated. A packet without either has one dump and no title."""
    found: list[list[bytes]] = []
    for part in filter(None, text.split("\n\n")):
        dumps: list[tuple[str, bytearray]] = []
        for line in part.strip("\n").split("\n"):
            if (title := _SOURCE.match(line)) is not None:
                dumps.append((title.group(1), bytearray()))
                continue
            if not dumps:
                dumps.append(("Frame", bytearray()))
            dumps[-1][1].extend(bytes.fromhex(line[6:53]))
        if dumps[0][0] == "Frame":
            found.append([])
            del dumps[0]
        found[-1] += [bytes(octets) for name, octets in dumps if name in _CLEAR]
    return found
