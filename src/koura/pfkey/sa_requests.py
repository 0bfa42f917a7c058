"""GETSPI, UPDATE, ADD, DELETE, GET, FLUSH, DUMP. RFC 2367 §3.1; pfkey.md §5.1; S1, S20, S21, S27, M24, M25.

A handler changes the SAD or raises Refused and has changed nothing; it returns the reply and who gets it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from koura.entropy import Entropy
from koura.errors import Errno, Refused
from koura.pfkey import extensions as x
from koura.pfkey import show, terms
from koura.pfkey.dump import Dump
from koura.pfkey.filter import Filter
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.pfkey.request import PROTOCOLS, Request
from koura.pfkey.rules import RULES
from koura.pfkey.sockets import Audience, Outgoing
from koura.sadb import spi as spis
from koura.sadb.agreement import Agreement
from koura.sadb.association import Association, State
from koura.sadb.database import Database
from koura.sadb.hot import SEQUENCE_LAST
from koura.saindex import Mode, Protocol, SaIndex
from koura.settings import Settings

Reply = tuple[Outgoing, Audience] | None
_ORDERS = {kind: rule.out for kind, rule in RULES.items()}
_KEYS = (Ext.KEY_AUTH, Ext.KEY_ENCRYPT)


@dataclass(slots=True)
class SaRequests:
    """The handlers, around the SAD they serve. `settled(seq, relation)` is told of every SA they make."""

    sad: Database
    settings: Settings
    entropy: Entropy
    settled: Callable[[int, SaIndex], None]

    def getspi(self, request: Request) -> Reply:
        """A larval SA under a free SPI."""
        relation = terms.index(request)
        span = request.find(x.SpiRange, Ext.SPIRANGE)
        key = self.settings.key
        spi = spis.allocate(self.sad, relation, (span.min, span.max) if span is not None else None, key, self.entropy)
        self.sad.larval(Agreement(relation, spi, seq=request.head.seq, pid=request.head.pid), request.at, key.larval_lifetime_s)
        self.settled(request.head.seq, relation)
        return request.answer(_ORDERS[Type.GETSPI], {Ext.SA: x.Sa(spi)}), Audience.ONE

    def add(self, request: Request) -> Reply:
        """A mature SA. TCP-MD5 has one SA for an address pair, under an SPI of our choice (M25)."""
        relation = terms.index(request)
        if relation.protocol is Protocol.TCP:
            return self._add_tcp(request, relation)
        terms.check_spi(relation.protocol, request.sa)
        if self.sad.has_spi(relation.dst, relation.protocol, request.sa.spi, relation.src):
            raise Refused(Errno.EEXIST, f"there is an SA with SPI {request.sa.spi:#x} to this destination already")
        self.sad.add(terms.agreement(request, relation, self.settings), request.at)
        return self._made(request, relation)

    def _add_tcp(self, request: Request, relation: SaIndex) -> Reply:
        if self.sad.between(relation.src, relation.dst, relation.protocol):
            raise Refused(Errno.EEXIST, "there is a TCP-MD5 key for this pair already")
        wanted = terms.agreement(request, relation, self.settings)
        spi = spis.allocate(self.sad, relation, None, self.settings.key, self.entropy)
        self.sad.add(replace(wanted, spi=spi), request.at)
        return self._made(request, relation)

    def update(self, request: Request) -> Reply:
        """Keys for a larval SA; lifetimes, addresses or encapsulation for another."""
        relation = terms.index(request)
        sa = self._find(request, relation)
        dialect = request.socket.dialect
        if sa is None:
            raise Refused(dialect.unknown_sa, f"no SA has the SPI {request.sa.spi:#x}")
        if sa.state is State.LARVAL and sa.agreement.pid != request.head.pid and not dialect.is_lenient:
            raise Refused(Errno.EINVAL, "another process made this larval SA")
        if sa.agreement.index.src != relation.src:
            raise Refused(Errno.ESRCH, "the SA of this SPI has another source")
        if sa.state is State.LARVAL:
            # S21: mode and reqid are those of UPDATE.
            wanted = terms.agreement(request, relation, self.settings)
            self.sad.mature(sa, replace(wanted, seq=sa.agreement.seq, pid=sa.agreement.pid), request.at)
        elif dialect.full_update and any(ext in request.values for ext in _KEYS):
            self._replace(request, sa, relation)
        else:
            self._renew(request, sa, relation)
        return self._made(request, relation)

    def _replace(self, request: Request, sa: Association, relation: SaIndex) -> None:
        """Linux: UPDATE says everything again. The same keys keep their counters and window; other keys make another SA."""
        wanted = terms.agreement(request, relation, self.settings)
        if _keys(wanted) == _keys(sa.agreement) and wanted.flags == sa.agreement.flags and wanted.index == sa.agreement.index:
            changed = replace(sa.agreement, soft=wanted.soft, hard=wanted.hard, encapsulation=wanted.encapsulation)
            self.sad.renew(sa, changed)
        else:
            self.sad.replace(sa, wanted, request.at)

    def _renew(self, request: Request, sa: Association, relation: SaIndex) -> None:
        """FreeBSD: no keys; lifetimes (absent: cleared), new addresses, encapsulation (M24)."""
        have = sa.agreement
        if any(ext in request.values for ext in _KEYS):
            raise Refused(Errno.EINVAL, "the keys of a mature SA do not change")
        if relation.reqid and relation.reqid != have.index.reqid:
            raise Refused(Errno.ESRCH, f"the SA has the reqid {have.index.reqid}")
        if Mode.ANY not in (relation.mode, have.index.mode) and relation.mode is not have.index.mode:
            raise Refused(Errno.ESRCH, f"the SA has the mode {have.index.mode.name.lower()}")
        moved = _moved(request, have.index)
        encapsulation = have.encapsulation
        if Ext.X_NAT_T_TYPE in request.values or moved != have.index:
            asked = terms.encapsulated(request, moved)
            if asked is not None and have.encapsulation is not None and moved == have.index and not request.socket.dialect.is_lenient:
                raise Refused(Errno.EINVAL, "the SA has its encapsulation; it changes together with an address")
            encapsulation = asked if Ext.X_NAT_T_TYPE in request.values else have.encapsulation
        soft, hard = terms.lifetimes(request)
        self.sad.renew(sa, replace(have, index=moved, soft=soft, hard=hard, encapsulation=encapsulation))

    def delete(self, request: Request) -> Reply:
        """One SA, larval ones too; without SA extension all of the pair and satype, but for larval ones.

        An SA that a key manager deletes because a newer one has taken its place goes on receiving for a moment (sadb.grace). A request
        of somebody who is not registered, of setkey for one, has it gone at once; so has a second DELETE, which says ESRCH.
        """
        if Ext.SA not in request.values:
            relation = terms.index(request)
            self.sad.grace.end_all(lambda sa: sa.agreement.index.pair == relation.pair)
            for sa in self.sad.between(relation.src, relation.dst, relation.protocol):
                if sa.state is not State.LARVAL:
                    self.sad.remove(sa)
            return self._echo(request)
        src, dst = request.src.sockaddr.address, request.dst.sockaddr.address
        self.sad.end_grace(dst, request.protocol, request.sa.spi, src)
        sa = self._need(request)
        if self.settings.delete_grace_ns and request.head.satype in request.socket.registered and self._is_replaced(sa):
            self.sad.retire(sa, request.at.after_ns(self.settings.delete_grace_ns))
        else:
            self.sad.remove(sa)
        return self._echo(request)

    def _is_replaced(self, sa: Association) -> bool:
        """Whether a newer SA of its pair is there or on its way: packets may be under way to this one, if it is not one that sends."""
        index = sa.agreement.index
        has_sent = sa.hot.words[SEQUENCE_LAST] != sa.agreement.sequence
        if has_sent or not sa.is_usable or index.protocol is Protocol.TCP:
            return False
        newer = (one for one in self.sad.between(index.src, index.dst, index.protocol) if one.order > sa.order)
        return any(one.state is State.LARVAL or (one.is_usable and one.agreement.index == index) for one in newer)

    def get(self, request: Request) -> Reply:
        """One SA, with its keys, to the sender."""
        sa = self._need(request)
        head = request.head
        said = show.whole(sa, sa.epoch, request.socket.dialect)
        message = Message(head.type, head.satype, head.seq, head.pid, 0, show.REFERENCES + 1, said)
        return Outgoing.of(message), Audience.ONE

    def flush(self, request: Request) -> Reply:
        """All SAs of a satype, or all."""
        satype = request.head.satype
        self.sad.flush(None if satype == SaType.UNSPEC else request.protocol)
        return self._echo(request)

    def dump(self, request: Request) -> Reply:
        """All SAs of a satype, or all: they wait in the socket until they are pulled."""
        head, dialect = request.head, request.socket.dialect
        protocol = PROTOCOLS[head.satype] if head.satype != SaType.UNSPEC else None
        given = request.find(x.Unknown, Ext.X_FILTER)
        chosen = Filter(given, dialect) if given is not None else None
        entries = [
            (sa, sa.epoch) for sa in in_dump_order(self.sad)
            if protocol in (None, sa.agreement.index.protocol) and (chosen is None or chosen.shows(sa))
        ]  # fmt: skip
        if not entries:
            raise Refused(Errno.ENOENT, "no SAs")

        def one(entry: tuple[Association, int], seq: int) -> Message:
            sa, epoch = entry
            return Message(head.type, show.satype(sa), seq, head.pid, 0, show.REFERENCES, show.whole(sa, epoch, dialect))

        request.socket.dumps.append(Dump(entries, one, dialect))
        return None

    def _made(self, request: Request, relation: SaIndex) -> Reply:
        """ADD and UPDATE are done."""
        self.settled(request.head.seq, relation)
        return self._echo(request)

    def _echo(self, request: Request) -> Reply:
        return request.echo(*_ORDERS[request.head.type]), Audience.ALL

    def _find(self, request: Request, relation: SaIndex) -> Association | None:
        """The SA that a request names, by SPI; a TCP-MD5 key by its address pair."""
        if relation.protocol is Protocol.TCP:
            return next(iter(self.sad.between(relation.src, relation.dst, relation.protocol)), None)
        return self.sad.by_spi(relation.dst, relation.protocol, request.sa.spi, relation.src)

    def _need(self, request: Request) -> Association:
        """Raises Refused(ESRCH), also where the source differs; Linux does not look at the source."""
        relation = SaIndex(request.src.sockaddr.address, request.dst.sockaddr.address, request.protocol, Mode.ANY, 0)
        sa = self._find(request, relation)
        if sa is None or (sa.agreement.index.src != relation.src and not request.socket.dialect.is_lenient):
            raise Refused(Errno.ESRCH, f"no SA has the SPI {request.sa.spi:#x} and these addresses")
        return sa


def in_dump_order(sad: Database) -> list[Association]:
    """FreeBSD's order: relations newest first; in each the larval SAs, then the others, newest first."""
    first: dict[SaIndex, int] = {}
    everything = list(sad)
    for sa in everything:
        index = sa.agreement.index
        first[index] = min(sa.order, first.get(index, sa.order))
    return sorted(everything, key=lambda sa: (-first[sa.agreement.index], sa.state is not State.LARVAL, -sa.order))


def _keys(agreement: Agreement) -> tuple[object, ...]:
    return (
        agreement.encryption, agreement.encryption_key, agreement.integrity, agreement.integrity_key, agreement.compression,
    )  # fmt: skip


def _moved(request: Request, index: SaIndex) -> SaIndex:
    """The relation under the new addresses, if any. Raises Refused(EINVAL) for two families."""
    ends = []
    for ext, now in ((Ext.X_NEW_ADDRESS_SRC, index.src), (Ext.X_NEW_ADDRESS_DST, index.dst)):
        given = request.find(x.Address, ext)
        ends.append(given.sockaddr.address if given is not None else now)
    if not ends[0] or len(ends[0]) != len(ends[1]):
        raise Refused(Errno.EINVAL, "the new addresses are of two families")
    return replace(index, src=ends[0], dst=ends[1])
