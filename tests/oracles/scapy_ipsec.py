"""Scapy as the other end: opens what we sealed, layer by layer, with crypto and header rules of its own.

It has no IPComp: that layer is taken off here with zlib, as is the IP header of an IPComp tunnel whose payload did not compress.
TFC padding, which Scapy leaves behind the inner packet, is cut off (RFC 4303 §2.7). It knows nothing of replay, so the 64-bit sequence
number of each packet is counted: the packets of an SA must be shown to it in order, from the first one on.
"""

import zlib
from dataclasses import dataclass, field

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import AH, AUTH_ALGOS, CRYPT_ALGOS, ESP, SecurityAssociation

from koura.address import parse, show
from koura.sadb.agreement import Agreement
from koura.saindex import Mode, Protocol

_IPCOMP, _UDP = 108, 17
_IPIP = (4, 41)
_ENCRYPTION = {
    "aes-cbc": "AES-CBC", "aes-ctr": "AES-CTR", "aes-gcm-16": "AES-GCM", "aes-gmac": "AES-NULL-GMAC", "aes-ccm-8": "AES-CCM",
    "aes-ccm-12": "AES-CCM", "aes-ccm-16": "AES-CCM", "chacha20-poly1305": "CHACHA20-POLY1305", "3des-cbc": "3DES", "des-cbc": "DES",
    "blowfish-cbc": "Blowfish", "cast128-cbc": "CAST", "null": "NULL",
}  # fmt: skip
_INTEGRITY = {
    "hmac-md5": "HMAC-MD5-96", "hmac-sha1": "HMAC-SHA1-96", "hmac-sha2-256": "SHA2-256-128", "hmac-sha2-384": "SHA2-384-192",
    "hmac-sha2-512": "SHA2-512-256", "aes-cmac": "AES-CMAC-96",
}  # fmt: skip


def knows(agreement: Agreement) -> bool:
    """Whether this Scapy has what the SA needs."""
    encryption, integrity = agreement.encryption, agreement.integrity
    if encryption is not None and _ENCRYPTION.get(encryption.name) not in CRYPT_ALGOS:
        return False
    return integrity is None or _INTEGRITY.get(integrity.name) in AUTH_ALGOS


def misreads(packet: bytes) -> bool:
    """Whether the packet has an IPv4 timestamp option with several entries: Scapy ends it after the first, and so gets AH wrong."""
    return packet[0] >> 4 == 4 and any(
        option.__class__.__name__ == "IPOption_Timestamp" and option.pointer > 5 + (8 if option.flg else 4) for option in IP(packet).options
    )


@dataclass(slots=True)
class Scapy:
    """A receiver with these SAs."""

    agreements: list[Agreement]
    _sent: dict[int, int] = field(default_factory=dict)  # SPI -> packets seen

    def open(self, packet: bytes) -> bytes:
        """The innermost packet. Raises what Scapy raises: IPSecIntegrityError for a wrong ICV."""
        while True:
            dissected = self._dissect(packet)
            if dissected.haslayer(AH) or dissected.haslayer(ESP):
                packet = self._undo(dissected)
            elif (upper := _upper(dissected))[0] == _IPCOMP:
                packet = self._expand(packet, upper[1])
            elif upper[0] in _IPIP and self._has_ipcomp_tunnel(dissected):
                packet = packet[upper[1] :]
            else:
                return packet[: dissected.len] if isinstance(dissected, IP) else packet[: 40 + dissected.plen]

    def _dissect(self, packet: bytes) -> IP | IPv6:
        """The packet in Scapy's layers; UDP around ESP, whatever its ports, is taken off."""
        dissected = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
        protocol, place = _upper(dissected)
        ports = (int.from_bytes(packet[place : place + 2], "big"), int.from_bytes(packet[place + 2 : place + 4], "big"))
        arounds = [sa.encapsulation for sa in self.agreements if sa.encapsulation is not None]
        if protocol == _UDP and ports in [(around.sport, around.dport) for around in arounds]:
            return self._dissect(_rebuilt(packet, place, 50, packet[place + 8 :]))
        return dissected

    def _undo(self, dissected: IP | IPv6) -> bytes:
        layer = dissected[AH] if dissected.haslayer(AH) else dissected[ESP]
        protocol = Protocol.AH if dissected.haslayer(AH) else Protocol.ESP
        agreement = self._find(protocol, layer.spi)
        self._sent[layer.spi] = self._sent.get(layer.spi, 0) + 1
        sequence = agreement.sequence + self._sent[layer.spi]
        assert layer.seq == sequence & 0xFFFF_FFFF, f"SPI {layer.spi:#x}: number {layer.seq}, where {sequence} is due"
        return bytes(_association(agreement, dissected).decrypt(dissected, esn=sequence >> 32, esn_en=agreement.has_esn))

    def _expand(self, packet: bytes, place: int) -> bytes:
        """RFC 3173 §3: next header, flags, CPI, a raw deflate stream."""
        agreement = self._find(Protocol.IPCOMP, int.from_bytes(packet[place + 2 : place + 4], "big"))
        inflater = zlib.decompressobj(-15)
        payload = inflater.decompress(packet[place + 4 :]) + inflater.flush()
        assert inflater.eof
        if agreement.index.mode == Mode.TUNNEL:
            return payload
        return _rebuilt(packet, place, packet[place], payload)

    def _has_ipcomp_tunnel(self, dissected: IP | IPv6) -> bool:
        ends = (parse(dissected.src), parse(dissected.dst))
        indexes = [sa.index for sa in self.agreements if sa.index.protocol is Protocol.IPCOMP and sa.index.mode == Mode.TUNNEL]
        return any((index.src, index.dst) == ends for index in indexes)

    def _find(self, protocol: Protocol, spi: int) -> Agreement:
        found = [sa for sa in self.agreements if sa.spi == spi and sa.index.protocol is protocol]
        assert len(found) == 1, f"no SA for {protocol.name} {spi:#x}"
        return found[0]


def seal(agreement: Agreement, packet: bytes, sequence: int) -> bytes:
    """The packet as Scapy seals it, as number `sequence` of the SA."""
    index = agreement.index
    whole = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    outer = IP(src=show(index.src), dst=show(index.dst)) if len(index.src) == 4 else IPv6(src=show(index.src), dst=show(index.dst))
    sa = _association(agreement, outer)
    return bytes(sa.encrypt(whole, seq_num=sequence & 0xFFFF_FFFF, esn_en=agreement.has_esn, esn=sequence >> 32))


def _upper(dissected: IP | IPv6) -> tuple[int, int]:
    """The protocol behind the IP header and its extension headers, and where it begins."""
    if isinstance(dissected, IP):
        return dissected.proto, 4 * dissected.ihl
    layer, place = dissected, 40
    while layer.payload.__class__.__name__.startswith("IPv6ExtHdr"):
        layer = layer.payload
        place += 8 if layer.__class__.__name__ == "IPv6ExtHdrFragment" else 8 * (layer.len + 1)
    return layer.nh, place


def _rebuilt(packet: bytes, place: int, protocol: int, payload: bytes) -> bytes:
    """The packet's headers up to `place` with another payload; Scapy computes lengths and checksum."""
    if packet[0] >> 4 == 4:
        header = IP(packet[:place])
        header.proto, header.len = protocol, place + len(payload)
        del header.chksum
        return bytes(header) + payload
    assert place == 40, "extension headers around IPComp are not needed here"
    header = IPv6(packet[:place])
    header.nh, header.plen = protocol, len(payload)
    return bytes(header) + payload


def _association(agreement: Agreement, dissected: IP | IPv6) -> SecurityAssociation:
    encryption, integrity = agreement.encryption, agreement.integrity
    is_tunnel = agreement.index.mode == Mode.TUNNEL
    around = agreement.encapsulation
    return SecurityAssociation(
        AH if agreement.index.protocol is Protocol.AH else ESP,
        agreement.spi,
        crypt_algo=_ENCRYPTION[encryption.name] if encryption is not None else None,
        crypt_key=agreement.encryption_key.reveal() if encryption is not None else None,
        crypt_icv_size=encryption.icv_octets or None if encryption is not None else None,
        auth_algo=_INTEGRITY[integrity.name] if integrity is not None else None,
        auth_key=agreement.integrity_key.reveal() if integrity is not None else None,
        tunnel_header=dissected.__class__(src=dissected.src, dst=dissected.dst) if is_tunnel else None,
        nat_t_header=UDP(sport=around.sport, dport=around.dport) if around is not None else None,
    )
