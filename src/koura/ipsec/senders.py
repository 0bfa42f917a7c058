"""libipsec's pfkey_send_*: each builds one message and sends it; its answer is pfkey_recv's. setkey.md §9.2.

Addresses are text ("192.0.2.1", "fe80::1%2") or (text, port); SPIs and ports are in host order; numbers of algorithms, types and modes
are those of the connection's dialect. keymat is the encryption key with the authentication key behind it, wsize octets of window.
Each call gives the octets sent, and raises IpsecError.
"""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass

from koura.errors import Malformed
from koura.ipsec.connection import PfkeySocket, pfkey_send
from koura.ipsec.errors import (
    EIPSEC_FAMILY_MISMATCH,
    EIPSEC_INVAL_ADDRESS,
    EIPSEC_INVAL_ARGUMENT,
    EIPSEC_INVAL_KEYLEN,
    EIPSEC_INVAL_POLICY,
    EIPSEC_INVAL_PREFIXLEN,
    EIPSEC_INVAL_SATYPE,
    EIPSEC_INVAL_SPI,
    EIPSEC_NO_ALGS,
    IpsecError,
    succeed,
)
from koura.pfkey import extensions as x
from koura.pfkey import policy as policies
from koura.pfkey.dialect import Dialect
from koura.pfkey.message import Message
from koura.pfkey.numbers import FREEBSD_FLAGS, Ext, SaType, Type
from koura.pfkey.policy import PolicyExtension
from koura.pfkey.sockaddr import Sockaddr
from koura.secret import Secret

Name = str | tuple[str, int]
_SA_TYPES = (SaType.AH, SaType.ESP, SaType.IPCOMP, SaType.TCPSIGNATURE)
_WIDEST_OCTETS = 255
_RESERVED_SPIS = 256
_SOFT_PERCENT = 80
_softrate = dict.fromkeys(range(4), _SOFT_PERCENT)


# -- soft lifetimes ------------------------------------------------------------------------------------------------------
def pfkey_set_softrate(kind: int, percent: int) -> None:
    """How much of a hard lifetime the soft one is: kind 0 allocations, 1 bytes, 2 addtime, 3 usetime. 0 and above 100 mean 100."""
    if kind not in _softrate:
        raise IpsecError(EIPSEC_INVAL_ARGUMENT, f"no kind of lifetime: {kind}")
    _softrate[kind] = percent if 0 < percent <= 100 else 100
    succeed()


def pfkey_get_softrate(kind: int) -> int:
    """The per cent of a kind of lifetime."""
    if kind not in _softrate:
        raise IpsecError(EIPSEC_INVAL_ARGUMENT, f"no kind of lifetime: {kind}")
    succeed()
    return _softrate[kind]


# -- SAs -----------------------------------------------------------------------------------------------------------------
def pfkey_send_getspi(
    so: PfkeySocket, satype: int, mode: int, src: Name, dst: Name, min: int, max: int, reqid: int = 0, seq: int = 0
) -> int:
    """GETSPI; with a range where one is given."""
    has_reserved = 0 < max < _RESERVED_SPIS and satype != so.dialect.satypes.theirs(SaType.IPCOMP)
    if not 0 <= min <= max <= 0xFFFF_FFFF or has_reserved:
        raise IpsecError(EIPSEC_INVAL_SPI, f"{min} to {max}")
    ranged = (x.SpiRange(min, max),) if min or max else ()
    said = (x.Sa2(mode, 0, reqid), *_ends(so.dialect, src, dst), *ranged)
    return _send(so, Type.GETSPI, _satype(so, satype), said, seq)


@dataclass(frozen=True, slots=True)
class _Given:
    """The arguments of update and add."""

    spi: int
    wsize: int
    keymat: bytes
    e_type: int
    e_keylen: int
    a_type: int
    a_keylen: int
    flags: int
    limits: tuple[int, int, int, int]


def pfkey_send_update(
    so: PfkeySocket, satype: int, mode: int, src: Name, dst: Name, spi: int, reqid: int, wsize: int, keymat: bytes,
    e_type: int, e_keylen: int, a_type: int, a_keylen: int, flags: int, l_alloc: int = 0, l_bytes: int = 0, l_addtime: int = 0,
    l_usetime: int = 0, seq: int = 0,
) -> int:  # fmt: skip
    """UPDATE: keys for a larval SA."""
    given = _Given(spi, wsize, keymat, e_type, e_keylen, a_type, a_keylen, flags, (l_alloc, l_bytes, l_addtime, l_usetime))
    return _terms(so, Type.UPDATE, satype, x.Sa2(mode, 0, reqid), _ends(so.dialect, src, dst), given, seq)


def pfkey_send_add(
    so: PfkeySocket, satype: int, mode: int, src: Name, dst: Name, spi: int, reqid: int, wsize: int, keymat: bytes,
    e_type: int, e_keylen: int, a_type: int, a_keylen: int, flags: int, l_alloc: int = 0, l_bytes: int = 0, l_addtime: int = 0,
    l_usetime: int = 0, seq: int = 0,
) -> int:  # fmt: skip
    """ADD: a mature SA."""
    given = _Given(spi, wsize, keymat, e_type, e_keylen, a_type, a_keylen, flags, (l_alloc, l_bytes, l_addtime, l_usetime))
    return _terms(so, Type.ADD, satype, x.Sa2(mode, 0, reqid), _ends(so.dialect, src, dst), given, seq)


def _terms(so: PfkeySocket, kind: int, satype: int, sa2: x.Sa2, ends: tuple[x.Extension, ...], given: _Given, seq: int) -> int:
    ours, dialect = _satype(so, satype), so.dialect
    if ours == SaType.UNSPEC:
        raise IpsecError(EIPSEC_INVAL_SATYPE)
    if len(given.keymat) < given.e_keylen + given.a_keylen:
        raise IpsecError(EIPSEC_INVAL_KEYLEN, f"{len(given.keymat)} octets of keys, {given.e_keylen} + {given.a_keylen} wanted")
    if (ours == SaType.AH and not given.a_type) or (ours in (SaType.ESP, SaType.IPCOMP) and not given.e_type):
        raise IpsecError(EIPSEC_NO_ALGS)
    if not 0 <= given.flags <= FREEBSD_FLAGS and not dialect.ignores_foreign_flags:
        raise IpsecError(EIPSEC_INVAL_ARGUMENT, f"flags {given.flags:#x}")
    encrypt = given.e_type if ours == SaType.IPCOMP else dialect.encrypt_ours(given.e_type)
    window = 8 * given.wsize
    one = x.Sa(given.spi, window, 0, dialect.auth_ours(given.a_type), encrypt, dialect.flags_ours(given.flags))
    said: list[x.Extension] = [one, sa2, *([x.SaReplay(window)] if given.wsize > _WIDEST_OCTETS else []), *ends]
    if ours == SaType.ESP and given.e_type:
        said.append(x.Key.of(Ext.KEY_ENCRYPT, Secret(given.keymat[: given.e_keylen])))
    if given.a_keylen:
        said.append(x.Key.of(Ext.KEY_AUTH, Secret(given.keymat[given.e_keylen : given.e_keylen + given.a_keylen])))
    soft = [limit * _softrate[place] // 100 for place, limit in enumerate(given.limits)]
    said += [x.Lifetime(Ext.LIFETIME_HARD, *given.limits), x.Lifetime(Ext.LIFETIME_SOFT, *soft)]
    return _send(so, kind, ours, tuple(said), seq)


def pfkey_send_delete(so: PfkeySocket, satype: int, mode: int, src: Name, dst: Name, spi: int) -> int:
    """DELETE of one SA."""
    return _send(so, Type.DELETE, _satype(so, satype), (x.Sa(spi), x.Sa2(mode), *_ends(so.dialect, src, dst)))


def pfkey_send_delete_all(so: PfkeySocket, satype: int, mode: int, src: Name, dst: Name) -> int:
    """DELETE of all SAs between two addresses."""
    return _send(so, Type.DELETE, _satype(so, satype), _ends(so.dialect, src, dst))


def pfkey_send_get(so: PfkeySocket, satype: int, mode: int, src: Name, dst: Name, spi: int) -> int:
    """GET."""
    return _send(so, Type.GET, _satype(so, satype), (x.Sa(spi), x.Sa2(mode), *_ends(so.dialect, src, dst)))


def pfkey_send_register(so: PfkeySocket, satype: int) -> int:
    """REGISTER; satype 0 for the list of algorithms alone."""
    return _send(so, Type.REGISTER, _satype(so, satype))


def pfkey_send_flush(so: PfkeySocket, satype: int) -> int:
    """FLUSH."""
    return _send(so, Type.FLUSH, _satype(so, satype))


def pfkey_send_dump(so: PfkeySocket, satype: int) -> int:
    """DUMP."""
    return _send(so, Type.DUMP, _satype(so, satype))


def pfkey_send_promisc_toggle(so: PfkeySocket, flag: int) -> int:
    """X_PROMISC: 1 on, 0 off."""
    if flag not in (0, 1):
        raise IpsecError(EIPSEC_INVAL_ARGUMENT, f"promiscuous mode is 1 or 0, not {flag}")
    return _send(so, Type.X_PROMISC, so.dialect.satypes.ours(flag))


# -- policies ------------------------------------------------------------------------------------------------------------
def pfkey_send_spdadd(
    so: PfkeySocket, src: Name, prefs: int, dst: Name, prefd: int, proto: int, policy: bytes, policylen: int | None = None, seq: int = 0
) -> int:
    """SPDADD; policy is a buffer of ipsec_set_policy."""
    return _spd(so, Type.X_SPDADD, _range(so.dialect, src, prefs, dst, prefd, proto), (policy, policylen), seq=seq)


def pfkey_send_spdadd2(
    so: PfkeySocket, src: Name, prefs: int, dst: Name, prefd: int, proto: int, ltime: int, vtime: int, policy: bytes,
    policylen: int | None = None, seq: int = 0,
) -> int:  # fmt: skip
    """SPDADD with the seconds that the policy lives, and may lie idle."""
    return _spd(so, Type.X_SPDADD, _range(so.dialect, src, prefs, dst, prefd, proto), (policy, policylen), (ltime, vtime), seq)


def pfkey_send_spdupdate(
    so: PfkeySocket, src: Name, prefs: int, dst: Name, prefd: int, proto: int, policy: bytes, policylen: int | None = None, seq: int = 0
) -> int:
    """SPDUPDATE."""
    return _spd(so, Type.X_SPDUPDATE, _range(so.dialect, src, prefs, dst, prefd, proto), (policy, policylen), seq=seq)


def pfkey_send_spdupdate2(
    so: PfkeySocket, src: Name, prefs: int, dst: Name, prefd: int, proto: int, ltime: int, vtime: int, policy: bytes,
    policylen: int | None = None, seq: int = 0,
) -> int:  # fmt: skip
    """SPDUPDATE with lifetimes."""
    return _spd(so, Type.X_SPDUPDATE, _range(so.dialect, src, prefs, dst, prefd, proto), (policy, policylen), (ltime, vtime), seq)


def pfkey_send_spddelete(
    so: PfkeySocket, src: Name, prefs: int, dst: Name, prefd: int, proto: int, policy: bytes, policylen: int | None = None, seq: int = 0
) -> int:
    """SPDDELETE: of the policy only the direction counts."""
    return _spd(so, Type.X_SPDDELETE, _range(so.dialect, src, prefs, dst, prefd, proto), (policy, policylen), seq=seq)


def pfkey_send_spdsetidx(
    so: PfkeySocket, src: Name, prefs: int, dst: Name, prefd: int, proto: int, policy: bytes, policylen: int | None = None, seq: int = 0
) -> int:
    """SPDSETIDX."""
    return _spd(so, Type.X_SPDSETIDX, _range(so.dialect, src, prefs, dst, prefd, proto), (policy, policylen), seq=seq)


def pfkey_send_spddelete2(so: PfkeySocket, spid: int) -> int:
    """SPDDELETE2, by id."""
    return _send(so, Type.X_SPDDELETE2, 0, (PolicyExtension(0, 0, spid),))


def pfkey_send_spdget(so: PfkeySocket, spid: int) -> int:
    """SPDGET, by id."""
    return _send(so, Type.X_SPDGET, 0, (PolicyExtension(0, 0, spid),))


def pfkey_send_spdflush(so: PfkeySocket) -> int:
    """SPDFLUSH."""
    return _send(so, Type.X_SPDFLUSH, 0)


def pfkey_send_spddump(so: PfkeySocket) -> int:
    """SPDDUMP."""
    return _send(so, Type.X_SPDDUMP, 0)


# -- inside --------------------------------------------------------------------------------------------------------------
def _send(so: PfkeySocket, kind: int, satype: int, said: Sequence[x.Extension] = (), seq: int = 0) -> int:
    return pfkey_send(so, Message(kind, satype, seq, os.getpid(), extensions=tuple(said)).write(so.dialect))


def _satype(so: PfkeySocket, satype: int) -> int:
    ours = so.dialect.satypes.ours(satype)
    if ours != SaType.UNSPEC and ours not in _SA_TYPES:
        raise IpsecError(EIPSEC_INVAL_SATYPE, f"{satype}")
    return ours


def _sockaddr(name: Name) -> Sockaddr:
    text, port = name if isinstance(name, tuple) else (name, 0)
    host, _, zone = text.partition("%")
    try:
        packed = ipaddress.ip_address(host).packed
    except ValueError as error:
        raise IpsecError(EIPSEC_INVAL_ADDRESS, str(error)) from error
    if not 0 <= port <= 0xFFFF:
        raise IpsecError(EIPSEC_INVAL_ADDRESS, f"port {port}")
    return Sockaddr(packed, port, int(zone) if zone.isdigit() else 0)


def _range(dialect: Dialect, src: Name, prefs: int, dst: Name, prefd: int, proto: int) -> tuple[x.Extension, ...]:
    pair = (_sockaddr(src), _sockaddr(dst))
    if len(pair[0].address) != len(pair[1].address):
        raise IpsecError(EIPSEC_FAMILY_MISMATCH)
    if not (0 <= prefs <= 8 * len(pair[0].address) and 0 <= prefd <= 8 * len(pair[1].address)):
        raise IpsecError(EIPSEC_INVAL_PREFIXLEN, f"{prefs}, {prefd}")
    if proto == 255 and not dialect.any_protocol:
        proto = 0
    return x.Address(Ext.ADDRESS_SRC, pair[0], proto, prefs), x.Address(Ext.ADDRESS_DST, pair[1], proto, prefd)


def _ends(dialect: Dialect, src: Name, dst: Name) -> tuple[x.Extension, ...]:
    bits = [8 * len(_sockaddr(name).address) for name in (src, dst)]
    return _range(dialect, src, bits[0], dst, bits[1], 255)


def _spd(
    so: PfkeySocket, kind: int, ends: tuple[x.Extension, ...], policy: tuple[bytes, int | None], times: tuple[int, int] = (0, 0),
    seq: int = 0,
) -> int:  # fmt: skip
    octets, length = policy
    try:
        extension = policies.read(octets if length is None else octets[:length], so.dialect)
    except Malformed as error:
        raise IpsecError(EIPSEC_INVAL_POLICY, str(error)) from error
    hard = [x.Lifetime(Ext.LIFETIME_HARD, 0, 0, *times)] if any(times) else []
    return _send(so, kind, 0, (extension, *hard, *ends), seq)
