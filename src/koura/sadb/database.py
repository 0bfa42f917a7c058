"""The SAD: SAs by what a packet shows, and by what a policy asks for. RFC 4301 §4.4.2.

Inbound an SA is found by (destination, protocol, SPI); IPComp with a well-known CPI (below 64) also by source, since every peer
uses the same number (M3, S1). Outbound it is found under its relation, oldest or newest first. Both are dictionary look-ups.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from koura.errors import Errno, Refused
from koura.moment import Moment
from koura.sadb import association, lifetime
from koura.sadb.agreement import Agreement
from koura.sadb.association import Association, Happened, Makings, State
from koura.sadb.hot import SOFT_TOLD
from koura.sadb.lifetime import Deadlines, Expired
from koura.sadb.replay import words_for
from koura.saindex import Mode, Protocol, SaIndex
from koura.settings import Limits as Bounds
from koura.wire.ipcomp import DEFLATE_CPI, WELL_KNOWN_BELOW

_Spi = tuple[bytes, int, int, bytes]
_Pair = tuple[bytes, bytes, int]
_Port = tuple[bytes, int]


class Database:
    """All SAs of one stack, in the order they came. `makings` says what sessions are made with, `bounds` how many there may be."""

    def __init__(self, makings: Makings, bounds: Callable[[], Bounds] = Bounds) -> None:
        self._makings = makings
        self._bounds = bounds
        self._all: dict[_Spi, Association] = {}
        self._pairs: dict[_Pair, list[Association]] = {}
        self._ports: dict[_Port, int] = {}  # where SAs expect ESP in UDP -> how many
        self._deadlines = Deadlines()
        self._order = 0
        self._windows_octets = 0
        self.generation = 0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Association]:
        return iter(tuple(self._all.values()))

    # -- finding -------------------------------------------------------------------------------------------------------

    def by_spi(self, dst: bytes, protocol: Protocol, spi: int, src: bytes = b"") -> Association | None:
        """The SA of an inbound packet, larval ones included. IPComp: by CPI, else the peer's deflate SA for CPI 2 (S42)."""
        if protocol is not Protocol.IPCOMP:
            return self._all.get((dst, protocol, spi, b""))
        key = (dst, int(protocol), spi, src if spi < WELL_KNOWN_BELOW else b"")
        found = self._all.get(key)
        if found is None and spi == DEFLATE_CPI:
            found = next((sa for sa in self._pairs.get((src, dst, protocol), ()) if sa.is_usable), None)
        return found

    def outbound(self, index: SaIndex, oldest: bool) -> Association | None:
        """A usable SA that serves the relation: mode equal or any, reqid equal unless 0 is asked for. RFC 4301 §4.4.2."""
        candidates = self._pairs.get((index.src, index.dst, index.protocol), ())
        fits = (sa for sa in (candidates if oldest else reversed(candidates)) if sa.is_usable and _serves(sa.agreement.index, index))
        return next(fits, None)

    def between(self, src: bytes, dst: bytes, protocol: Protocol) -> tuple[Association, ...]:
        """The SAs of one address pair and protocol, oldest first, larval ones included."""
        return tuple(self._pairs.get((src, dst, protocol), ()))

    def expects_udp(self, dst: bytes, port: int) -> bool:
        """Whether some SA to this destination has ESP in UDP to this port. RFC 3948 §2.1."""
        return (dst, port) in self._ports

    def has_spi(self, dst: bytes, protocol: Protocol, spi: int, src: bytes = b"") -> bool:
        """Whether the number is taken."""
        return _key(dst, protocol, spi, src) in self._all

    def by_handle(self, slot: int, epoch: int) -> Association | None:
        """The SA behind a (slot, epoch) handle, None if it has gone."""
        return next((sa for sa in self._all.values() if sa.slot == slot and sa.epoch == epoch), None)

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
        association.key(sa, agreement, self._makings)
        sa.created = at
        self._windows_octets += 8 * words_for(agreement.window_packets)
        self._move(sa, old)
        self._deadlines.watch(sa)

    def renew(self, sa: Association, agreement: Agreement) -> None:
        """UPDATE of a keyed SA: lifetimes, addresses, encapsulation; keys, counters and window stay (M24). Raises Refused(EEXIST)."""
        agreement = lifetime.completed(agreement)
        old = sa.agreement
        if _key_of(agreement) != _key_of(old) and _key_of(agreement) in self._all:
            raise Refused(Errno.EEXIST, "the new addresses have this SPI already")
        sa.agreement = agreement
        sa.happen(Happened.RENEWED)
        sa.hot.words[SOFT_TOLD] = 0
        self._move(sa, old)
        self._deadlines.watch(sa)

    def replace(self, sa: Association, agreement: Agreement, at: Moment) -> Association:
        """UPDATE with other keys (Linux): another SA in the place of this one. Raises Refused with the SA unchanged."""
        agreement = lifetime.completed(agreement)
        if _key_of(agreement) != _key_of(sa.agreement) and _key_of(agreement) in self._all:
            raise Refused(Errno.EEXIST, f"there is an SA with SPI {agreement.spi:#x} to this destination already")
        self._admit_window(agreement)
        new = association.create(agreement, self._makings, at)
        self.remove(sa)
        self._insert(new)
        self._deadlines.watch(new)
        return new

    def remove(self, sa: Association) -> None:
        """Take an SA out; its block rests until no worker can hold it."""
        if self._all.get(_key_of(sa.agreement)) is not sa:
            return
        del self._all[_key_of(sa.agreement)]
        self._unpair(sa, sa.agreement)
        self._count_port(sa.agreement, -1)
        if sa.state is not State.DEAD:
            sa.happen(Happened.DELETED)
        if sa.window is not None:
            self._windows_octets -= 8 * words_for(sa.window.packets)
        self._makings.arena.give_back(sa.hot)
        self.generation += 1

    def flush(self, protocol: Protocol | None = None) -> tuple[Association, ...]:
        """Remove every SA (of one protocol), larval ones too; what was removed."""
        gone = tuple(sa for sa in self if protocol is None or sa.agreement.index.protocol is protocol)
        for sa in gone:
            self.remove(sa)
        return gone

    def use(self, sa: Association, octets: int, at: Moment) -> None:
        """Account a packet, and remember the SA if that crossed a limit."""
        lifetime.use(sa, octets, at)
        self._deadlines.note(sa, at)

    def due(self, at: Moment) -> tuple[Expired, ...]:
        """What has run out: larval SAs silently, the others with news for key management. Hard ones are removed."""
        told = []
        for sa in self._deadlines.take(at):
            if sa.state is State.LARVAL:
                sa.happen(Happened.TIMED_OUT)
                self.remove(sa)
            elif (happened := lifetime.state_of(sa, at)) is not None:
                told.append(lifetime.expire(sa, happened))
                if happened is Happened.HARD_LIMIT:
                    self.remove(sa)
                else:
                    self._deadlines.watch(sa)
        return tuple(told)

    def next_deadline(self) -> Moment | None:
        return self._deadlines.next_deadline()

    # -- bookkeeping ---------------------------------------------------------------------------------------------------

    def _admit(self, agreement: Agreement) -> None:
        index = agreement.index
        if self.has_spi(index.dst, index.protocol, agreement.spi, index.src):
            raise Refused(Errno.EEXIST, f"there is an SA with SPI {agreement.spi:#x} to this destination already")
        if index.protocol is Protocol.TCP and self._pairs.get((index.src, index.dst, index.protocol)):
            raise Refused(Errno.EEXIST, "there is a TCP-MD5 key for this pair already")
        if len(self._all) >= self._bounds().associations:
            raise Refused(Errno.ENOBUFS, f"{len(self._all)} SAs: the limit is reached")
        self._admit_window(agreement)

    def _admit_window(self, agreement: Agreement) -> None:
        bounds = self._bounds()
        if agreement.window_packets > bounds.window_packets:
            raise Refused(Errno.EINVAL, f"a window of {agreement.window_packets} packets; the most is {bounds.window_packets}")
        if self._windows_octets + 8 * words_for(agreement.window_packets) > bounds.windows_octets:
            raise Refused(Errno.ENOBUFS, "no memory left for replay windows")

    def _insert(self, sa: Association) -> None:
        self._order += 1
        sa.order = self._order
        self._all[_key_of(sa.agreement)] = sa
        self._pair(sa)
        self._count_port(sa.agreement, 1)
        if sa.window is not None:
            self._windows_octets += 8 * words_for(sa.window.packets)
        self.generation += 1

    def _pair(self, sa: Association) -> None:
        index = sa.agreement.index
        self._pairs.setdefault((index.src, index.dst, index.protocol), []).append(sa)

    def _unpair(self, sa: Association, agreement: Agreement) -> None:
        pair = (agreement.index.src, agreement.index.dst, agreement.index.protocol)
        self._pairs[pair].remove(sa)
        if not self._pairs[pair]:
            del self._pairs[pair]

    def _count_port(self, agreement: Agreement, change: int) -> None:
        if agreement.encapsulation is None:
            return
        port = (agreement.index.dst, agreement.encapsulation.dport)
        self._ports[port] = self._ports.get(port, 0) + change
        if not self._ports[port]:
            del self._ports[port]

    def _move(self, sa: Association, old: Agreement) -> None:
        """File an SA under what its agreement says now, keeping its place where the relation is the same."""
        self.generation += 1
        self._count_port(old, -1)
        self._count_port(sa.agreement, 1)
        before, now = replace(old.index, mode=Mode.ANY, reqid=0), replace(sa.agreement.index, mode=Mode.ANY, reqid=0)
        if before != now:
            self._unpair(sa, old)
            self._pair(sa)
        if _key_of(old) != _key_of(sa.agreement):
            del self._all[_key_of(old)]
            self._all[_key_of(sa.agreement)] = sa


def _serves(have: SaIndex, wanted: SaIndex) -> bool:
    return have.mode in (Mode.ANY, wanted.mode) and wanted.reqid in (0, have.reqid)


def _key(dst: bytes, protocol: Protocol, spi: int, src: bytes) -> _Spi:
    by_source = protocol is Protocol.IPCOMP and spi < WELL_KNOWN_BELOW
    return (dst, int(protocol), spi, src if by_source else b"")


def _key_of(agreement: Agreement) -> _Spi:
    return _key(agreement.index.dst, agreement.index.protocol, agreement.spi, agreement.index.src)
