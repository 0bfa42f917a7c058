"""The hands of a bump in the wire: two packet sockets, frames in bursts."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from koura.fast._burst cimport Burst

cdef enum:
    INSIDE = 0                # koura.host.bump
    OUTSIDE = 1
    SIDES = 2
    MESSAGES = 64
    PIECES = 64
    SUPER_OCTETS = 65536 + 256
    NEIGHBOURS = 4096
    OWN = 8
    FRONT_OCTETS = 40         # a link header with as many tags as are read, and one from beside the frame

ctypedef struct Front:
    uint8_t octets[FRONT_OCTETS]
    uint32_t count

ctypedef struct Station:
    uint8_t address[16]
    uint8_t mac[6]
    uint8_t side              # + 1; 0: nobody

cdef class Hands:
    cdef Burst burst
    cdef int sockets[SIDES]
    cdef uint32_t mtu[SIDES]
    cdef uint8_t mac[SIDES][6]
    cdef uint8_t own[OWN][16]
    cdef int own_count
    cdef uint8_t *supers      # what the kernel gives
    cdef void *state
    cdef object rings         # whose memory frames leave from
    cdef Front fronts[MESSAGES]
    cdef uint8_t owner[256]   # whose link header each packet of the burst came behind
    cdef int plain[MESSAGES]  # frames that are Python's
    cdef int plain_count
    cdef int left[256]        # results that are Python's to send
    cdef int left_count
    cdef Station *stations
    cdef uint64_t received[SIDES]
    cdef uint64_t sent[SIDES]
    cdef uint64_t unread[SIDES]
    cdef uint64_t unsent[SIDES]
    cdef uint64_t truncated[SIDES]
    cdef int _take(self, int side) noexcept nogil
    cdef int _fill(self, int side) noexcept nogil
    cdef bint _open_frame(self, int number, int side, uint32_t octets) noexcept nogil
    cdef void _send(self, int side, int first, int count) noexcept nogil
    cdef bint _aim(self, int side, int number, Front *front) noexcept nogil
    cdef bint _fits_leaving(self) noexcept nogil
    cdef bint _is_own(self, const uint8_t *address, int octets) noexcept nogil
