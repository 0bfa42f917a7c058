"""What a client can ask, once for the sync and the async client: each operation is its message and how its replies are read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from koura.client import values
from koura.client.values import PolicyEntry, SaEntry
from koura.errors import Malformed
from koura.pfkey import extensions as x
from koura.pfkey.dialect import Dialect
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.pfkey.offers import Proposal, Supported
from koura.pfkey.policy import PolicyExtension
from koura.pfkey.request import SATYPES
from koura.sadb.agreement import Agreement
from koura.saindex import Protocol, SaIndex
from koura.spd.policy import Action, Policy
from koura.spd.selector import Selector

T = TypeVar("T")
E = TypeVar("E", bound=x.Extension)
Replies = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """A request, and what its replies mean."""

    message: Message
    read: Callable[[Replies], T]


def _nothing(_replies: Replies) -> None:
    """That it was done is all there is to know."""


def _of(protocol: Protocol | None) -> int:
    return SATYPES[protocol] if protocol is not None else int(SaType.UNSPEC)


def _need(replies: Replies, kind: type[E], ext: int) -> E:
    found = replies[0].find(kind, ext) if replies else None
    if found is None:
        raise Malformed("a reply", f"{Ext(ext).name} is missing")
    return found


# -- SAs -----------------------------------------------------------------------------------------------------------------
def getspi(relation: SaIndex, span: tuple[int, int] | None, seq: int, dialect: Dialect) -> Operation[int]:
    ranged: tuple[x.Extension, ...] = (x.SpiRange(*span),) if span is not None else ()
    said = (x.Sa2(relation.mode, 0, relation.reqid), *values.ends(relation, dialect), *ranged)
    message = Message(Type.GETSPI, values.satype(relation), seq, extensions=said)
    return Operation(message, lambda replies: _need(replies, x.Sa, Ext.SA).spi)


def add(agreement: Agreement, dialect: Dialect) -> Operation[None]:
    said = values.sa_extensions(agreement, dialect)
    return Operation(Message(Type.ADD, values.satype(agreement.index), agreement.seq, extensions=said), _nothing)


def update(agreement: Agreement, with_keys: bool, dialect: Dialect) -> Operation[None]:
    said = values.sa_extensions(agreement, dialect, with_keys=with_keys)
    return Operation(Message(Type.UPDATE, values.satype(agreement.index), agreement.seq, extensions=said), _nothing)


def delete(relation: SaIndex, spi: int | None, dialect: Dialect) -> Operation[None]:
    one: tuple[x.Extension, ...] = (x.Sa(spi),) if spi is not None else ()
    return Operation(Message(Type.DELETE, values.satype(relation), extensions=(*one, *values.ends(relation, dialect))), _nothing)


def get(relation: SaIndex, spi: int, dialect: Dialect) -> Operation[SaEntry]:
    message = Message(Type.GET, values.satype(relation), extensions=(x.Sa(spi), *values.ends(relation, dialect)))
    return Operation(message, lambda replies: values.read_sa(replies[0]))


def flush(protocol: Protocol | None) -> Operation[None]:
    return Operation(Message(Type.FLUSH, _of(protocol)), _nothing)


def dump(protocol: Protocol | None) -> Operation[list[SaEntry]]:
    return Operation(Message(Type.DUMP, _of(protocol)), lambda replies: [values.read_sa(reply) for reply in replies])


def register(protocol: Protocol | None) -> Operation[tuple[Supported, ...]]:
    def read(replies: Replies) -> tuple[Supported, ...]:
        return tuple(one for reply in replies for one in reply.extensions if isinstance(one, Supported))

    return Operation(Message(Type.REGISTER, _of(protocol)), read)


# -- policies ------------------------------------------------------------------------------------------------------------
def _spd(kind: int, wanted: Policy, dialect: Dialect) -> Operation[int]:
    message = Message(kind, extensions=values.policy_extensions(wanted, dialect))
    return Operation(message, lambda replies: _need(replies, PolicyExtension, Ext.X_POLICY).id)


def spdadd(wanted: Policy, dialect: Dialect) -> Operation[int]:
    return _spd(Type.X_SPDADD, wanted, dialect)


def spdupdate(wanted: Policy, dialect: Dialect) -> Operation[int]:
    return _spd(Type.X_SPDUPDATE, wanted, dialect)


def spddelete(chosen: Selector, dialect: Dialect) -> Operation[None]:
    said = values.policy_extensions(Policy(chosen.direction, Action.DISCARD, chosen), dialect)
    return Operation(Message(Type.X_SPDDELETE, extensions=said), _nothing)


def spddelete_id(number: int) -> Operation[None]:
    return Operation(Message(Type.X_SPDDELETE2, extensions=(PolicyExtension(Action.DISCARD, 1, number),)), _nothing)


def spdget(number: int, dialect: Dialect) -> Operation[PolicyEntry]:
    message = Message(Type.X_SPDGET, extensions=(PolicyExtension(Action.DISCARD, 1, number),))
    return Operation(message, lambda replies: values.read_policy(replies[0], dialect))


def spdflush() -> Operation[None]:
    return Operation(Message(Type.X_SPDFLUSH), _nothing)


def spddump(scopes: int, dialect: Dialect) -> Operation[list[PolicyEntry]]:
    satype = dialect.satypes.ours(scopes) if scopes and not dialect.is_lenient else 0
    return Operation(Message(Type.X_SPDDUMP, satype), lambda replies: [values.read_policy(reply, dialect) for reply in replies])


# -- events --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Acquire:
    """An SA is wanted: `seq` goes into the GETSPI and ADD that answer it, or into `acquire_failed`."""

    relation: SaIndex
    seq: int
    policy_id: int
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Expire:
    """An SA reached its soft or hard limit."""

    sa: SaEntry
    is_hard: bool


@dataclass(frozen=True, slots=True)
class PolicyExpire:
    """A policy reached its age or lay idle too long."""

    policy: PolicyEntry


@dataclass(frozen=True, slots=True)
class Mapped:
    """A peer behind a NAT was heard from another address and port (Linux, NetBSD)."""

    spi: int
    old: tuple[bytes, int]
    new: tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Other:
    """Something that somebody did: ADD, DELETE, SPDADD and so on."""

    message: Message


Event = Acquire | Expire | PolicyExpire | Mapped | Other


def event(message: Message, dialect: Dialect) -> Event:
    """A message that answered nothing, as a value. Raises Malformed for one that lacks what it must have."""
    if message.type == Type.EXPIRE:
        return Expire(values.read_sa(message), message.find(x.Lifetime, Ext.LIFETIME_HARD) is not None)
    if message.type == Type.X_SPDEXPIRE:
        return PolicyExpire(values.read_policy(message, dialect))
    if message.type == Type.ACQUIRE and not message.errno:
        return _acquire(message)
    if message.type == Type.X_NAT_T_NEW_MAPPING:
        return _mapped(message)
    return Other(message)


def _acquire(message: Message) -> Event:
    proposal, policy = message.find(Proposal, Ext.PROPOSAL), message.find(PolicyExtension, Ext.X_POLICY)
    if proposal is None:
        return Other(message)
    one = x.Sa(0)
    relation = values.read_sa(replace(message, extensions=(one, *message.extensions))).agreement.index
    return Acquire(relation, message.seq, policy.id if policy is not None else 0, proposal)


def _mapped(message: Message) -> Mapped:
    sa = _need((message,), x.Sa, Ext.SA)
    ends = [
        (_need((message,), x.Address, end).sockaddr.address, _need((message,), x.NatPort, port).port)
        for end, port in ((Ext.ADDRESS_SRC, Ext.X_NAT_T_SPORT), (Ext.ADDRESS_DST, Ext.X_NAT_T_DPORT))
    ]
    return Mapped(sa.spi, ends[0], ends[1])


def failed(seq: int, protocol: Protocol, errno: int) -> Message:
    """The message by which a key manager gives an ACQUIRE up; nothing answers it."""
    return Message(Type.ACQUIRE, SATYPES[protocol], seq, errno=errno)


