"""One row of the algorithm table: what an algorithm is, in the numbers that rooms above need. The rows: `algorithms`."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What an algorithm does. Behaviour follows this column, never a name."""

    AEAD = "aead"  # encrypts and authenticates (setkey -E); also GMAC, which only authenticates
    CIPHER = "cipher"  # encrypts (-E)
    INTEGRITY = "integrity"  # authenticates (-A)
    COMPRESSION = "compression"  # -C


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A row. Sizes without the salt; `key_bits` lists every size accepted, in ascending order.

    number: ours, which is FreeBSD's where FreeBSD has one: sadb_sa_encrypt for AEAD, CIPHER and COMPRESSION,
            sadb_sa_auth for INTEGRITY. Other systems' numbers are in pfkey.dialect.
    align_octets: what ESP pads payload + trailer to (RFC 4303 §2.4): the block size, at least 4.
    has_counter_iv: a repeated IV under one key breaks it: the IV is a counter and must never come twice.
    """

    name: str
    kind: Kind
    number: int
    key_bits: tuple[int, ...]
    rfc: str
    ikev2: int | None = None
    salt_octets: int = 0
    iv_octets: int = 0
    icv_octets: int = 0
    align_octets: int = 4
    block_octets: int = 1
    has_counter_iv: bool = False
    is_weak: bool = False
    warning: str = ""
