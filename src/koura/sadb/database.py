"""The SAD: SAs by what a packet shows, and by what a policy asks for. RFC 4301 §4.4.2.

Inbound an SA is found by (destination, protocol, SPI); IPComp with a well-known CPI (below 64) also by source, since every peer
uses the same number (M3, S1). Outbound it is found under its relation (relations.py). Both are dictionary look-ups.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from koura.crypto.driver import Support
from koura.errors import Errno, Refused
from koura.moment import Moment
from koura.sadb import association, lifetime
from koura.sadb.agreement import Agreement, Encapsulation
from koura.sadb.association import Association, Happened, Left, Makings, State
from koura.sadb.encapsulated import Encapsulated
from koura.sadb.grace import Grace
from koura.sadb.hot import SOFT_TOLD
from koura.sadb.lifetime import Deadlines, Expired
from koura.sadb.relations import Relations
from koura.sadb.replay import words_for
from koura.saindex import Pair, Protocol, SaIndex
from koura.settings import Limits as Bounds
from koura.wire.ipcomp import DEFLATE_CPI, WELL_KNOWN_BELOW

_Spi = tuple[bytes, int, int, bytes]


class Database:
    """All SAs of one stack, in the order they came. `makings` says what sessions are made with, `bounds` how many there may be.

    `noted(sa)` hears of every SA that came, went, reached its soft limit, or got another agreement: whoever keeps a copy sets it.
    """

    def __init__(self, makings: Makings, bounds: Callable[[], Bounds] = Bounds) -> None:
        self._makings = makings
        self._bounds = bounds
        self._all: dict[_Spi, Association] = {}
        self.encapsulated = Encapsulated()
        self._slots: dict[int, Association] = {}
        self._relations = Relations()
        self._deadlines = Deadlines()
        self._order = 0
        self._windows_octets = 0
        self.generation = 0
        self.tcp_keys = 0  # how many SAs are keys of TCP-MD5: without any, nobody looks at TCP
        self.noted: Callable[[Association], None] = _nobody
        self.relation_changed: Callable[[Association, SaIndex], None] = _no_change  # an SA came, went or changed under this index
        self.spi_counted: Callable[[int, int], None] = _no_count  # (SPI, 1 or -1): an SA came under it, or went
        self._changed: dict[Pair, None] = {}
        self.grace: Grace[_Spi] = Grace(self._let_go)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Association]:
        return iter(tuple(self._all.values()))

    def tune(self, ipcomp_level: int, support: Support) -> None:
        """What SAs that are made from now on get: how hard IPComp tries, and which drivers serve (M40)."""
        self._makings = replace(self._makings, ipcomp_level=ipcomp_level, support=support)

    @property
    def windows_octets(self) -> int:
        """The memory of all replay windows."""
        return self._windows_octets

    # -- finding -------------------------------------------------------------------------------------------------------

    def by_spi(self, dst: bytes, protocol: Protocol, spi: int, src: bytes = b"") -> Association | None:
        """The SA of an inbound packet, larval ones included, dead ones not. IPComp: by CPI, else the peer's deflate SA for CPI 2 (S42)."""
        found = self._all.get(_key(dst, protocol, spi, src))
        if found is None and protocol is Protocol.IPCOMP and spi == DEFLATE_CPI:
            found = next((sa for sa in self._relations.pair(src, dst, protocol) if sa.is_usable), None)
        return None if found is None or found.state is State.DEAD else found

    def receiving(self, dst: bytes, protocol: Protocol, spi: int, src: bytes = b"") -> Association | None:
        """The SA of a packet that came: the same, or one that was deleted while packets for it were under way (grace)."""
        found = self.by_spi(dst, protocol, spi, src)
        return self.grace.find(_key(dst, protocol, spi, src)) if found is None and self.grace else found

    def outbound(self, index: SaIndex, oldest: bool, port: int | None = None) -> Association | None:
        """A usable SA that serves what is asked for: mode equal or any, reqid equal unless 0 is asked for. RFC 4301 §4.4.2.

        Several relations may serve (other modes, other reqids): the one that came last does, and of its SAs the oldest or the newest.
        port: of the peers behind one NAT the one whose SAs were made with it.
        """
        return self._relations.serving(index, oldest, port)

    def between(self, src: bytes, dst: bytes, protocol: Protocol) -> tuple[Association, ...]:
        """The SAs of one address pair and protocol, oldest first, larval ones included."""
        return tuple(self._relations.pair(src, dst, protocol))

    def leads_apart(self, index: SaIndex) -> bool:
        """Whether the SAs that serve a wish lead to several peers behind one NAT; one that names a reqid may have a single peer's."""
        return self.encapsulated.is_shared(index.src, index.dst) and self._relations.leads_apart(index)

    def has_spi(self, dst: bytes, protocol: Protocol, spi: int, src: bytes = b"") -> bool:
        """Whether the number is taken."""
        return _key(dst, protocol, spi, src) in self._all

    def by_handle(self, slot: int, epoch: int) -> Association | None:
        """The SA behind a (slot, epoch) handle, None if it has gone."""
        sa = self._slots.get(slot)
        return sa if sa is not None and sa.epoch == epoch else None

    # -- changing ------------------------------------------------------------------------------------------------------

    def add(self, agreement: Agreement, at: Moment) -> Association:
        """ADD. Raises Refused: EEXIST for a taken SPI, ENOBUFS at a limit, EINVAL for what no SA can be."""
        agreement = lifetime.completed(agreement)
        self._admit(agreement)
        sa = association.create(agreement, self._makings, at)
        self._insert(sa)
        self._deadlines.watch(sa)
        return sa

    def larval(self, agreement: Agreement, at: Moment, lifetime_s: int) -> Association:
        """GETSPI: hold an SPI. Raises Refused."""
        self._admit(agreement)
        sa = association.larval(agreement, self._makings, at)
        self._insert(sa)
        self._deadlines.watch_larval(sa, lifetime_s)
        return sa

    def mature(self, sa: Association, agreement: Agreement, at: Moment) -> None:
        """UPDATE of a larval SA: keys, and what mode and reqid they settle (S21). Raises Refused with the SA unchanged."""
        agreement = lifetime.completed(agreement)
        self._admit_window(agreement)
        old = sa.agreement
        self._admit_move(old, agreement)
        association.key(sa, agreement, self._makings)
        sa.created = at
        self._windows_octets += 8 * words_for(agreement.checked_packets)
        self._move(sa, old)
        self._deadlines.watch(sa)

    def renew(self, sa: Association, agreement: Agreement) -> None:
        """UPDATE of a keyed SA: lifetimes, addresses, encapsulation; keys, counters and window stay (M24). Raises Refused(EEXIST)."""
        agreement = lifetime.completed(agreement)
        old = sa.agreement
        self._admit_move(old, agreement)
        sa.agreement = agreement
        if sa.is_usable:
            sa.happen(Happened.RENEWED)
        sa.hot.words[SOFT_TOLD] = 0
        self._move(sa, old)
        self._deadlines.watch(sa)

    def follow(self, sa: Association, encapsulation: Encapsulation) -> None:
        """The peer is seen at another port or address: where packets go changes, and nothing else. RFC 3947 §5.2."""
        old = sa.agreement
        sa.agreement = replace(old, encapsulation=encapsulation)
        self._move(sa, old)

    def replace(self, sa: Association, agreement: Agreement, at: Moment) -> Association:
        """UPDATE with other keys (Linux): another SA in the place of this one. Raises Refused with the SA unchanged."""
        agreement = lifetime.completed(agreement)
        self._admit_move(sa.agreement, agreement)
        self._admit_window(agreement)
        new = association.create(agreement, self._makings, at)
        self.remove(sa)
        self._insert(new)
        self._deadlines.watch(new)
        return new

    def resume(self, left: Left, at: Moment, larval_s: int) -> Association:
        """Put back what an engine left, in its order: the oldest first. `noted` does not hear of it. Raises Refused (no algorithm)."""
        sa = association.resume(left, self._makings)
        self._order = left.order
        self._relations.resume(sa)
        self._file(sa)
        if sa.state is State.LARVAL:
            self._deadlines.watch_larval(sa, larval_s)
        else:
            self._deadlines.watch(sa)
            self._deadlines.look(sa, at)
        return sa

    def holds(self, sa: Association) -> bool:
        """Whether this very SA is in here."""
        return self._all.get(_key_of(sa.agreement)) is sa

    def remove(self, sa: Association) -> None:
        """Take an SA out; its block rests until no worker can hold it."""
        if self.holds(sa):
            self._take_out(sa)
            self._let_go(sa)

    def retire(self, sa: Association, until: Moment) -> None:
        """Take a usable SA out, but go on opening what comes for it until then (grace)."""
        if self.holds(sa):
            self._take_out(sa)
            sa.happen(Happened.RETIRED)
            sa.is_retired = True
            self.grace.begin(_key_of(sa.agreement), sa, until)
            self._deadlines.watch_until(sa, until)
            self.noted(sa)

    def end_grace(self, dst: bytes, protocol: Protocol, spi: int, src: bytes = b"") -> None:
        """If an SA of this number was deleted and still receives: no longer."""
        self.grace.end(_key(dst, protocol, spi, src))

    def flush(self, protocol: Protocol | None = None) -> tuple[Association, ...]:
        """Remove every SA (of one protocol), larval ones and those in grace too; what was removed."""
        self.grace.end_all(lambda sa: protocol is None or sa.agreement.index.protocol is protocol)
        gone = tuple(sa for sa in self if protocol is None or sa.agreement.index.protocol is protocol)
        for sa in gone:
            self.remove(sa)
        return gone

    def use(self, sa: Association, octets: int, at: Moment) -> None:
        """Account a packet, and remember the SA if that crossed a limit. At a hard one it ends here: no other packet uses it (S17)."""
        lifetime.use(sa, octets, at)
        if self._deadlines.note(sa, at) is Happened.HARD_LIMIT:
            sa.happen(Happened.HARD_LIMIT)

    def due(self, at: Moment) -> tuple[Expired, ...]:
        """What has run out: larval SAs silently, the others with news for key management. Hard ones are removed."""
        told = []
        for sa in self._deadlines.take(at):
            if self._slots.get(sa.slot) is not sa:
                self._look_at_retired(sa, at)
                continue
            if sa.state is State.DEAD:
                told.append(Expired(sa, True))
                self.remove(sa)
            elif sa.state is State.LARVAL:
                sa.happen(Happened.TIMED_OUT)
                self.remove(sa)
            elif (happened := lifetime.state_of(sa, at)) is not None:
                told.append(lifetime.expire(sa, happened))
                if happened is Happened.HARD_LIMIT:
                    self.remove(sa)
                else:
                    self._deadlines.watch(sa)
                    self.noted(sa)
        return tuple(told)

    def quiesce(self) -> None:
        """No one holds an SA that is gone: the memory of their hot words may be used again."""
        self._makings.arena.quiesce()

    def next_deadline(self) -> Moment | None:
        return self._deadlines.next_deadline()

    def take_changed(self) -> tuple[Pair, ...]:
        """The pairs of addresses between which an SA came, went or changed since the last call."""
        if not self._changed:
            return ()
        changed = tuple(self._changed)
        self._changed.clear()
        return changed

    # -- bookkeeping ---------------------------------------------------------------------------------------------------

    def _take_out(self, sa: Association) -> None:
        """Nobody finds it any more."""
        self._note_change(sa, sa.agreement.index)
        del self._all[_key_of(sa.agreement)]
        del self._slots[sa.slot]
        self.encapsulated.count_peer(sa, sa.agreement, -1)
        self._relations.drop(sa, sa.agreement.index)
        self.tcp_keys -= sa.agreement.index.protocol is Protocol.TCP
        self.generation += 1

    def _let_go(self, sa: Association) -> None:
        """It is out, and nothing of it is needed any more."""
        if sa.is_retired:
            self._note_change(sa, sa.agreement.index)
            self.generation += 1
        self.spi_counted(sa.agreement.spi, -1)
        self.encapsulated.count_port(sa.agreement, -1)
        if sa.state is not State.DEAD:
            sa.happen(Happened.DELETED)
        if sa.window is not None:
            self._windows_octets -= 8 * words_for(sa.window.packets)
        self._makings.arena.give_back(sa.hot)
        self.noted(sa)

    def _look_at_retired(self, sa: Association, at: Moment) -> None:
        """Nobody is told of its limits: it was deleted."""
        key = _key_of(sa.agreement)
        if self.grace.find(key) is sa and lifetime.state_of(sa, at) is Happened.HARD_LIMIT:
            sa.happen(Happened.HARD_LIMIT)
        if sa.is_retired and self.grace.due(key, at):
            self.grace.end(key)

    def _admit(self, agreement: Agreement) -> None:
        index = agreement.index
        if self.has_spi(index.dst, index.protocol, agreement.spi, index.src):
            raise Refused(Errno.EEXIST, f"there is an SA with SPI {agreement.spi:#x} to this destination already")
        if index.protocol is Protocol.TCP and self.between(index.src, index.dst, index.protocol):
            raise Refused(Errno.EEXIST, "there is a TCP-MD5 key for this pair already")
        if len(self._all) >= self._bounds().associations:
            raise Refused(Errno.ENOBUFS, f"{len(self._all)} SAs: the limit is reached")
        self._admit_window(agreement)
        self.grace.end(_key_of(agreement))

    def _admit_window(self, agreement: Agreement) -> None:
        bounds = self._bounds()
        if agreement.window_packets > bounds.window_packets:
            raise Refused(Errno.EINVAL, f"a window of {agreement.window_packets} packets; the most is {bounds.window_packets}")
        if self.grace and self._windows_octets + 8 * words_for(agreement.checked_packets) > bounds.windows_octets:
            self.grace.end_all()
        if self._windows_octets + 8 * words_for(agreement.checked_packets) > bounds.windows_octets:
            raise Refused(Errno.ENOBUFS, "no memory left for replay windows")

    def _admit_move(self, old: Agreement, new: Agreement) -> None:
        if _key_of(new) != _key_of(old) and _key_of(new) in self._all:
            raise Refused(Errno.EEXIST, f"there is an SA with SPI {new.spi:#x} to this destination already")
        self.grace.end(_key_of(new))

    def _insert(self, sa: Association) -> None:
        self._order += 1
        sa.order = self._order
        self._relations.add(sa)
        self._file(sa)
        self.noted(sa)

    def _file(self, sa: Association) -> None:
        self._all[_key_of(sa.agreement)] = sa
        self.spi_counted(sa.agreement.spi, 1)
        self._slots[sa.slot] = sa
        self.encapsulated.count_port(sa.agreement, 1)
        self.encapsulated.count_peer(sa, sa.agreement, 1)
        self.tcp_keys += sa.agreement.index.protocol is Protocol.TCP
        self._note_change(sa, sa.agreement.index)
        if sa.window is not None:
            self._windows_octets += 8 * words_for(sa.window.packets)
        self.generation += 1

    def _note_change(self, sa: Association, index: SaIndex) -> None:
        self._changed[index.pair] = None
        self.relation_changed(sa, index)

    def _move(self, sa: Association, old: Agreement) -> None:
        """File an SA under what its agreement says now, keeping its place where the relation is the same."""
        self.generation += 1
        self.noted(sa)
        self.encapsulated.count_port(old, -1)
        self.encapsulated.count_port(sa.agreement, 1)
        self.encapsulated.count_peer(sa, old, -1)
        self.encapsulated.count_peer(sa, sa.agreement, 1)
        self._note_change(sa, old.index)
        self._note_change(sa, sa.agreement.index)
        if old.index != sa.agreement.index:
            self._relations.drop(sa, old.index)
            self._relations.add(sa)
        if _key_of(old) != _key_of(sa.agreement):
            del self._all[_key_of(old)]
            self._all[_key_of(sa.agreement)] = sa
            self.spi_counted(old.spi, -1)
            self.spi_counted(sa.agreement.spi, 1)


def _nobody(_: object) -> None:
    """Nobody listens."""


def _no_change(_sa: Association, _index: SaIndex) -> None:
    """Nobody looks."""


def _no_count(_spi: int, _change: int) -> None:
    """Nobody counts."""


def _key(dst: bytes, protocol: Protocol, spi: int, src: bytes) -> _Spi:
    by_source = protocol is Protocol.IPCOMP and spi < WELL_KNOWN_BELOW
    return (dst, int(protocol), spi, src if by_source else b"")


def _key_of(agreement: Agreement) -> _Spi:
    return _key(agreement.index.dst, agreement.index.protocol, agreement.spi, agreement.index.src)
