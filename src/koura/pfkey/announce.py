"""What we can do, as REGISTER lists it, and what we want, as ACQUIRE proposes it. RFC 2367 §3.1.6, §3.1.7; pfkey.md §7, §8."""

from koura.crypto import algorithms
from koura.crypto.algorithm import Algorithm, Kind
from koura.pfkey.dialect import Dialect
from koura.pfkey.numbers import Ext, SaType
from koura.pfkey.offers import Combination, Limits, Proposal, Supportable, Supported
from koura.settings import Settings

_CIPHERS = (Kind.CIPHER, Kind.AEAD)
# sadb_sa_auth of what an AEAD implies: AES-GMAC by key size (RFC 4543), Poly1305. FreeBSD lists them; no SA names them itself.
IMPLIED_GMAC = {128: 11, 192: 12, 256: 13}
IMPLIED_POLY1305 = 14
IMPLIED_BY_NAME = {
    **dict.fromkeys(("aes-gcm-8", "aes-gcm-12", "aes-gcm-16", "aes-gmac"), IMPLIED_GMAC),
    "chacha20-poly1305": {256: IMPLIED_POLY1305},
}
_IMPLIED = [Supportable(number, 0, bits, bits) for bits, number in IMPLIED_GMAC.items()] + [Supportable(IMPLIED_POLY1305, 0, 128, 128)]
_PROPOSED_CIPHERS = ("aes-cbc", "aes-ctr", "chacha20-poly1305", "aes-gcm-16", "aes-gmac")  # FreeBSD's transforms; never NULL (S44)
_PROPOSED_MACS = ("hmac-sha1", "hmac-sha2-256", "hmac-sha2-384", "hmac-sha2-512")

# S19: soft limits are 80 % of the hard ones, as the operator who wrote these numbers meant.
_HARD = Limits(packets=1, add_s=86400, use_s=36000)
_SOFT = Limits(packets=1, add_s=69120, use_s=28800)


def implied_auth(row: Algorithm, key_bits: int) -> int:
    """The sadb_sa_auth that FreeBSD shows for an AEAD, 0 where it has none. key_bits without the salt."""
    return IMPLIED_BY_NAME.get(row.name, {}).get(key_bits, 0)


def _iv_octets(row: Algorithm, dialect: Dialect) -> int:
    """FreeBSD tells its cipher framework's IV: salt and IV for an AEAD, the whole counter block for AES-CTR. Others: the wire's."""
    if not dialect.tells_framework_sizes:
        return row.iv_octets
    if row.kind is Kind.AEAD:
        return row.salt_octets + row.iv_octets
    return 16 if row.has_counter_iv else row.iv_octets


def _supportable(row: Algorithm, dialect: Dialect) -> Supportable:
    salt_bits = 0 if dialect.tells_framework_sizes else 8 * row.salt_octets
    low = max(row.key_bits[0], 8) if row.kind is Kind.INTEGRITY else row.key_bits[0]
    return Supportable(row.number, _iv_octets(row, dialect), low + salt_bits, row.key_bits[-1] + salt_bits)


def supported(dialect: Dialect, settings: Settings, lacking: frozenset[str]) -> tuple[Supported, Supported]:
    """SUPPORTED_AUTH and SUPPORTED_ENCRYPT: what the dialect has a number for, in ascending number. `lacking`: names without a driver."""
    rows = [
        row for row in algorithms.ALGORITHMS
        if dialect.knows(row) and row.name not in lacking and (settings.weak_crypto or not row.is_weak)
    ]  # fmt: skip
    auth = [_supportable(row, dialect) for row in rows if row.kind is Kind.INTEGRITY and row.name != "tcp-md5"]
    if dialect.tells_framework_sizes:
        auth += _IMPLIED
    encrypt = [_supportable(row, dialect) for row in rows if row.kind in _CIPHERS]
    auth.sort(key=lambda one: one.number)
    encrypt.sort(key=lambda one: one.number)
    return Supported(Ext.SUPPORTED_AUTH, tuple(auth)), Supported(Ext.SUPPORTED_ENCRYPT, tuple(encrypt))


def proposal(satype: int, settings: Settings) -> Proposal:
    """What ACQUIRE proposes for a missing SA: one combination per acceptable algorithm, in ascending number, as FreeBSD sends them."""
    if satype == SaType.IPCOMP:
        deflate = algorithms.by_name(Kind.COMPRESSION, "deflate")
        assert deflate is not None
        combinations = [Combination(encrypt=deflate.number, soft=_SOFT, hard=_HARD)]
    elif satype == SaType.AH:
        combinations = [_with_mac(Combination(soft=_SOFT, hard=_HARD), mac) for mac in _macs(settings)]
    else:
        combinations = _esp(settings)
    return Proposal(32, tuple(combinations))


def _named(kind: Kind, names: tuple[str, ...]) -> list[Algorithm]:
    rows = [row for row in (algorithms.by_name(kind, name) for name in names) if row is not None]
    return sorted(rows, key=lambda row: row.number)


def _macs(settings: Settings) -> list[Algorithm]:
    return [row for row in _named(Kind.INTEGRITY, _PROPOSED_MACS) if row.key_bits[-1] >= settings.key.ah_keymin_bits]


def _with_mac(combination: Combination, mac: Algorithm) -> Combination:
    bits = mac.key_bits[-1]
    return Combination(
        mac.number, combination.encrypt, 0, bits, bits,
        combination.encrypt_minbits, combination.encrypt_maxbits, combination.soft, combination.hard,
    )  # fmt: skip


def _esp(settings: Settings) -> list[Combination]:
    least = settings.key.esp_keymin_bits
    found = []
    for row in _named(Kind.CIPHER, _PROPOSED_CIPHERS):
        top = row.key_bits[-1]
        if top < least:
            continue
        cipher = Combination(0, row.number, 0, 0, 0, max(row.key_bits[0], least), top, _SOFT, _HARD)
        if settings.key.esp_auth and row.kind is Kind.CIPHER:
            found += [_with_mac(cipher, mac) for mac in _macs(settings)]
        else:
            found.append(cipher)
    return found
