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
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.math cimport sqrt
from libc.string cimport memcmp, memcpy, memmove, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from koura.fast._burst cimport Burst, open_burst, seal_burst
from koura.fast.engine cimport BURST, TAILROOM, Engine, Packet
from koura.fast.flows cimport BYPASSED, DELIVERED, DISCARDED, PROTECTED
from koura.fast.headers cimport *
from koura.fast.sockets cimport *
from koura.fast.sums cimport wide_sum

include "delay.pxi"
include "segment.pxi"
include "trains.pxi"
include "words.pxi"
include "ring.pxi"
include "leave.pxi"
include "hops.pxi"
include "moderation.pxi"

DEF STAGING_OCTETS = 8 << 20
DEF FRONT = 10 + 40 + 60
DEF FEW = 4
DEF ENOUGH = 64               # packets of one queue, then the others have their turn; a super packet that was begun is done

DEF EVENTS = 64
DEF MOST = 1 << 62

cdef enum:
    LEFT_THERE = 1
    LEFT_HERE = 2

cdef enum Source:             # whence bursts come
    NOTHING = 0
    UDP4 = 1
    UDP6 = 2
    ESP4 = 3
    ESP6 = 4
    OUT = 5                   # a queue of the TUN, and those behind it
    XDP = OUT + QUEUES        # an AF_XDP socket, and those behind it
    SOURCES = XDP + RINGS
    OUTLETS = SOURCES         # queues of other TUNs: outlets.pxi

cdef enum:
    TRAINS = 1 << UDP4 | 1 << UDP6      # sources that bring many packets at once

ctypedef struct State:
    Super super               # what of a TUN's packet is still to be cut
    int super_source          # whence that came
    Train trains[MESSAGES]
    Delay delays[4]           # of the sockets of UDP, IPv4 and IPv6, and of ESP
    Pace pace                 # of what arrives
    Ring rings[RINGS]
    Hops hops
    int train                 # the first that is still to be split
    int train_count
    bint is_lone              # the last trains were single datagrams
    bint is_full              # the socket had as many as were asked for
    int ready[EVENTS]         # sources that are outlets' in this turn
    int ready_count
    int punted                # how many turns one of those ended


cdef class Io:
    """One TUN and the UDP sockets beside it, around one engine."""

    def __cinit__(self, Burst burst, int tun, bint has_vnet):
        self.burst, self.tuns[0], self.tun_count, self.has_vnet = burst, tun, 1, has_vnet
        self.set_local(())
        self.udp[0] = self.udp[1] = self.raw[0] = self.raw[1] = self.esp[0] = self.esp[1] = -1
        self.supers = <uint8_t *> malloc(MESSAGES * SUPER_OCTETS)
        self.state = calloc(1, sizeof(State))
        self.refused_packets = <uint8_t *> malloc(REFUSED * SUPER_OCTETS)
        self.pending = NOTHING
        self.kept = []
        if self.supers == NULL or self.state == NULL or self.refused_packets == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.supers)
        free(self.state)
        free(self.refused_packets)
        free(self.outlets)
        free(self.by_descriptor)

    def use_queue(self, int descriptor):
        """The TUN has this queue, too."""
        if self.tun_count == QUEUES:
            raise ValueError("a TUN has 8 queues here at the most")
        self.tuns[self.tun_count] = descriptor
        self.tun_count += 1

    def use_outlet(self, uint64_t tag, descriptors):
        """Another TUN, of these queues: its number, which inbound flows name. tag: of what is read there."""
        if not 0 < len(descriptors) <= QUEUES:
            raise ValueError("a TUN has 1 to 8 queues here")
        return put_outlet(self, tag, descriptors)

    def drop_outlet(self, int number):
        """It is there no longer; what flows still lead to it is lost."""
        cdef Outlet *outlet = outlet_at(self, number)
        if outlet != NULL:
            take_away(self, outlet)

    def outlet_counts(self, int number):
        """What its queues brought and got, and what was lost: `unread` with a false virtio header; by errno, not taken by the TUN."""
        cdef Outlet *outlet = outlet_at(self, number)
        if outlet == NULL:
            return {}
        return {"received": outlet.taken, "sent": outlet.delivered, "unread": outlet.unread, "lost": lost_by_errno(outlet)}

    def use_udp(self, bint is_ipv4, int descriptor, int port):
        """ESP in UDP leaves by this socket if its source port is this."""
        self.udp[0 if is_ipv4 else 1], self.ports[0 if is_ipv4 else 1] = descriptor, port

    def use_raw(self, bint is_ipv4, int descriptor):
        """Whole packets leave here."""
        self.raw[0 if is_ipv4 else 1] = descriptor

    def use_esp(self, bint is_ipv4, int descriptor):
        """ESP arrives here: over IPv4 as whole packets, over IPv6 without the fixed header."""
        self.esp[0 if is_ipv4 else 1] = descriptor

    def use_ring(self, rings):
        """ESP arrives here as whole packets, too: koura.host.xdp.Rings, which is kept."""
        cdef Ring *r = &(<State *> self.state).rings[self.ring_count]
        cdef uint8_t[::1] frames = rings.frames
        cdef uint8_t[::1] filled = rings.filled
        cdef uint8_t[::1] received = rings.received
        cdef Py_ssize_t places[6]
        if self.ring_count == RINGS:
            raise ValueError("8 AF_XDP sockets at the most")
        places[:] = rings.places
        r.descriptor, r.frames = rings.descriptor, &frames[0]
        r.fill_producer, r.fill = <uint32_t *> &filled[places[0]], <uint64_t *> &filled[places[2]]
        r.producer, r.consumer, r.received = <uint32_t *> &received[places[3]], <uint32_t *> &received[places[4]], <Received *> &received[places[5]]
        fill_all(r, <uint32_t *> &filled[places[1]])
        self.kept.append(rings)
        self.ring_count += 1

    def use_leaving(self, rings):
        """Protected packets leave here, too: koura.host.xdp.Leaving, which is kept; its number, which next hops name."""
        cdef Hops *h = &(<State *> self.state).hops
        if h.way_count == RINGS:
            raise ValueError("8 AF_XDP sockets at the most")
        map_leaving(&h.ways[h.way_count], rings)
        self.kept.append(rings)
        h.way_count += 1
        return h.way_count - 1

    def wanted_hops(self):
        """Destinations whose next hops are wanted, since the last time; usually there is none."""
        cdef Hops *h = &(<State *> self.state).hops
        if h.wanted_count == 0:
            return ()
        found = [PyBytes_FromStringAndSize(<char *> h.wanted[i].address, 4 if h.wanted[i].version == 4 else 16) for i in range(h.wanted_count)]
        h.wanted_count = 0
        return found

    def put_hop(self, bytes dst, uint64_t life_ns, int way=0, bytes front=b"", uint32_t most=0):
        """Packets to `dst` up to `most` octets leave by an AF_XDP socket behind this link header, for so long; most 0: none do."""
        cdef Hops *h = &(<State *> self.state).hops
        cdef uint64_t now = boot_ns()
        cdef Place place
        cdef Hop *hop
        if len(dst) not in (4, 16) or not 0 <= way < max(h.way_count, 1) or most and len(front) != LINK_OCTETS:
            raise ValueError("no next hop")
        put_place(&place, 4 if len(dst) == 4 else 6, <const uint8_t *> PyBytes_AS_STRING(dst))
        hop = hop_for_new(h, &place, now)
        hop.dst, hop.way, hop.most, hop.until_ns = place, way, min(most, <uint32_t> (LEAVING_OCTETS - LINK_OCTETS)), now + life_ns
        memcpy(hop.front, PyBytes_AS_STRING(front), len(front))

    def forget_hops(self):
        """Who is next has changed, or may have."""
        memset((<State *> self.state).hops.known, 0, HOPS * sizeof(Hop))

    def frames_of(self, int ring):
        """How many packets came by an AF_XDP socket."""
        return (<State *> self.state).rings[ring].count

    def frames_out(self, int way):
        """How many packets left by one."""
        return (<State *> self.state).hops.ways[way].count

    def receive_frames(self, int ring):
        """Take what an AF_XDP socket has, at most a burst of packets; the same three numbers."""
        return taken(self, XDP + ring)

    def set_local(self, addresses):
        """This host's addresses."""
        self.ours = b"".join(sorted([address.ljust(16, b"\0") for address in addresses]))
        self.our_start, self.our_count = <const uint8_t *> PyBytes_AS_STRING(self.ours), len(self.ours) // 16

    # -- out -------------------------------------------------------------------------------------------------------------

    def read(self, int queue=0):
        """Take what a queue of the TUN has, at most a burst: the first packet that is to be answered, how many there are once they are cut, and
        LEFT_HERE, LEFT_THERE or 0.

        What is left here must be taken before anything else is read: it stands in the memory for that.
        """
        return taken(self, OUT + queue)

    def read_outlet(self, int number, int queue=0):
        """The same of another TUN's queue."""
        return taken(self, outlet_source(number, queue))

    cdef int _read(self, int source) noexcept nogil:
        cdef Outlet *outlet = outlet_of_source(self, source)
        cdef int descriptor = descriptor_of(self, source)
        cdef State *state = <State *> self.state
        cdef uint8_t *to = self.burst.staging
        cdef ssize_t got
        cdef int done, i
        cdef int count = 0
        cdef uint64_t tag
        while count < BURST and (count < ENOUGH or state.super.is_open):
            if not state.super.is_open:
                state.super_source = source
                got = read(descriptor, self.supers, SUPER_OCTETS)
                if got <= 0:
                    break
                if not take_super(&state.super, self.supers, <uint32_t> got, self.has_vnet):
                    state.super.is_open = False
                    self.unread += 1
                    if outlet != NULL:
                        outlet.unread += 1
                    continue
            tag = outlet.tag if outlet != NULL else self._is_in_transit(state.super.v.data, state.super.v.octets)
            done = cut(&state.super, &to, self.burst.staging + STAGING_OCTETS, self.burst.packets + count, BURST - count)
            for i in range(count, count + done):
                self.tags[i] = tag
            if tag == 0:
                number(self.burst.packets + count, done)
            count += done
            if state.super.is_open:
                break
        if outlet != NULL:
            outlet.taken += count
        return count

    cdef bint _is_in_transit(self, const uint8_t *data, uint32_t octets) noexcept nogil:
        """Whether a packet has another host's source address."""
        cdef View v
        cdef uint8_t src[16]
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self.our_count
        cdef Py_ssize_t middle
        cdef int order
        v.data, v.octets = data, octets
        memset(src, 0, 16)
        if octet_at(v, 0) >> 4 == 4:
            copy_from(v, 12, src, 4)
        else:
            copy_from(v, 8, src, 16)
        while low < high:
            middle = (low + high) // 2
            order = memcmp(src, self.our_start + 16 * middle, 16)
            if order == 0:
                return False
            if order < 0:
                high = middle
            else:
                low = middle + 1
        return True

    def seal(self, int first, int last, uint64_t at_ns):
        """Seal and send packets from `first` on, before `last`; how many the engine answered, and whether the first was in transit."""
        cdef int done
        with nogil:
            done = self._seal(first, last, at_ns)
        return done, self.tags[first] == 1

    cdef int _seal(self, int first, int last, uint64_t at_ns) noexcept nogil:
        """Those of one origin, at most."""
        cdef int done
        cdef int end = first + 1
        cdef uint64_t tag = self.tags[first]
        while end < last and self.tags[end] == tag:
            end += 1
        done = seal_burst(&self.burst.e, self.burst.packets + first, end - first, tag, at_ns)
        self._send(first, done)
        return done

    def refused(self):
        """(packet, whether in clear) of those that their first link is too narrow for, since the last time; usually there is none."""
        cdef int i
        if self.refused_count == 0:
            return ()
        found = []
        for i in range(self.refused_count):
            octets = PyBytes_FromStringAndSize(<char *> self.refused_packets + i * SUPER_OCTETS, self.refused_octets[i])
            found.append((octets, self.refused_in_clear[i]))
        self.refused_count = 0
        return found

    def packet(self, int number):
        """One packet that was read, for the reference."""
        return PyBytes_FromStringAndSize(<char *> self.burst.packets[number].data, self.burst.packets[number].octets)

    cdef void _send(self, int first, int count) noexcept nogil:
        """Results in trains: what follows one another to the same place in equal sizes goes in one call."""
        cdef Packet *packets = self.burst.packets
        cdef iovec pieces[PIECES]
        cdef int i = first
        cdef int k, which, length, gone
        cdef uint8_t is_refused[PIECES]
        cdef Hops *hops = &(<State *> self.state).hops
        cdef Hop *hop
        cdef uint64_t now = boot_ns() if hops.way_count else 0
        while i < first + count:
            if packets[i].kind == DISCARDED:
                i += 1
                continue
            which = 0 if packets[i].result[0] >> 4 == 4 else 1
            hop = leaves_by(hops, &packets[i], now) if hops.way_count else NULL
            if hop != NULL:
                gone = leave(&hops.ways[hop.way], hop.front, LINK_OCTETS, &packets[i])
                self.sent += gone
                self.unsent += 1 - gone
                i += 1
                continue
            if hops.way_count:
                go_all(hops)  # in their order
            if packets[i].kind != PROTECTED or self.udp[which] < 0 or not is_by_port(&packets[i], which, self.ports[which]):
                i = self._send_raw(i, first + count, which, now)
                continue
            length = train_of(packets, i, first + count, which, pieces)
            gone = send_train(self.udp[which], which, packets[i].result, pieces, length, is_refused)
            self.sent += gone
            self.unsent += length - gone
            if gone < length:
                for k in range(length):
                    if is_refused[k]:
                        self._note_refused(i + k)
            i += length
        if hops.way_count:
            go_all(hops)

    cdef void _note_refused(self, int number) noexcept nogil:
        """Python decides what becomes of this packet, so it is not lost yet; where too many wait already, it is."""
        cdef Packet *packet = &self.burst.packets[number]
        if self.refused_count == REFUSED or packet.result_octets > SUPER_OCTETS:
            return
        memcpy(self.refused_packets + self.refused_count * SUPER_OCTETS, packet.result, packet.result_octets)
        self.refused_octets[self.refused_count] = packet.result_octets
        self.refused_in_clear[self.refused_count] = packet.kind == BYPASSED
        self.refused_count += 1
        self.unsent -= 1

    cdef int _send_raw(self, int first, int last, int which, uint64_t now) noexcept nogil:
        """Whole packets of one family from `first` on, in one call; where the next begin."""
        cdef Packet *packets = self.burst.packets
        cdef Hops *hops = &(<State *> self.state).hops
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
            if count and hops.way_count and leaves_by(hops, &packets[i], now) != NULL:
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
                if self.raw[which] >= 0 and errno == EMSGSIZE:
                    self._note_refused(first + gone)
                gone += 1
        return i

    def turn(self, int epoll, double seconds, uint64_t anchor_ns, bint is_on):
        """Wait on `epoll`, at most so long (below 0: for ever), and do what is ours of what is ready, a burst at a time by turns.

        Gives (descriptor, events) of the rest. One of ours among them, the first, has a burst that the engine did not answer whole:
        `read` and its kin go on with it, before anything else is read. anchor_ns: the clock's. is_on: whether the engine may answer.
        """
        cdef int count, i
        cdef uint64_t until = MOST if seconds < 0 else boot_ns() + <uint64_t> (seconds * 1e9)
        cdef epoll_event events[EVENTS + 1]
        with nogil:
            count = turn(self, epoll, until, anchor_ns, is_on, events)
        return [(events[i].data.fd, events[i].events) for i in range(count)]

    # -- in --------------------------------------------------------------------------------------------------------------

    def receive(self, bint is_ipv4):
        """Take what the UDP socket has, at most a burst of datagrams; the same three numbers."""
        return taken(self, UDP4 if is_ipv4 else UDP6)

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
        cdef uint64_t stamp, now
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
            now = wall_ns()
            for i in range(got):
                if messages[i].msg_hdr.msg_flags & MSG_TRUNC:
                    self.truncated += 1
                    continue
                train = &state.trains[state.train_count]
                head_of(which, &names[i], &train.head)
                train.head.protocol, train.head.has_ports, train.head.dport = 17, True, self.ports[which]
                train.data, train.octets, train.size, train.at = self.supers + i * SUPER_OCTETS, messages[i].msg_len, messages[i].msg_len, 0
                stamp = 0
                note_control(which, &messages[i].msg_hdr, &train.head, &train.size, &stamp)
                if is_to_drop(&state.delays[which], now, stamp, 2 * got >= asked) and train.size >= BULK_OCTETS:
                    if train.head.tos & 3:
                        train.head.tos |= 3  # the sender of ECN's packets is told without a loss (RFC 6040 carries it inside)
                        self.marked += 1
                    else:
                        train.at = min(train.size, train.octets)
                        self.late += 1
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
        """Take what the raw socket has, at most a burst of packets; the same three numbers."""
        return taken(self, ESP4 if is_ipv4 else ESP6)

    cdef int _receive_esp(self, int which) noexcept nogil:
        cdef mmsghdr messages[MESSAGES]
        cdef iovec pieces[MESSAGES]
        cdef sockaddr_in6 names[MESSAGES]
        cdef uint8_t control[MESSAGES][128]
        cdef Packet *packets = self.burst.packets
        cdef State *state = <State *> self.state
        cdef uint32_t size = 0
        cdef uint64_t stamp, now
        cdef int i, got, count = 0
        memset(messages, 0, sizeof(messages))
        for i in range(MESSAGES):
            pieces[i].iov_base, pieces[i].iov_len = self.supers + i * SUPER_OCTETS, SUPER_OCTETS
            messages[i].msg_hdr.msg_iov, messages[i].msg_hdr.msg_iovlen = &pieces[i], 1
            messages[i].msg_hdr.msg_control, messages[i].msg_hdr.msg_controllen = control[i], 128
            if which:
                messages[i].msg_hdr.msg_name, messages[i].msg_hdr.msg_namelen = &names[i], sizeof(sockaddr_in6)
        got = recvmmsg(self.esp[which], messages, MESSAGES, MSG_DONTWAIT, NULL)
        now = wall_ns()
        for i in range(got):
            if messages[i].msg_hdr.msg_flags & MSG_TRUNC:
                self.truncated += 1
                continue
            packets[count].data, packets[count].octets = self.supers + i * SUPER_OCTETS, messages[i].msg_len
            head_of(which, &names[i], &self.heads[count])
            self.heads[count].sport, self.heads[count].protocol = 0, 50
            stamp = 0
            note_control(which, &messages[i].msg_hdr, &self.heads[count], &size, &stamp)
            if is_to_drop(&state.delays[2 + which], now, stamp, 2 * got >= MESSAGES) and packets[count].octets >= BULK_OCTETS:
                self.late += 1
                continue
            count += 1
        return count

    def open_whole(self, int first, int last, uint64_t at_ns):
        """The same as `open` for whole IPv4 packets."""
        cdef int done
        with nogil:
            done = self._open(first, last, False, at_ns)
        return done

    def open(self, int first, int last, uint64_t at_ns):
        """Open datagrams from `first` on, before `last`, and hand them to the TUN; how many the engine answered."""
        cdef int done
        with nogil:
            done = self._open(first, last, True, at_ns)
        return done

    cdef int _open(self, int first, int last, bint has_heads, uint64_t at_ns) noexcept nogil:
        """has_heads: the IP headers, if not in front of the packets."""
        cdef int done = open_burst(
            &self.burst.e, self.burst.packets + first, self.heads + first if has_heads else NULL, last - first, at_ns)
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
        """Results to their TUNs: what follows one another to the same one in one go."""
        cdef Packet *packets = self.burst.packets
        cdef int end
        cdef int i = first
        while i < first + count:
            end = i + 1
            if packets[i].kind == DELIVERED:
                while end < first + count and packets[end].kind == DELIVERED and packets[end].flow.outlet == packets[i].flow.outlet:
                    end += 1
                deliver_to(self, i, end, packets[i].flow.outlet)
            i = end


include "outlets.pxi"
include "turn.pxi"
include "pieces.pxi"
