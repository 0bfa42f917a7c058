"""The engine as an object, for those who hand it bursts without a Python object per packet: host loops and benchmarks."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from koura.fast.engine cimport BURST, Engine, Packet, Sa
from koura.fast.headers cimport Head

cdef int seal_burst(Engine *e, Packet *packets, int count, uint64_t tag, uint64_t at_ns) noexcept nogil
cdef int open_burst(Engine *e, Packet *packets, const Head *heads, int count, uint64_t at_ns) noexcept nogil


cdef class Burst:
    cdef Engine e
    cdef Packet packets[BURST]
    cdef uint8_t *staging
    cdef uint64_t sa_room
    cdef object _pool
    cdef object _cursor
    cdef object _drivers
    cdef dict _kept
    cdef list verdicts
    cdef uint32_t _place(self, place) except? 0xFFFFFFFF
    cdef int _stage(self, list packets, int start) except -1
    cdef list _results(self, list packets, int start, int done)
