# How a packet came: in clear, or protected; which SA it names, and what can be said before any key is used.


ctypedef struct Arrived:
    Head head                 # the outer one
    uint32_t sa
    uint32_t serial
    uint32_t spi
    uint32_t seq32
    uint64_t seq64
    FlowKey key               # in the table of SPIs; then of the inner flow
    uint64_t hash
    Flow *named
    bint is_protected         # else it came in clear
    bint has_header           # the packet begins with its IP header; a datagram of a socket does not
    bint is_tunnel            # opened: an inner packet in another's header
    uint8_t protocol          # 50 ESP, 51 AH
    uint8_t end               # where it is known before any key is used
    uint8_t inside            # what was found inside: Inside
    uint32_t at               # offset of the ESP or AH header
    uint32_t sealed           # octets of ciphertext; AH: of what is behind it
    uint32_t shown            # octets that enc0 would show


cdef inline bint is_port(const Engine *e, uint16_t port) noexcept nogil:
    cdef int i
    for i in range(e.port_count):
        if e.ports[i] == port:
            return True
    return False


cdef inline bint is_plain(Engine *e, const Head *head) noexcept nogil:
    """Nothing that IPsec or a tunnel would still have to take off."""
    if head.protocol == 50 or head.protocol == 108 or head.protocol == 4 or head.protocol == 41:
        return False
    if head.protocol == 1 or (head.protocol == 58 and head.sport < 138):  # errors and neighbour discovery have rules of their own
        return head.sport == 8 or head.sport == 0 if head.protocol == 1 else head.sport == 128 or head.sport == 129
    return not (head.protocol == 17 and head.has_ports and is_port(e, head.dport))


cdef inline bint is_udp_right(View v, uint32_t start, uint8_t version) noexcept nogil:
    """UDP from `start` to the end has its right checksum, or says with 0 that it has none. RFC 1122 §4.1.3.4."""
    cdef uint32_t length = v.octets - start
    cdef uint64_t total = sum_of(v.data + 12, 8) if version == 4 else sum_of(v.data + 8, 32)
    if word_at(v, start + 6) == 0:
        return True
    return folded(total + swap16(<uint16_t> length) + swap16(17) + wide_sum(v.data + start, length)) == 0


cdef inline uint64_t spi_word(uint8_t version, uint8_t protocol) noexcept nogil:
    """The last word of a key in the table of SPIs. Protocol 0: an address of ours."""
    return <uint64_t> protocol << 8 | version


cdef inline uint32_t spi_bucket(const Engine *e, uint32_t spi) noexcept nogil:
    """Where SAs with this SPI are counted; nobody outside can tell."""
    return <uint32_t> (((spi ^ e.spi_seed) * <uint64_t> 0x9E3779B97F4A7C15) >> 44)


cdef bint recognise(Engine *e, View v, Arrived *a) noexcept nogil:
    """A packet that is whole and right: in clear, or protected in a way that can be answered here."""
    cdef Head *head = &a.head
    cdef uint32_t at
    if not parse_outer(v, head) or (head.version == 4 and not is_ipv4_right(v)):
        return False
    a.is_protected, a.has_header = False, True
    at = head.octets
    if head.protocol == 51:
        return recognise_ah(e, v, at, a)
    if head.protocol == 17 and head.has_ports and is_port(e, head.dport):
        if v.octets < at + UDP_OCTETS + 8 or word_at(v, at + 4) != v.octets - at or not is_udp_right(v, at, head.version):
            return False
        at += UDP_OCTETS
    elif head.protocol != 50:
        return is_plain(e, head)
    return recognise_esp(e, v, at, a)


cdef inline void note_named(Engine *e, Arrived *a, uint8_t protocol, uint32_t at, uint32_t spi, uint32_t seq32) noexcept nogil:
    """What a protected packet shows of its SA."""
    a.is_protected, a.protocol, a.at, a.end, a.spi, a.seq32 = True, protocol, at, NO_END, spi, seq32
    a.sa = a.serial = 0
    a.key.words[0] = a.key.words[1] = 0
    memcpy(&a.key.words[2], a.head.dst, 16)
    a.key.words[4], a.key.words[5] = spi, spi_word(a.head.version, protocol)
    a.hash = hash_of(&e.spis, &a.key)


cdef bint recognise_esp(Engine *e, View v, uint32_t at, Arrived *a) noexcept nogil:
    """ESP at this offset; a.head says how it came."""
    if not e.is_esp_on or v.octets < at + 8 or (a.head.protocol == 17 and long_at(v, at) == 0):
        return False
    a.sealed = 0
    note_named(e, a, 50, at, long_at(v, at), long_at(v, at + 4))
    return True


cdef inline bint is_elsewhere(const Sa *sa, const Head *head) noexcept nogil:
    """Whether ESP in UDP came by other ports than the SA's."""
    return sa.sport != head.sport or sa.dport != head.dport


cdef bint identify(Engine *e, View v, Arrived *a) noexcept nogil:
    """The SA of a protected packet, and what can be said before any key is used; False: the reference's."""
    cdef const Sa *sa = named(e, a)
    cdef const Head *head = &a.head
    cdef uint32_t front
    if sa == NULL:
        return a.end == NO_SA
    if a.protocol == 51:
        return identify_ah(sa, v, a)
    if head.protocol == 17 and (not sa.has_encapsulation or (not e.roams and is_elsewhere(sa, head))):
        a.end = WRONG_PORT
        return True
    front = a.at + 8 + sa.iv_octets + sa.icv_octets
    if v.octets <= front or (v.octets - front) & (sa.align_octets - 1):
        a.end = WRONG_LENGTH
        return True
    a.sealed = v.octets - front
    return check_number(sa, a)


cdef inline bint check_number(const Sa *sa, Arrived *a) noexcept nogil:
    """Infer the number, and look at the window before any key is used."""
    a.seq64 = infer(sa, a.seq32)
    if a.seq64 == 0 and not is_once(sa):  # Zero, or beyond the number space: the reference knows which.
        return False
    a.end = stale(sa, a.seq64)
    return True


cdef Sa *named(Engine *e, Arrived *a) noexcept nogil:
    """The SA that a packet names, if it is known here; NULL with a.end NO_SA: there is none, surely."""
    cdef FlowKey key
    cdef Flow *found = table_find_at(&e.spis, &a.key, a.hash)
    if found == NULL:
        if e.spi_counts[spi_bucket(e, a.spi)] == 0:
            key = a.key
            key.words[4], key.words[5] = 0, spi_word(a.head.version, 0)
            found = table_find(&e.spis, &key)
            if found != NULL and found.generation == e.generation:  # The destination is ours.
                a.end = NO_SA
        return NULL
    a.sa, a.serial = found.sa, found.serial
    return live_sa(e, a.sa, a.serial)


cdef inline bint start_opening(Engine *e, Packet *packet, Arrived *a) noexcept nogil:
    """Make the packet's job, unless its end is known already."""
    cdef Sa *sa
    cdef uint8_t *room
    cdef Job *job
    packet.job = NULL
    if a.end:
        return True
    sa = &e.sas[a.sa]
    if a.protocol == 51:
        return start_verifying(e, sa, packet, a)
    room = arena_take(e, HEADROOM + a.sealed + 32)
    if room == NULL:
        return False
    packet.job = job = job_for(e, sa)
    job.src = packet.data + a.at + 8 + sa.iv_octets
    job.dst, job.octets = room + HEADROOM, a.sealed
    job.icv = job.src + a.sealed
    number_job(sa, job, a.seq64, packet.data + a.at + 8)
    packet.result = job.dst
    return True
