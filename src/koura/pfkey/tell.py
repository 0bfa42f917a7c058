"""What the stack tells key management: ACQUIRE, EXPIRE, SPDEXPIRE, new NAT mappings, interfaces' policies. RFC 2367 §3.1.6, §3.1.8."""

from dataclasses import dataclass

from koura.pfkey import announce, show
from koura.pfkey import extensions as x
from koura.pfkey.dialect import Dialect
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, Type
from koura.pfkey.policy import PolicyExtension, describe
from koura.pfkey.request import SATYPES
from koura.pfkey.sockaddr import Sockaddr
from koura.pfkey.sockets import Audience, Delivery, Outgoing, Sockets
from koura.sadb.agreement import Identity
from koura.sadb.association import Association
from koura.saindex import Direction, SaIndex
from koura.settings import Settings
from koura.spd.entry import Entry
from koura.spd.policy import Action
from koura.spd.selector import Selector

_PORTED = (6, 17)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An SA that is missing: its relation, the number of the ACQUIRE, the policy that demands it."""

    index: SaIndex
    seq: int
    entry: Entry | None = None
    identities: tuple[Identity | None, Identity | None] = (None, None)


@dataclass(frozen=True, slots=True)
class Mapping:
    """A peer behind a NAT shows another address or port than its SA says."""

    sa: Association
    src: bytes
    sport: int


class Tell:
    """Writes these messages and finds who gets them."""

    def __init__(self, sockets: Sockets, settings: Settings) -> None:
        self._sockets = sockets
        self.settings = settings

    def acquire(self, wanted: Wanted) -> tuple[Delivery, ...]:
        """SADB_ACQUIRE to whoever registered for the satype of the missing SA."""
        return self._to_registered(self.acquire_message(wanted))

    def acquire_message(self, wanted: Wanted) -> Outgoing:
        satype = SATYPES[wanted.index.protocol]

        def make(dialect: Dialect) -> Message:
            policy = [_policy(wanted.entry, dialect)] if wanted.entry is not None else []
            pair = zip((Ext.IDENTITY_SRC, Ext.IDENTITY_DST), wanted.identities, strict=True)
            identities = [show.identity(ext, one) for ext, one in pair if one is not None]
            sa2 = x.Sa2(wanted.index.mode, 0, wanted.index.reqid)
            proposal = announce.proposal(satype, self.settings)
            said: tuple[x.Extension, ...] = (*_ends(wanted, dialect), *policy, sa2, *identities, proposal)
            return Message(Type.ACQUIRE, satype, wanted.seq, extensions=said)

        return Outgoing(Type.ACQUIRE, satype, make)

    def expire(self, sa: Association, is_hard: bool) -> tuple[Delivery, ...]:
        """SADB_EXPIRE to whoever registered for the SA's satype."""
        return self._to_registered(Outgoing(Type.EXPIRE, show.satype(sa), lambda dialect: show.expired(sa, is_hard, dialect)))

    def policy_expire(self, entry: Entry) -> tuple[Delivery, ...]:
        """X_SPDEXPIRE to whoever registered for anything. A socket's policy has no selector and is not spoken of."""
        selector = entry.policy.selector
        if selector is None:
            return ()

        def make(dialect: Dialect) -> Message:
            policy = describe(entry.policy, show.entry_id(entry, dialect))
            times, addresses = show.entry_lifetimes(entry, is_always=True), show.selector_extensions(selector, dialect)
            said: tuple[x.Extension, ...] = (*times, *addresses, policy)
            return Message(Type.X_SPDEXPIRE, extensions=said)

        return self._sockets.deliver(Outgoing(Type.X_SPDEXPIRE, 0, make), Audience.REGISTERED)

    def mapping(self, changed: Mapping) -> tuple[Delivery, ...]:
        """X_NAT_T_NEW_MAPPING to whoever registered for ESP and has such a message (Linux, NetBSD): from where the peer came, and comes."""
        sa = changed.sa
        agreement = sa.agreement
        natt = agreement.encapsulation
        satype = show.satype(sa)

        def make(dialect: Dialect) -> Message:
            said: tuple[x.Extension, ...] = (
                x.Sa(agreement.spi), show.host(Ext.ADDRESS_SRC, agreement.index.src, dialect),
                x.NatPort(Ext.X_NAT_T_SPORT, natt.sport if natt is not None else 0),
                show.host(Ext.ADDRESS_DST, changed.src, dialect), x.NatPort(Ext.X_NAT_T_DPORT, changed.sport),
            )  # fmt: skip
            return Message(Type.X_NAT_T_NEW_MAPPING, satype, extensions=said)

        return self._to_registered(Outgoing(Type.X_NAT_T_NEW_MAPPING, satype, make))

    def changed(self, sa: Association, is_added: bool) -> tuple[Delivery, ...]:
        """ADD or DELETE to all: an SA came or went, and no client asked for it."""
        agreement = sa.agreement

        def make(dialect: Dialect) -> Message:
            said: tuple[x.Extension, ...] = (show.sa_extension(sa), *show.endpoints(agreement, dialect))
            if is_added:
                limits = ((Ext.LIFETIME_HARD, agreement.hard), (Ext.LIFETIME_SOFT, agreement.soft))
                lifetimes = [one for ext, limit in limits for one in show.lifetime(ext, limit)]
                said = (said[0], show.sa2_extension(sa), *said[1:], *lifetimes)
            return Message(Type.ADD if is_added else Type.DELETE, show.satype(sa), extensions=said)

        return self._sockets.deliver(Outgoing(Type.ADD if is_added else Type.DELETE, show.satype(sa), make), Audience.ALL)

    def announce(self, entry: Entry, is_added: bool) -> tuple[Delivery, ...]:
        """X_SPDADD or X_SPDDELETE to all: a policy came or went that no client asked for: an interface's (M37), a file's."""
        selector = entry.policy.selector
        assert selector is not None, "only a socket's policy has no selector"
        kind = Type.X_SPDADD if is_added else Type.X_SPDDELETE

        def make(dialect: Dialect) -> Message:
            policy = describe(entry.policy, show.entry_id(entry, dialect))
            return Message(kind, extensions=(policy, *show.selector_extensions(selector, dialect)))

        return self._sockets.deliver(Outgoing(kind, 0, make), Audience.ALL)

    def _to_registered(self, outgoing: Outgoing) -> tuple[Delivery, ...]:
        return self._sockets.deliver(outgoing, Audience.SATYPE, everyone=bool(self.settings.register_all))


def _policy(entry: Entry, dialect: Dialect) -> PolicyExtension:
    """Type, direction, id, priority; no requests."""
    policy = entry.policy
    return PolicyExtension(Action.IPSEC, policy.direction or Direction.OUTBOUND, show.entry_id(entry, dialect), policy.priority)


def _ends(wanted: Wanted, dialect: Dialect) -> tuple[x.Address, x.Address]:
    """The SA's endpoints. Where the policy's selector names TCP or UDP, so do they, and a side with a port has the selector's."""
    index = wanted.index
    selector = wanted.entry.policy.selector if wanted.entry is not None else None
    sides = ((Ext.ADDRESS_SRC, index.src), (Ext.ADDRESS_DST, index.dst))
    if selector is None or selector.protocol not in _PORTED:
        src, dst = (show.host(ext, address, dialect, index.zone) for ext, address in sides)
        return src, dst
    src, dst = (_ported(ext, address, selector, index.zone) for ext, address in sides)
    return src, dst


def _ported(ext: int, address: bytes, selector: Selector, zone: int) -> x.Address:
    is_src = ext == Ext.ADDRESS_SRC
    port, prefix = (selector.sport, selector.src) if is_src else (selector.dport, selector.dst)
    bits = prefix.bits if port else 8 * len(address)
    return x.Address(ext, Sockaddr(address, port, zone), selector.protocol, bits)
