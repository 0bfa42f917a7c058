# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Frames of a bump in the wire in bursts: read at one side, cut, answered by the engine, sent at the other.

    read(side)         frames -> packets of a burst; what is no IP, or may be the link's own business, is left to Python (`frames`)
    seal, open         the engine's answers, sent at once; what is not simply sent (too large, nobody known) is left, too (`results`)

Directives: no Python container is indexed on the packet path. A peer's octets are read through the views of headers.pxd; the sizes of
frames and super packets are compared with what was read. Packets lie where the kernel put them, segments of super packets in the
engine's staging; both hold until the next `read`. Link headers are koura.host.frames' business, which this repeats octet by octet.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from koura.fast._burst cimport Burst, open_burst, seal_burst
from koura.fast.engine cimport BURST, TAILROOM, Packet
from koura.fast.flows cimport BYPASSED, DELIVERED, DISCARDED, PROTECTED
from koura.fast.headers cimport *
from koura.fast.sockets cimport *
from koura.fast.sums cimport wide_sum

DEF PATIENCE_MS = 1

include "segment.pxi"
include "words.pxi"
include "leave.pxi"

DEF STAGING_OCTETS = 8 << 20
DEF FEW = 4
DEF MOST_TAGS = 4
DEF FORWARDED = 1             # koura.fast.path's tag of an origin in transit

LEFT_THERE, LEFT_HERE = 1, 2

cdef enum:
    SOL_PACKET = 263
    AUXDATA = 8
    VLAN_VALID = 1 << 4
    TPID_VALID = 1 << 6

cdef packed struct Auxdata:
    uint32_t status
    uint32_t length
    uint32_t snapped
    uint16_t mac
    uint16_t net
    uint16_t tci
    uint16_t tpid


ctypedef struct State:
    Super super               # what of a frame's packets is still to be cut
    int super_of              # the frame that it is of
    uint32_t octets[MESSAGES]
    uint32_t tags[MESSAGES]   # beside each frame: tpid, tci; 0: none
    int next                  # the first that is still to be looked at
    int count
    int side
    bint is_lone
    bint is_full
    Leaving leaving           # out of the outside


cdef inline uint32_t tag_of(msghdr *m) noexcept nogil:
    """The tag that the kernel took off."""
    cdef cmsghdr *c = CMSG_FIRSTHDR(m)
    cdef Auxdata beside
    if c == NULL or c.cmsg_level != SOL_PACKET or c.cmsg_type != AUXDATA or c.cmsg_len < CMSG_LEN(sizeof(Auxdata)):
        return 0
    memcpy(&beside, CMSG_DATA(c), sizeof(Auxdata))
    if not beside.status & VLAN_VALID:
        return 0
    return (<uint32_t> (beside.tpid if beside.status & TPID_VALID else 0x8100) << 16) | beside.tci


cdef inline bint may_be_control(View v) noexcept nogil:
    """Whether koura.host.frames.is_control must be asked: never False where that is True."""
    cdef uint8_t protocol
    cdef uint32_t at
    if octet_at(v, 0) >> 4 == 4:
        protocol, at = octet_at(v, 9), (octet_at(v, 0) & 15) * 4
        return is_routing(protocol) or (protocol == 17 and (word_at(v, at) == 67 or word_at(v, at) == 68))
    protocol = octet_at(v, 6)
    if protocol == 0 or is_routing(protocol):
        return True
    if protocol == 58:
        return octet_at(v, 7) == 255 or octet_at(v, 7) == 1
    return protocol == 17 and (word_at(v, IPV6_OCTETS) == 546 or word_at(v, IPV6_OCTETS) == 547)


cdef inline bint is_routing(uint8_t protocol) noexcept nogil:
    return protocol == 2 or protocol == 88 or protocol == 89 or protocol == 103 or protocol == 112


cdef inline uint32_t own_octets(View v) noexcept nogil:
    """An IP packet's length without what its link padded it with. koura.host.frames.trimmed."""
    cdef uint32_t octets = v.octets
    if v.octets >= IPV4_OCTETS and octet_at(v, 0) >> 4 == 4:
        octets = word_at(v, 2)
    elif v.octets >= IPV6_OCTETS and octet_at(v, 0) >> 4 == 6:
        octets = <uint32_t> word_at(v, 4) + IPV6_OCTETS
    return octets if IPV4_OCTETS <= octets < v.octets else v.octets


cdef class Hands:
    """One pair of sides around one engine. passes_control is Python's to know: it sees every packet that may be control."""

    def __cinit__(self, Burst burst, int inside, int outside):
        self.burst = burst
        self.sockets[INSIDE], self.sockets[OUTSIDE] = inside, outside
        self.mtu[INSIDE] = self.mtu[OUTSIDE] = 0
        self.supers = <uint8_t *> malloc(MESSAGES * SUPER_OCTETS)
        self.state = calloc(1, sizeof(State))
        self.stations = <Station *> calloc(NEIGHBOURS, sizeof(Station))
        if self.supers == NULL or self.state == NULL or self.stations == NULL:
            raise MemoryError
        (<State *> self.state).leaving.descriptor = -1

    def __dealloc__(self):
        free(self.supers)
        free(self.state)
        free(self.stations)

    # -- what it is told -----------------------------------------------------------------------------------------------

    def set_mtu(self, int side, uint32_t octets):
        """What a side takes; larger results are Python's."""
        self.mtu[side] = octets

    def set_own(self, addresses, bytes inside, bytes outside):
        """Addresses of the bump's own, and the link addresses of its sides; False: too many."""
        memcpy(self.mac[INSIDE], PyBytes_AS_STRING(inside), min(PyBytes_GET_SIZE(inside), 6))
        memcpy(self.mac[OUTSIDE], PyBytes_AS_STRING(outside), min(PyBytes_GET_SIZE(outside), 6))
        self.own_count = 0
        for address in addresses:
            if self.own_count == OWN:
                return False
            memset(self.own[self.own_count], 0, 16)
            memcpy(self.own[self.own_count], PyBytes_AS_STRING(address), min(PyBytes_GET_SIZE(address), 16))
            self.own_count += 1
        return True

    def set_leaving(self, rings):
        """Protected frames leave the outside by AF_XDP where they fit its memory: koura.host.xdp.Leaving, which is kept."""
        map_leaving(&(<State *> self.state).leaving, rings)
        self.rings = rings

    def why_not_leaving(self):
        """Why protected frames do not go by AF_XDP now; "" where they do."""
        if (<State *> self.state).leaving.descriptor < 0:
            return "its interface has gone since the start"
        return "" if self._fits_leaving() else f"an MTU of {self.mtu[OUTSIDE]} is more than a frame of {LEAVING_OCTETS} holds"

    def go_on(self):
        """Send what waits to leave: once the interface is up again, say."""
        cdef Leaving *l = &(<State *> self.state).leaving
        if l.descriptor >= 0 and koura_load(l.consumer) != l.producer[0]:
            with nogil:
                go(l)

    cdef bint _fits_leaving(self) noexcept nogil:
        return self.mtu[OUTSIDE] + FRONT_OCTETS <= LEAVING_OCTETS

    def put_station(self, int side, bytes address, bytes mac):
        """A neighbour was heard there. One of its place goes; who asks for that gets its packets back."""
        cdef uint8_t padded[16]
        cdef Station *station
        memset(padded, 0, 16)
        memcpy(padded, PyBytes_AS_STRING(address), min(PyBytes_GET_SIZE(address), 16))
        station = &self.stations[station_place(padded, side)]
        memcpy(station.address, padded, 16)
        memcpy(station.mac, PyBytes_AS_STRING(mac), min(PyBytes_GET_SIZE(mac), 6))
        station.side = side + 1

    # -- in --------------------------------------------------------------------------------------------------------------

    def read(self, int side):
        """Take what a side has, at most a burst: how many packets that is, and LEFT_HERE, LEFT_THERE or 0.

        What is left here must be taken before anything else is read.
        """
        cdef int count
        cdef State *state = <State *> self.state
        with nogil:
            count = self._fill(side)
        return count, LEFT_HERE if state.super.is_open or state.next < state.count else LEFT_THERE if state.is_full else 0

    cdef int _fill(self, int side) noexcept nogil:
        """Packets of frames, until a burst is full, none is left, or one is Python's."""
        cdef State *state = <State *> self.state
        cdef Packet *packets = self.burst.packets
        cdef uint8_t *to = self.burst.staging
        cdef int count = 0
        cdef int i, done, frames = 0
        cdef bint was_super
        self.plain_count = 0
        if not state.super.is_open and state.next == state.count:
            frames = self._take(side)
        while count < BURST:
            if not state.super.is_open:
                if state.next == state.count:
                    break
                state.super_of = state.next
                state.next += 1
                if not self._open_frame(state.super_of, state.side, state.octets[state.super_of]):
                    if self.plain_count:
                        break                     # its turn is behind what came before it
                    continue
            was_super = state.super.header != 0
            if was_super:
                done = cut(&state.super, &to, self.burst.staging + STAGING_OCTETS, packets + count, BURST - count)
            else:
                packets[count].data, packets[count].octets = <uint8_t *> state.super.v.data, state.super.v.octets
                state.super.is_open, done = False, 1
            for i in range(count, count + done):
                self.owner[i] = <uint8_t> state.super_of
            count += done
            if state.super.is_open:
                break
        if frames:
            state.is_lone = count <= 2 * frames
        return count

    cdef int _take(self, int side) noexcept nogil:
        """One recvmmsg. Few at a time where super packets come, so that they stay in the cache; many if they are single."""
        cdef mmsghdr messages[MESSAGES]
        cdef iovec pieces[MESSAGES]
        cdef uint8_t control[MESSAGES][64]
        cdef State *state = <State *> self.state
        cdef int asked = MESSAGES if state.is_lone else FEW
        cdef int i, got
        memset(messages, 0, asked * sizeof(mmsghdr))
        for i in range(asked):
            pieces[i].iov_base, pieces[i].iov_len = self.supers + i * SUPER_OCTETS, SUPER_OCTETS - TAILROOM
            messages[i].msg_hdr.msg_iov, messages[i].msg_hdr.msg_iovlen = &pieces[i], 1
            messages[i].msg_hdr.msg_control, messages[i].msg_hdr.msg_controllen = control[i], 64
        got = recvmmsg(self.sockets[side], messages, asked, MSG_DONTWAIT, NULL)
        state.next, state.count, state.side = 0, got if got > 0 else 0, side
        state.is_full = got == asked
        for i in range(state.count):
            state.octets[i] = messages[i].msg_len
            state.tags[i] = tag_of(&messages[i].msg_hdr)
            if messages[i].msg_hdr.msg_flags & MSG_TRUNC:
                state.octets[i] = 0
                self.truncated[side] += 1
        self.received[side] += state.count
        return state.count

    cdef bint _open_frame(self, int number, int side, uint32_t octets) noexcept nogil:
        """Read a frame's headers; True: `state.super` has its packets. Else it is Python's, or cannot be read."""
        cdef State *state = <State *> self.state
        cdef uint8_t *start = self.supers + number * SUPER_OCTETS
        cdef Front *front = &self.fronts[number]
        cdef View v
        cdef Vnet h
        cdef uint32_t at = 12
        cdef uint32_t skip = 0
        cdef uint16_t kind
        cdef int tags = 0
        state.super.is_open = False
        if octets == 0:
            return False
        if octets < VNET_OCTETS + 14:
            self.unread[side] += 1
            return False
        v.data, v.octets = start + VNET_OCTETS, octets - VNET_OCTETS
        kind = word_at(v, at)
        while (kind == 0x8100 or kind == 0x88A8 or kind == 0x9100) and tags < MOST_TAGS:
            at += 4
            tags += 1
            kind = word_at(v, at)
        at += 2
        # A kind that is not the packet's: the reference sends it under its own.
        if at > v.octets or octet_at(v, at) >> 4 != (4 if kind == 0x0800 else 6 if kind == 0x86DD else 16):
            self.plain[self.plain_count] = number
            self.plain_count += 1
            return False
        memcpy(front.octets, v.data, 12)
        if state.tags[number]:
            put32(front.octets + 12, state.tags[number])
            skip = 4
        memcpy(front.octets + 12 + skip, v.data + 12, at - 12)
        front.count = at + skip
        memcpy(&h, start, VNET_OCTETS)
        v.data, v.octets = v.data + at, v.octets - at
        if may_be_control(v) and h.gso_type == GSO_NONE:
            self.plain[self.plain_count] = number
            self.plain_count += 1
            return False
        if h.flags & NEEDS_CSUM and h.csum_start < at:
            self.unread[side] += 1
            return False
        if h.flags & NEEDS_CSUM:
            h.csum_start -= at
        memcpy(start + at, &h, VNET_OCTETS)       # over the link header, which is kept
        if not take_super(&state.super, start + at, v.octets + VNET_OCTETS, True):
            state.super.is_open = False
            self.unread[side] += 1
            return False
        if state.super.header == 0:
            if h.flags & NEEDS_CSUM:
                closed_sum(<uint8_t *> v.data, h.csum_start, h.csum_offset, v.octets, v.octets)
            state.super.v.octets = own_octets(v)
        return True

    def frames(self):
        """Frames of the last `read` that are Python's: [(octets with the header of virtio in front, tag beside it or b"")]."""
        cdef State *state = <State *> self.state
        cdef uint8_t tag[4]
        cdef int i, number
        found = []
        for i in range(self.plain_count):
            number = self.plain[i]
            put32(tag, state.tags[number])
            found.append((
                PyBytes_FromStringAndSize(<char *> self.supers + number * SUPER_OCTETS, state.octets[number]),
                PyBytes_FromStringAndSize(<char *> tag, 4) if state.tags[number] else b"",
            ))
        self.plain_count = 0
        return found

    def packet(self, int number):
        """One packet that was read, for the reference."""
        return PyBytes_FromStringAndSize(<char *> self.burst.packets[number].data, self.burst.packets[number].octets)

    def front(self, int number):
        """The link header that it came behind."""
        cdef Front *front = &self.fronts[self.owner[number]]
        return PyBytes_FromStringAndSize(<char *> front.octets, front.count)

    def counts(self, int side):
        """What was moved at a side, and lost: not read whole, with a header of virtio that does not fit, not taken by the kernel."""
        return {
            "received": self.received[side], "sent": self.sent[side], "unread": self.unread[side], "truncated": self.truncated[side],
            "unsent": self.unsent[side],
        }

    # -- through the engine ----------------------------------------------------------------------------------------------

    def seal(self, int first, int last, uint64_t at_ns):
        """Seal packets from `first` on, before `last`, and send them outside; how many the engine answered."""
        cdef int done
        with nogil:
            done = seal_burst(&self.burst.e, self.burst.packets + first, last - first, FORWARDED, at_ns)
            self._send(OUTSIDE, first, done)
        return done

    def open(self, int first, int last, uint64_t at_ns):
        """Open packets, and send them inside."""
        cdef int done
        with nogil:
            done = open_burst(&self.burst.e, self.burst.packets + first, NULL, last - first, at_ns)
            self._send(INSIDE, first, done)
        return done

    def results(self):
        """What the last call left to Python: [(number, kind, octets, verdict)]."""
        cdef Packet *packet
        cdef int i
        if not self.left_count:
            return ()
        found = []
        for i in range(self.left_count):
            packet = &self.burst.packets[self.left[i]]
            octets = PyBytes_FromStringAndSize(<char *> packet.result, packet.result_octets)
            found.append((self.left[i], packet.kind, octets, self.burst.verdicts[packet.flow.policy]))
        self.left_count = 0
        return found

    cdef bint _is_own(self, const uint8_t *address, int octets) noexcept nogil:
        cdef uint8_t padded[16]
        cdef int i
        if self.own_count == 0:
            return False
        memset(padded, 0, 16)
        memcpy(padded, address, octets)
        for i in range(self.own_count):
            if memcmp(padded, self.own[i], 16) == 0:
                return True
        return False

    cdef bint _aim(self, int side, int number, Front *front) noexcept nogil:
        """The link header of a result; False: Python's to find. koura.host.bump.Bump._put."""
        cdef Packet *packet = &self.burst.packets[number]
        cdef bint is_v4 = packet.result[0] >> 4 == 4
        cdef bint was_v4 = packet.data[0] >> 4 == 4
        cdef const uint8_t *to = packet.result + (16 if is_v4 else 24)
        cdef const uint8_t *before = packet.data + (16 if was_v4 else 24)
        cdef uint8_t padded[16]
        cdef Station *station
        cdef bint was_own = False
        front[0] = self.fronts[self.owner[number]]
        if self.own_count:
            if self._is_own(to, 4 if is_v4 else 16):
                return False
            was_own = self._is_own(before, 4 if was_v4 else 16)
            if side == OUTSIDE and self._is_own(packet.result + (12 if is_v4 else 8), 4 if is_v4 else 16):
                memcpy(front.octets + 6, self.mac[OUTSIDE], 6)
            elif was_own:
                memcpy(front.octets + 6, self.mac[INSIDE], 6)
        if is_v4 != was_v4:
            put16(front.octets + front.count - 2, 0x0800 if is_v4 else 0x86DD)
        if is_v4 == was_v4 and memcmp(to, before, 4 if is_v4 else 16) == 0:
            return True
        memset(padded, 0, 16)
        memcpy(padded, to, 4 if is_v4 else 16)
        station = &self.stations[station_place(padded, side)]
        if station.side != side + 1 or memcmp(station.address, padded, 16) != 0:
            return not station.side and not was_own               # a place that another took: Python knows better
        memcpy(front.octets, station.mac, 6)
        return True

    cdef void _send(self, int side, int first, int count) noexcept nogil:
        """Results out of a side, TCP segments that follow one another in clear as one super packet; many in one call."""
        cdef Packet *packets = self.burst.packets
        cdef Leaving *leaving = &(<State *> self.state).leaving
        cdef bint leaves = side == OUTSIDE and leaving.descriptor >= 0 and self._fits_leaving()
        cdef mmsghdr messages[MESSAGES]
        cdef iovec pieces[MESSAGES][3 + PIECES]
        cdef uint8_t heads[MESSAGES][VNET_OCTETS + 40 + 60]
        cdef Front fronts[MESSAGES]
        cdef Front other
        cdef Merge m
        cdef Vnet h
        cdef int i = first
        cdef int last = first + count
        cdef int pending = 0
        cdef int n, run
        for n in range(first, last):
            if packets[n].kind == BYPASSED:
                packets[n].kind = DELIVERED
        while i < last:
            if packets[i].kind == DISCARDED:
                i += 1
                continue
            if packets[i].result_octets > self.mtu[side] or not self._aim(side, i, &fronts[pending]):
                self.left[self.left_count] = i
                self.left_count += 1
                i += 1
                continue
            if leaves and packets[i].kind != DELIVERED and leaving.descriptor >= 0:
                if leave(leaving, fronts[pending].octets, fronts[pending].count, &packets[i]):
                    self.sent[side] += 1
                else:
                    self.unsent[side] += 1
                i += 1
                continue
            memset(&m, 0, sizeof(Merge))
            m.count = 1
            if packets[i].kind == DELIVERED:
                run = i + 1
                while run < last and packets[run].kind == DELIVERED and packets[run].result_octets <= self.mtu[side]:
                    run += 1
                gather(packets, i, run, &m)
                for n in range(i + 1, i + m.count):
                    if not self._aim(side, n, &other) or memcmp(&other, &fronts[pending], sizeof(Front)) != 0:
                        gather(packets, i, n, &m)
                        break
            n = assemble(packets, i, &m, heads[pending], &pieces[pending][2])
            pieces[pending][0].iov_base, pieces[pending][0].iov_len = heads[pending], VNET_OCTETS
            pieces[pending][1].iov_base, pieces[pending][1].iov_len = fronts[pending].octets, fronts[pending].count
            pieces[pending][2].iov_base = heads[pending] + VNET_OCTETS
            pieces[pending][2].iov_len -= VNET_OCTETS
            if m.count > 1:
                memcpy(&h, heads[pending], VNET_OCTETS)
                h.csum_start += fronts[pending].count
                h.hdr_len += fronts[pending].count
                memcpy(heads[pending], &h, VNET_OCTETS)
            memset(&messages[pending], 0, sizeof(mmsghdr))
            messages[pending].msg_hdr.msg_iov, messages[pending].msg_hdr.msg_iovlen = pieces[pending], n + 2
            messages[pending].msg_len = m.count
            pending += 1
            i += m.count
            if pending == MESSAGES:
                send_all(self.sockets[side], messages, pending, &self.sent[side], &self.unsent[side])
                pending = 0
        if pending:
            send_all(self.sockets[side], messages, pending, &self.sent[side], &self.unsent[side])
        if leaves and leaving.written:
            go(leaving)


cdef inline uint32_t station_place(const uint8_t *padded, int side) noexcept nogil:
    cdef uint64_t a, b
    memcpy(&a, padded, 8)
    memcpy(&b, padded + 8, 8)
    return <uint32_t> (((a ^ (b * <uint64_t> 0x9E3779B97F4A7C15) ^ side) * <uint64_t> 0xFF51AFD7ED558CCD) >> 52) & (NEIGHBOURS - 1)


cdef void send_all(int descriptor, mmsghdr *messages, int count, uint64_t *sent, uint64_t *unsent) noexcept nogil:
    """Frames in one call, each with as many packets as its msg_len says; a full buffer gets a moment to drain."""
    cdef uint32_t packets[MESSAGES]
    cdef pollfd wanted
    cdef int gone = 0
    cdef int done, i
    cdef bint has_waited = False
    for i in range(count):
        packets[i] = messages[i].msg_len
    while gone < count:
        done = sendmmsg(descriptor, messages + gone, count - gone, MSG_DONTWAIT)
        if done > 0:
            for i in range(gone, gone + done):
                sent[0] += packets[i]
            gone += done
        elif errno == EAGAIN and not has_waited:
            has_waited = True
            wanted.fd, wanted.events, wanted.revents = descriptor, POLLOUT, 0
            poll(&wanted, 1, PATIENCE_MS)
        else:
            unsent[0] += packets[gone]
            gone += 1
