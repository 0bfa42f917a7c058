"""Memory of the process, and memory for hot blocks that outlives it: a memfd in chunks that never move. docs/architecture.md §4.

The keeper makes it and keeps it open; each engine maps it. It holds counters and IVs, no key.
"""

import ctypes
import gc
import mmap
import os

from koura.sadb.hot import CHUNK_OCTETS, Arena


def give_back() -> None:
    """Much was freed just now: the system gets it back. Only glibc can; elsewhere it stays with us."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def create() -> int:
    """A descriptor of empty memory; it is not inherited by programs."""
    return os.memfd_create("koura-hot", os.MFD_CLOEXEC)


class Shared:
    """The memory behind a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def arena(self, adopted: frozenset[int]) -> Arena:
        """An arena on it; `adopted`: the slots that an engine before left in use."""
        chunks = os.fstat(self._descriptor).st_size // CHUNK_OCTETS
        return Arena(self.allocate, [self._map(chunk) for chunk in range(chunks)], adopted)

    def allocate(self, octets: int) -> memoryview:
        """One more chunk, of zeros."""
        assert octets == CHUNK_OCTETS
        end = os.fstat(self._descriptor).st_size
        os.ftruncate(self._descriptor, end + octets)
        return self._map(end // CHUNK_OCTETS)

    def _map(self, chunk: int) -> memoryview:
        return memoryview(mmap.mmap(self._descriptor, CHUNK_OCTETS, offset=chunk * CHUNK_OCTETS))
