"""The loop's hands: TUN and UDP in bursts."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from koura.fast._burst cimport Burst
from koura.fast.headers cimport Head
from koura.fast.sockets cimport Vnet

cdef enum:
    MESSAGES = 64
    PIECES = 64
    SUPER_OCTETS = 65536 + 64
    REFUSED = 8
    QUEUES = 8
    RINGS = 8

cdef class Io:
    cdef Burst burst
    cdef int tuns[QUEUES]
    cdef int tun_count
    cdef bint has_vnet
    cdef int udp[2]           # IPv4, IPv6; -1: none
    cdef uint16_t ports[2]
    cdef int raw[2]           # where whole packets leave
    cdef int esp[2]           # where ESP arrives
    cdef uint8_t *supers      # what the kernel gives: TUN's super packets, UDP's trains
    cdef Head heads[256]
    cdef uint64_t tags[256]   # of what was read: whether it is in transit, or which outlet's it is
    cdef void *outlets        # Outlets of outlets.pxi, the first has number 1
    cdef int outlet_room
    cdef int *by_descriptor   # which source each descriptor of theirs is
    cdef int descriptor_room
    cdef bytes ours           # this host's addresses, each filled up to 16 octets, in order
    cdef const uint8_t *our_start
    cdef Py_ssize_t our_count
    cdef uint8_t *refused_packets       # copies of those that their first link is too narrow for, until Python takes them
    cdef uint32_t refused_octets[REFUSED]
    cdef bint refused_in_clear[REFUSED]
    cdef int refused_count
    cdef void *state          # what was read and did not fit a burst: States of _io.pyx
    cdef public uint64_t taken
    cdef public uint64_t sent
    cdef public uint64_t received
    cdef public uint64_t delivered
    cdef public uint64_t unread         # their virtio header did not fit them
    cdef public uint64_t unsent
    cdef public uint64_t truncated
    cdef public uint64_t late           # dropped to keep the queue in front of a socket short
    cdef public uint64_t marked         # trains marked (ECN) for the same reason
    cdef public uint64_t undelivered
    cdef int ring_count
    cdef list kept            # the rings' memory
    cdef int pending          # the Source of a burst that the engine did not answer whole
    cdef int first            # the Source whose turn is next
    cdef int pending_first
    cdef int pending_count
    cdef int pending_left
    cdef public bint is_unsettled       # the engine has counted something
    cdef int _seal(self, int first, int last, uint64_t at_ns) noexcept nogil
    cdef int _open(self, int first, int last, bint has_heads, uint64_t at_ns) noexcept nogil
    cdef int _read(self, int source) noexcept nogil
    cdef bint _is_in_transit(self, const uint8_t *data, uint32_t octets) noexcept nogil
    cdef void _send(self, int first, int count) noexcept nogil
    cdef void _note_refused(self, int number) noexcept nogil
    cdef int _send_raw(self, int first, int last, int which, uint64_t now) noexcept nogil
    cdef int _receive(self, int which) noexcept nogil
    cdef int _receive_esp(self, int which) noexcept nogil
    cdef void _deliver(self, int first, int count) noexcept nogil
