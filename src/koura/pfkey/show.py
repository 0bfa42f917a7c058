"""What we say about an SA or a policy of ours: the extensions of GET, DUMP, EXPIRE, SPDGET, SPDDUMP. pfkey.md §5, §6."""

from koura.address import Prefix
from koura.moment import NS_PER_S
from koura.pfkey import extensions as x
from koura.pfkey import ours
from koura.pfkey import policy as policies
from koura.pfkey.announce import implied_auth
from koura.pfkey.dialect import Dialect
from koura.pfkey.message import Message
from koura.pfkey.numbers import ADDRESS_PORT_GIVEN, NATT_ESPINUDP, Ext, Type
from koura.pfkey.policy import PolicyExtension
from koura.pfkey.request import SATYPES
from koura.pfkey.sockaddr import Sockaddr
from koura.sadb import hot
from koura.sadb.agreement import Agreement, Identity, Limits
from koura.sadb.association import Association
from koura.spd.entry import Entry, linux_index
from koura.spd.selector import ANY_PROTOCOL, Selector
from koura.spd.validity import ICMP_PROTOCOLS

WIDEST_OCTETS = 255  # of bitmap that sadb_sa_replay can say
REFERENCES = 1  # the database's; GET and EXPIRE hold one more


def satype(sa: Association) -> int:
    return SATYPES[sa.agreement.index.protocol]


def host(ext: int, address: bytes, dialect: Dialect, zone: int = 0, port: int = 0) -> x.Address:
    """A whole address: full prefix, any protocol, as SA endpoints are shown."""
    return x.Address(ext, Sockaddr(address, port, zone), dialect.any_protocol, 8 * len(address))


def endpoints(agreement: Agreement, dialect: Dialect) -> tuple[x.Address, x.Address]:
    index = agreement.index
    return host(Ext.ADDRESS_SRC, index.src, dialect, index.zone), host(Ext.ADDRESS_DST, index.dst, dialect, index.zone)


def sa_extension(sa: Association) -> x.Sa:
    """sadb_sa. For an AEAD auth is what it implies, as FreeBSD shows it."""
    agreement = sa.agreement
    row = agreement.encryption or agreement.compression
    auth = agreement.integrity.number if agreement.integrity is not None else 0
    if not auth and agreement.encryption is not None:
        auth = implied_auth(agreement.encryption, agreement.encryption_key.bits - 8 * agreement.encryption.salt_octets)
    encrypt = row.number if row is not None else 0
    return x.Sa(agreement.spi, agreement.window_packets, sa.state, auth, encrypt, int(agreement.flags))


def sa2_extension(sa: Association) -> x.Sa2:
    """Mode, reqid, and the counter: numbers sent, or accepted where none was sent."""
    words, index = sa.hot.words, sa.agreement.index
    return x.Sa2(index.mode, words[hot.SEQUENCE_LAST] or words[hot.ACCEPTED], index.reqid)


def current(sa: Association, epoch: int) -> x.Lifetime:
    """What it has carried. epoch: that of the SA; if its block serves another SA by now, the counters are gone and show as 0."""
    words = sa.hot.words
    if words[hot.EPOCH] != epoch:
        return x.Lifetime(Ext.LIFETIME_CURRENT, add_s=sa.created.s)
    used_s = words[hot.USED_FIRST_NS] // NS_PER_S
    return x.Lifetime(Ext.LIFETIME_CURRENT, words[hot.PACKETS], words[hot.OCTETS], sa.created.s, used_s)


def lifetime(ext: int, limits: Limits) -> list[x.Extension]:
    """A hard or soft lifetime; none at all where nothing is limited."""
    return [x.Lifetime(ext, limits.packets, limits.octets, limits.add_s, limits.use_s)] if limits != Limits() else []


def replay(agreement: Agreement, dialect: Dialect) -> list[x.Extension]:
    """SA_REPLAY where sadb_sa_replay cannot say the window: too wide, or counted in octets and no multiple of 8."""
    window = agreement.window_packets
    is_odd = dialect.replay_octets and window % 8
    return [x.SaReplay(window)] if window > 8 * WIDEST_OCTETS or is_odd else []


def _identities(agreement: Agreement) -> list[x.Extension]:
    pair = ((Ext.IDENTITY_SRC, agreement.identity_src), (Ext.IDENTITY_DST, agreement.identity_dst))
    return [identity(ext, given) for ext, given in pair if given is not None]


def identity(ext: int, given: Identity) -> x.Ident:
    return x.Ident(ext, given.kind, given.id, given.text)


def _natt(agreement: Agreement, dialect: Dialect) -> list[x.Extension]:
    natt = agreement.encapsulation
    if natt is None:
        return []
    found: list[x.Extension] = [
        x.NatType(NATT_ESPINUDP), x.NatPort(Ext.X_NAT_T_SPORT, natt.sport), x.NatPort(Ext.X_NAT_T_DPORT, natt.dport),
    ]  # fmt: skip
    found += [host(ext, address, dialect) for ext, address in ((Ext.X_NAT_T_OAI, natt.oai), (Ext.X_NAT_T_OAR, natt.oar)) if address]
    return found + ([x.NatFrag(natt.frag_octets)] if natt.frag_octets else [])


def _ours(agreement: Agreement) -> list[x.Extension]:
    """Only where it says something: a stock client stops at an extension it does not know."""
    align = 8 if agreement.align_octets == 8 else 0
    is_needed = agreement.sequence or agreement.tfc_octets or align
    return [x.KouraSa(agreement.sequence, agreement.tfc_octets, align)] if is_needed else []


def whole(sa: Association, epoch: int, dialect: Dialect) -> tuple[x.Extension, ...]:
    """Everything about an SA, keys too: GET and DUMP."""
    agreement = sa.agreement
    keys = [x.Key.of(Ext.KEY_AUTH, agreement.integrity_key)] if len(agreement.integrity_key) else []
    if len(agreement.encryption_key) or (agreement.encryption is not None and not dialect.is_lenient):
        keys.append(x.Key.of(Ext.KEY_ENCRYPT, agreement.encryption_key))  # FreeBSD shows NULL's key of 0 bits, too.
    return (
        sa_extension(sa), sa2_extension(sa), *replay(agreement, dialect),
        *lifetime(Ext.LIFETIME_HARD, agreement.hard), *lifetime(Ext.LIFETIME_SOFT, agreement.soft), current(sa, epoch),
        *endpoints(agreement, dialect), *keys,
        *_identities(agreement), *(x.Unknown(ext, octets) for ext, octets in agreement.extra), *_natt(agreement, dialect),
        *([x.Offload(agreement.offload_interface)] if agreement.offload_interface else []), *_ours(agreement),
    )  # fmt: skip


def expired(sa: Association, is_hard: bool, dialect: Dialect) -> Message:
    """SADB_EXPIRE: seq is that of the SA's creation, pid 0."""
    agreement = sa.agreement
    ext, limits = (Ext.LIFETIME_HARD, agreement.hard) if is_hard else (Ext.LIFETIME_SOFT, agreement.soft)
    limit = x.Lifetime(ext, limits.packets, limits.octets, limits.add_s, limits.use_s)
    said: tuple[x.Extension, ...] = (
        sa_extension(sa), sa2_extension(sa), *replay(agreement, dialect), current(sa, sa.epoch), limit, *endpoints(agreement, dialect),
    )  # fmt: skip
    return Message(Type.EXPIRE, satype(sa), agreement.seq, 0, 0, REFERENCES + 1, said)


# -- policies ---------------------------------------------------------------------------------------------------------------
def selector_of(src: x.Address, dst: x.Address, extension: PolicyExtension, dialect: Dialect) -> Selector:
    """The selector that two addresses and a direction make. Raises Refused(EINVAL) for the direction.

    In an ICMP selector the source's port is the type and the destination's the code; 0 is any unless ADDRESS_PORT_GIVEN.
    """
    direction = policies.direction_of(extension, dialect)
    protocol = src.protocol
    if protocol == 0 and dialect.any_protocol == 0:
        protocol = ANY_PROTOCOL
    prefixes = [Prefix(end.sockaddr.address, end.prefix_bits) for end in (src, dst)]
    if protocol not in ICMP_PROTOCOLS:
        return Selector(direction, prefixes[0], prefixes[1], protocol, src.sockaddr.port, dst.sockaddr.port)
    kinds = [end.sockaddr.port if end.sockaddr.port or end.reserved & ADDRESS_PORT_GIVEN else None for end in (src, dst)]
    return Selector(direction, prefixes[0], prefixes[1], protocol, 0, 0, kinds[0], kinds[1])


def selector_extensions(selector: Selector, dialect: Dialect) -> tuple[x.Address, x.Address]:
    """The two addresses that say a selector."""
    protocol = selector.protocol
    if protocol == ANY_PROTOCOL:
        protocol = ANY_PROTOCOL if dialect.any_protocol else 0
    ports, given = [selector.sport, selector.dport], [0, 0]
    if selector.protocol in ICMP_PROTOCOLS:
        kinds = (selector.icmp_type, selector.icmp_code)
        ports = [kind or 0 for kind in kinds]
        given = [ADDRESS_PORT_GIVEN if kind == 0 else 0 for kind in kinds]
    src = x.Address(Ext.ADDRESS_SRC, Sockaddr(selector.src.address, ports[0]), protocol, selector.src.bits, given[0])
    dst = x.Address(Ext.ADDRESS_DST, Sockaddr(selector.dst.address, ports[1]), protocol, selector.dst.bits, given[1])
    return src, dst


def entry_id(entry: Entry, dialect: Dialect) -> int:
    """A policy's id as this dialect shows it."""
    return linux_index(entry) if dialect.has_linux_ids else entry.id


def entry_extensions(entry: Entry, dialect: Dialect) -> tuple[x.Extension, ...]:
    """Everything about a policy: SPDGET and SPDDUMP. A socket's policy has no selector and shows any address."""
    policy = entry.policy
    extension = policies.describe(policy, entry_id(entry, dialect))
    addresses = selector_extensions(policy.selector, dialect) if policy.selector is not None else _anywhere(dialect)
    return (*addresses, extension, *entry_lifetimes(entry, is_always=False), *ours.about(policy))


def _anywhere(dialect: Dialect) -> tuple[x.Address, x.Address]:
    protocol = dialect.any_protocol
    return x.Address(Ext.ADDRESS_SRC, Sockaddr(bytes(4)), protocol, 0), x.Address(Ext.ADDRESS_DST, Sockaddr(bytes(4)), protocol, 0)


def entry_lifetimes(entry: Entry, is_always: bool) -> tuple[x.Extension, ...]:
    """CURRENT (created, last used) and HARD (lifetime, idle limit), if the policy has any or always."""
    policy = entry.policy
    if not (is_always or policy.lifetime_s or policy.valid_s):
        return ()
    now = x.Lifetime(Ext.LIFETIME_CURRENT, 0, 0, entry.created.s, entry.last_used.s)
    return now, x.Lifetime(Ext.LIFETIME_HARD, 0, 0, policy.lifetime_s, policy.valid_s)
