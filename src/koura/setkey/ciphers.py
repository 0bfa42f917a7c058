"""Algorithm names as scripts write them, and whether a key fits. The algorithms themselves: `crypto.algorithms`."""

import difflib
import re

from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.algorithms import ALGORITHMS
from koura.secret import Secret

# Names of other setkeys for rows of the table.
_ALIASES = {
    "rijndael-cbc": "aes-cbc", "simple": "null", "hmac-sha256": "hmac-sha2-256", "hmac-sha384": "hmac-sha2-384",
    "hmac-sha512": "hmac-sha2-512", "hmac-sha": "hmac-sha1", "aes-gcm": "aes-gcm-16", "aes-ccm": "aes-ccm-16",
    "aes-xcbc": "aes-xcbc-mac", "ripemd160": "hmac-ripemd160",
}  # fmt: skip
_OBSOLETE = frozenset({"simple"})
# Known to old scripts; no system has a transform for them any more, and neither have we.
_WITHOUT_TRANSFORM = {
    Kind.CIPHER: frozenset({"des-deriv", "des-32iv", "3des-deriv", "twofish-cbc", "rc5-cbc", "idea-cbc", "skipjack", "sm4-cbc"}),
    Kind.INTEGRITY: frozenset({"hmac-sm3-256"}),
    Kind.COMPRESSION: frozenset({"oui", "lzs", "lzjh"}),
}


def _rows(*kinds: Kind) -> dict[str, Algorithm]:
    return {row.name: row for row in ALGORITHMS if row.kind in kinds}


_TABLES = {
    Kind.CIPHER: _rows(Kind.CIPHER, Kind.AEAD),
    Kind.INTEGRITY: _rows(Kind.INTEGRITY),
    Kind.COMPRESSION: _rows(Kind.COMPRESSION),
}


def find(kind: Kind, word: str) -> Algorithm | None:
    """The row that `word` names behind -E (CIPHER, for AEADs too), -A (INTEGRITY) or -C (COMPRESSION)."""
    return _TABLES[kind].get(_ALIASES.get(word, word))


def names(kind: Kind) -> tuple[str, ...]:
    """Every name that may stand there, in the table's order."""
    return tuple(_TABLES[kind])


def is_obsolete(word: str) -> bool:
    return word in _OBSOLETE


def has_no_transform(kind: Kind, word: str) -> bool:
    """Whether `word` is a name that older setkeys know and nobody implements."""
    return word in _WITHOUT_TRANSFORM[kind]


def may_lack_key(row: Algorithm) -> bool:
    """Whether the key may be left out: NULL's."""
    return row.name == "null" or not row.key_bits


def nearest(kind: Kind, word: str) -> str:
    """A hint for a name that is none."""
    close = difflib.get_close_matches(word, names(kind), 1)
    return f"did you mean {close[0]}?" if close else "one of " + ", ".join(names(kind))


def misfit(row: Algorithm, key: Secret) -> str:
    """Why `key` is no key for `row`; '' if it is. Sizes are exact (crypto.algorithms), the salt included."""
    salt = row.salt_octets
    if 8 * (len(key) - salt) in row.key_bits:
        return ""
    of_salt = f": key plus {salt} of salt" if salt else ""
    return f"{_title(row)} needs {_sizes([bits // 8 + salt for bits in row.key_bits])} octets{of_salt}; this one has {len(key)}"


def _title(row: Algorithm) -> str:
    """AES-GCM for aes-gcm-16: the size of the ICV has nothing to do with the key."""
    return re.sub(r"-(8|12|16)$", "", row.name).upper()


def _sizes(octets: list[int]) -> str:
    """16 · 16 or 24 · 16, 24 or 32 · 5 to 56."""
    if len(octets) > 4:
        return f"{octets[0]} to {octets[-1]}"
    return " or ".join(filter(None, [", ".join(map(str, octets[:-1])), str(octets[-1])]))
