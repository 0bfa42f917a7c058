r"""The ledger as octets of a file: checksummed records behind two slots that say how many of them count. Pure: no file is touched here.

    0      slot of even commits \  magic 8 | commit u64 | records u64 | check 16
    512    slot of odd commits  /
    1024   key 32 | check 16
    1536   record: kind u8 | id 16 | value u64 | 0 u64 | check 15       48 octets, one after the other

A commit is: records behind the last, SYNC, the other slot, SYNC; only then is it answered. Whatever stops it in between, the records that
count are whole, and whole records behind them can only reserve more: they count, too. So a crash never makes a file unreadable; fewer
whole records than a slot says, or no slot, are damage, and raise Torn. Checks are keyed and cover a record's place.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from koura.errors import KouraError
from koura.sadb.ledger import Entry, Kind, Ledger

MAGIC = b"KLEDGER1"
SLOT_OCTETS = 512
KEY_AT, RECORDS_AT = 1024, 1536
KEY_OCTETS = 32
_SLOT = struct.Struct(">8sQQ")
_RECORD = struct.Struct(">B16sQQ")
_CHECK = 16
_RECORD_CHECK = 15
RECORD_OCTETS = _RECORD.size + _RECORD_CHECK
SPARE_RECORDS = 4096  # a file is written anew when it has so many more than twice what counts


class Torn(KouraError):
    """The file cannot be believed; says why."""


@dataclass(frozen=True, slots=True)
class Write:
    """Octets at a place of the file; after each commit's last record, and after its slot, comes a sync."""

    at: int
    octets: bytes


@dataclass(slots=True)
class Book:
    """A file that is open: its key, how many records it has, and the number of its last commit."""

    key: bytes
    records: int = 0
    commit: int = 0

    def append(self, entries: Iterable[Entry]) -> tuple[Write, Write]:
        """Two writes, each to be followed by a sync: records, and the slot that counts them."""
        at = RECORDS_AT + self.records * RECORD_OCTETS
        packed = []
        for entry in entries:
            packed.append(self._record(self.records, entry))
            self.records += 1
        self.commit += 1
        return Write(at, b"".join(packed)), Write(self.commit % 2 * SLOT_OCTETS, self._slot())

    def is_bloated(self, entries: int) -> bool:
        """Whether it should be written anew."""
        return self.records > 2 * entries + SPARE_RECORDS

    def _slot(self) -> bytes:
        head = _SLOT.pack(MAGIC, self.commit, self.records)
        return head + _check(self.key, b"slot", head)

    def _record(self, number: int, entry: Entry) -> bytes:
        head = _RECORD.pack(entry.kind, entry.id, entry.value, 0)
        return head + _check(self.key, b"record%d" % number, head)[:_RECORD_CHECK]


def write(key: bytes, entries: Iterable[Entry]) -> tuple[Book, bytes]:
    """A whole new file."""
    book = Book(key)
    records, _ = book.append(entries)
    slot = book._slot()
    head = bytes(SLOT_OCTETS) + slot + bytes(SLOT_OCTETS - len(slot)) + key + _check(key, b"key", key)
    return book, head.ljust(RECORDS_AT, b"\0") + records.octets


def read(octets: bytes) -> tuple[Book, Ledger]:
    """What a file says. Raises Torn."""
    key = octets[KEY_AT : KEY_AT + KEY_OCTETS]
    if len(octets) < RECORDS_AT or octets[KEY_AT + KEY_OCTETS :][:_CHECK] != _check(key, b"key", key):
        raise Torn("its head is damaged")
    slots = [slot for slot in (_slot_at(key, octets, at) for at in (0, SLOT_OCTETS)) if slot is not None]
    if not slots:
        raise Torn("neither of its slots is whole")
    commit, committed = max(slots)
    found = list(_records(Book(key), octets))
    if len(found) < committed:
        raise Torn(f"{committed} records were written, {len(found)} are whole")
    return Book(key, len(found), commit), Ledger(key, found)


def _slot_at(key: bytes, octets: bytes, at: int) -> tuple[int, int] | None:
    head = octets[at : at + _SLOT.size]
    if head[: len(MAGIC)] != MAGIC or octets[at + _SLOT.size :][:_CHECK] != _check(key, b"slot", head):
        return None
    _, commit, records = _SLOT.unpack(head)
    return commit, records


def _records(book: Book, octets: bytes) -> Iterator[Entry]:
    """The records up to the first that is not whole."""
    for number, at in enumerate(range(RECORDS_AT, len(octets) - RECORD_OCTETS + 1, RECORD_OCTETS)):
        kind, name, value, _ = _RECORD.unpack_from(octets, at)
        if kind not in Kind._value2member_map_:
            return
        entry = Entry(Kind(kind), name, value)
        if book._record(number, entry) != octets[at : at + RECORD_OCTETS]:
            return
        yield entry


def _check(key: bytes, what: bytes, octets: bytes) -> bytes:
    return blake2b(octets, key=key, digest_size=_CHECK, person=what.ljust(16, b"\0")[:16]).digest()
