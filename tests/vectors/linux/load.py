"""The Linux captures as values: each entry of index.json with its SAs as agreements, its packets, and their plain twins."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from koura.address import parse
from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.algorithms import by_name
from koura.sadb.agreement import Agreement, Encapsulation, SaFlags
from koura.saindex import Mode, Protocol, SaIndex
from koura.secret import Secret
from koura.wire import capture

HERE = Path(__file__).parent
_AEADS = {"rfc4106(gcm(aes))": "aes-gcm-{}", "rfc4309(ccm(aes))": "aes-ccm-{}"}
_ENCRYPTION = {
    "rfc4543(gcm(aes))": "aes-gmac", "rfc7539esp(chacha20,poly1305)": "chacha20-poly1305", "cbc(aes)": "aes-cbc",
    "cbc(camellia)": "camellia-cbc",
    "cbc(des3_ede)": "3des-cbc", "ecb(cipher_null)": "null", "rfc3686(ctr(aes))": "aes-ctr",
}  # fmt: skip
_INTEGRITY = {
    ("cmac(aes)", 96): "aes-cmac", ("hmac(md5)", 96): "hmac-md5", ("hmac(rmd160)", 96): "hmac-ripemd160", ("hmac(sha1)", 96): "hmac-sha1",
    ("hmac(sha256)", 128): "hmac-sha2-256", ("hmac(sha256)", 96): "hmac-sha2-256-96", ("hmac(sha384)", 192): "hmac-sha2-384",
    ("hmac(sha512)", 256): "hmac-sha2-512", ("xcbc(aes)", 96): "aes-xcbc-mac",
}  # fmt: skip
_PROTOCOLS = {"esp": Protocol.ESP, "ah": Protocol.AH, "comp": Protocol.IPCOMP}
_MODES = {"transport": Mode.TRANSPORT, "tunnel": Mode.TUNNEL}


@dataclass(frozen=True)
class Case:
    """One capture."""

    name: str
    entry: dict[str, Any]

    def agreements(self) -> list[Agreement]:
        """Its SAs, with the window and sequence state a receiver has that watches from the first packet."""
        return [_agreement(sa) for sa in self.entry["sas"]]

    def packets(self) -> list[tuple[int, bytes]]:
        """(ns, IP packet) of every frame that has one."""
        return _packets(HERE / f"{self.name}.pcap")

    def plain(self) -> list[bytes]:
        """The innermost packets in order."""
        return [packet for _, packet in _packets(HERE / "plain" / f"{self.name}.pcap")]


@lru_cache(maxsize=1)
def cases() -> tuple[Case, ...]:
    index = json.loads((HERE / "index.json").read_text())
    return tuple(Case(entry["file"].removesuffix(".pcap"), entry) for entry in index["captures"])


def _packets(path: Path) -> list[tuple[int, bytes]]:
    with path.open("rb") as file:
        found = [(record.at_ns, capture.network(record.linktype, record.octets)) for record in capture.read(file)]
    return [(at_ns, packet) for at_ns, packet in found if packet is not None]


def _row(kind: Kind, name: str) -> Algorithm:
    row = by_name(kind, name)
    assert row is not None, name
    return row


def _agreement(sa: dict[str, Any]) -> Agreement:
    encryption = integrity = compression = None
    encryption_key = integrity_key = Secret()
    if (aead := sa.get("aead")) is not None:
        name = _AEADS.get(aead["alg"], _ENCRYPTION.get(aead["alg"], "")).format(aead["icv_bits"] // 8)
        encryption, encryption_key = _row(Kind.AEAD, name), Secret(bytes.fromhex(aead["key"]))
    if (enc := sa.get("enc")) is not None:
        encryption, encryption_key = _row(Kind.CIPHER, _ENCRYPTION[enc["alg"]]), Secret(bytes.fromhex(enc["key"]))
    if (auth := sa.get("auth")) is not None:
        integrity = _row(Kind.INTEGRITY, _INTEGRITY[auth["alg"], auth["trunc_bits"]])
        integrity_key = Secret(bytes.fromhex(auth["key"]))
    if sa.get("comp") is not None:
        compression = _row(Kind.COMPRESSION, "deflate")
    around = sa.get("encap")
    flags = sa.get("flags", [])
    return Agreement(
        SaIndex(parse(sa["src"]), parse(sa["dst"]), _PROTOCOLS[sa["proto"]], _MODES[sa["mode"]], sa["reqid"]),
        int(sa["spi"], 16),
        encryption, encryption_key, integrity, integrity_key, compression,
        _flags(flags),
        sa.get("replay_window", 0),
        encapsulation=Encapsulation(around["sport"], around["dport"]) if around else None,
        sequence=sa.get("oseq_hi", 0) << 32 | sa.get("oseq", 0),
        align_octets=4 if "align4" in flags or sa["proto"] != "ah" else 8,
    )  # fmt: skip


def _flags(words: list[str]) -> SaFlags:
    flags = SaFlags.NONE
    known = {"esn": SaFlags.ESN, "decap-dscp": SaFlags.DECAP_DSCP, "noecn": SaFlags.NOECN, "nopmtudisc": SaFlags.NOPMTUDISC}
    for word, flag in known.items():
        if word in words:
            flags |= flag
    return flags
