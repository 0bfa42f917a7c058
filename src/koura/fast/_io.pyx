# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Bursts between the kernel and the engine: TUN with super packets, UDP in trains (GSO, GRO), without a Python object per packet.

    out: read super packets, cut them into segments, seal, one sendmsg for each train of equal datagrams
    in:  receive trains, open, put TCP segments together again, one writev for each super packet

Directives: no Python container is indexed on the packet path. A peer's octets are read through the views of headers.pxd; the sizes of
trains and super packets are compared with what was read. What the engine does not answer is left to Python, in its order.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset
from cpython.bytes cimport PyBytes_FromStringAndSize

from koura.fast._burst cimport Burst, open_burst, seal_burst
from koura.fast.engine cimport BURST, TAILROOM, Engine, Packet
from koura.fast.flows cimport BYPASSED, DELIVERED, DISCARDED, PROTECTED
from koura.fast.headers cimport *
from koura.fast.sockets cimport *
from koura.fast.sums cimport wide_sum

include "segment.pxi"

DEF STAGING_OCTETS = 8 << 20
DEF MOST_SEGMENTS = 64
DEF TRAIN_OCTETS = 65000


cdef class Io:
    """One TUN and the UDP sockets beside it, around one engine."""

    def __cinit__(self, Burst burst, int tun, bint has_vnet):
        self.burst, self.tun, self.has_vnet = burst, tun, has_vnet
        self.udp[0] = self.udp[1] = self.raw[0] = self.raw[1] = self.esp[0] = self.esp[1] = -1
        self.supers = <uint8_t *> malloc(MESSAGES * SUPER_OCTETS)
        if self.supers == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.supers)

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
        """Take what the TUN has, at most a burst; how many packets that are once they are cut."""
        cdef int count
        with nogil:
            count = self._read()
        self.taken += count
        return count

    cdef int _read(self) noexcept nogil:
        cdef Packet *packets = self.burst.packets
        cdef uint8_t *to = self.burst.staging
        cdef uint8_t *start = self.supers
        cdef Vnet h
        cdef View v
        cdef ssize_t got
        cdef uint32_t header, at
        cdef uint8_t version
        cdef int count = 0
        cdef int skip = VNET_OCTETS if self.has_vnet else 0
        while count + MOST_SEGMENTS <= BURST:
            got = read(self.tun, start, SUPER_OCTETS)
            if got <= skip:
                break
            v.data, v.octets = start + skip, <uint32_t> (got - skip)
            h.gso_type = h.flags = 0
            if skip:
                memcpy(&h, start, VNET_OCTETS)
            if h.gso_type == GSO_NONE:
                memcpy(to, v.data, v.octets)
                if h.flags & NEEDS_CSUM and h.csum_start + h.csum_offset + 2 <= v.octets:
                    finish_upper(to, octet_at(v, 0) >> 4, h.csum_start, h.csum_offset, v.octets,
                                 octet_at(v, 9) if octet_at(v, 0) >> 4 == 4 else 17 if h.csum_offset == 6 else 6 if h.csum_offset == 16 else 58)
                packets[count].data, packets[count].octets = to, v.octets
                to += (v.octets + TAILROOM + 63) & ~<uint32_t> 63
                count += 1
                continue
            if not is_super_right(v, &h, &header, &version) or (v.octets - header) > <uint32_t> h.gso_size * MOST_SEGMENTS:
                self.lost += 1
                continue
            at = 0
            while at < v.octets - header:
                to = segment(v, &h, header, version, at, to, &packets[count])
                at += h.gso_size
                count += 1
        return count

    def seal(self, int first, int last, uint64_t at_ns):
        """Seal and send packets from `first` on, before `last`; how many the engine answered, and whether the first was in transit."""
        cdef int done, end
        cdef bint is_forwarded
        with nogil:
            is_forwarded = self._is_forwarded(first)
            end = first + 1
            while end < last and self._is_forwarded(end) == is_forwarded:
                end += 1
            done = seal_burst(&self.burst.e, self.burst.packets + first, end - first, is_forwarded, at_ns)
            self._send(first, done)
        return done, is_forwarded

    cdef bint _is_forwarded(self, int number) noexcept nogil:
        cdef Packet *packet = &self.burst.packets[number]
        cdef View v
        cdef uint8_t src[16]
        cdef int i
        v.data, v.octets = packet.data, packet.octets
        memset(src, 0, 16)
        if octet_at(v, 0) >> 4 == 4:
            copy_from(v, 12, src, 4)
        else:
            copy_from(v, 8, src, 16)
        for i in range(self.our_count):
            if memcmp(src, self.ours[i], 16) == 0:
                return False
        return True

    def packet(self, int number):
        """One packet that was read, for the reference."""
        return PyBytes_FromStringAndSize(<char *> self.burst.packets[number].data, self.burst.packets[number].octets)

    cdef void _send(self, int first, int count) noexcept nogil:
        """Results in trains: what follows one another to the same place in equal sizes goes in one call."""
        cdef Packet *packets = self.burst.packets
        cdef int i = first
        cdef int which
        cdef uint32_t at
        while i < first + count:
            if packets[i].kind == DISCARDED:
                i += 1
                continue
            which = 0 if packets[i].result[0] >> 4 == 4 else 1
            at = IPV4_OCTETS if which == 0 else IPV6_OCTETS
            if packets[i].kind == PROTECTED and self.udp[which] >= 0 and packets[i].result[9 if which == 0 else 6] == 17 and (
                <uint16_t> packets[i].result[at] << 8 | packets[i].result[at + 1]
            ) == self.ports[which]:
                i = self._train(i, first + count, which)
            else:
                i = self._send_raw(i, first + count, which)

    cdef int _train(self, int first, int last, int which) noexcept nogil:
        """One sendmsg of datagrams from `first` on; where the next train begins."""
        cdef Packet *packets = self.burst.packets
        cdef Packet *p = &packets[first]
        cdef uint32_t at = IPV4_OCTETS if which == 0 else IPV6_OCTETS
        cdef uint32_t skip = at + UDP_OCTETS
        cdef uint32_t size = p.result_octets - skip
        cdef uint32_t total = 0
        cdef iovec pieces[PIECES]
        cdef sockaddr_in to4
        cdef sockaddr_in6 to6
        cdef msghdr message
        cdef uint8_t control[128]
        cdef cmsghdr *c
        cdef in_pktinfo info4
        cdef in6_pktinfo info6
        cdef int tos = p.result[1] if which == 0 else (p.result[0] << 4 | p.result[1] >> 4) & 0xFF
        cdef uint16_t segment_octets = <uint16_t> size
        cdef int i = first
        cdef int count = 0
        while i < last and count < PIECES and packets[i].kind == PROTECTED:
            # Same addresses, ports and TOS; only the last one may be shorter.
            if packets[i].result_octets - skip > size or total + packets[i].result_octets > TRAIN_OCTETS:
                break
            if packets[i].result[0] != p.result[0] or packets[i].result[1] != p.result[1]:
                break
            if which == 0 and memcmp(packets[i].result + 9, p.result + 9, 1) != 0:
                break
            if memcmp(packets[i].result + (12 if which == 0 else 8), p.result + (12 if which == 0 else 8), 8 if which == 0 else 32) != 0:
                break
            if memcmp(packets[i].result + at, p.result + at, 4) != 0:
                break
            pieces[count].iov_base, pieces[count].iov_len = packets[i].result + skip, packets[i].result_octets - skip
            total += packets[i].result_octets - skip
            count += 1
            i += 1
            if packets[i - 1].result_octets - skip < size:
                break
        memset(&message, 0, sizeof(msghdr))
        memset(control, 0, sizeof(control))
        message.msg_iov, message.msg_iovlen = pieces, count
        message.msg_control, message.msg_controllen = control, sizeof(control)
        c = CMSG_FIRSTHDR(&message)
        if which == 0:
            memset(&to4, 0, sizeof(to4))
            to4.sin_family = AF_INET
            memcpy(&to4.sin_port, p.result + at + 2, 2)
            memcpy(&to4.sin_addr, p.result + 16, 4)
            message.msg_name, message.msg_namelen = &to4, sizeof(to4)
            memset(&info4, 0, sizeof(info4))
            memcpy(&info4.ipi_spec_dst, p.result + 12, 4)
            c.cmsg_level, c.cmsg_type, c.cmsg_len = IPPROTO_IP, IP_PKTINFO, CMSG_LEN(sizeof(info4))
            memcpy(CMSG_DATA(c), &info4, sizeof(info4))
            message.msg_controllen = CMSG_SPACE(sizeof(info4))
        else:
            memset(&to6, 0, sizeof(to6))
            to6.sin6_family = AF_INET6
            memcpy(&to6.sin6_port, p.result + at + 2, 2)
            memcpy(&to6.sin6_addr, p.result + 24, 16)
            message.msg_name, message.msg_namelen = &to6, sizeof(to6)
            memset(&info6, 0, sizeof(info6))
            memcpy(&info6.ipi6_addr, p.result + 8, 16)
            c.cmsg_level, c.cmsg_type, c.cmsg_len = IPPROTO_IPV6, IPV6_PKTINFO, CMSG_LEN(sizeof(info6))
            memcpy(CMSG_DATA(c), &info6, sizeof(info6))
            message.msg_controllen = CMSG_SPACE(sizeof(info6))
        c = <cmsghdr *> (control + message.msg_controllen)
        c.cmsg_level, c.cmsg_type = IPPROTO_IP if which == 0 else IPPROTO_IPV6, IP_TOS if which == 0 else IPV6_TCLASS
        c.cmsg_len = CMSG_LEN(sizeof(int))
        memcpy(CMSG_DATA(c), &tos, sizeof(int))
        message.msg_controllen += CMSG_SPACE(sizeof(int))
        if count > 1:
            c = <cmsghdr *> (control + message.msg_controllen)
            c.cmsg_level, c.cmsg_type, c.cmsg_len = SOL_UDP, UDP_SEGMENT, CMSG_LEN(sizeof(uint16_t))
            memcpy(CMSG_DATA(c), &segment_octets, sizeof(uint16_t))
            message.msg_controllen += CMSG_SPACE(sizeof(uint16_t))
        if sendmsg(self.udp[which], &message, MSG_DONTWAIT) < 0:
            self.lost += count
        else:
            self.sent += count
        return i

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
            if count and packets[i].result[9 if which == 0 else 6] == 17 and self.udp[which] >= 0:
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
                self.lost += 1  # this one; those behind it may have another way
                gone += 1
        return i

    # -- in --------------------------------------------------------------------------------------------------------------

    def receive(self, bint is_ipv4):
        """Take what the UDP socket has, at most a burst of datagrams; how many."""
        cdef int count
        with nogil:
            count = self._receive(0 if is_ipv4 else 1)
        self.received += count
        return count

    cdef int _receive(self, int which) noexcept nogil:
        cdef mmsghdr messages[MESSAGES]
        cdef iovec pieces[MESSAGES]
        cdef sockaddr_in6 names[MESSAGES]
        cdef uint8_t control[MESSAGES][256]
        cdef int i, got, count = 0
        memset(messages, 0, sizeof(messages))
        for i in range(MESSAGES):
            pieces[i].iov_base, pieces[i].iov_len = self.supers + i * SUPER_OCTETS, SUPER_OCTETS - 32
            messages[i].msg_hdr.msg_iov, messages[i].msg_hdr.msg_iovlen = &pieces[i], 1
            messages[i].msg_hdr.msg_name, messages[i].msg_hdr.msg_namelen = &names[i], sizeof(sockaddr_in6)
            messages[i].msg_hdr.msg_control, messages[i].msg_hdr.msg_controllen = control[i], 256
        # A train has at most 64 datagrams: so many trains fill a burst at the most.
        got = recvmmsg(self.udp[which], messages, BURST // MOST_SEGMENTS, MSG_DONTWAIT, NULL)
        for i in range(got):
            count = self._split(which, i, &messages[i], count)
        return count

    cdef int _split(self, int which, int message, void *header, int count) noexcept nogil:
        """One train into datagrams; the count with them."""
        cdef mmsghdr *m = <mmsghdr *> header
        cdef Packet *packets = self.burst.packets
        cdef Head head
        cdef uint8_t *data = self.supers + message * SUPER_OCTETS
        cdef uint32_t octets = m.msg_len
        cdef uint32_t size = octets
        cdef uint32_t at = 0
        memset(&head, 0, sizeof(Head))
        head.version, head.octets = (4, IPV4_OCTETS) if which == 0 else (6, IPV6_OCTETS)
        head.protocol, head.has_ports, head.dport = 17, True, self.ports[which]
        if which == 0:
            memcpy(head.src, &(<sockaddr_in *> m.msg_hdr.msg_name).sin_addr, 4)
            head.sport = swap16((<sockaddr_in *> m.msg_hdr.msg_name).sin_port)
        else:
            memcpy(head.src, &(<sockaddr_in6 *> m.msg_hdr.msg_name).sin6_addr, 16)
            head.sport = swap16((<sockaddr_in6 *> m.msg_hdr.msg_name).sin6_port)
        self._note_control(which, &m.msg_hdr, &head, &size)
        if m.msg_hdr.msg_flags & MSG_TRUNC:
            self.lost += 1
            return count
        while at < octets and count < BURST:
            packets[count].data, packets[count].octets = data + at, size if octets - at > size else octets - at
            self.heads[count] = head
            at += size
            count += 1
        return count

    cdef void _note_control(self, int which, void *header, Head *head, uint32_t *size) noexcept nogil:
        """What stands beside a datagram: our address, TOS, and how long the datagrams of a train are."""
        cdef msghdr *m = <msghdr *> header
        cdef cmsghdr *c = CMSG_FIRSTHDR(m)
        cdef int number
        while c != NULL:
            if c.cmsg_level == SOL_UDP and c.cmsg_type == UDP_GRO:
                memcpy(&number, CMSG_DATA(c), sizeof(int))
                if number > 0:
                    size[0] = number
            elif which == 0 and c.cmsg_level == IPPROTO_IP and c.cmsg_type == IP_PKTINFO:
                memcpy(head.dst, &(<in_pktinfo *> CMSG_DATA(c)).ipi_addr, 4)
            elif which == 1 and c.cmsg_level == IPPROTO_IPV6 and c.cmsg_type == IPV6_PKTINFO:
                memcpy(head.dst, &(<in6_pktinfo *> CMSG_DATA(c)).ipi6_addr, 16)
            elif which == 0 and c.cmsg_level == IPPROTO_IP and c.cmsg_type == IP_TOS:
                head.tos = CMSG_DATA(c)[0]
            elif which == 1 and c.cmsg_level == IPPROTO_IPV6 and c.cmsg_type == IPV6_TCLASS:
                memcpy(&number, CMSG_DATA(c), sizeof(int))
                head.tos = <uint8_t> number
            c = CMSG_NXTHDR(m, c)

    def receive_esp(self, bint is_ipv4):
        """Take what the raw socket has, at most a burst of packets; how many."""
        cdef int count
        with nogil:
            count = self._receive_esp(0 if is_ipv4 else 1)
        self.received += count
        return count

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
                self.lost += 1
                continue
            packets[count].data, packets[count].octets = self.supers + i * SUPER_OCTETS, messages[i].msg_len
            if which:
                memset(&self.heads[count], 0, sizeof(Head))
                self.heads[count].version, self.heads[count].octets, self.heads[count].protocol = 6, IPV6_OCTETS, 50
                memcpy(self.heads[count].src, &names[i].sin6_addr, 16)
                self._note_control(which, &messages[i].msg_hdr, &self.heads[count], &size)
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
        cdef Packet *packets = self.burst.packets
        cdef Merge m
        cdef uint32_t header
        cdef uint8_t version
        cdef bint can
        cdef int i
        memset(&m, 0, sizeof(Merge))
        for i in range(first, first + count):
            if packets[i].kind != DELIVERED:
                if m.count:
                    self._write(i - m.count, m.count, &m)
                memset(&m, 0, sizeof(Merge))
                continue
            can = self.has_vnet and is_mergeable(&packets[i], &header, &version)
            if can and m.is_open and continues(&m, &packets[i], header, version):
                m.count += 1
                m.payload += packets[i].result_octets - header
                m.next_seq += packets[i].result_octets - header
                m.is_open = (
                    packets[i].result_octets - header == m.size and m.count < PIECES
                    and not packets[i].result[(IPV4_OCTETS if version == 4 else IPV6_OCTETS) + 13] & 0x08
                )
                continue
            if m.count:
                self._write(i - m.count, m.count, &m)
            memset(&m, 0, sizeof(Merge))
            m.first, m.count = &packets[i], 1
            if can:
                m.header, m.version, m.size = header, version, packets[i].result_octets - header
                m.payload, m.is_open = m.size, not packets[i].result[(IPV4_OCTETS if version == 4 else IPV6_OCTETS) + 13] & 0x08
                m.next_seq = m.size + (
                    <uint32_t> packets[i].result[24 if version == 4 else 44] << 24
                    | <uint32_t> packets[i].result[25 if version == 4 else 45] << 16
                    | <uint32_t> packets[i].result[26 if version == 4 else 46] << 8 | packets[i].result[27 if version == 4 else 47]
                )
        if m.count:
            self._write(first + count - m.count, m.count, &m)

    cdef void _write(self, int first, int count, void *merge) noexcept nogil:
        """One packet, or one super packet of several."""
        cdef Merge *m = <Merge *> merge
        cdef Packet *packets = self.burst.packets
        cdef iovec pieces[PIECES + 2]
        cdef uint8_t front[10 + 40 + 60]
        cdef uint8_t *ip = front + VNET_OCTETS
        cdef Vnet h
        cdef uint32_t tcp, octets
        cdef uint16_t partial
        cdef int i, n
        memset(&h, 0, sizeof(Vnet))
        if count == 1:
            n = 0
            if self.has_vnet:
                pieces[0].iov_base, pieces[0].iov_len = &h, VNET_OCTETS
                n = 1
            pieces[n].iov_base, pieces[n].iov_len = packets[first].result, packets[first].result_octets
            n += 1
        else:
            tcp = IPV4_OCTETS if m.version == 4 else IPV6_OCTETS
            octets = m.header + m.payload
            memcpy(ip, packets[first].result, m.header)
            ip[tcp + 13] |= packets[first + count - 1].result[tcp + 13] & 0x08
            if m.version == 4:
                put16(ip + 2, <uint16_t> octets)
                finish_ipv4(ip)
            else:
                put16(ip + 4, <uint16_t> (octets - IPV6_OCTETS))
            partial = <uint16_t> ~folded(pseudo_sum(ip, m.version, octets - tcp, 6))
            memcpy(ip + tcp + 16, &partial, 2)
            h.flags, h.gso_type = NEEDS_CSUM, GSO_TCPV4 if m.version == 4 else GSO_TCPV6
            h.hdr_len, h.gso_size, h.csum_start, h.csum_offset = m.header, m.size, tcp, 16
            memcpy(front, &h, VNET_OCTETS)
            pieces[0].iov_base, pieces[0].iov_len = front, VNET_OCTETS + m.header
            for i in range(count):
                pieces[i + 1].iov_base = packets[first + i].result + m.header
                pieces[i + 1].iov_len = packets[first + i].result_octets - m.header
            n = count + 1
        if writev(self.tun, pieces, n) < 0:
            self.lost += count
        else:
            self.delivered += count
