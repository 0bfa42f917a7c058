"""The extensions that say what could be had: combinations of an ACQUIRE's proposal, algorithms of a REGISTER. RFC 2367 §2.3.7, §2.3.8.

As in `extensions`: a reader gets exactly the extension's own octets; algorithm numbers are ours (`numbers`), sizes are in bits.
"""

import struct
from dataclasses import dataclass

from koura.errors import Malformed
from koura.pfkey.dialect import Dialect
from koura.pfkey.numbers import Ext, SaType

_COMB = struct.Struct("<BBH4HI2I6Q")
_ALG = struct.Struct("<BBHHH")


@dataclass(frozen=True, slots=True)
class Limits:
    """The four limits of one lifetime in a combination."""

    packets: int = 0
    octets: int = 0
    add_s: int = 0
    use_s: int = 0


@dataclass(frozen=True, slots=True)
class Combination:
    """sadb_comb: one proposal. Sizes in bits."""

    auth: int = 0
    encrypt: int = 0
    flags: int = 0
    auth_minbits: int = 0
    auth_maxbits: int = 0
    encrypt_minbits: int = 0
    encrypt_maxbits: int = 0
    soft: Limits = Limits()
    hard: Limits = Limits()

    @classmethod
    def read(cls, octets: bytes, dialect: Dialect, satype: int) -> "Combination":
        auth, encrypt, flags, *rest = _COMB.unpack(octets)
        a_min, a_max, e_min, e_max, _, s_packets, h_packets, s_octets, h_octets, s_add, h_add, s_use, h_use = rest
        if satype != SaType.IPCOMP:
            encrypt = dialect.encrypt_ours(encrypt)
        soft, hard = Limits(s_packets, s_octets, s_add, s_use), Limits(h_packets, h_octets, h_add, h_use)
        return cls(dialect.auth_ours(auth), encrypt, flags, a_min, a_max, e_min, e_max, soft, hard)

    def write(self, dialect: Dialect, satype: int) -> bytes:
        encrypt = self.encrypt & 0xFF if satype == SaType.IPCOMP else dialect.encrypt_theirs(self.encrypt)
        return _COMB.pack(
            dialect.auth_theirs(self.auth), encrypt, self.flags,
            self.auth_minbits, self.auth_maxbits, self.encrypt_minbits, self.encrypt_maxbits, 0,
            self.soft.packets, self.hard.packets, self.soft.octets, self.hard.octets,
            self.soft.add_s, self.hard.add_s, self.soft.use_s, self.hard.use_s,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Proposal:
    """sadb_prop with its combinations, in order of preference."""

    replay: int
    combinations: tuple[Combination, ...] = ()
    ext: int = Ext.PROPOSAL

    @classmethod
    def read(cls, ext: int, body: bytes, dialect: Dialect, satype: int) -> "Proposal":
        if len(body) < 4 or (len(body) - 4) % 72:
            raise Malformed("sadb_prop", "not whole combinations")
        combinations = tuple(Combination.read(body[at : at + 72], dialect, satype) for at in range(4, len(body), 72))
        return cls(body[0], combinations, ext)

    def body(self, dialect: Dialect, satype: int) -> bytes:
        return bytes((self.replay, 0, 0, 0)) + b"".join(c.write(dialect, satype) for c in self.combinations)


@dataclass(frozen=True, slots=True)
class Supportable:
    """sadb_alg: an algorithm as REGISTER announces it. number as the dialect has it once written; sizes in bits."""

    number: int
    iv_octets: int
    min_bits: int
    max_bits: int


@dataclass(frozen=True, slots=True)
class Supported:
    """sadb_supported: what SUPPORTED_AUTH or SUPPORTED_ENCRYPT lists."""

    ext: int
    algorithms: tuple[Supportable, ...] = ()

    @classmethod
    def read(cls, ext: int, body: bytes, dialect: Dialect, _satype: int) -> "Supported":
        if len(body) < 4 or (len(body) - 4) % 8:
            raise Malformed("sadb_supported", "not whole algorithms")
        ours = dialect.auth_ours if ext == Ext.SUPPORTED_AUTH else dialect.encrypt_ours
        rows = [_ALG.unpack_from(body, at) for at in range(4, len(body), 8)]
        return cls(ext, tuple(Supportable(ours(number), iv, low, high) for number, iv, low, high, _ in rows))

    def body(self, dialect: Dialect, _satype: int) -> bytes:
        theirs = dialect.auth_theirs if self.ext == Ext.SUPPORTED_AUTH else dialect.encrypt_theirs
        return bytes(4) + b"".join(_ALG.pack(theirs(a.number), a.iv_octets, a.min_bits, a.max_bits, 0) for a in self.algorithms)
