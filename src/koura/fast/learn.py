"""What the engine is told of an SA: the agreement in the engine's terms, or that it is none of the engine's.

Two tables name what the drivers know; an algorithm that stands in neither stays with the reference, and so do old ESP, padding that
is not sequence padding, and SAs without a source address.
"""

from dataclasses import dataclass

from koura.crypto.algorithm import Algorithm, Kind
from koura.moment import NS_PER_S
from koura.sadb.agreement import Agreement, Limits, SaFlags
from koura.sadb.association import Association, may_cycle
from koura.sadb.hot import UNLIMITED, USED_FIRST_NS
from koura.sadb.lifetime import SOFT_PERCENT
from koura.saindex import Mode, Protocol
from koura.settings import Settings
from koura.xform import ah

# koura.fast.driver's Cipher and Mac.
CIPHERS = {
    "null": 0, "aes-gcm-16": 1, "aes-gcm-12": 1, "aes-gcm-8": 1, "aes-gmac": 2, "aes-ccm-16": 3, "aes-ccm-12": 3, "aes-ccm-8": 3,
    "chacha20-poly1305": 4, "aes-cbc": 5, "aes-ctr": 6,
}  # fmt: skip
MACS = {
    "null": 0, "hmac-sha1": 1, "hmac-sha2-256": 2, "hmac-sha2-256-96": 2, "hmac-sha2-384": 3, "hmac-sha2-512": 4, "hmac-md5": 5,
    "aes-xcbc-mac": 6, "aes-cmac": 7,
}  # fmt: skip
ONCE, CYCLIC, EXTENDED = 0, 1, 2  # koura.fast.engine's Numbers
_PADDINGS = SaFlags.PRAND | SaFlags.PZERO
_Limits = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Keys:
    """Algorithms by the numbers of koura.fast.driver, their keys, and the sizes that follow."""

    cipher: int
    mac: int
    key: bytes
    mac_key: bytes
    salt: bytes
    icv_octets: int
    iv_octets: int
    align_octets: int
    has_counter_iv: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """One SA for `Burst.put_sa`. Limits are (packets, octets, ns); what is not limited is the largest number."""

    protocol: int
    epoch: int
    keys: Keys
    numbers: int
    is_padding_checked: bool
    spi: int
    mode: int
    src: bytes
    dst: bytes
    ports: tuple[int, int] | None
    window_packets: int
    hard: _Limits
    soft: _Limits
    last_sequence: int
    nearly_spent: int
    ecn_ingress: int
    copies_no_ecn: bool
    takes_dscp: bool
    df: int
    ah_octets: int
    oai: bytes
    oar: bytes


def may_seal(agreement: Agreement) -> bool:
    """Whether what goes out under it is sequence padded and no larger than it must be."""
    if agreement.index.protocol is Protocol.AH:
        return True
    return not agreement.flags & _PADDINGS and not (agreement.tfc_octets and agreement.is_tunnel)


def facts_of(sa: Association, settings: Settings) -> Facts | None:
    """The SA in the engine's terms; None: the reference's."""
    agreement = sa.agreement
    index = agreement.index
    if agreement.flags & SaFlags.OLD or index.zone or index.mode > Mode.TUNNEL or not any(index.src):
        return None
    keys = _keys_of(sa) if sa.is_usable else None
    if keys is None:
        return None
    family = settings.of(4 if len(index.dst) == 4 else 6)
    ingress = 0 if agreement.flags & SaFlags.NOECN else {0: 0, 1: 1}.get(family.ecn, 2)
    around = agreement.encapsulation
    return Facts(
        int(index.protocol), sa.epoch, keys, EXTENDED if agreement.has_esn else CYCLIC if may_cycle(agreement) else ONCE,
        not agreement.flags & _PADDINGS, agreement.spi, int(index.mode), agreement.comes_from, index.dst,
        (around.sport, around.dport) if around is not None else None, agreement.checked_packets, _limits(sa, agreement.hard),
        _limits(sa, agreement.soft), sa.last_sequence, sa.last_sequence // 100 * SOFT_PERCENT, ingress,
        bool(agreement.flags & SaFlags.NOECN) or family.ecn == -1, bool(agreement.flags & SaFlags.DECAP_DSCP),
        0 if agreement.flags & SaFlags.NOPMTUDISC or settings.dfbit == 0 else 1 if settings.dfbit == 1 else 2,
        ah.header_octets(sa) if index.protocol is Protocol.AH else 0,
        around.oai if around is not None else b"", around.oar if around is not None else b"",
    )  # fmt: skip


def _keys_of(sa: Association) -> Keys | None:
    """Algorithms and keys; None for what is in no table."""
    agreement = sa.agreement
    encryption, integrity = agreement.encryption, agreement.integrity
    if agreement.index.protocol is Protocol.AH and sa.digest is not None and integrity is not None:
        mac = MACS.get(integrity.name)
        if not mac or agreement.encapsulation is not None:
            return None
        return Keys(0, mac, b"", agreement.integrity_key.reveal(), b"", sa.digest.icv_octets, 0, 1, False)
    if agreement.index.protocol is not Protocol.ESP or sa.session is None or encryption is None:
        return None
    cipher, mac = CIPHERS.get(encryption.name), _mac_of(agreement)
    if cipher is None or mac is None:
        return None
    key = agreement.encryption_key.reveal()
    cut = len(key) - encryption.salt_octets
    session = sa.session
    return Keys(
        cipher, mac, key[:cut] if cipher else b"", agreement.integrity_key.reveal() if mac else b"", key[cut:],
        session.icv_octets, session.iv_octets, session.align_octets, encryption.has_counter_iv,
    )  # fmt: skip


def _mac_of(agreement: Agreement) -> int | None:
    row: Algorithm | None = agreement.integrity
    if agreement.encryption is not None and agreement.encryption.kind is Kind.AEAD:
        return 0
    return MACS.get(row.name) if row is not None else 0


def _limits(sa: Association, limits: Limits) -> _Limits:
    first = int(sa.hot.words[USED_FIRST_NS])
    ends = [sa.created.ns + limits.add_s * NS_PER_S] if limits.add_s else []
    if limits.use_s and first:
        ends.append(first + limits.use_s * NS_PER_S)
    return limits.packets or UNLIMITED, limits.octets or UNLIMITED, min(ends, default=UNLIMITED)


def outer_header(src: bytes, dst: bytes) -> bytes:
    """The header a tunnel wraps in, as a template: lengths, TTL, TOS and checksum are the engine's."""
    if len(dst) == 4:
        return bytes((0x45,)) + bytes(8) + bytes((50, 0, 0)) + src + dst
    return bytes((0x60, 0, 0, 0, 0, 0, 50, 0)) + src + dst
