"""Hot: what packets change in an SA, as 64-bit words with named offsets in one block of memory. docs/architecture.md §4.

Blocks live in chunks that never move, so that a fast path may hold their address as a C struct; Python sees them through a
memoryview of words in host order. A block is used again only after `quiesce`, when every worker has passed a burst boundary;
(slot, epoch) is a handle that does not confuse the new owner with the old. Outbound and inbound words are different words.
"""

from collections.abc import Callable, Sequence
from typing import Final

WORDS = 32
WORD_OCTETS = 8
CHUNK_BLOCKS = 256
CHUNK_OCTETS = CHUNK_BLOCKS * WORDS * WORD_OCTETS

# The offsets; `fast` asserts the same list. Words from SPARE to RING are zero.
STATE = 0
EPOCH = 1
SEQUENCE_LAST = 2  # outbound: the last number sent
SEQUENCE_END = 3  # outbound: the last number granted
IV_NEXT = 4  # outbound: the next IV of a counter mode, taken modulo 2^64
IV_LEFT = 5  # outbound: how many IVs are granted still
WINDOW_TOP = 6  # inbound: the highest number authenticated
WINDOW_SEEN = 7  # inbound: whether any number was authenticated yet
ACCEPTED = 8  # inbound: how many were
PACKETS = 9
OCTETS = 10
USED_FIRST_NS = 11
USED_LAST_NS = 12
SOFT_TOLD = 13
FAILED_REPLAY = 14
FAILED_ICV = 15
FAILED_OTHER = 16
SEQUENCE_RESERVED = 17  # outbound, with a ledger: what is on disk; from SEQUENCE_END on it can be drawn without waiting
SPARE = 18  # up to RING
RING = 24  # inbound: the ring of a small window, on one cache line
RING_WORDS = 8

UNLIMITED = (1 << 64) - 1
_ZEROS = memoryview(bytes(WORDS * WORD_OCTETS)).cast("Q")
Allocate = Callable[[int], memoryview]


def _from_heap(octets: int) -> memoryview:
    return memoryview(bytearray(octets))


class Hot:
    """One block. `words[OFFSET]` is a number of 0..2^64-1."""

    __slots__ = ("slot", "words")

    def __init__(self, slot: int, words: memoryview) -> None:
        self.slot: Final = slot
        self.words: Final = words

    def add(self, offset: int, amount: int) -> None:
        """Adds to a word, modulo 2^64."""
        self.words[offset] = (self.words[offset] + amount) & UNLIMITED


class Arena:
    """Hands out blocks. `allocate(octets)` gives zeroed memory that stays where it is; a daemon gives shared memory.

    chunks: memory that an arena before this one left behind, whole chunks in order; `adopted`: the slots in it that are in use still.
    """

    def __init__(
        self, allocate: Allocate = _from_heap, chunks: Sequence[memoryview] = (), adopted: frozenset[int] = frozenset()
    ) -> None:
        self._allocate = allocate
        self._chunks = [chunk.cast("B").cast("Q") for chunk in chunks]
        self._epochs = [int(chunk[block * WORDS + EPOCH]) for chunk in self._chunks for block in range(CHUNK_BLOCKS)]
        self._free = [slot for slot in range(len(self._epochs)) if slot not in adopted]
        self._resting: list[int] = []

    def adopt(self, slot: int) -> Hot:
        """A block that is in use, as it stands."""
        return Hot(slot, self._words(slot))

    def _words(self, slot: int) -> memoryview:
        start = slot % CHUNK_BLOCKS * WORDS
        return self._chunks[slot // CHUNK_BLOCKS][start : start + WORDS]

    def take(self) -> Hot:
        """A block of zeros but for its epoch."""
        slot = self._free.pop() if self._free else len(self._epochs)
        if slot == len(self._epochs):
            if slot % CHUNK_BLOCKS == 0:
                self._chunks.append(self._allocate(CHUNK_OCTETS).cast("B").cast("Q"))
            self._epochs.append(0)
        words = self._words(slot)
        words[:] = _ZEROS
        self._epochs[slot] += 1
        words[EPOCH] = self._epochs[slot]
        return Hot(slot, words)

    def give_back(self, hot: Hot) -> None:
        """The SA is gone; its block rests until `quiesce`."""
        self._resting.append(hot.slot)

    def quiesce(self) -> None:
        """No worker holds an old block any more: they may be used again."""
        self._free += self._resting
        self._resting.clear()
