# ESP in UDP in trains: datagrams of one size to one place, the last one at most as long, in one system call (UDP_SEGMENT, UDP_GRO).

DEF TRAIN_OCTETS = 65000
DEF PATIENCE_MS = 1


cdef inline uint32_t ip_octets(int which) noexcept nogil:
    return IPV4_OCTETS if which == 0 else IPV6_OCTETS


cdef inline bint is_by_port(const Packet *p, int which, uint16_t port) noexcept nogil:
    """Whether a result is UDP from this port."""
    cdef uint32_t at = ip_octets(which)
    return p.result[9 if which == 0 else 6] == 17 and (<uint16_t> p.result[at] << 8 | p.result[at + 1]) == port


cdef int train_of(const Packet *packets, int first, int last, int which, iovec *pieces) noexcept nogil:
    """The datagrams from `first` on that may go at once: of equal addresses, ports, TOS, DF and size; only the last one may be shorter."""
    cdef const uint8_t *a = packets[first].result
    cdef const uint8_t *b
    cdef uint32_t at = ip_octets(which)
    cdef uint32_t skip = at + UDP_OCTETS
    cdef uint32_t octets = packets[first].result_octets
    cdef uint32_t total = 0
    cdef int count = 0
    while first + count < last and count < PIECES and packets[first + count].kind == PROTECTED:
        b = packets[first + count].result
        if packets[first + count].result_octets > octets or total + packets[first + count].result_octets > TRAIN_OCTETS and count:
            break
        if a[0] != b[0] or a[1] != b[1] or memcmp(a + (9 if which == 0 else 6), b + (9 if which == 0 else 6), 1) != 0:
            break
        if which == 0 and (a[6] ^ b[6]) & 0x40:
            break
        if memcmp(a + (12 if which == 0 else 8), b + (12 if which == 0 else 8), 8 if which == 0 else 32) != 0 or memcmp(a + at, b + at, 4) != 0:
            break
        pieces[count].iov_base, pieces[count].iov_len = <void *> (b + skip), packets[first + count].result_octets - skip
        total += packets[first + count].result_octets
        count += 1
        if packets[first + count - 1].result_octets < octets:
            break
    return count


ctypedef struct Way:
    msghdr message
    sockaddr_in to4
    sockaddr_in6 to6
    uint8_t control[128]
    size_t control_octets     # without the size of a train


cdef cmsghdr *put_control(Way *way, int level, int kind, const void *value, size_t octets) noexcept nogil:
    cdef cmsghdr *c = <cmsghdr *> (way.control + way.control_octets)
    c.cmsg_level, c.cmsg_type, c.cmsg_len = level, kind, CMSG_LEN(octets)
    memcpy(CMSG_DATA(c), value, octets)
    way.control_octets += CMSG_SPACE(octets)
    return c


cdef void address_way(Way *way, int which, const uint8_t *ip) noexcept nogil:
    """Where the datagram of this packet goes, from which of our addresses, with which TOS."""
    cdef in_pktinfo info4
    cdef in6_pktinfo info6
    cdef int tos = ip[1] if which == 0 else (ip[0] << 4 | ip[1] >> 4) & 0xFF
    memset(way, 0, sizeof(Way))
    if which == 0:
        way.to4.sin_family = AF_INET
        memcpy(&way.to4.sin_port, ip + IPV4_OCTETS + 2, 2)
        memcpy(&way.to4.sin_addr, ip + 16, 4)
        way.message.msg_name, way.message.msg_namelen = &way.to4, sizeof(sockaddr_in)
        memset(&info4, 0, sizeof(in_pktinfo))
        memcpy(&info4.ipi_spec_dst, ip + 12, 4)
        put_control(way, IPPROTO_IP, IP_PKTINFO, &info4, sizeof(in_pktinfo))
        put_control(way, IPPROTO_IP, IP_TOS, &tos, sizeof(int))
        return
    way.to6.sin6_family = AF_INET6
    memcpy(&way.to6.sin6_port, ip + IPV6_OCTETS + 2, 2)
    memcpy(&way.to6.sin6_addr, ip + 24, 16)
    way.message.msg_name, way.message.msg_namelen = &way.to6, sizeof(sockaddr_in6)
    memset(&info6, 0, sizeof(in6_pktinfo))
    memcpy(&info6.ipi6_addr, ip + 8, 16)
    put_control(way, IPPROTO_IPV6, IPV6_PKTINFO, &info6, sizeof(in6_pktinfo))
    put_control(way, IPPROTO_IPV6, IPV6_TCLASS, &tos, sizeof(int))


cdef int send_at_once(int descriptor, Way *way, iovec *pieces, int count) noexcept nogil:
    """One sendmsg; 0, or the error. A full buffer gets a moment to drain: meanwhile the TUN's queue slows down who sends."""
    cdef uint16_t size = <uint16_t> pieces[0].iov_len
    cdef size_t before = way.control_octets
    cdef pollfd wanted
    cdef int error = 0
    if count > 1:
        put_control(way, SOL_UDP, UDP_SEGMENT, &size, sizeof(uint16_t))
    way.message.msg_iov, way.message.msg_iovlen = pieces, count
    way.message.msg_control, way.message.msg_controllen = way.control, way.control_octets
    if sendmsg(descriptor, &way.message, MSG_DONTWAIT) < 0:
        error = errno
        if error == EAGAIN:
            wanted.fd, wanted.events, wanted.revents = descriptor, POLLOUT, 0
            poll(&wanted, 1, PATIENCE_MS)
            error = errno if sendmsg(descriptor, &way.message, MSG_DONTWAIT) < 0 else 0
    way.control_octets = before
    return error


cdef void discover(int descriptor, int how) noexcept nogil:
    """Whether datagrams leave with DF: the socket's word, for want of a control message."""
    setsockopt(descriptor, IPPROTO_IP, IP_MTU_DISCOVER, &how, sizeof(int))


cdef int send_train(int descriptor, int which, const uint8_t *ip, iovec *pieces, int count, uint8_t *is_refused) noexcept nogil:
    """Send datagrams that go where the one of the packet `ip` does; how many the kernel took. is_refused: with DF longer than the link takes.

    A train that the kernel does not cut goes one by one: datagrams beyond the MTU become fragments that way, and not every device
    can close checksums (EINVAL, EIO; udp(7)).
    """
    cdef Way way
    cdef int error, i
    cdef int gone = 0
    cdef bint is_df = which == 0 and ip[6] & 0x40 != 0
    memset(is_refused, 0, count)
    address_way(&way, which, ip)
    if is_df:
        discover(descriptor, PMTUDISC_PROBE)
    error = send_at_once(descriptor, &way, pieces, count)
    if error == 0:
        gone = count
    elif count == 1:
        is_refused[0] = error == EMSGSIZE
    elif error == EINVAL or error == EIO or error == EMSGSIZE:
        for i in range(count):
            error = send_at_once(descriptor, &way, pieces + i, 1)
            gone += error == 0
            is_refused[i] = error == EMSGSIZE
    if is_df:
        discover(descriptor, PMTUDISC_DONT)
    return gone


ctypedef struct Train:
    Head head                 # of each datagram
    uint8_t *data
    uint32_t octets           # of all of them
    uint32_t size             # of each but the last
    uint32_t at               # what was cut off


cdef int split(Train *train, Packet *packets, Head *heads, int room) noexcept nogil:
    """The next datagrams of a train, at most `room`; how many."""
    cdef int count = 0
    cdef uint32_t left
    while train.at < train.octets and count < room:
        left = train.octets - train.at
        packets[count].data, packets[count].octets = train.data + train.at, train.size if left > train.size else left
        heads[count] = train.head
        train.at += packets[count].octets
        count += 1
    return count


cdef void note_control(int which, msghdr *m, Head *head, uint32_t *size, uint64_t *stamp) noexcept nogil:
    """What stands beside a datagram: our address, TOS, when it came, and how long the datagrams of a train are."""
    cdef cmsghdr *c = CMSG_FIRSTHDR(m)
    cdef timespec came
    cdef int number
    while c != NULL:
        if c.cmsg_level == SOL_UDP and c.cmsg_type == UDP_GRO:
            memcpy(&number, CMSG_DATA(c), sizeof(int))
            if number > 0:
                size[0] = number
        elif c.cmsg_level == SOL_SOCKET and c.cmsg_type == SCM_TIMESTAMPNS:
            memcpy(&came, CMSG_DATA(c), sizeof(timespec))
            stamp[0] = <uint64_t> came.tv_sec * 1000000000 + <uint64_t> came.tv_nsec
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


cdef void head_of(int which, const sockaddr_in6 *name, Head *head) noexcept nogil:
    """Where a datagram came from. name: of either family."""
    memset(head, 0, sizeof(Head))
    head.version, head.octets = (4, IPV4_OCTETS) if which == 0 else (6, IPV6_OCTETS)
    if which == 0:
        memcpy(head.src, &(<const sockaddr_in *> name).sin_addr, 4)
    else:
        memcpy(head.src, &name.sin6_addr, 16)
    head.sport = swap16(name.sin6_port)          # sin_port stands in the same place
