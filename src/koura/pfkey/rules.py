"""Which extensions stand in which message, and the checks that come before any handler. RFC 2367 §3; pfkey.md §4, §5.

A row of RULES is one message: what a request must have, what it may have, and what goes out in which order. An extension that is
known and not allowed is ignored and not echoed, as in FreeBSD and Linux; one that is missing is EINVAL. The generic checks run in
FreeBSD's order, because the first that fails decides the errno:

    1 length, 2 size (server, before anything is read)          errno of send(), no message
    3 version, 4 type                                           error reply
    5 the extensions' frame, sizes, types (read_extensions)     errno of send(), no message (Linux: error reply)
    6 satype, 7 types that only the kernel sends                error reply
    8 source and destination fit together, 9 family, 10 prefix  error reply
"""

from dataclasses import dataclass

from koura.errors import Errno, Malformed, Refused
from koura.pfkey import extensions as x
from koura.pfkey import message
from koura.pfkey.dialect import Dialect, ExtensionTable
from koura.pfkey.numbers import Ext, SaType, Type

SRC, DST, SA, SA2, POLICY = Ext.ADDRESS_SRC, Ext.ADDRESS_DST, Ext.SA, Ext.X_SA2, Ext.X_POLICY
HARD, SOFT, CURRENT = Ext.LIFETIME_HARD, Ext.LIFETIME_SOFT, Ext.LIFETIME_CURRENT
_IDENTS = (Ext.IDENTITY_SRC, Ext.IDENTITY_DST)
_NATT = (Ext.X_NAT_T_TYPE, Ext.X_NAT_T_SPORT, Ext.X_NAT_T_DPORT, Ext.X_NAT_T_OAI, Ext.X_NAT_T_OAR)
_NEW = (Ext.X_NEW_ADDRESS_SRC, Ext.X_NEW_ADDRESS_DST)
_KEYS = (Ext.KEY_AUTH, Ext.KEY_ENCRYPT)
_OFFLOAD = (Ext.X_LFT_CUR_SW_OFFL, Ext.X_LFT_CUR_HW_OFFL, Ext.X_IF_HW_OFFL)
_OURS = (Ext.X_KOURA_SA,)
_SUPPORTED = (Ext.SUPPORTED_AUTH, Ext.SUPPORTED_ENCRYPT)
_DUMPED = (SA, SA2, Ext.X_SA_REPLAY, HARD, SOFT, CURRENT, SRC, DST, *_KEYS, *_IDENTS, Ext.SENSITIVITY, *_NATT, Ext.X_NAT_T_FRAG, *_OFFLOAD)


@dataclass(frozen=True, slots=True)
class Rule:
    """One message. `requires`, `allows`: what comes in. `out`: what may go out, in this order; `promises`: what always does."""

    requires: tuple[Ext, ...] = ()
    allows: tuple[Ext, ...] = ()
    out: tuple[Ext, ...] = ()
    promises: tuple[Ext, ...] = ()


_SA_TERMS = (SA2, HARD, SOFT, *_KEYS, *_IDENTS, Ext.SENSITIVITY, *_NATT, Ext.X_NAT_T_FRAG, Ext.X_SA_REPLAY, *_NEW, Ext.X_IF_HW_OFFL, *_OURS)
_SA_ECHO = (SA, SA2, SRC, DST, HARD, SOFT, *_IDENTS, *_NATT, *_NEW)
_MAPPING = (SA, SRC, Ext.X_NAT_T_SPORT, DST, Ext.X_NAT_T_DPORT)
_POLICY_IN = Rule(
    (SRC, DST, POLICY), (HARD, SA2, Ext.X_IF_HW_OFFL, Ext.X_KOURA_POLICY), (POLICY, HARD, SRC, DST), (POLICY, SRC, DST),
)  # fmt: skip

RULES: dict[int, Rule] = {
    Type.GETSPI: Rule((SRC, DST), (SA2, Ext.SPIRANGE), (SA, SRC, DST), (SA, SRC, DST)),
    Type.UPDATE: Rule((SA, SRC, DST), _SA_TERMS, _SA_ECHO, (SA, SRC, DST)),
    Type.ADD: Rule((SA, SRC, DST), _SA_TERMS, _SA_ECHO, (SA, SRC, DST)),
    Type.DELETE: Rule((SRC, DST), (SA, SA2, Ext.X_SA_REPLAY), (SA, SRC, DST), (SRC, DST)),
    Type.GET: Rule((SA, SRC, DST), (SA2, Ext.X_SA_REPLAY), _DUMPED, (SA, SA2, CURRENT, SRC, DST)),
    Type.ACQUIRE: Rule((), (SRC, DST, Ext.PROPOSAL, SA2, *_IDENTS, Ext.ADDRESS_PROXY, Ext.SENSITIVITY),
                       (SRC, DST, POLICY, SA2, *_IDENTS, Ext.PROPOSAL), (SRC, DST, Ext.PROPOSAL)),
    Type.REGISTER: Rule((), (), _SUPPORTED),
    Type.EXPIRE: Rule((), (), (SA, SA2, Ext.X_SA_REPLAY, CURRENT, HARD, SOFT, SRC, DST), (SA, SA2, CURRENT, SRC, DST)),
    Type.FLUSH: Rule(),
    Type.DUMP: Rule((), (Ext.X_FILTER,), _DUMPED, (SA, SA2, CURRENT, SRC, DST)),
    Type.X_PROMISC: Rule(),
    Type.X_SPDADD: _POLICY_IN,
    Type.X_SPDUPDATE: _POLICY_IN,
    Type.X_SPDSETIDX: _POLICY_IN,
    Type.X_SPDDELETE: Rule((SRC, DST, POLICY), (SA2, Ext.X_KOURA_POLICY), (POLICY, SRC, DST), (POLICY, SRC, DST)),
    Type.X_SPDDELETE2: Rule((POLICY,), (), (POLICY,), (POLICY,)),
    Type.X_SPDGET: Rule((POLICY,), (), (SRC, DST, POLICY, CURRENT, HARD, Ext.X_KOURA_POLICY), (SRC, DST, POLICY)),
    Type.X_SPDFLUSH: Rule(),
    Type.X_SPDDUMP: Rule((), (), (SRC, DST, POLICY, CURRENT, HARD, Ext.X_KOURA_POLICY), (SRC, DST, POLICY)),
    Type.X_SPDEXPIRE: Rule((), (), (CURRENT, HARD, SRC, DST, POLICY), (CURRENT, HARD, SRC, DST, POLICY)),
    Type.X_SPDACQUIRE: Rule((), (), (POLICY,), (POLICY,)),
    Type.X_NAT_T_NEW_MAPPING: Rule((), (), _MAPPING, _MAPPING),
    Type.X_MIGRATE: Rule((SRC, DST, POLICY), (Ext.X_KMADDRESS,), (Ext.X_KMADDRESS, SRC, DST, POLICY), (SRC, DST, POLICY)),
}  # fmt: skip

ONLY_FROM_US = frozenset({Type.RESERVED, Type.EXPIRE, Type.X_PCHANGE, Type.X_SPDACQUIRE, Type.X_SPDEXPIRE, Type.X_NAT_T_NEW_MAPPING})

_OF_AN_SA = frozenset({Type.GETSPI, Type.UPDATE, Type.ADD, Type.DELETE, Type.GET, Type.ACQUIRE, Type.EXPIRE})
_OF_A_POLICY = frozenset({
    Type.X_SPDADD, Type.X_SPDDELETE, Type.X_SPDGET, Type.X_SPDFLUSH, Type.X_SPDSETIDX, Type.X_SPDUPDATE, Type.X_SPDDELETE2,
})  # fmt: skip
_SERVED = frozenset({SaType.AH, SaType.ESP, SaType.IPCOMP, SaType.TCPSIGNATURE})
_UNSERVED = frozenset({SaType.RSVP, SaType.OSPFV2, SaType.RIPV2, SaType.MIP, SaType.X_IPIP})
DUMP_SCOPES = frozenset({0, 1, 2, 4})

Extensions = dict[int, x.Extension]


def read_extensions(octets: bytes, head: message.Message, dialect: Dialect) -> tuple[Extensions, dict[int, message.Window]]:
    """Check 5: every extension as a value, and where it lies, by type. Raises Malformed."""
    values: Extensions = {}
    windows: dict[int, message.Window] = {}
    highest = dialect.extension_max + ExtensionTable.FOREIGN_EXTENSION
    satype = head.satype
    for window in message.cut(octets, dialect):
        ext = window.ext
        if ext > highest and not dialect.ignores_unknown_extensions:
            raise Malformed("sadb_ext", f"no such extension type: {ext - ExtensionTable.FOREIGN_EXTENSION}")
        values[ext] = message.extension(octets, window, dialect, satype)
        windows[ext] = window
    return values, windows


def check_satype(head: message.Message, dialect: Dialect) -> None:
    """Check 6. Raises Refused: EINVAL, EOPNOTSUPP."""
    kind, satype = head.type, head.satype
    if kind == Type.X_SPDDUMP:
        if dialect.satypes.theirs(satype) not in DUMP_SCOPES and not dialect.is_lenient:
            raise Refused(Errno.EINVAL, "the satype of SPDDUMP is a scope: 0, 1, 2 or 4")
    elif satype == SaType.UNSPEC:
        if kind in _OF_AN_SA:
            raise Refused(Errno.EINVAL, "this message needs a satype")
    elif satype in _SERVED:
        if kind in _OF_A_POLICY and not dialect.is_lenient:
            raise Refused(Errno.EINVAL, "policy messages have no satype")
    elif satype in _UNSERVED:
        raise Refused(Errno.EOPNOTSUPP, f"satype {satype} is not served")
    elif not (kind == Type.X_PROMISC and dialect.satypes.theirs(satype) == 1):
        raise Refused(Errno.EINVAL, "no such satype")


def check_addresses(values: Extensions, dialect: Dialect) -> None:
    """Checks 8 to 10, where both addresses are there. Raises Refused: EINVAL, EAFNOSUPPORT."""
    src, dst = values.get(SRC), values.get(DST)
    if not (isinstance(src, x.Address) and isinstance(dst, x.Address)):
        return
    if src.protocol != dst.protocol:
        raise Refused(Errno.EINVAL, "source and destination name different upper protocols")
    if src.sockaddr.family != dst.sockaddr.family:
        raise Refused(Errno.EINVAL, "source and destination are of different families")
    if not (src.sockaddr.is_sized and dst.sockaddr.is_sized):
        raise Refused(Errno.EINVAL, "a socket address's length is not that of its family")
    if not src.sockaddr.address:
        raise Refused(Errno.EAFNOSUPPORT, f"no address family of ours: {src.sockaddr.family}")
    width = 8 * len(src.sockaddr.address)
    if src.prefix_bits > width or dst.prefix_bits > width:
        raise Refused(Errno.EINVAL, f"a prefix is at most {width} bits long")


def check_required(kind: int, values: Extensions) -> None:
    """What the handler of this message counts on is there. Raises Refused(EINVAL)."""
    rule = RULES.get(kind)
    for ext in rule.requires if rule is not None else ():
        if ext not in values:
            raise Refused(Errno.EINVAL, f"{Type(kind).name} needs {Ext(ext).name}")
