"""What the transform tests share: both ends of an SA, and packets through it. Nothing here is asked whether it is right."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.algorithms import ALGORITHMS, by_name
from koura.sadb import association
from koura.sadb.agreement import Agreement, Encapsulation, SaFlags
from koura.sadb.association import Association, Makings
from koura.sadb.hot import Arena
from koura.saindex import Mode, Protocol, SaIndex
from koura.secret import Secret
from koura.settings import Settings
from koura.wire import ipv4, ipv6
from koura.xform import base, natt, tunnel
from koura.xform.context import Context
from tests.unit.traffic.kit import A6, AT, B6, INNER_A, INNER_A6, INNER_B, INNER_B6, REGISTRY, A, B, Dice

SPI = 0x1234_5678
AEADS = tuple(row for row in ALGORITHMS if row.kind is Kind.AEAD)
CIPHERS = tuple(row for row in ALGORITHMS if row.kind is Kind.CIPHER)
INTEGRITIES = tuple(row for row in ALGORITHMS if row.kind is Kind.INTEGRITY and row.name != "tcp-md5")


def row(kind: Kind, name: str) -> Algorithm:
    found = by_name(kind, name)
    assert found is not None, name
    return found


GCM, CBC, NULL = row(Kind.AEAD, "aes-gcm-16"), row(Kind.CIPHER, "aes-cbc"), row(Kind.CIPHER, "null")
CTR, SHA1, SHA256 = row(Kind.CIPHER, "aes-ctr"), row(Kind.INTEGRITY, "hmac-sha1"), row(Kind.INTEGRITY, "hmac-sha2-256")
DEFLATE = row(Kind.COMPRESSION, "deflate")


def key(algorithm: Algorithm, bits: int = 0, first: int = 1) -> Secret:
    """A key of the algorithm with its salt; the smallest size unless said otherwise."""
    octets = (bits or algorithm.key_bits[0]) // 8 + algorithm.salt_octets
    return Secret(bytes((first + place) & 0xFF for place in range(octets)))


def esp(encryption: Algorithm, integrity: Algorithm | None = None, **changes: object) -> Agreement:
    """ESP from A to B; transport mode unless changed."""
    made = Agreement(
        SaIndex(A, B, Protocol.ESP, Mode.TRANSPORT, 0), SPI, encryption, key(encryption), integrity,
        key(integrity, first=77) if integrity is not None else Secret(), window_packets=64,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def ah(integrity: Algorithm, **changes: object) -> Agreement:
    made = Agreement(
        SaIndex(A, B, Protocol.AH, Mode.TRANSPORT, 0), SPI, integrity=integrity, integrity_key=key(integrity), window_packets=64
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def ipcomp(**changes: object) -> Agreement:
    made = Agreement(SaIndex(A, B, Protocol.IPCOMP, Mode.TRANSPORT, 0), 2, compression=DEFLATE)
    return replace(made, **changes)  # type: ignore[arg-type]


def context(seed: int = 7, **tunables: object) -> Context:
    return Context(replace(Settings(), **tunables), AT, Dice(seed))  # type: ignore[arg-type]


def opened(agreement: Agreement, seed: int = 1, *, has_ledger: bool = False) -> Association:
    """One end of an SA."""
    return association.create(agreement, Makings(REGISTRY, Arena(), Dice(seed), has_ledger), AT)


@dataclass(frozen=True)
class Ends:
    """Both ends of an SA, each with memory of its own."""

    sender: Association
    receiver: Association

    @classmethod
    def of(cls, agreement: Agreement) -> "Ends":
        return cls(opened(agreement, 1), opened(agreement, 2))

    def seal(self, packet: bytes, ctx: Context) -> bytes:
        """Outbound as traffic does it: wrap in tunnel mode, transform, UDP where agreed."""
        agreement = self.sender.agreement
        if agreement.is_tunnel:
            packet = tunnel.wrap(agreement.index.src, agreement.index.dst, packet, ctx, self.sender)
        packet = base.output(self.sender, packet, ctx)
        return natt.wrap(self.sender, packet) if agreement.encapsulation is not None else packet

    def open(self, packet: bytes, ctx: Context) -> bytes:
        """Inbound likewise."""
        agreement = self.receiver.agreement
        if agreement.encapsulation is not None:
            packet = natt.unwrap(packet)
        found = base.input(self.receiver, packet, ctx)
        if agreement.is_tunnel:
            return tunnel.strip(found.place, ctx, self.receiver)
        return natt.repair(self.receiver, found.packet, ctx) if agreement.encapsulation is not None else found.packet


@dataclass(frozen=True)
class Shape:
    """Where an SA stands: mode, outer and inner family, ESN, UDP around ESP."""

    mode: Mode
    outer: int
    inner: int
    has_esn: bool
    is_in_udp: bool

    def apply(self, agreement: Agreement) -> Agreement:
        src, dst = (A, B) if self.outer == 4 else (A6, B6)
        return replace(
            agreement,
            index=replace(agreement.index, src=src, dst=dst, mode=self.mode),
            flags=agreement.flags | (SaFlags.ESN if self.has_esn else SaFlags.NONE),
            encapsulation=Encapsulation(4500, 4501) if self.is_in_udp else None,
        )

    def packet(self, octets: int, protocol: int = 253) -> bytes:
        """An inner packet with so many octets behind its IP header."""
        body = bytes((octets + place * 7) & 0xFF for place in range(octets))
        if self.mode is Mode.TRANSPORT:
            src, dst = (A, B) if self.outer == 4 else (A6, B6)
        else:
            src, dst = (INNER_A, INNER_B) if self.inner == 4 else (INNER_A6, INNER_B6)
        if len(src) == 4:
            return ipv4.write(ipv4.Header(src, dst, protocol, identification=7, tos=0x28), body)
        return ipv6.write(ipv6.Header(src, dst, protocol, traffic_class=0x28, flow_label=0x12345), body)


def shapes(*, esn: tuple[bool, ...] = (False, True), udp: tuple[bool, ...] = (False, True)) -> Iterator[Shape]:
    """Every mode x family x ESN x encapsulation."""
    for has_esn in esn:
        for is_in_udp in udp:
            for outer in (4, 6):
                yield Shape(Mode.TRANSPORT, outer, outer, has_esn, is_in_udp)
                for inner in (4, 6):
                    yield Shape(Mode.TUNNEL, outer, inner, has_esn, is_in_udp)
