"""The ledger: which numbers and IVs were reserved for which key, so that a restart repeats none. docs/architecture.md §4, Nonce discipline.

    SA comes      recall: where its numbers and its IV begin, what its window has seen
    SA sends      reserve: the next block; granted (notices.Granted) only when the reservation is on disk
    SA receives   mark: the highest number that authenticated
    clean stop    stopped: the last number that was sent in fact, so that the next start leaves out nothing of the reservation

What stands here is a keyed hash of the key, never the key. IVs belong to a key with its salt, so that two SAs of one key draw from one
counter; sequence numbers and marks belong to an SA (protocol, destination, SPI and keys). Not here: octets on disk (sadb.ledgerfile),
writing them (daemon.ledger), who asks when (daemon.grants).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b

from koura.errors import Errno, Refused
from koura.sadb.agreement import Agreement
from koura.sadb.hot import IV_LEFT, IV_NEXT, SEQUENCE_LAST, SEQUENCE_RESERVED, UNLIMITED, Hot

ID_OCTETS = 16
FIRST_BLOCK = 1 << 14  # sequence numbers; each block of an SA is twice the one before, to the largest
LARGEST_BLOCK = 1 << 20
IV_BLOCK = 1 << 32  # of 2^64: so many that the sequence number always runs out first
MOST_ENTRIES = 1 << 18
_KEY_OCTETS = 32


class Kind(IntEnum):
    """What a number means."""

    SEQUENCE = 1  # the last sequence number reserved
    IV = 2  # the first IV that is not reserved, modulo 2^64
    MARK = 3  # the highest number that a window has seen
    STOPPED = 4  # the last sequence number sent before a clean stop; good until something is reserved again


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger."""

    kind: Kind
    id: bytes
    value: int


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of an SA that comes. iv None: its key was never seen."""

    sequence: int = 0
    iv: int | None = None
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """What may be granted when it is on disk: numbers up to `sequence_end`, IVs from `iv_from`."""

    sequence_end: int
    iv_from: int
    iv_count: int


class Ledger:
    """What is written, and what is about to be. `lost`: why nothing is known of earlier times, '' if that is known."""

    def __init__(self, key: bytes, entries: Iterable[Entry] = (), lost: str = "") -> None:
        assert len(key) == _KEY_OCTETS
        self.lost = lost
        self._key = key
        self._values: dict[tuple[Kind, bytes], int] = {}
        self._blocks: dict[bytes, int] = {}
        for entry in entries:
            self.put(entry)

    def put(self, entry: Entry) -> None:
        """A line that is written. Of sequence numbers and marks the highest counts, of IVs the last; the oldest lines make room."""
        key = (entry.kind, entry.id)
        before = self._values.pop(key, 0)
        self._values[key] = entry.value if entry.kind in (Kind.IV, Kind.STOPPED) else max(before, entry.value)
        if entry.kind is Kind.SEQUENCE:
            self._values.pop((Kind.STOPPED, entry.id), None)
        if len(self._values) > MOST_ENTRIES:
            del self._values[next(iter(self._values))]

    def __len__(self) -> int:
        return len(self._values)

    def entries(self) -> list[Entry]:
        """All lines, the one that was longest untouched first."""
        return [Entry(kind, name, value) for (kind, name), value in self._values.items()]

    def recall(self, agreement: Agreement) -> Past:
        """Where an SA goes on. Raises Refused(EPERM) for a counter mode's static key if earlier times are lost."""
        has_counter = _has_counter(agreement)
        if self.lost and has_counter and not agreement.is_negotiated:
            raise Refused(
                Errno.EPERM,
                f"{self.lost}: this key may have been used before, and a counter mode must not repeat a nonce; use a new key, "
                "or start with --accept-lost-state",
            )
        name = self._of_sa(agreement)
        iv = self._values.get((Kind.IV, self._of_key(agreement))) if has_counter else None
        reserved = self._values.get((Kind.SEQUENCE, name), 0)
        return Past(self._values.get((Kind.STOPPED, name), reserved), iv, self._values.get((Kind.MARK, name), 0))

    def reserve(self, agreement: Agreement, hot: Hot, last: int) -> tuple[Block, list[Entry]]:
        """The next block for an SA whose numbers end with `last`, and what must be on disk before it is granted.

        An SA gets two blocks at first, so that one is left while the next is written.
        """
        words = hot.words
        name = self._of_sa(agreement)
        octets = self._blocks.get(name, FIRST_BLOCK // 2) * 2
        size = self._blocks[name] = min(octets, LARGEST_BLOCK)
        standing = max(self._values.get((Kind.SEQUENCE, name), 0), int(words[SEQUENCE_LAST]), int(words[SEQUENCE_RESERVED]))
        end = min(standing + size * (2 if size == FIRST_BLOCK else 1), last)
        changes = [Entry(Kind.SEQUENCE, name, end)]
        start = count = 0
        if _has_counter(agreement) and words[IV_LEFT] < IV_BLOCK // 2:
            of_key = self._of_key(agreement)
            start = self._values.get((Kind.IV, of_key), (int(words[IV_NEXT]) + int(words[IV_LEFT])) & UNLIMITED)
            count = IV_BLOCK
            changes.append(Entry(Kind.IV, of_key, (start + count) & UNLIMITED))
        for change in changes:
            self.put(change)
        return Block(end, start, count), changes

    def mark(self, agreement: Agreement, top: int) -> Entry | None:
        """A window's highest number; None: it stands here already."""
        name = self._of_sa(agreement)
        if self._values.get((Kind.MARK, name), 0) >= top:
            return None
        entry = Entry(Kind.MARK, name, top)
        self.put(entry)
        return entry

    def stopped(self, agreement: Agreement, last: int) -> Entry | None:
        """The SA has sent `last` and will send no more before the next start; None: nothing is reserved beyond that."""
        name = self._of_sa(agreement)
        if self._values.get((Kind.SEQUENCE, name), 0) <= last:
            return None
        entry = Entry(Kind.STOPPED, name, last)
        self.put(entry)
        return entry

    def forget_blocks(self, agreement: Agreement) -> None:
        """The SA has gone: how fast it was is of no interest any more."""
        self._blocks.pop(self._of_sa(agreement), None)

    def _of_key(self, agreement: Agreement) -> bytes:
        return self._hash(b"key", agreement.encryption_key.reveal())

    def _of_sa(self, agreement: Agreement) -> bytes:
        index = agreement.index
        place = bytes((index.protocol,)) + agreement.spi.to_bytes(4, "big")
        return self._hash(b"sa", place, index.dst, agreement.encryption_key.reveal(), agreement.integrity_key.reveal())

    def _hash(self, *parts: bytes) -> bytes:
        found = blake2b(key=self._key, digest_size=ID_OCTETS)
        for part in parts:
            found.update(len(part).to_bytes(2, "big") + part)
        return found.digest()


def _has_counter(agreement: Agreement) -> bool:
    return agreement.encryption is not None and agreement.encryption.has_counter_iv
