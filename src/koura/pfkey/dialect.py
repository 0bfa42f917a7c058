"""Dialects: one table per operating system whose PF_KEY headers a client was compiled with.

RFC 2367 fixed a few numbers; every system added its own, and they collide: encryption 15 is ChaCha20-Poly1305 in FreeBSD and
AES-CCM-12 in Linux, extension 26 a replay window or a dump filter, 14 to OpenBSD is not SPDADD. So each connection has a dialect.
A reader turns theirs into ours (`numbers`, crypto's algorithm numbers), a writer ours into theirs; what only their system
knows becomes FOREIGN + n inside and n again on the way back to them. Differences of behaviour are columns here, too: a handler
asks `dialect.is_lenient`, never which system it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from koura.crypto import algorithms
from koura.crypto.algorithm import Algorithm, Kind
from koura.errors import Errno
from koura.pfkey.numbers import FOREIGN, FREEBSD_FLAGS, Ext, SaType, Type


class Requests(Enum):
    """Layout of sadb_x_ipsecrequest: octets of its fixed part and whether the reqid has 32 bits."""

    BSD = 8
    LINUX = 16


class Table:
    """Their numbers to ours and back. Absent numbers are FOREIGN + n (ours), and 0 when written for another system."""

    def __init__(self, theirs_to_ours: Mapping[int, int]) -> None:
        self._ours: dict[int, int] = dict(theirs_to_ours)
        self._theirs: dict[int, int] = {}
        for theirs, ours in theirs_to_ours.items():
            self._theirs.setdefault(ours, theirs)

    def ours(self, theirs: int) -> int:
        known = self._ours.get(theirs)
        return FOREIGN + theirs if known is None else known

    def theirs(self, ours: int) -> int:
        known = self._theirs.get(ours)
        if known is not None:
            return known
        return ours - FOREIGN if FOREIGN <= ours < 2 * FOREIGN else 0

    def has_theirs(self, ours: int) -> bool:
        return ours in self._theirs


class ExtensionTable(Table):
    """Extension types. A foreign one is 0x8000 + n, because n and ours both reach beyond a byte."""

    FOREIGN_EXTENSION = 0x8000

    def ours(self, theirs: int) -> int:
        known = self._ours.get(theirs)
        return self.FOREIGN_EXTENSION + theirs if known is None else known

    def theirs(self, ours: int) -> int:
        known = self._theirs.get(ours)
        if known is not None:
            return known
        return ours - self.FOREIGN_EXTENSION if ours >= self.FOREIGN_EXTENSION else 0


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """One system's PF_KEY.

    replay_octets: sadb_sa_replay counts octets of bitmap (8 packets each), not packets.
    dumps_count_up: sadb_msg_seq of dump replies rises (and ends with 0) instead of falling to 0.
    answers_malformed: a bad extension is answered by a message, not by an errno of send().
    has_bare_errors: an error reply is the base header alone, not the whole request.
    is_lenient: Linux's acceptance: NULL cipher without key, AH with an encryption algorithm, one address prefix 0, ...
    unknown_algorithm, missing_id (SPDDELETE2), unknown_sa (UPDATE), unknown_type, length_mismatch: the errno of each.
    has_linux_ids: policy ids are shown as spd.entry.linux_index (ipsec-tools takes id % 8 >= 3 for a socket's policy).
    any_protocol: what means "any upper protocol" in the sadb_address_proto of what we send.
    tells_framework_sizes: REGISTER tells key sizes without salt and the IVs of the cipher framework (FreeBSD), else with, and the wire's.
    prefers_newest: of several SAs the newest sends, as its key managers rely on (Linux); elsewhere net.key.preferred_oldsa says.
    ignores_foreign_flags: flags of sadb_sa that we have no meaning for are ignored, not refused.
    """

    name: str
    family6: int
    has_length_octet: bool
    types: Table
    extensions: ExtensionTable
    satypes: Table
    integrity: Mapping[int, str] | None
    encryption: Mapping[int, str] | None
    flags: Mapping[int, int] | None = None
    flag_mask: int = FREEBSD_FLAGS
    requests: Requests = Requests.BSD
    type_max: int = 22
    extension_max: int = 31
    replay_octets: bool = True
    dumps_count_up: bool = False
    answers_malformed: bool = False
    has_bare_errors: bool = False
    ignores_unknown_extensions: bool = False
    is_lenient: bool = False
    has_forward: bool = False
    full_update: bool = False
    reqid_max: int = 0xFFFF
    unknown_algorithm: Errno = Errno.EINVAL
    missing_id: Errno = Errno.EINVAL
    unknown_sa: Errno = Errno.EINVAL
    unknown_type: Errno = Errno.EINVAL
    length_mismatch: Errno = Errno.EINVAL
    has_linux_ids: bool = False
    any_protocol: int = 255
    tells_framework_sizes: bool = False
    ignores_foreign_flags: bool = False
    uses_linux_errno: bool = False
    prefers_newest: bool = False

    def errno(self, errno: Errno) -> int:
        """The number of an error in this system."""
        return errno.linux if self.uses_linux_errno else errno.bsd

    def family(self, address: bytes) -> int:
        """AF_INET or AF_INET6 for a packed address."""
        return 2 if len(address) == 4 else self.family6

    def auth_ours(self, theirs: int) -> int:
        """Our sadb_sa_auth for theirs."""
        return _INTEGRITY[self.name].ours(theirs) if self.integrity is not None else theirs

    def auth_theirs(self, ours: int) -> int:
        return _INTEGRITY[self.name].theirs(ours) if self.integrity is not None else ours & 0xFF

    def encrypt_ours(self, theirs: int) -> int:
        """Our sadb_sa_encrypt for theirs; compression numbers are the same everywhere."""
        return _ENCRYPTION[self.name].ours(theirs) if self.encryption is not None else theirs

    def encrypt_theirs(self, ours: int) -> int:
        return _ENCRYPTION[self.name].theirs(ours) if self.encryption is not None else ours & 0xFF

    def knows(self, algorithm: Algorithm) -> bool:
        """Whether this system has a number for an algorithm, so that REGISTER may announce it."""
        if algorithm.kind is Kind.COMPRESSION:
            return True
        if algorithm.kind is Kind.INTEGRITY:
            return self.integrity is None or algorithm.name in self.integrity.values()
        return self.encryption is None or algorithm.name in self.encryption.values()

    def flags_ours(self, theirs: int) -> int:
        """sadb_sa_flags in our bits. A bit that only they know stands 32 bits higher, so that it can be refused or come back."""
        if self.flags is None:
            return theirs
        ours = 0
        for bit in _bits(theirs):
            ours |= self.flags.get(bit, bit << 32)
        return ours

    def flags_theirs(self, ours: int) -> int:
        if self.flags is None:
            return ours & 0xFFFFFFFF
        back = {our: their for their, our in self.flags.items()}
        theirs = 0
        for bit in _bits(ours):
            theirs |= back.get(bit, bit >> 32)
        return theirs

    def __repr__(self) -> str:
        return f"<dialect {self.name}>"


def _bits(value: int) -> list[int]:
    return [1 << n for n in range(value.bit_length()) if value >> n & 1]


def _table(*systems: Mapping[int, int]) -> dict[int, int]:
    whole: dict[int, int] = {}
    for system in systems:
        whole |= system
    return whole


def _same(numbers: range | list[int]) -> dict[int, int]:
    return {n: n for n in numbers}


# -- message types: pfkey.md §2.1 -------------------------------------------------------------------------------------------
_KAME_TYPES = _same(range(23))
_OPENBSD_TYPES = _table(_same(range(12)), {12: Type.X_ADDFLOW, 13: Type.X_DELFLOW, 14: Type.X_GRPSPIS, 15: Type.X_ASKPOLICY,
                                           16: Type.X_FLOWDUMP})
_NAT_MAPPING = {23: int(Type.X_NAT_T_NEW_MAPPING)}
_MIGRATE = {24: int(Type.X_MIGRATE)}
_MACOS_TYPES = {23: int(Type.X_GETSASTAT), 24: int(Type.X_SPDENABLE), 25: int(Type.X_SPDDISABLE), 26: int(Type.X_MIGRATE)}

# -- extension types: §2.2 --------------------------------------------------------------------------------------------------
_RFC_EXTENSIONS = _same(range(1, 17))
_KAME_EXTENSIONS = _same(range(1, 20))
_NATT_EXTENSIONS = _same(range(20, 26))
_LINUX_EXTENSIONS = {20: 20, 21: 21, 22: 22, 23: 23, 24: int(Ext.X_SEC_CTX), 25: int(Ext.X_KMADDRESS), 26: int(Ext.X_FILTER)}
_OPENBSD_EXTENSIONS = {
    17: Ext.X_SRC_MASK, 18: Ext.X_DST_MASK, 19: Ext.X_PROTOCOL, 20: Ext.X_FLOW_TYPE, 21: Ext.X_SRC_FLOW, 22: Ext.X_DST_FLOW,
    23: Ext.X_GROUP_SA, 24: Ext.X_GROUP_DST, 25: Ext.X_POLICY_ID, 26: Ext.X_LOCAL_CREDENTIALS, 27: Ext.X_REMOTE_CREDENTIALS,
    28: Ext.X_LOCAL_AUTH, 29: Ext.X_REMOTE_AUTH, 30: Ext.X_SUPPORTED_COMP, 31: Ext.X_UDPENCAP, 32: Ext.X_LIFETIME_LASTUSE,
    33: Ext.X_TAG, 34: Ext.X_TAP, 35: Ext.X_GROUP_SATYPE, 36: Ext.X_COUNTER, 37: Ext.X_RDOMAIN, 38: Ext.X_MTU, 39: Ext.X_REPLAY,
    40: Ext.X_IFACE,
}  # fmt: skip

# -- SA types: §2.3 ---------------------------------------------------------------------------------------------------------
_KAME_SATYPES = _same([0, 2, 3, 5, 6, 7, 8, 9])
_TCP_SATYPE = {11: int(SaType.TCPSIGNATURE)}
_OPENBSD_SATYPES = {0: 0, 1: SaType.AH, 2: SaType.ESP, 3: SaType.RSVP, 4: SaType.OSPFV2, 5: SaType.RIPV2, 6: SaType.MIP,
                    7: SaType.X_IPIP, 8: SaType.TCPSIGNATURE, 9: SaType.IPCOMP}

# -- algorithms by name, §2.4 and §2.5 --------------------------------------------------------------------------------------
_KAME_INTEGRITY = {2: "hmac-md5", 3: "hmac-sha1", 5: "hmac-sha2-256", 6: "hmac-sha2-384", 7: "hmac-sha2-512", 8: "hmac-ripemd160",
                   9: "aes-xcbc-mac"}
_NULL_251 = {251: "null"}
_NETBSD_INTEGRITY = _KAME_INTEGRITY | _NULL_251 | {249: "keyed-md5", 250: "keyed-sha1", 252: "tcp-md5"}
_MACOS_INTEGRITY = {1: "hmac-md5", 2: "hmac-sha1", 3: "keyed-md5", 4: "keyed-sha1", 5: "null", 6: "hmac-sha2-256", 7: "hmac-sha2-384",
                    8: "hmac-sha2-512"}
_OPENBSD_INTEGRITY = {n: _KAME_INTEGRITY[n] for n in (2, 3, 5, 6, 7, 8)}
_KAME_ENCRYPTION = {2: "des-cbc", 3: "3des-cbc", 6: "cast128-cbc", 7: "blowfish-cbc", 11: "null", 12: "aes-cbc", 13: "aes-ctr"}
_GCM = {18: "aes-gcm-8", 19: "aes-gcm-12", 20: "aes-gcm-16"}
_LINUX_ENCRYPTION = _KAME_ENCRYPTION | _GCM | {14: "aes-ccm-8", 15: "aes-ccm-12", 16: "aes-ccm-16", 22: "camellia-cbc", 23: "aes-gmac"}
_NETBSD_ENCRYPTION = _KAME_ENCRYPTION | _GCM | {22: "camellia-cbc", 23: "aes-gmac"}
_OPENBSD_ENCRYPTION = {3: "3des-cbc", 6: "cast128-cbc", 7: "blowfish-cbc", 11: "null", 12: "aes-cbc", 13: "aes-ctr",
                       22: "chacha20-poly1305", 21: "aes-gmac"} | _GCM
_MACOS_ENCRYPTION = {1: "des-cbc", 2: "3des-cbc", 3: "null", 4: "blowfish-cbc", 5: "cast128-cbc", 12: "aes-cbc",
                     13: "aes-gcm-16", 14: "chacha20-poly1305"}


def _numbers(names: Mapping[int, str], kinds: tuple[Kind, ...]) -> Table:
    """Their numbers to crypto's. NONE is 0 everywhere; compression shares the field and is the same everywhere."""
    known = {0: 0}
    for number, name in names.items():
        known[number] = next(row.number for row in algorithms.ALGORITHMS if row.name == name and row.kind in kinds)
    return Table(known)


FREEBSD = Dialect(
    "freebsd", 28, True, Table(_KAME_TYPES), ExtensionTable(_table(_same(range(1, 32)), {200: 200, 201: 201})),
    Table(_table(_KAME_SATYPES, _TCP_SATYPE)), None, None, tells_framework_sizes=True,
)  # fmt: skip
LINUX = Dialect(
    "linux", 10, False, Table(_table(_KAME_TYPES, _NAT_MAPPING, _MIGRATE)), ExtensionTable(_table(_KAME_EXTENSIONS, _LINUX_EXTENSIONS)),
    Table(_KAME_SATYPES), _KAME_INTEGRITY | _NULL_251, _LINUX_ENCRYPTION,
    flags={bit: bit for bit in (0x2000_0000, 0x4000_0000, 0x8000_0000)}, ignores_foreign_flags=True,
    flag_mask=0xE000_0000, requests=Requests.LINUX, type_max=24, extension_max=26, replay_octets=False,
    dumps_count_up=True, answers_malformed=True, has_bare_errors=True, ignores_unknown_extensions=True, is_lenient=True,
    has_forward=True, full_update=True, reqid_max=0xFFFFFFFF,
    unknown_algorithm=Errno.ENOSYS, unknown_sa=Errno.ESRCH, missing_id=Errno.ENOENT, unknown_type=Errno.EOPNOTSUPP,
    length_mismatch=Errno.EMSGSIZE, has_linux_ids=True, any_protocol=0, uses_linux_errno=True,
    prefers_newest=True,
)  # fmt: skip
NETBSD = Dialect(
    "netbsd", 24, True, Table(_table(_KAME_TYPES, _NAT_MAPPING)), ExtensionTable(_table(_KAME_EXTENSIONS, _NATT_EXTENSIONS)),
    Table(_table(_KAME_SATYPES, _TCP_SATYPE)), _NETBSD_INTEGRITY, _NETBSD_ENCRYPTION, type_max=23, extension_max=27,
)  # fmt: skip
OPENBSD = Dialect(
    "openbsd", 24, True, Table(_OPENBSD_TYPES), ExtensionTable(_table(_RFC_EXTENSIONS, _OPENBSD_EXTENSIONS)),
    Table(_OPENBSD_SATYPES), _OPENBSD_INTEGRITY, _OPENBSD_ENCRYPTION, flags={0x1: 0x1, 0x400: 0x400}, ignores_foreign_flags=True,
    type_max=16, extension_max=40,
    replay_octets=False,
)  # fmt: skip
MACOS = Dialect(
    "macos", 30, True, Table(_table(_KAME_TYPES, _MACOS_TYPES)), ExtensionTable(_KAME_EXTENSIONS),
    Table(_KAME_SATYPES), _MACOS_INTEGRITY, _MACOS_ENCRYPTION, type_max=26, extension_max=29,
)  # fmt: skip

DIALECTS = {dialect.name: dialect for dialect in (FREEBSD, LINUX, NETBSD, OPENBSD, MACOS)}

_CIPHERS = (Kind.CIPHER, Kind.AEAD)
_INTEGRITY = {d.name: _numbers(d.integrity, (Kind.INTEGRITY,)) for d in DIALECTS.values() if d.integrity is not None}
_ENCRYPTION = {d.name: _numbers(d.encryption, _CIPHERS) for d in DIALECTS.values() if d.encryption is not None}
