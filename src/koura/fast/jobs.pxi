# Jobs for the crypto drivers, and where their results lie.


cdef inline uint8_t *arena_take(Engine *e, uint64_t octets) noexcept nogil:
    """Room for one result, 64 octets aligned; NULL: the burst ends here and goes on in the next."""
    cdef uint64_t start = (e.arena_used + 63) & ~<uint64_t> 63
    if start + octets > e.arena_octets:
        return NULL
    e.arena_used = start + octets
    return e.arena + start


cdef inline void begin_jobs(Engine *e) noexcept nogil:
    e.queued[0] = e.queued[1] = 0
    e.job_count = e.in_company = 0


cdef inline Job *job_for(Engine *e, const Sa *sa) noexcept nogil:
    """The next job, in its driver's queue."""
    cdef Job *job = &e.jobs[e.job_count]
    e.job_count += 1
    job.key = sa.key
    e.queue[sa.driver][e.queued[sa.driver]] = job
    e.queued[sa.driver] += 1
    e.in_company += not sa.key.is_alone
    return job


cdef inline void run_jobs(Engine *e, bint seals) noexcept nogil:
    """All that are queued."""
    cdef int i
    for i in range(DRIVERS):
        if e.queued[i]:
            if seals:
                e.drivers[i].seal(e.queue[i], e.queued[i])
            else:
                e.drivers[i].open(e.queue[i], e.queued[i])


cdef inline void number_job(const Sa *sa, Job *job, uint64_t seq64, const uint8_t *iv) noexcept nogil:
    """Nonce, AAD and tail. ESN's high half: in an AEAD's AAD (RFC 4106 §5), behind all for the others (RFC 4303 §2.2.1)."""
    memcpy(job.nonce, sa.nonce, 16)
    if sa.has_counter_iv:
        memcpy(job.nonce + sa.salt_octets, iv, 8)
    elif sa.iv_octets == 16:
        memcpy(job.nonce, iv, 16)
    job.tail_octets = 0
    job.head_octets = 8 + sa.iv_octets
    put32(job.aad, sa.spi)
    if sa.numbers == EXTENDED:
        put32(job.aad + 4, <uint32_t> (seq64 >> 32))
        put32(job.aad + 8, <uint32_t> seq64)
        job.aad_octets = 12
        if not sa.is_aead and sa.icv_octets:
            memcpy(job.tail, job.aad + 4, 4)
            job.tail_octets = 4
    else:
        put32(job.aad + 4, <uint32_t> seq64)
        job.aad_octets = 8


cdef inline void udp_checksum_ipv6(uint8_t *packet, uint32_t octets) noexcept nogil:
    """RFC 8200 §8.1: UDP over IPv6 has a checksum."""
    cdef uint32_t length = octets - IPV6_OCTETS
    cdef uint16_t sum16
    cdef uint64_t total = sum_of(packet + 8, 32) + swap16(<uint16_t> length) + swap16(17)
    packet[46] = packet[47] = 0
    sum16 = folded(total + wide_sum(packet + IPV6_OCTETS, length))
    if sum16 == 0:
        sum16 = 0xFFFF
    memcpy(packet + 46, &sum16, 2)
