"""THE algorithm table: RFC 8221's, and what setkey scripts still name. Numbers, sizes and names all come from here.

Numbers are FreeBSD's. What FreeBSD never numbered (CCM collides there with ChaCha20; Camellia-CTR; AES-CMAC; the old
96-bit SHA2-256) has a number of ours above 100 that no system uses.
"""

from collections.abc import Mapping

from koura.crypto.algorithm import Algorithm, Kind

_AES = (128, 192, 256)
_WEAK_64 = "64-bit blocks: collisions after 32 GiB (RFC 8221 §5)"
_WEAK_HASH = "an obsolete hash (RFC 8221 §6)"


def _aead(name: str, number: int, ikev2: int, icv: int, rfc: str, salt: int = 4, keys: tuple[int, ...] = _AES) -> Algorithm:
    return Algorithm(name, Kind.AEAD, number, keys, rfc, ikev2, salt, 8, icv, 4, has_counter_iv=True)


def _cbc(name: str, number: int, ikev2: int | None, keys: tuple[int, ...], rfc: str, block: int, warning: str = "") -> Algorithm:
    return Algorithm(name, Kind.CIPHER, number, keys, rfc, ikev2, 0, block, 0, block, block, is_weak=bool(warning), warning=warning)


def _mac(name: str, number: int, ikev2: int | None, keys: tuple[int, ...], icv: int, rfc: str, warning: str = "") -> Algorithm:
    return Algorithm(name, Kind.INTEGRITY, number, keys, rfc, ikev2, icv_octets=icv, is_weak=bool(warning), warning=warning)


def _bits(low: int, high: int) -> tuple[int, ...]:
    return tuple(range(low, high + 1, 8))


ALGORITHMS: tuple[Algorithm, ...] = (
    # name                number  IKEv2  ICV  source
    _aead("aes-gcm-16", 20, 20, 16, "RFC 4106"),
    _aead("aes-gcm-12", 19, 19, 12, "RFC 4106"),
    _aead("aes-gcm-8", 18, 18, 8, "RFC 4106"),
    _aead("aes-ccm-16", 116, 16, 16, "RFC 4309", salt=3),
    _aead("aes-ccm-12", 115, 15, 12, "RFC 4309", salt=3),
    _aead("aes-ccm-8", 114, 14, 8, "RFC 4309", salt=3),
    _aead("chacha20-poly1305", 15, 28, 16, "RFC 7634", keys=(256,)),
    _aead("aes-gmac", 23, 21, 16, "RFC 4543"),
    _cbc("aes-cbc", 12, 12, _AES, "RFC 3602", 16),
    Algorithm("aes-ctr", Kind.CIPHER, 13, _AES, "RFC 3686", 13, 4, 8, 0, 4, has_counter_iv=True),
    _cbc("camellia-cbc", 22, 23, _AES, "RFC 4312", 16),
    Algorithm("camellia-ctr", Kind.CIPHER, 122, _AES, "RFC 5529", 24, 4, 8, 0, 4, has_counter_iv=True),
    _cbc("3des-cbc", 3, 3, (192,), "RFC 2451", 8, _WEAK_64),
    _cbc("des-cbc", 2, 2, (64,), "RFC 2405", 8, "56-bit keys are found in hours (RFC 8221 §5)"),
    _cbc("blowfish-cbc", 7, 7, _bits(40, 448), "RFC 2451", 8, _WEAK_64),
    _cbc("cast128-cbc", 6, 6, _bits(40, 128), "RFC 2451", 8, _WEAK_64),
    Algorithm("null", Kind.CIPHER, 11, _bits(0, 2048), "RFC 2410", 11),
    # integrity
    _mac("hmac-sha2-256", 5, 12, (256,), 16, "RFC 4868"),
    _mac("hmac-sha2-384", 6, 13, (384,), 24, "RFC 4868"),
    _mac("hmac-sha2-512", 7, 14, (512,), 32, "RFC 4868"),
    _mac("hmac-sha1", 3, 2, (160,), 12, "RFC 2404"),
    _mac("aes-xcbc-mac", 9, 5, (128,), 12, "RFC 3566"),
    _mac("aes-cmac", 108, 8, (128,), 12, "RFC 4494"),
    _mac("hmac-sha2-256-96", 105, None, (256,), 12, "draft-ietf-ipsec-ciph-sha-256-00", "an old truncation that only old Linux used"),
    _mac("hmac-ripemd160", 8, None, (160,), 12, "RFC 2857", _WEAK_HASH),
    _mac("hmac-md5", 2, 1, (128,), 12, "RFC 2403", _WEAK_HASH),
    _mac("keyed-md5", 249, None, _bits(8, 512), 16, "RFC 1828", _WEAK_HASH),
    _mac("keyed-sha1", 250, None, _bits(8, 512), 16, "RFC 1852", _WEAK_HASH),
    _mac("tcp-md5", 252, None, _bits(8, 640), 16, "RFC 2385", _WEAK_HASH),
    _mac("null", 251, None, _bits(0, 2048), 0, "RFC 4301", "no integrity"),
    # compression
    Algorithm("deflate", Kind.COMPRESSION, 2, (), "RFC 2394"),
    Algorithm("oui", Kind.COMPRESSION, 1, (), "RFC 3173"),
    Algorithm("lzs", Kind.COMPRESSION, 3, (), "RFC 2395"),
)  # fmt: skip


def _group(kind: Kind) -> Kind:
    """AEADs and ciphers share one name and number space: setkey -E, sadb_sa_encrypt."""
    return Kind.CIPHER if kind is Kind.AEAD else kind


_BY_NAME: Mapping[tuple[Kind, str], Algorithm] = {(_group(row.kind), row.name): row for row in ALGORITHMS}
_BY_NUMBER: Mapping[tuple[Kind, int], Algorithm] = {(_group(row.kind), row.number): row for row in ALGORITHMS}


def by_name(kind: Kind, name: str) -> Algorithm | None:
    """The row with this name behind -E (CIPHER or AEAD), -A or -C."""
    return _BY_NAME.get((_group(kind), name))


def by_number(kind: Kind, number: int) -> Algorithm | None:
    """The row with this number in sadb_sa_encrypt (CIPHER or AEAD; COMPRESSION for IPComp) or sadb_sa_auth (INTEGRITY)."""
    return _BY_NUMBER.get((_group(kind), number))
