"""Terms: what an ADD or UPDATE asks for, as an Agreement; every reason why it cannot be had. RFC 2367 §3.1.2, §3.1.3; pfkey.md §5.1.

Nothing here changes anything: an Agreement comes back or Refused is raised. Checks follow FreeBSD's order as far as it can be seen
(SPI, flags, window, encapsulation, then keys). Where a dialect is lenient (Linux), what its clients are known to send is accepted.
"""

from dataclasses import dataclass
from functools import lru_cache

from koura.crypto import algorithms
from koura.crypto.algorithm import Algorithm, Kind
from koura.errors import Errno, Refused
from koura.pfkey import extensions as x
from koura.pfkey.announce import implied_auth
from koura.pfkey.dialect import Dialect
from koura.pfkey.numbers import NATT_ESPINUDP, Ext
from koura.pfkey.request import Request
from koura.quick import quick
from koura.sadb.agreement import NO_LIMITS, Agreement, Encapsulation, Identity, Limits, SaFlags
from koura.saindex import Mode, Protocol, SaIndex
from koura.secret import NO_SECRET, Secret
from koura.settings import Settings

AUTH_NULL = 251
_KEPT = (Ext.SENSITIVITY, Ext.X_SEC_CTX)
SOFT_PERCENT = 80  # RFC 2367 leaves it to us; KAME's constant
RESERVED_SPIS = 256  # RFC 4303 §2.1: 1-255 are IANA's, 0 never on the wire
_OPENBSD_TUNNEL = 0x4 << 32
_NOTHING_OF_OURS = x.KouraSa()
_KNOWN_FLAGS = int(sum(SaFlags))
_OLD, _RAWCPI = int(SaFlags.OLD), int(SaFlags.RAWCPI)
_MODES = tuple(Mode)


@quick
@dataclass(frozen=True, slots=True)
class Algorithms:
    """What protects an SA, keys with their salts."""

    encryption: Algorithm | None = None
    encryption_key: Secret = NO_SECRET
    integrity: Algorithm | None = None
    integrity_key: Secret = NO_SECRET
    compression: Algorithm | None = None


def index(request: Request) -> SaIndex:
    """The relation a request names: addresses, protocol, mode, reqid. Raises Refused(EINVAL)."""
    sa2 = request.find(x.Sa2, Ext.X_SA2)
    src, dst = request.src.sockaddr, request.dst.sockaddr
    mode = sa2.mode if sa2 is not None else _implied_mode(request)
    protocol = request.protocol
    if mode > (Mode.TCP_MD5 if protocol is Protocol.TCP else Mode.TUNNEL):
        raise Refused(Errno.EINVAL, f"an SA's mode is any, transport or tunnel, not {mode}")
    return SaIndex(src.address, dst.address, protocol, _MODES[mode], sa2.reqid if sa2 is not None else 0, dst.zone or src.zone)


def _implied_mode(request: Request) -> int:
    """Without SA2: any; OpenBSD says tunnel by a flag, and has nothing else to say it by."""
    sa = request.find(x.Sa, Ext.SA)
    return Mode.TUNNEL if sa is not None and sa.flags & _OPENBSD_TUNNEL else Mode.ANY


def agreement(request: Request, relation: SaIndex, settings: Settings) -> Agreement:
    """The SA that ADD, or UPDATE of a larval one, asks for. Raises Refused."""
    sa = request.sa
    check_spi(relation.protocol, sa)
    flags = _flags(sa, request.socket.dialect)
    pair = identities(request)
    ours = request.find(x.KouraSa, Ext.X_KOURA_SA) or _NOTHING_OF_OURS
    if ours.align_octets not in (0, 4, 8):
        raise Refused(Errno.EINVAL, f"AH aligns its ICV to 4 or 8 octets, not {ours.align_octets}")
    encapsulation = encapsulated(request, relation)
    window_packets = 0 if sa.flags & _OLD else _window(request, settings)
    chosen = _algorithms(request, relation.protocol, settings)
    soft, hard = lifetimes(request)
    offload = request.find(x.Offload, Ext.X_IF_HW_OFFL)
    return Agreement(
        relation, sa.spi, chosen.encryption, chosen.encryption_key, chosen.integrity, chosen.integrity_key, chosen.compression,
        flags, window_packets, soft, hard, encapsulation, pair[0], pair[1],
        ours.sequence, ours.tfc_octets, ours.align_octets or 4, offload.interface if offload is not None else "",
        request.head.seq, request.head.pid, request.head.satype in request.socket.registered, _extra(request),
        request.socket.dialect.prefers_newest,
    )  # fmt: skip


def check_spi(protocol: Protocol, sa: x.Sa) -> None:
    """Raises Refused(EINVAL) for reserved SPIs, and for CPIs that do not fit 16 bits without RAWCPI."""
    if protocol in (Protocol.ESP, Protocol.AH) and sa.spi < RESERVED_SPIS:
        raise Refused(Errno.EINVAL, f"SPIs 0 to 255 are reserved; this one is {sa.spi}")
    if protocol is Protocol.IPCOMP and sa.spi > 0xFFFF and not sa.flags & _RAWCPI:
        raise Refused(Errno.EINVAL, f"a CPI has 16 bits; {sa.spi:#x} needs the flag RAWCPI")


def _flags(sa: x.Sa, dialect: Dialect) -> SaFlags:
    flags = sa.flags
    if flags & ~dialect.flag_mask and not dialect.ignores_foreign_flags:
        raise Refused(Errno.EINVAL, f"no such flags: {flags & ~dialect.flag_mask:#x}")
    return _flags_of(flags & _KNOWN_FLAGS)


@lru_cache(maxsize=256)
def _flags_of(bits: int) -> SaFlags:
    """There are few combinations, and making one of the enumeration is slow."""
    return SaFlags(bits)


def _window(request: Request, settings: Settings) -> int:
    wide = request.find(x.SaReplay, Ext.X_SA_REPLAY)
    window_packets = wide.window_packets if wide is not None else request.sa.window_packets
    if window_packets > settings.limits.window_packets:
        raise Refused(Errno.EINVAL, f"a replay window has at most {settings.limits.window_packets} packets, not {window_packets}")
    return window_packets


def lifetimes(request: Request) -> tuple[Limits, Limits]:
    """(soft, hard). One of them is enough (S20): soft is then 80 % of hard, or hard unlimited."""
    soft, hard = (_limits(request.find(x.Lifetime, ext)) for ext in (Ext.LIFETIME_SOFT, Ext.LIFETIME_HARD))
    if soft is None and hard is not None:
        soft = Limits(*(limit * SOFT_PERCENT // 100 for limit in (hard.packets, hard.octets, hard.add_s, hard.use_s)))
    return soft or NO_LIMITS, hard or NO_LIMITS


def _limits(lifetime: x.Lifetime | None) -> Limits | None:
    if lifetime is None:
        return None
    if not (lifetime.packets or lifetime.octets or lifetime.add_s or lifetime.use_s):
        return NO_LIMITS
    return Limits(lifetime.packets, lifetime.octets, lifetime.add_s, lifetime.use_s)


def identities(request: Request) -> tuple[Identity | None, Identity | None]:
    """Both or none: a pair of two kinds, or half a pair, is ignored, as FreeBSD does."""
    if Ext.IDENTITY_SRC not in request.values:
        return None, None
    src, dst = request.find(x.Ident, Ext.IDENTITY_SRC), request.find(x.Ident, Ext.IDENTITY_DST)
    if src is None or dst is None or src.kind != dst.kind:
        return None, None
    return Identity(src.kind, src.id, src.text), Identity(dst.kind, dst.id, dst.text)


def encapsulated(request: Request, relation: SaIndex) -> Encapsulation | None:
    """ESP in UDP, where type and both ports say so. Raises Refused(EINVAL) for another type of encapsulation."""
    kind = request.find(x.NatType, Ext.X_NAT_T_TYPE)
    if kind is None:
        port = request.find(x.NatPort, Ext.X_UDPENCAP)  # OpenBSD: the peer's port; ours is the well-known one (RFC 3948)
        return Encapsulation(4500, port.port) if port is not None and port.port and relation.protocol is Protocol.ESP else None
    if kind.type != NATT_ESPINUDP:
        raise Refused(Errno.EINVAL, f"the one encapsulation is ESP in UDP (2), not {kind.type}")
    ports = [request.find(x.NatPort, ext) for ext in (Ext.X_NAT_T_SPORT, Ext.X_NAT_T_DPORT)]
    sport, dport = (port.port if port is not None else 0 for port in ports)
    if relation.protocol is not Protocol.ESP or not sport or not dport:
        return None
    originals = []
    for ext, end in ((Ext.X_NAT_T_OAI, relation.src), (Ext.X_NAT_T_OAR, relation.dst)):
        given = request.find(x.Address, ext)
        address = given.sockaddr.address if given is not None else b""
        # Only transport mode sums the addresses into its checksums (RFC 3948 §3.1.2).
        is_kept = len(address) == len(end) and address != end and relation.mode is not Mode.TUNNEL
        originals.append(address if is_kept else b"")
    frag = request.find(x.NatFrag, Ext.X_NAT_T_FRAG)
    return Encapsulation(sport, dport, originals[0], originals[1], frag.octets if frag is not None else 0)


def _extra(request: Request) -> tuple[tuple[int, bytes], ...]:
    """Extensions that an SA keeps without our understanding them, as octets after the extension header."""
    windows = request.windows
    return tuple([(ext, request.octets[windows[ext].start + 4 : windows[ext].end]) for ext in _KEPT if ext in windows])


# -- algorithms and keys ----------------------------------------------------------------------------------------------------
def _algorithms(request: Request, protocol: Protocol, settings: Settings) -> Algorithms:
    chosen = _CHOOSERS[protocol](request)
    for row in (chosen.encryption, chosen.integrity):
        if row is not None and row.is_weak and not settings.weak_crypto and protocol is not Protocol.TCP:
            raise Refused(request.socket.dialect.unknown_algorithm, f"{row.name} is weak ({row.warning}) and net.koura.weak_crypto is 0")
    return chosen


def _esp(request: Request) -> Algorithms:
    sa, is_lenient = request.sa, request.socket.dialect.is_lenient
    if sa.encrypt == 0:
        raise Refused(Errno.EINVAL, "ESP needs an encryption algorithm; NULL is one")
    row = _row(request, Kind.CIPHER, sa.encrypt)
    key = _key(request, Ext.KEY_ENCRYPT, row, is_required=not (is_lenient and 0 in row.key_bits))
    if row.kind is Kind.AEAD:
        # RFC 4106 §3 and kin: an AEAD authenticates; only what says the same again may stand beside it.
        implied = implied_auth(row, key.bits - 8 * row.salt_octets)
        if sa.auth not in (0, AUTH_NULL) and (not implied or sa.auth != implied):
            raise Refused(Errno.EINVAL, f"{row.name} authenticates itself; no other algorithm can")
        return Algorithms(row, key)
    if sa.auth == 0:
        if Ext.KEY_AUTH in request.values and not is_lenient and request.need(x.Key, Ext.KEY_AUTH).bits:
            raise Refused(Errno.EINVAL, "a key for authentication and no algorithm")
        return Algorithms(row, key)
    integrity, integrity_key = _integrity(request)
    return Algorithms(row, key, integrity, integrity_key)


def _ah(request: Request) -> Algorithms:
    # iked's default AH comes with an encryption algorithm and key; Linux does not look.
    if request.sa.encrypt and not request.socket.dialect.is_lenient:
        raise Refused(Errno.EINVAL, "AH does not encrypt")
    if request.sa.auth == 0:
        raise Refused(Errno.EINVAL, "AH needs an authentication algorithm")
    integrity, key = _integrity(request)
    return Algorithms(integrity=integrity, integrity_key=key)


def _ipcomp(request: Request) -> Algorithms:
    if request.sa.auth and not request.socket.dialect.is_lenient:
        raise Refused(Errno.EINVAL, "IPComp does not authenticate")
    return Algorithms(compression=_row(request, Kind.COMPRESSION, request.sa.encrypt))


def _tcp(request: Request) -> Algorithms:
    """M25: the key of TCP-MD5 (RFC 2385), 1 to 80 octets."""
    if request.sa.encrypt:
        raise Refused(Errno.EINVAL, "TCP-MD5 does not encrypt")
    row = algorithms.by_number(Kind.INTEGRITY, request.sa.auth)
    if row is None or row.name != _TCP_MD5:
        raise Refused(Errno.EINVAL, "this satype takes the algorithm tcp-md5 only")
    return Algorithms(integrity=row, integrity_key=_key(request, Ext.KEY_AUTH, row))


_TCP_MD5 = "tcp-md5"
_CHOOSERS = {Protocol.ESP: _esp, Protocol.AH: _ah, Protocol.IPCOMP: _ipcomp, Protocol.TCP: _tcp}


def _integrity(request: Request) -> tuple[Algorithm, Secret]:
    row = _row(request, Kind.INTEGRITY, request.sa.auth)
    if row.name == _TCP_MD5:
        raise Refused(Errno.EINVAL, "tcp-md5 belongs to the satype tcp")
    # S37: setkey -A null has no key to send.
    return row, _key(request, Ext.KEY_AUTH, row, is_required=0 not in row.key_bits)


def _row(request: Request, kind: Kind, number: int) -> Algorithm:
    row = algorithms.by_number(kind, number)
    if row is None:
        raise Refused(request.socket.dialect.unknown_algorithm, f"no algorithm of ours has the number {number}")
    return row


def _key(request: Request, ext: Ext, row: Algorithm, is_required: bool = True) -> Secret:
    """The key for an algorithm, salt included: exactly one of its sizes. Raises Refused(EINVAL)."""
    key = request.find(x.Key, ext)
    if key is None:
        if is_required:
            raise Refused(Errno.EINVAL, f"{ext.name} is missing")
        return NO_SECRET
    secret = key.secret if key.secret.bits == key.bits else Secret(key.secret.reveal()[: key.bits // 8])
    if key.bits % 8 or secret.bits != key.bits:
        raise Refused(Errno.EINVAL, f"{ext.name} says {key.bits} bits and is not as long")
    if key.bits - 8 * row.salt_octets not in row.key_bits:
        salt = f", {8 * row.salt_octets} of them salt" if row.salt_octets else ""
        sizes = [bits + 8 * row.salt_octets for bits in row.key_bits]
        wanted = ", ".join(map(str, sizes)) if len(sizes) < 5 else f"{sizes[0]} to {sizes[-1]}"
        raise Refused(Errno.EINVAL, f"{row.name} takes a key of {wanted} bits{salt}; this one has {key.bits}")
    return secret
