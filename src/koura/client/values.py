"""SAs and policies as values, to PF_KEY messages and back: what a client says and what it reads, in any dialect. A pure computation.

`Agreement` and `Policy` are the engine's own values (sadb.agreement, spd.policy); `sa` and `policy` make them from text and names:

    sa("192.0.2.1", "192.0.2.2", "esp", 0x1001, mode="tunnel", encryption="aes-gcm-16", encryption_key=key)
    policy("10.1.0.0/16", "10.2.0.0/16", "out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require")
"""

import ipaddress
from dataclasses import dataclass, replace

from koura.address import Prefix
from koura.crypto import algorithms
from koura.crypto.algorithm import Algorithm, Kind
from koura.errors import Errno, Malformed, Refused
from koura.pfkey import extensions as x
from koura.pfkey import ours, show
from koura.pfkey import policy as policies
from koura.pfkey.dialect import Dialect
from koura.pfkey.message import Message
from koura.pfkey.numbers import NATT_ESPINUDP, Ext
from koura.pfkey.ours import KouraPolicy
from koura.pfkey.policy import PolicyExtension
from koura.pfkey.request import PROTOCOLS, SATYPES
from koura.sadb.agreement import Agreement, Encapsulation, Identity, Limits, SaFlags
from koura.sadb.association import State
from koura.saindex import Direction, Mode, Protocol, SaIndex
from koura.secret import Secret
from koura.setkey.names import PROTOCOLS as UPPER
from koura.spd import language
from koura.spd.policy import Policy, Scope
from koura.spd.selector import ANY_PROTOCOL, Selector

WINDOW_PACKETS = 1024  # docs/architecture.md, Replay: a message that says 0 means 0; our own API says 1024
_ICMPS = (1, 58)


# -- made from text ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Keys:
    """Algorithms by the names behind setkey's -E, -A and -C, and their keys with salts."""

    encryption: str = ""
    encryption_key: bytes = b""
    integrity: str = ""
    integrity_key: bytes = b""
    compression: str = ""


def index(src: str, dst: str, protocol: str, mode: str = "any", reqid: int = 0) -> SaIndex:
    """The relation an SA belongs to. Raises Refused(EINVAL) for text that means nothing."""
    try:
        ends = [ipaddress.ip_address(text) for text in (src, dst)]
    except ValueError as error:
        raise Refused(Errno.EINVAL, str(error)) from error
    if ends[0].version != ends[1].version:
        raise Refused(Errno.EINVAL, f"{src} and {dst} are of two families")
    kinds = {one.name.lower(): one for one in Protocol}
    modes = {"any": Mode.ANY, "transport": Mode.TRANSPORT, "tunnel": Mode.TUNNEL}
    if protocol not in kinds or mode not in modes:
        raise Refused(Errno.EINVAL, f"{protocol}, {mode}: protocols are {', '.join(kinds)}; modes are {', '.join(modes)}")
    zone = next((int(text.partition("%")[2]) for text in (src, dst) if text.partition("%")[2].isdigit()), 0)
    return SaIndex(ends[0].packed, ends[1].packed, kinds[protocol], modes[mode], reqid, zone)


def sa(relation: SaIndex, spi: int, keys: Keys, *, window_packets: int = WINDOW_PACKETS, flags: SaFlags = SaFlags.NONE) -> Agreement:
    """An SA to be added; lifetimes, encapsulation and the rest by dataclasses.replace. Raises Refused(EINVAL) for unknown algorithms."""
    is_checked = relation.protocol in (Protocol.ESP, Protocol.AH) and not flags & SaFlags.OLD
    return Agreement(
        relation, spi, _row(Kind.CIPHER, keys.encryption), Secret(keys.encryption_key), _row(Kind.INTEGRITY, keys.integrity),
        Secret(keys.integrity_key), _row(Kind.COMPRESSION, keys.compression), flags, window_packets if is_checked else 0,
    )  # fmt: skip


def _row(kind: Kind, name: str) -> Algorithm | None:
    if not name:
        return None
    row = algorithms.by_name(kind, name)
    if row is None:
        raise Refused(Errno.EINVAL, f"there is no algorithm {name}")
    return row


def selector(direction: Direction, src: str, dst: str, protocol: str = "any", ports: tuple[int, int] = (0, 0)) -> Selector:
    """Which packets a policy is about. ports: (source, destination), 0 any; for icmp and icmp6 type and code, -1 any."""
    try:
        sides = [ipaddress.ip_network(text, strict=False) for text in (src, dst)]
    except ValueError as error:
        raise Refused(Errno.EINVAL, str(error)) from error
    if sides[0].version != sides[1].version:
        raise Refused(Errno.EINVAL, f"{src} and {dst} are of two families")
    number = ANY_PROTOCOL if protocol == "any" else UPPER.get(protocol, int(protocol) if protocol.isdigit() else -1)
    if not 0 <= number <= 255:
        raise Refused(Errno.EINVAL, f"there is no upper protocol {protocol}")
    prefixes = [Prefix(side.network_address.packed, side.prefixlen) for side in sides]
    if number in _ICMPS:
        kinds = [port if port >= 0 else None for port in ports]
        return Selector(direction, prefixes[0], prefixes[1], number, 0, 0, kinds[0], kinds[1])
    return Selector(direction, prefixes[0], prefixes[1], number, *ports)


def policy(src: str, dst: str, text: str, protocol: str = "any", ports: tuple[int, int] = (0, 0)) -> Policy:
    """A policy for the SPD, its text as in ipsec_set_policy(3). Raises Refused(EINVAL), language.PolicySyntax."""
    said = language.parse(text)
    return replace(said, selector=selector(said.direction, src, dst, protocol, ports))


# -- to messages ---------------------------------------------------------------------------------------------------------
def ends(relation: SaIndex, dialect: Dialect) -> tuple[x.Extension, ...]:
    """Both addresses of an SA."""
    src = show.host(Ext.ADDRESS_SRC, relation.src, dialect, relation.zone)
    return src, show.host(Ext.ADDRESS_DST, relation.dst, dialect, relation.zone)


def sa_extensions(agreement: Agreement, dialect: Dialect, *, with_keys: bool = True) -> tuple[x.Extension, ...]:
    """What ADD and UPDATE say about an SA."""
    row, integrity = agreement.encryption or agreement.compression, agreement.integrity
    one = x.Sa(agreement.spi, agreement.window_packets, State.MATURE, integrity.number if integrity is not None else 0,
               row.number if row is not None else 0, int(agreement.flags))  # fmt: skip
    said: list[x.Extension] = [one, x.Sa2(agreement.index.mode, 0, agreement.index.reqid), *show.replay(agreement, dialect)]
    said += [*show.lifetime(Ext.LIFETIME_HARD, agreement.hard), *show.lifetime(Ext.LIFETIME_SOFT, agreement.soft)]
    said += ends(agreement.index, dialect)
    if with_keys and agreement.encryption is not None:
        said.append(x.Key.of(Ext.KEY_ENCRYPT, agreement.encryption_key))
    if with_keys and len(agreement.integrity_key):
        said.append(x.Key.of(Ext.KEY_AUTH, agreement.integrity_key))
    for ext, identity in ((Ext.IDENTITY_SRC, agreement.identity_src), (Ext.IDENTITY_DST, agreement.identity_dst)):
        said += [show.identity(ext, identity)] if identity is not None else []
    natt = agreement.encapsulation
    if natt is not None:
        said += [x.NatType(NATT_ESPINUDP), x.NatPort(Ext.X_NAT_T_SPORT, natt.sport), x.NatPort(Ext.X_NAT_T_DPORT, natt.dport)]
        said += [show.host(ext, packed, dialect) for ext, packed in ((Ext.X_NAT_T_OAI, natt.oai), (Ext.X_NAT_T_OAR, natt.oar)) if packed]
        said += [x.NatFrag(natt.frag_octets)] if natt.frag_octets else []
    said += [x.Offload(agreement.offload_interface)] if agreement.offload_interface else []
    align = 8 if agreement.align_octets == 8 else 0
    if agreement.sequence or agreement.tfc_octets or align:
        said.append(x.KouraSa(agreement.sequence, agreement.tfc_octets, align))
    return tuple(said)


def satype(relation: SaIndex) -> int:
    return SATYPES[relation.protocol]


def policy_extensions(wanted: Policy, dialect: Dialect) -> tuple[x.Extension, ...]:
    """What SPDADD says about a policy."""
    assert wanted.selector is not None, "a policy of the SPD has a selector"
    hard = (x.Lifetime(Ext.LIFETIME_HARD, 0, 0, wanted.lifetime_s, wanted.valid_s),) if wanted.lifetime_s or wanted.valid_s else ()
    return (policies.describe(wanted), *hard, *ours.about(wanted), *show.selector_extensions(wanted.selector, dialect))


# -- from messages -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SaEntry:
    """An SA as GET, DUMP and EXPIRE show it. Times in UNIX seconds, 0: never. sequence32: the low half of its counter."""

    agreement: Agreement
    state: State
    packets: int = 0
    octets: int = 0
    created_s: int = 0
    used_s: int = 0
    sequence32: int = 0


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A policy as SPDGET and SPDDUMP show it; `id` as the dialect has it. A socket's policy has no selector."""

    policy: Policy
    id: int
    created_s: int = 0
    last_used_s: int = 0


def read_sa(message: Message) -> SaEntry:
    """The SA in a GET, DUMP or EXPIRE. Raises Malformed where something that every SA has is missing."""
    one, sa2 = message.find(x.Sa, Ext.SA), message.find(x.Sa2, Ext.X_SA2)
    src, dst = message.find(x.Address, Ext.ADDRESS_SRC), message.find(x.Address, Ext.ADDRESS_DST)
    protocol = PROTOCOLS.get(message.satype)
    if one is None or src is None or dst is None or protocol is None or one.state not in State._value2member_map_:
        raise Malformed("an SA", "its SA, addresses or satype are missing")
    mode = Mode(sa2.mode) if sa2 is not None and sa2.mode in Mode._value2member_map_ else Mode.ANY
    relation = SaIndex(src.sockaddr.address, dst.sockaddr.address, protocol, mode, sa2.reqid if sa2 is not None else 0, dst.sockaddr.zone)
    current = message.find(x.Lifetime, Ext.LIFETIME_CURRENT) or x.Lifetime(0)
    return SaEntry(
        _agreement(message, one, relation), State(one.state), current.packets, current.octets, current.add_s, current.use_s,
        sa2.sequence if sa2 is not None else 0,
    )  # fmt: skip


def _agreement(message: Message, one: x.Sa, relation: SaIndex) -> Agreement:
    is_ipcomp = relation.protocol is Protocol.IPCOMP
    cipher = algorithms.by_number(Kind.COMPRESSION if is_ipcomp else Kind.CIPHER, one.encrypt)
    key, integrity_key = message.find(x.Key, Ext.KEY_ENCRYPT), message.find(x.Key, Ext.KEY_AUTH)
    is_aead = cipher is not None and cipher.kind is Kind.AEAD
    integrity = algorithms.by_number(Kind.INTEGRITY, one.auth) if not is_aead else None
    wide = message.find(x.SaReplay, Ext.X_SA_REPLAY)
    special = message.find(x.KouraSa, Ext.X_KOURA_SA) or x.KouraSa()
    offload = message.find(x.Offload, Ext.X_IF_HW_OFFL)
    identities = [message.find(x.Ident, ext) for ext in (Ext.IDENTITY_SRC, Ext.IDENTITY_DST)]
    pair = [Identity(each.kind, each.id, each.text) if each is not None else None for each in identities]
    return Agreement(
        relation, one.spi, None if is_ipcomp else cipher, key.secret if key is not None else Secret(),
        integrity, integrity_key.secret if integrity_key is not None else Secret(), cipher if is_ipcomp else None,
        SaFlags(one.flags & sum(SaFlags)), wide.window_packets if wide is not None else one.window_packets,
        _limits(message, Ext.LIFETIME_SOFT), _limits(message, Ext.LIFETIME_HARD), _encapsulation(message), pair[0], pair[1],
        special.sequence, special.tfc_octets, special.align_octets or 4, offload.interface if offload is not None else "",
        message.seq, message.pid,
    )  # fmt: skip


def _limits(message: Message, ext: int) -> Limits:
    one = message.find(x.Lifetime, ext)
    return Limits(one.packets, one.octets, one.add_s, one.use_s) if one is not None else Limits()


def _encapsulation(message: Message) -> Encapsulation | None:
    if message.find(x.NatType, Ext.X_NAT_T_TYPE) is None:
        return None
    ports = [message.find(x.NatPort, ext) for ext in (Ext.X_NAT_T_SPORT, Ext.X_NAT_T_DPORT)]
    originals = [message.find(x.Address, ext) for ext in (Ext.X_NAT_T_OAI, Ext.X_NAT_T_OAR)]
    frag = message.find(x.NatFrag, Ext.X_NAT_T_FRAG)
    sport, dport = (port.port if port is not None else 0 for port in ports)
    oai, oar = (original.sockaddr.address if original is not None else b"" for original in originals)
    return Encapsulation(sport, dport, oai, oar, frag.octets if frag is not None else 0)


def read_policy(message: Message, dialect: Dialect) -> PolicyEntry:
    """The policy in an SPDGET, SPDDUMP, SPDEXPIRE or an SPDADD of somebody's. Raises Malformed, Refused."""
    extension = message.find(PolicyExtension, Ext.X_POLICY)
    src, dst = message.find(x.Address, Ext.ADDRESS_SRC), message.find(x.Address, Ext.ADDRESS_DST)
    if extension is None:
        raise Malformed("a policy", "there is none in the message")
    special = message.find(KouraPolicy, Ext.X_KOURA_POLICY)
    wide = replace(dialect, has_forward=True)
    scope = Scope(extension.scope) if extension.scope in Scope._value2member_map_ else Scope.GLOBAL
    chosen = show.selector_of(src, dst, extension, wide) if src is not None and dst is not None and scope is not Scope.SOCKET else None
    hard = message.find(x.Lifetime, Ext.LIFETIME_HARD) or x.Lifetime(0)
    said = replace(
        policies.agree(ours.merged(extension, special), wide, chosen), scope=scope, lifetime_s=hard.add_s, valid_s=hard.use_s
    )  # fmt: skip
    current = message.find(x.Lifetime, Ext.LIFETIME_CURRENT) or x.Lifetime(0)
    return PolicyEntry(said, extension.id, current.add_s, current.use_s)


