# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Bursts between the kernel and the engine: TUN with super packets, UDP in trains (GSO, GRO), without a Python object per packet.

    out: read super packets, cut them into segments, seal, one sendmsg for each train of equal datagrams
    in:  receive trains, open, put TCP segments together again, one writev for each super packet

Directives: no Python container is indexed on the packet path. A peer's octets are read through the views of headers.pxd; the sizes of
trains and super packets are compared with what was read. What the engine does not answer is left to Python, in its order.
Nothing is kept for later but here: what was read and did not fit a burst (`read` and `receive` go on with it). What the kernel does not
take is lost and counted; only for a full socket buffer there is a short wait, so that the TUN's own queue slows its senders down.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from koura.fast._burst cimport Burst, open_burst, seal_burst
from koura.fast.engine cimport BURST, TAILROOM, Engine, Packet
from koura.fast.flows cimport BYPASSED, DELIVERED, DISCARDED, PROTECTED
from koura.fast.headers cimport *
from koura.fast.sockets cimport *
from koura.fast.sums cimport wide_sum

include "segment.pxi"
include "trains.pxi"

DEF STAGING_OCTETS = 8 << 20
DEF FRONT = 10 + 40 + 60
DEF FEW = 4

LEFT_THERE, LEFT_HERE = 1, 2



ctypedef struct State:
    Super super               # what of a TUN's packet is still to be cut
    Train trains[MESSAGES]
    int train                 # the first that is still to be split
    int train_count
    bint is_lone              # the last trains were single datagrams
    bint is_full              # the socket had as many as were asked for


cdef class Io:
    """One TUN and the UDP sockets beside it, around one engine."""

    def __cinit__(self, Burst burst, int tun, bint has_vnet):
        self.burst, self.tun, self.has_vnet = burst, tun, has_vnet
        self.udp[0] = self.udp[1] = self.raw[0] = self.raw[1] = self.esp[0] = self.esp[1] = -1
        self.supers = <uint8_t *> malloc(MESSAGES * SUPER_OCTETS)
        self.state = calloc(1, sizeof(State))
        if self.supers == NULL or self.state == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.supers)
        free(self.state)

    def use_udp(self, bint is_ipv4, int descriptor, int port):
        """ESP in UDP leaves by this socket if its source port is this."""
        self.udp[0 if is_ipv4 else 1], self.ports[0 if is_ipv4 else 1] = descriptor, port

    def use_raw(self, bint is_ipv4, int descriptor):
        """Whole packets leave here."""
        self.raw[0 if is_ipv4 else 1] = descriptor

    def use_esp(self, bint is_ipv4, int descriptor):
        """ESP arrives here: over IPv4 as whole packets, over IPv6 without the fixed header."""
        self.esp[0 if is_ipv4 else 1] = descriptor

    def set_local(self, addresses):
        """This host's addresses; False if there are too many to look through."""
        self.our_count = 0
        for address in addresses:
            if self.our_count == OURS:
                return False
            memset(self.ours[self.our_count], 0, 16)
            memcpy(self.ours[self.our_count], <const char *> address, len(address))
            self.our_count += 1
        return True

    # -- out -------------------------------------------------------------------------------------------------------------

    def read(self):
        """Take what the TUN has, at most a burst: how many packets that is once they are cut, and LEFT_HERE, LEFT_THERE or 0.

        What is left here must be taken before anything else is read: it stands in the memory for that.
        """
        cdef int count
        cdef State *state = <State *> self.state
        with nogil:
            count = self._read()
        self.taken += count
        return count, LEFT_HERE if state.super.is_open else LEFT_THERE if count >= BURST // 2 else 0

    cdef int _read(self) noexcept nogil:
        cdef State *state = <State *> self.state
        cdef uint8_t *to = self.burst.staging
        cdef ssize_t got
        cdef int done, i
        cdef int count = 0
        cdef bint is_forwarded
        while count < BURST:
            if not state.super.is_open:
                got = read(self.tun, self.supers, SUPER_OCTETS)
                if got <= 0:
                    break
                if not take_super(&state.super, self.supers, <uint32_t> got, self.has_vnet):
                    state.super.is_open = False
                    self.unread += 1
                    continue
            is_forwarded = self._is_in_transit(state.super.v.data, state.super.v.octets)
            done = cut(&state.super, &to, self.burst.staging + STAGING_OCTETS, self.burst.packets + count, BURST - count)
            for i in range(count, count + done):
                self.forwarded[i] = is_forwarded
            if not is_forwarded:
                number(self.burst.packets + count, done)
            count += done
            if state.super.is_open:
                break
        return count

    cdef bint _is_in_transit(self, const uint8_t *data, uint32_t octets) noexcept nogil:
        """Whether a packet has another host's source address."""
        cdef View v
        cdef uint8_t src[16]
        cdef int i
        v.data, v.octets = data, octets
        memset(src, 0, 16)
        if octet_at(v, 0) >> 4 == 4:
            copy_from(v, 12, src, 4)
        else:
            copy_from(v, 8, src, 16)
        for i in range(self.our_count):
            if memcmp(src, self.ours[i], 16) == 0:
                return False
        return True

    def seal(self, int first, int last, uint64_t at_ns):
        """Seal and send packets from `first` on, before `last`; how many the engine answered, and whether the first was in transit."""
        cdef int done
        cdef int end = first + 1
        cdef bint is_forwarded = self.forwarded[first]
        with nogil:
            while end < last and self.forwarded[end] == is_forwarded:
                end += 1
            done = seal_burst(&self.burst.e, self.burst.packets + first, end - first, is_forwarded, at_ns)
            self._send(first, done)
        return done, is_forwarded

    def packet(self, int number):
        """One packet that was read, for the reference."""
        return PyBytes_FromStringAndSize(<char *> self.burst.packets[number].data, self.burst.packets[number].octets)

    cdef void _send(self, int first, int count) noexcept nogil:
        """Results in trains: what follows one another to the same place in equal sizes goes in one call."""
        cdef Packet *packets = self.burst.packets
        cdef iovec pieces[PIECES]
        cdef int i = first
        cdef int which, length, gone
        while i < first + count:
            if packets[i].kind == DISCARDED:
                i += 1
                continue
            which = 0 if packets[i].result[0] >> 4 == 4 else 1
            if packets[i].kind != PROTECTED or self.udp[which] < 0 or not is_by_port(&packets[i], which, self.ports[which]):
                i = self._send_raw(i, first + count, which)
                continue
            length = train_of(packets, i, first + count, which, pieces)
            gone = send_train(self.udp[which], which, packets[i].result, pieces, length)
            self.sent += gone
            self.unsent += length - gone
            i += length

    cdef int _send_raw(self, int first, int last, int which) noexcept nogil:
        """Whole packets of one family from `first` on, in one call; where the next begin."""
        cdef Packet *packets = self.burst.packets
        cdef mmsghdr messages[PIECES]
        cdef iovec pieces[PIECES]
        cdef sockaddr_in6 names[PIECES]
        cdef sockaddr_in *to4
        cdef int i = first
        cdef int count = 0
        cdef int gone = 0
        cdef int done
        memset(messages, 0, sizeof(messages))
        memset(names, 0, sizeof(names))
        while i < last and count < PIECES and packets[i].kind != DISCARDED and (packets[i].result[0] >> 4 == 4) == (which == 0):
            if count and packets[i].kind == PROTECTED and self.udp[which] >= 0 and is_by_port(&packets[i], which, self.ports[which]):
                break
            pieces[count].iov_base, pieces[count].iov_len = packets[i].result, packets[i].result_octets
            messages[count].msg_hdr.msg_iov, messages[count].msg_hdr.msg_iovlen = &pieces[count], 1
            messages[count].msg_hdr.msg_name = &names[count]
            if which == 0:
                to4 = <sockaddr_in *> &names[count]
                to4.sin_family = AF_INET
                memcpy(&to4.sin_addr, packets[i].result + 16, 4)
                messages[count].msg_hdr.msg_namelen = sizeof(sockaddr_in)
            else:
                names[count].sin6_family = AF_INET6
                memcpy(&names[count].sin6_addr, packets[i].result + 24, 16)
                messages[count].msg_hdr.msg_namelen = sizeof(sockaddr_in6)
            count += 1
            i += 1
        while gone < count:
            done = sendmmsg(self.raw[which], messages + gone, count - gone, MSG_DONTWAIT) if self.raw[which] >= 0 else -1
            if done > 0:
                self.sent += done
                gone += done
            else:
                self.unsent += 1  # this one; those behind it may have another way
                gone += 1
        return i

    # -- in --------------------------------------------------------------------------------------------------------------

    def receive(self, bint is_ipv4):
        """Take what the UDP socket has, at most a burst of datagrams; the same two numbers."""
        cdef int count
        cdef State *state = <State *> self.state
        with nogil:
            count = self._receive(0 if is_ipv4 else 1)
        self.received += count
        return count, LEFT_HERE if state.train < state.train_count else LEFT_THERE if state.is_full else 0

    cdef int _receive(self, int which) noexcept nogil:
        """Trains, until a burst is full or none is left. Few at a time, so that they stay in the cache; many if they are short."""
        cdef mmsghdr messages[MESSAGES]
        cdef iovec pieces[MESSAGES]
        cdef sockaddr_in6 names[MESSAGES]
        cdef uint8_t control[MESSAGES][256]
        cdef State *state = <State *> self.state
        cdef Train *train
        cdef int i, got, count
        cdef int asked = MESSAGES if state.is_lone else FEW
        if state.train == state.train_count:
            got = asked
            memset(messages, 0, got * sizeof(mmsghdr))
            for i in range(got):
                pieces[i].iov_base, pieces[i].iov_len = self.supers + i * SUPER_OCTETS, SUPER_OCTETS - 32
                messages[i].msg_hdr.msg_iov, messages[i].msg_hdr.msg_iovlen = &pieces[i], 1
                messages[i].msg_hdr.msg_name, messages[i].msg_hdr.msg_namelen = &names[i], sizeof(sockaddr_in6)
                messages[i].msg_hdr.msg_control, messages[i].msg_hdr.msg_controllen = control[i], 256
            got = recvmmsg(self.udp[which], messages, got, MSG_DONTWAIT, NULL)
            state.train = state.train_count = 0
            state.is_full = got == asked
            for i in range(got):
                if messages[i].msg_hdr.msg_flags & MSG_TRUNC:
                    self.truncated += 1
                    continue
                train = &state.trains[state.train_count]
                head_of(which, &names[i], &train.head)
                train.head.protocol, train.head.has_ports, train.head.dport = 17, True, self.ports[which]
                train.data, train.octets, train.size, train.at = self.supers + i * SUPER_OCTETS, messages[i].msg_len, messages[i].msg_len, 0
                note_control(which, &messages[i].msg_hdr, &train.head, &train.size)
                state.train_count += 1
        count = 0
        while state.train < state.train_count and count < BURST:
            train = &state.trains[state.train]
            count += split(train, self.burst.packets + count, self.heads + count, BURST - count)
            if train.at >= train.octets:
                state.train += 1
        if state.train == state.train_count:
            state.is_lone = count <= 2 * state.train_count
        return count

    def receive_esp(self, bint is_ipv4):
        """Take what the raw socket has, at most a burst of packets; the same two numbers."""
        cdef int count
        with nogil:
            count = self._receive_esp(0 if is_ipv4 else 1)
        self.received += count
        return count, LEFT_THERE if count == MESSAGES else 0

    cdef int _receive_esp(self, int which) noexcept nogil:
        cdef mmsghdr messages[MESSAGES]
        cdef iovec pieces[MESSAGES]
        cdef sockaddr_in6 names[MESSAGES]
        cdef uint8_t control[MESSAGES][128]
        cdef Packet *packets = self.burst.packets
        cdef uint32_t size = 0
        cdef int i, got, count = 0
        memset(messages, 0, sizeof(messages))
        for i in range(MESSAGES):
            pieces[i].iov_base, pieces[i].iov_len = self.supers + i * SUPER_OCTETS, SUPER_OCTETS
            messages[i].msg_hdr.msg_iov, messages[i].msg_hdr.msg_iovlen = &pieces[i], 1
            if which:
                messages[i].msg_hdr.msg_name, messages[i].msg_hdr.msg_namelen = &names[i], sizeof(sockaddr_in6)
                messages[i].msg_hdr.msg_control, messages[i].msg_hdr.msg_controllen = control[i], 128
        got = recvmmsg(self.esp[which], messages, MESSAGES, MSG_DONTWAIT, NULL)
        for i in range(got):
            if messages[i].msg_hdr.msg_flags & MSG_TRUNC:
                self.truncated += 1
                continue
            packets[count].data, packets[count].octets = self.supers + i * SUPER_OCTETS, messages[i].msg_len
            if which:
                head_of(which, &names[i], &self.heads[count])
                self.heads[count].sport, self.heads[count].protocol = 0, 50
                note_control(which, &messages[i].msg_hdr, &self.heads[count], &size)
            count += 1
        return count

    def open_whole(self, int first, int last, uint64_t at_ns):
        """The same as `open` for whole IPv4 packets."""
        cdef int done
        with nogil:
            done = open_burst(&self.burst.e, self.burst.packets + first, NULL, last - first, at_ns)
            self._deliver(first, done)
        return done

    def open(self, int first, int last, uint64_t at_ns):
        """Open datagrams from `first` on, before `last`, and hand them to the TUN; how many the engine answered."""
        cdef int done
        with nogil:
            done = open_burst(&self.burst.e, self.burst.packets + first, self.heads + first, last - first, at_ns)
            self._deliver(first, done)
        return done

    def datagram(self, int number):
        """(src, sport, dst, dport, tos, payload) of one datagram that was received, for the reference."""
        cdef Head *head = &self.heads[number]
        cdef int length = 4 if head.version == 4 else 16
        return (
            PyBytes_FromStringAndSize(<char *> head.src, length), head.sport, PyBytes_FromStringAndSize(<char *> head.dst, length),
            head.dport, head.tos, self.packet(number),
        )

    cdef void _deliver(self, int first, int count) noexcept nogil:
        """Results to the TUN, TCP segments that follow one another as one super packet."""
        cdef uint8_t front[FRONT]
        cdef iovec pieces[PIECES + 1]
        cdef Merge m
        cdef int n
        cdef int i = first
        while i < first + count:
            if self.burst.packets[i].kind != DELIVERED:
                i += 1
                continue
            if self.has_vnet:
                gather(self.burst.packets, i, first + count, &m)
                n = assemble(self.burst.packets, i, &m, front, pieces)
            else:
                m.count = n = 1
                pieces[0].iov_base, pieces[0].iov_len = self.burst.packets[i].result, self.burst.packets[i].result_octets
            if writev(self.tun, pieces, n) < 0:
                self.undelivered += m.count
            else:
                self.delivered += m.count
            i += m.count


# -- the same pieces alone, for tests ------------------------------------------------------------------------------------


def cut_up(bytes octets, int room=BURST, bint is_local=False):
    """What a read from a TUN with virtio headers becomes: packets, `room` at a time; None where the header does not fit."""
    cdef Super s
    cdef Packet packets[BURST]
    cdef uint8_t *staging
    cdef uint8_t *to
    cdef int i, count
    if not 0 < room <= BURST:
        raise ValueError("a burst has room for 1 to 256 packets")
    if not take_super(&s, <const uint8_t *> PyBytes_AS_STRING(octets), <uint32_t> PyBytes_GET_SIZE(octets), True):
        return None
    staging = <uint8_t *> malloc(STAGING_OCTETS)
    if staging == NULL:
        raise MemoryError
    found = []
    try:
        while s.is_open:
            to = staging
            count = cut(&s, &to, staging + STAGING_OCTETS, packets, room)
            if is_local:
                number(packets, count)
            for i in range(count):
                found.append(PyBytes_FromStringAndSize(<char *> packets[i].data, packets[i].octets))
    finally:
        free(staging)
    return found


cdef int _results(list octets, Packet *packets, uint8_t kind) except -1:
    """Point packets at Python's octets, as results of the engine of this kind."""
    cdef bytes one
    cdef int i
    if len(octets) > BURST:
        raise ValueError("more than a burst")
    memset(packets, 0, sizeof(Packet) * BURST)
    for i, one in enumerate(octets):
        packets[i].result, packets[i].result_octets = <uint8_t *> PyBytes_AS_STRING(one), <uint32_t> PyBytes_GET_SIZE(one)
        packets[i].kind = kind
    return len(octets)


def put_together(list octets):
    """What packets become on their way to a TUN with virtio headers: one write each."""
    cdef Packet packets[BURST]
    cdef iovec pieces[PIECES + 1]
    cdef uint8_t front[FRONT]
    cdef Merge m
    cdef int i = 0
    cdef int k, n
    cdef int count = _results(octets, packets, DELIVERED)
    found = []
    while i < count:
        gather(packets, i, count, &m)
        n = assemble(packets, i, &m, front, pieces)
        found.append(b"".join([PyBytes_FromStringAndSize(<char *> pieces[k].iov_base, pieces[k].iov_len) for k in range(n)]))
        i += m.count
    return found


def trains(list octets):
    """How many of these whole UDP packets go with each call, in order."""
    cdef Packet packets[BURST]
    cdef iovec pieces[PIECES]
    cdef int i = 0
    cdef int length
    cdef int count = _results(octets, packets, PROTECTED)
    found = []
    while i < count:
        length = train_of(packets, i, count, 0 if packets[i].result[0] >> 4 == 4 else 1, pieces)
        found.append(length)
        i += length
    return found
