"""The ledger: no nonce and no sequence number twice, whatever crashes come; what is damaged is not believed."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koura.errors import Errno, Refused
from koura.sadb import hot, ledgerfile, sequence
from koura.sadb.agreement import Agreement
from koura.sadb.association import Association, Makings
from koura.sadb.database import Database
from koura.sadb.hot import Arena
from koura.sadb.ledger import FIRST_BLOCK, IV_BLOCK, LARGEST_BLOCK, MOST_ENTRIES, Entry, Kind, Ledger
from koura.sadb.ledgerfile import RECORD_OCTETS, RECORDS_AT, SLOT_OCTETS, SPARE_RECORDS, Book, Torn, Write
from koura.sadb.replay import Stale
from koura.secret import Secret
from tests.unit.traffic.kit import AT, REGISTRY
from tests.unit.xform.kit import CBC, GCM, SHA256, esp

KEY = bytes(range(32))
SECTOR = 512
LAST32 = 0xFFFF_FFFF


class Zeros:
    """Dice that always fall the same: what begins at random begins at 0, so that only the ledger keeps nonces apart."""

    def octets(self, count: int) -> bytes:
        return bytes(count)

    def below(self, limit: int) -> int:
        return 0


def database(ledger: Ledger) -> Database:
    return Database(Makings(REGISTRY, Arena(), Zeros(), True, ledger=ledger))


def suite(number: int) -> Agreement:
    """One of four SAs; the first two have one key."""
    if number == 3:
        return esp(CBC, SHA256, spi=0x1003, window_packets=64)
    given = esp(GCM, spi=0x1000 + number, window_packets=64)
    return Agreement(given.index, given.spi, given.encryption, Secret(bytes((number // 2,)) * 20), window_packets=64)


# -- what is remembered ----------------------------------------------------------------------------------------------------


def grant(ledger: Ledger, sa: Association) -> list[Entry]:
    block, changes = ledger.reserve(sa.agreement, sa.hot, sa.last_sequence)
    sequence.grant(sa, block.sequence_end, block.iv_count, block.iv_from)
    return changes


@pytest.mark.covers("S22")
def test_a_key_that_comes_again_goes_on_behind_its_reservation() -> None:
    ledger = Ledger(KEY)
    sad = database(ledger)
    sa = sad.add(suite(0), AT)
    assert sa.awaits_grant
    grant(ledger, sa)
    assert not sa.awaits_grant
    assert [(sequence.next_sequence(sa), sequence.next_iv(sa)) for _ in range(3)] == [(1, 0), (2, 1), (3, 2)]
    sad.flush()
    again = sad.add(suite(0), AT)
    grant(ledger, again)
    assert (sequence.next_sequence(again), sequence.next_iv(again)) == (2 * FIRST_BLOCK + 1, IV_BLOCK)


@pytest.mark.covers("S22")
def test_after_a_clean_stop_numbers_go_on_without_a_gap_and_until_something_is_reserved_again() -> None:
    ledger = Ledger(KEY)
    sa = database(ledger).add(suite(0), AT)
    grant(ledger, sa)
    for number in (1, 2, 3):
        assert (sequence.next_sequence(sa), sequence.next_iv(sa)) == (number, number - 1)
    entry = ledger.stopped(sa.agreement, 3)
    assert entry is not None and ledger.stopped(sa.agreement, 2 * FIRST_BLOCK) is None, "that is where the reservation ends anyway"
    ledger = Ledger(KEY, ledger.entries())
    again = database(ledger).add(suite(0), AT)
    assert again.awaits_grant, "what is left of a reservation is reserved anew before it is used"
    reserved = grant(ledger, again)
    assert (sequence.next_sequence(again), sequence.next_iv(again)) == (4, IV_BLOCK)
    crashed = Ledger(KEY, [*ledger.entries()[:1], entry, *reserved])
    assert crashed.recall(suite(0)).sequence == reserved[0].value, "the stop before does not count any more"


@pytest.mark.covers("S22")
def test_two_sas_of_one_key_draw_from_one_counter_of_ivs_and_number_apart() -> None:
    ledger = Ledger(KEY)
    sad = database(ledger)
    one, two = sad.add(suite(0), AT), sad.add(suite(1), AT)
    grant(ledger, one)
    grant(ledger, two)
    assert (sequence.next_sequence(one), sequence.next_sequence(two)) == (1, 1)
    assert (sequence.next_iv(one), sequence.next_iv(two)) == (0, IV_BLOCK)


def test_blocks_come_ahead_of_need_and_grow() -> None:
    ledger = Ledger(KEY)
    sa = database(ledger).add(suite(0), AT)
    grant(ledger, sa)
    words, sizes, before = sa.hot.words, [], 0
    assert (words[hot.SEQUENCE_END], words[hot.SEQUENCE_RESERVED]) == (FIRST_BLOCK, 2 * FIRST_BLOCK)
    for _ in range(9):
        words[hot.SEQUENCE_LAST] = words[hot.SEQUENCE_END]
        assert sequence.draw(sa), "the next half is there before it is asked for"
        assert not sequence.draw(sa)
        before = int(words[hot.SEQUENCE_RESERVED])
        grant(ledger, sa)
        sizes.append(int(words[hot.SEQUENCE_RESERVED]) - before)
    assert sizes == [min(FIRST_BLOCK << number, LARGEST_BLOCK) for number in range(1, 10)]


def test_the_space_of_numbers_ends_where_it_ends() -> None:
    ledger = Ledger(KEY)
    sad = database(ledger)
    sa = sad.add(suite(0), AT)
    sa.hot.words[hot.SEQUENCE_LAST] = sa.hot.words[hot.SEQUENCE_END] = LAST32 - 1
    grant(ledger, sa)
    assert sequence.next_sequence(sa) == LAST32
    with pytest.raises(sequence.Spent):
        sequence.next_sequence(sa)
    sad.flush()
    with pytest.raises(sequence.Spent):
        sequence.next_sequence(sad.add(suite(0), AT))


@pytest.mark.covers("S22")
def test_a_restored_window_rejects_what_lies_at_or_below_its_mark() -> None:
    ledger = Ledger(KEY)
    assert ledger.mark(suite(0), 500) is not None
    assert ledger.mark(suite(0), 500) is None
    assert ledger.mark(suite(0), 300) is None
    window = database(ledger).add(suite(0), AT).window
    assert window is not None
    assert [window.check(number) for number in (499, 500, 501)] == [Stale.REPLAYED, Stale.REPLAYED, None]
    other = database(ledger).add(suite(1), AT).window
    assert other is not None and other.check(1) is None


@pytest.mark.covers("S22")
def test_when_earlier_times_are_lost_static_keys_of_counter_modes_are_refused() -> None:
    sad = database(Ledger(KEY, lost="the file is damaged"))
    with pytest.raises(Refused) as refused:
        sad.add(suite(0), AT)
    assert refused.value.errno is Errno.EPERM
    assert "--accept-lost-state" in refused.value.why
    assert len(sad) == 0
    sad.add(suite(3), AT)
    sad.add(negotiated(1), AT)


def negotiated(number: int) -> Agreement:
    given = suite(number)
    return Agreement(given.index, given.spi, given.encryption, given.encryption_key, is_negotiated=True)


@pytest.mark.covers("S22")
def test_a_negotiated_key_begins_at_once_and_no_iv_comes_twice_when_its_block_comes() -> None:
    ledger = Ledger(KEY)
    sad = database(ledger)
    sa = sad.add(negotiated(0), AT)
    assert not sa.awaits_grant
    ivs = [sequence.next_iv(sa) for _ in range(5)]
    block, _ = ledger.reserve(sa.agreement, sa.hot, sa.last_sequence)
    ivs += [sequence.next_iv(sa) for _ in range(5)]
    sequence.grant(sa, block.sequence_end, block.iv_count, block.iv_from)
    ivs += [sequence.next_iv(sa) for _ in range(FIRST_BLOCK)]
    assert len(set(ivs)) == len(ivs)
    assert sad.add(negotiated(1), AT).awaits_grant, "its key is known"


def test_an_sa_that_waits_for_its_first_numbers_stands_back_for_one_that_can_send() -> None:
    ledger = Ledger(KEY)
    sad = database(ledger)
    old = sad.add(suite(0), AT)
    assert sad.outbound(old.agreement.index, oldest=False) is old, "there is no other: packets are held for it"
    grant(ledger, old)
    new = sad.add(suite(1), AT)
    assert sad.outbound(old.agreement.index, oldest=False) is old
    grant(ledger, new)
    assert sad.outbound(old.agreement.index, oldest=False) is new


def test_the_ledger_is_bounded_and_the_longest_untouched_goes_first() -> None:
    ledger = Ledger(KEY)
    for number in range(MOST_ENTRIES):
        ledger.put(Entry(Kind.IV, number.to_bytes(16, "big"), number))
    ledger.put(Entry(Kind.IV, bytes(16), 7))
    ledger.put(Entry(Kind.IV, b"\xff" * 16, 8))
    assert len(ledger) == MOST_ENTRIES
    kept = ledger.entries()
    assert kept[0] == Entry(Kind.IV, (2).to_bytes(16, "big"), 2)
    assert kept[-2:] == [Entry(Kind.IV, bytes(16), 7), Entry(Kind.IV, b"\xff" * 16, 8)]


# -- the file --------------------------------------------------------------------------------------------------------------


def put(octets: bytearray, write: Write) -> None:
    octets.extend(bytes(max(0, write.at + len(write.octets) - len(octets))))
    octets[write.at : write.at + len(write.octets)] = write.octets


def lines(count: int, first: int = 0) -> list[Entry]:
    return [Entry(Kind(1 + n % 3), n.to_bytes(16, "big"), n << 33) for n in range(first, first + count)]


def written(*batches: Iterable[Entry]) -> bytes:
    book, whole = ledgerfile.write(KEY, ())
    octets = bytearray(whole)
    for batch in batches:
        for write in book.append(batch):
            put(octets, write)
    return bytes(octets)


def test_what_was_written_is_read() -> None:
    _, ledger = ledgerfile.read(written(lines(3), lines(2, 3)))
    assert ledger.entries() == lines(5)


def test_a_file_goes_on_where_it_ended() -> None:
    octets = bytearray(written(lines(3)))
    book, _ = ledgerfile.read(bytes(octets))
    for write in book.append(lines(2, 3)):
        put(octets, write)
    assert ledgerfile.read(bytes(octets))[1].entries() == lines(5)


def test_a_file_that_was_cut_is_not_believed() -> None:
    octets = written(lines(3), lines(2, 3))
    for length in range(len(octets)):
        with pytest.raises(Torn):
            ledgerfile.read(octets[:length])


def test_a_file_with_a_changed_octet_is_not_believed_or_says_the_same() -> None:
    octets = written(lines(3), lines(2, 3))
    believed = 0
    for at in range(len(octets)):
        changed = bytearray(octets)
        changed[at] ^= 0x40
        try:
            _, ledger = ledgerfile.read(bytes(changed))
        except Torn:
            continue
        believed += 1
        assert ledger.entries() == lines(5)
        assert at < RECORDS_AT, "a record counts only if it is whole"
    assert believed < RECORDS_AT


def test_records_may_not_change_places() -> None:
    octets = bytearray(written(lines(3)))
    a, b = RECORDS_AT, RECORDS_AT + RECORD_OCTETS
    octets[a:b], octets[b : b + RECORD_OCTETS] = octets[b : b + RECORD_OCTETS], octets[a:b]
    with pytest.raises(Torn):
        ledgerfile.read(bytes(octets))


def test_a_file_is_written_anew_when_it_says_everything_thrice() -> None:
    book = Book(KEY, records=2 * 10 + SPARE_RECORDS)
    assert not book.is_bloated(10)
    book.append(lines(1))
    assert book.is_bloated(10)


# -- crashes ---------------------------------------------------------------------------------------------------------------


@dataclass
class Disk:
    """A file whose writes since the last sync may be lost, sector by sector, in a crash."""

    dice: random.Random
    safe: bytearray
    pending: list[Write] = field(default_factory=list)

    def sync(self) -> None:
        for write in self.pending:
            put(self.safe, write)
        self.pending.clear()

    def crash(self) -> None:
        for write in self.pending:
            end = write.at + len(write.octets)
            self.safe.extend(bytes(max(0, self.dice.choice((0, end)) - len(self.safe))))
            for at in range(write.at // SECTOR * SECTOR, end, SECTOR):
                first, last = max(at, write.at), min(at + SECTOR, end, len(self.safe))
                if first < last and self.dice.random() < 0.5:
                    self.safe[first:last] = write.octets[first - write.at : last - write.at]
        self.pending.clear()


class Machine:
    """A host that adds SAs, sends, commits in steps, and crashes between any two of them."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        _, octets = ledgerfile.write(KEY, ())
        self.disk = Disk(self.dice, bytearray(octets))
        self.nonces: set[tuple[bytes, int]] = set()
        self.numbers: set[tuple[int, int]] = set()
        self.crashes = 0
        self.stops = 0
        self.sent = 0
        self.start()

    def start(self) -> None:
        self.book, self.ledger = ledgerfile.read(bytes(self.disk.safe))
        self.kept = Ledger(KEY, self.ledger.entries())  # what the keeper knows
        self.sad = database(self.ledger)
        self.waiting: list[tuple[Association, object, list[Entry]]] = []
        self.writes: list[Write] = []
        self.granting: list[tuple[Association, object, list[Entry]]] = []

    def step(self) -> None:
        acts = (self.add, self.send, self.send, self.reserve, self.write, self.write, self.write, self.remove, self.crash, self.stop)
        self.dice.choice(acts)()

    def add(self) -> None:
        agreement = suite(self.dice.randrange(4))
        if not self.sad.has_spi(agreement.index.dst, agreement.index.protocol, agreement.spi):
            self.sad.add(agreement, AT)

    def remove(self) -> None:
        for sa in list(self.sad)[:1]:
            self.sad.remove(sa)

    def reserve(self) -> None:
        for sa in self.sad:
            self.waiting.append((sa, *self.ledger.reserve(sa.agreement, sa.hot, sa.last_sequence)))

    def write(self) -> None:
        """One write or one sync of a commit; after the last, what it was for is granted."""
        if self.disk.pending:
            self.disk.sync()
            if not self.writes:
                for sa, block, _ in self.granting:
                    sequence.grant(sa, block.sequence_end, block.iv_count, block.iv_from)  # type: ignore[attr-defined]
                self.granting = []
        elif self.writes:
            self.disk.pending.append(self.writes.pop(0))
        elif self.waiting:
            self.granting, self.waiting = self.waiting, []
            self.writes = list(self.book.append([line for _, _, changes in self.granting for line in changes]))

    def send(self) -> None:
        for sa in self.sad:
            words = sa.hot.words
            if self.dice.random() < 0.3 and words[hot.SEQUENCE_LAST] < words[hot.SEQUENCE_END]:
                words[hot.SEQUENCE_LAST] = words[hot.SEQUENCE_END] - 1  # a long time passes
            try:
                number = sequence.next_sequence(sa)
            except sequence.Ungranted:
                continue
            self._once(self.numbers, (sa.agreement.spi, number))
            if sa.agreement.spi != 0x1003:
                self._once(self.nonces, (sa.agreement.encryption_key.reveal(), sequence.next_iv(sa)))
            self.sent += 1

    def _once(self, seen: set, one: object) -> None:  # type: ignore[type-arg]
        assert one not in seen, f"{one} came twice"
        seen.add(one)

    def stop(self) -> None:
        """Cleanly: what was asked for is written, then what was sent; a crash may come before the last sync."""
        if self.dice.random() >= 0.1:
            return
        while self.disk.pending or self.writes or self.waiting:
            self.write()
        ended = [self.ledger.stopped(sa.agreement, int(sa.hot.words[hot.SEQUENCE_LAST])) for sa in self.sad]
        lines = [line for line in ended if line is not None]
        for write in self.book.append(lines) if lines else ():
            self.disk.pending.append(write)
            if self.dice.random() < 0.1:
                break
            self.disk.sync()
        self.stops += bool(lines)
        self.disk.crash()
        self.start()

    def crash(self) -> None:
        if self.dice.random() < 0.1:
            self.crashes += 1
            self.disk.crash()
            self.start()


@pytest.mark.covers("S22")
@given(st.integers(0, 1 << 32))
@settings(max_examples=60, deadline=None)
def test_no_nonce_comes_twice_whatever_crashes_come(seed: int) -> None:
    machine = Machine(seed)
    for _ in range(150):
        machine.step()


def test_machines_do_send_and_do_crash() -> None:
    """The property above is of something."""
    machine = Machine(1)
    for _ in range(6000):
        machine.step()
    assert machine.sent > 200
    assert machine.crashes > 10
    assert machine.stops > 10


def test_a_machine_that_forgets_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary: without what is on disk, nonces come again."""
    monkeypatch.setattr(Ledger, "put", lambda *_: None)
    machine = Machine(1)
    with pytest.raises(AssertionError, match="came twice"):
        for _ in range(2000):
            machine.step()


def test_slots_lie_in_sectors_of_their_own() -> None:
    """A crash tears a sector at the most once; the other slot stands."""
    assert SLOT_OCTETS >= SECTOR
    assert RECORDS_AT % SECTOR == 0
