# AH, both ways, around packets without IP options: the ICV covers a copy of the packet whose mutable parts are zero. RFC 4302 §3.3.3.1.


cdef inline void hide_mutable(const Engine *e, uint8_t *head, uint8_t version) noexcept nogil:
    """What routers may change counts as zero. xform.mutable."""
    if version == 4:
        if e.ah_clears_tos:
            head[1] = 0
        head[6] &= <uint8_t> (e.ah_offset_mask >> 8)
        head[7] &= <uint8_t> e.ah_offset_mask
        head[8] = head[10] = head[11] = 0
    else:
        head[0], head[1], head[2], head[3], head[7] = 0x60, 0, 0, 0, 0


cdef inline void cover(const Sa *sa, Job *job, uint8_t *payload, uint32_t octets, uint32_t head_octets, uint64_t seq64) noexcept nogil:
    """The job of one MAC over what is in front of the payload, the payload, and ESN's high half."""
    job.dst, job.octets = payload, octets
    job.head_octets, job.aad_octets, job.tail_octets = head_octets, 0, 0
    if sa.numbers == EXTENDED:
        put32(job.tail, <uint32_t> (seq64 >> 32))
        job.tail_octets = 4


cdef bint recognise_ah(Engine *e, View v, uint32_t at, Arrived *a) noexcept nogil:
    """AH at this offset, whole."""
    a.sealed = (<uint32_t> octet_at(v, at + 1) + 2) * 4  # its own length, for now
    if not e.is_ah_on or a.sealed < 12 or v.octets < at + a.sealed:
        return False
    note_named(e, a, 51, at, long_at(v, at + 4), long_at(v, at + 8))
    return True


cdef bint identify_ah(const Sa *sa, View v, Arrived *a) noexcept nogil:
    if a.sealed != sa.ah_octets:
        a.end = WRONG_LENGTH
        return True
    a.sealed = v.octets - a.at - sa.ah_octets
    return check_number(sa, a)


cdef inline bint start_verifying(Engine *e, Sa *sa, Packet *packet, Arrived *a) noexcept nogil:
    cdef uint32_t front = a.at + sa.ah_octets
    cdef uint8_t *copy = arena_take(e, HEADROOM + packet.octets + 32)
    cdef Job *job
    if copy == NULL:
        return False
    copy += HEADROOM
    memcpy(copy, packet.data, packet.octets)
    hide_mutable(e, copy, a.head.version)
    memset(copy + a.at + 12, 0, sa.icv_octets)
    packet.job = job = job_for(e, sa)
    cover(sa, job, copy + front, a.sealed, front, a.seq64)
    job.src, job.icv = job.dst, packet.data + a.at + 12
    packet.result = copy + front
    return True


cdef inline void put_ah(Engine *e, const Sa *sa, Packet *packet, uint32_t length, uint64_t seq64, uint8_t next_header) noexcept nogil:
    """Header with a zero ICV behind an IP header of `length`, which is kept as it is to be, and hidden."""
    cdef uint8_t *out = packet.result + length
    cdef int64_t number = packet.job - e.jobs
    memcpy(e.heads[number], packet.result, length)
    e.head_octets[number] = <uint8_t> length
    hide_mutable(e, packet.result, 4 if length == IPV4_OCTETS else 6)
    memset(out, 0, sa.ah_octets)
    out[0], out[1] = next_header, <uint8_t> (sa.ah_octets // 4 - 2)
    put32(out + 4, sa.spi)
    put32(out + 8, <uint32_t> seq64)
    cover(sa, packet.job, out + sa.ah_octets, packet.result_octets - length - sa.ah_octets, length + sa.ah_octets, seq64)


cdef inline void finish_ah(Engine *e, Packet *packet) noexcept nogil:
    """The header back, the ICV into place."""
    cdef int64_t number = packet.job - e.jobs
    cdef uint32_t length = e.head_octets[number]
    memcpy(packet.result, e.heads[number], length)
    memcpy(packet.result + length + 12, packet.job.tag, packet.job.key.icv_octets)


cdef bint repair(const Engine *e, const Sa *sa, const Arrived *a, uint8_t *payload, uint8_t protocol, uint32_t octets) noexcept nogil:
    """NAT-T in transport mode: a TCP or UDP checksum made right for the addresses as they are here. xform.natt.repair.

    False: it was wrong where the peer's own addresses are known, so that the packet ends.
    """
    cdef uint32_t at = 16 if protocol == 6 else 6
    cdef uint32_t width = 4 if a.head.version == 4 else 16
    cdef uint16_t given, right
    cdef uint64_t total, shown
    if (protocol != 6 and protocol != 17) or octets < (20 if protocol == 6 else 8):
        return True
    memcpy(&given, payload + at, 2)
    if protocol == 17 and given == 0:
        return True
    payload[at] = payload[at + 1] = 0
    shown = sum_of(a.head.src, width) + sum_of(a.head.dst, width)
    total = shown + wide_sum(payload, octets) + swap16(<uint16_t> octets) + swap16(protocol)
    right = folded(total)
    if protocol == 17 and right == 0:
        right = 0xFFFF
    memcpy(payload + at, &right, 2)
    if (sa.oai_octets or sa.oar_octets) and not e.ignores_checksums:
        # RFC 1624: what was given, adjusted by the difference of the addresses; all modulo 2^16 - 1.
        total = given
        total += sum_of(&sa.oai[0], width) if sa.oai_octets == width else sum_of(&a.head.src[0], width)
        total += sum_of(&sa.oar[0], width) if sa.oar_octets == width else sum_of(&a.head.dst[0], width)
        return total % 0xFFFF == (shown + right) % 0xFFFF
    return True
