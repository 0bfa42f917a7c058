# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Measures the engine in memory: bursts of its own making, timed one by one in processor time of this thread.

Directives: as in _burst.pyx; all octets here are ours. In turn are timed: a burst, all of it; a burst's crypto alone, for as many keys
(the limit), nothing fetched ahead; and a burst stage by stage, in ticks. What prepares a burst is not timed.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from koura.fast._burst cimport Burst, open_burst, seal_burst
from koura.fast.driver cimport Job
from koura.fast.engine cimport *
from koura.fast.flows cimport *
from koura.fast.headers cimport *
from koura.fast.sums cimport wide_sum

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_THREAD_CPUTIME_ID
    int clock_gettime(int, timespec *)

include "jobs.pxi"


cdef inline uint64_t now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return <uint64_t> t.tv_sec * 1000000000 + t.tv_nsec


cdef class Measure:
    """Bursts over some SAs. `template`: an IPv4 UDP packet of the largest size; `dsts`: four octets for each SA; `places`: the SAs'."""

    cdef Burst burst
    cdef bytes template, dsts
    cdef const char *seen
    cdef uint32_t[::1] places, sizes
    cdef uint64_t dice, at_ns, drawn
    cdef uint8_t *wire
    cdef Packet *ahead
    cdef uint32_t *of_sa
    cdef uint32_t bursts
    cdef uint64_t stride      # of the packets, an odd number of cache lines
    cdef uint64_t least_ticks  # of a burst, in either direction
    cdef uint64_t stages[STAGES]
    cdef readonly uint64_t staged_packets
    cdef readonly uint64_t packets, octets, all_ns, crypto_ns

    def __init__(self, Burst burst, bytes template, bytes dsts, uint32_t[::1] places, uint32_t[::1] sizes, uint64_t at_ns, uint32_t bursts):
        self.burst, self.template, self.dsts, self.places, self.sizes, self.at_ns = burst, template, dsts, places, sizes, at_ns
        self.dice, self.bursts = <uint64_t> 0x9E3779B97F4A7C15, bursts
        self.stride = ((len(template) + 2 * TAILROOM + 63) >> 6 | 1) << 6
        self.wire = <uint8_t *> malloc(<uint64_t> (bursts + 1) * BURST * self.stride)
        self.ahead = <Packet *> malloc(bursts * BURST * sizeof(Packet))
        self.of_sa = <uint32_t *> malloc(bursts * BURST * sizeof(uint32_t))
        if self.wire == NULL or self.ahead == NULL or self.of_sa == NULL:
            raise MemoryError
        cdef const char *octets = template
        cdef Py_ssize_t count = len(template)
        cdef int i
        self.seen = dsts
        for i in range(<int> BURST):
            memcpy(self.wire + i * self.stride, octets, count)

    def __dealloc__(self):
        free(self.wire)
        free(self.ahead)
        free(self.of_sa)

    cdef void draw(self, uint32_t *of_sa) noexcept nogil:
        """A burst of clear packets to SAs that the dice choose."""
        cdef Packet *packet
        cdef uint32_t number
        cdef int i
        for i in range(BURST):
            self.dice ^= self.dice << 13
            self.dice ^= self.dice >> 7
            self.dice ^= self.dice << 17
            number = <uint32_t> ((self.dice >> 32) * <uint64_t> self.places.shape[0] >> 32)
            packet = &self.burst.packets[i]
            packet.data = self.wire + i * self.stride
            packet.octets = self.sizes[self.drawn % <uint64_t> self.sizes.shape[0]]
            self.drawn += 1
            put16(packet.data + 2, <uint16_t> packet.octets)
            put16(packet.data + 24, <uint16_t> (packet.octets - 20))
            memcpy(packet.data + 16, self.seen + 4 * number, 4)
            finish_ipv4(packet.data)
            of_sa[i] = number

    cdef void crypto_out(self, uint32_t *of_sa) noexcept nogil:
        """The jobs that the burst would make, without any of the rest."""
        cdef Engine *e = &self.burst.e
        cdef Sa *sa
        cdef Job *job
        cdef Packet *packet
        cdef uint32_t clear
        cdef int i
        e.arena_used = 0
        begin_jobs(e)
        for i in range(BURST):
            packet, sa = &self.burst.packets[i], &e.sas[self.places[of_sa[i]]]
            clear = packet.octets + (((0 - (packet.octets + 2)) & (sa.align_octets - 1)) + 2 if sa.protocol == 50 else 0)
            job = job_for(e, sa)
            job.src, job.octets = packet.data, clear
            job.dst = arena_take(e, clear + 192) + 64
            number_job(sa, job, sa.hot[SEQUENCE_LAST], job.dst - sa.iv_octets)

    cdef void listen(self, uint64_t *ledger) noexcept nogil:
        """The next burst's time goes into this ledger."""
        memset(ledger, 0, STAGES * sizeof(uint64_t))
        self.burst.e.ledger, self.burst.e.stamped = ledger, ticks()

    cdef void heard(self, const uint64_t *ledger) noexcept nogil:
        """Add a burst's ledger, if nobody else had the processor meanwhile: ticks go on then, too."""
        cdef uint64_t total = 0
        cdef int i
        self.burst.e.ledger = NULL
        for i in range(STAGES):
            total += ledger[i]
        if self.least_ticks == 0 or total < self.least_ticks:
            if total < self.least_ticks // 5 * 4:  # What was kept until now was disturbed.
                memset(self.stages, 0, sizeof(self.stages))
                self.staged_packets = 0
            self.least_ticks = total
        if total < self.least_ticks + self.least_ticks // 4:
            for i in range(STAGES):
                self.stages[i] += ledger[i]
            self.staged_packets += BURST

    def shares(self):
        """What part of the time each stage took, in the order of koura.fast.engine's Stage."""
        cdef uint64_t total = 0
        cdef int i
        for i in range(STAGES):
            total += self.stages[i]
        return tuple([<double> self.stages[i] / <double> total if total else 0.0 for i in range(<int> STAGES)])

    def outbound(self, int rounds):
        """Add `rounds` bursts. False: the engine left something to the reference."""
        cdef Engine *e = &self.burst.e
        cdef uint32_t of_sa[BURST]
        cdef uint64_t ledger[STAGES]
        cdef uint64_t start
        cdef int i, n, done = BURST
        with nogil:
            for i in range(rounds):
                e.pool_cursor[0] = 0  # The same dice each time: nothing of this leaves the machine.
                self.draw(of_sa)
                self.listen(ledger)
                done = seal_burst(e, self.burst.packets, BURST, 0, self.at_ns)
                self.heard(ledger)
                if done != BURST:
                    break
                e.pool_cursor[0] = 0
                self.draw(of_sa)
                start = now()
                done = seal_burst(e, self.burst.packets, BURST, 0, self.at_ns)
                self.all_ns += now() - start
                if done != BURST:
                    break
                for n in range(BURST):
                    self.octets += self.burst.packets[n].octets
                self.draw(of_sa)
                self.crypto_out(of_sa)
                start = now()
                for n in range(DRIVERS):
                    if e.queued[n]:
                        e.drivers[n].seal(e.queue[n], e.queued[n])
                self.crypto_ns += now() - start
                self.packets += BURST
        return done == BURST

    cdef int seal_ahead(self, uint32_t number) noexcept nogil:
        """Seal one burst onto the wire."""
        cdef Packet *to = self.ahead + number * BURST
        cdef uint8_t *wire = self.wire + <uint64_t> (number + 1) * BURST * self.stride
        cdef int i
        self.burst.e.pool_cursor[0] = 0
        self.draw(self.of_sa + number * BURST)
        if seal_burst(&self.burst.e, self.burst.packets, BURST, 0, self.at_ns) != BURST:
            return 0
        for i in range(BURST):
            self.octets += self.burst.packets[i].octets if number % 2 == 0 else 0  # The others are for the ledger.
            to[i].data, to[i].octets = wire, self.burst.packets[i].result_octets
            memcpy(wire, self.burst.packets[i].result, to[i].octets)
            wire += (to[i].octets + TAILROOM + 63) & ~63
        return BURST

    cdef void crypto_in(self, uint32_t number) noexcept nogil:
        cdef Engine *e = &self.burst.e
        cdef Packet *packet
        cdef Sa *sa
        cdef Job *job
        cdef View v
        cdef uint32_t at
        cdef int i
        e.arena_used = 0
        begin_jobs(e)
        for i in range(BURST):
            packet, sa = self.ahead + number * BURST + i, &e.sas[self.places[self.of_sa[number * BURST + i]]]
            at = 28 + sa.iv_octets if sa.protocol == 50 else 20 + sa.ah_octets
            job = job_for(e, sa)
            job.src = packet.data + at
            job.octets = packet.octets - at - (sa.icv_octets if sa.protocol == 50 else 0)
            job.icv = job.src + job.octets
            job.dst = arena_take(e, job.octets + 192) + 64
            v.data, v.octets = packet.data, packet.octets
            number_job(sa, job, long_at(v, 24), packet.data + 28)

    def inbound(self, int rounds):
        """Add `rounds` times the bursts that are sealed ahead."""
        cdef Engine *e = &self.burst.e
        cdef uint64_t ledger[STAGES]
        cdef uint64_t start
        cdef uint32_t i
        cdef int n, r, done = BURST
        with nogil:
            for r in range(rounds):
                for i in range(self.bursts):
                    if done == BURST:
                        done = self.seal_ahead(i)
                for i in range(0, self.bursts, 2):
                    self.crypto_in(i)
                    start = now()
                    for n in range(DRIVERS):
                        if e.queued[n]:
                            e.drivers[n].open(e.queue[n], e.queued[n])
                    self.crypto_ns += now() - start
                for i in range(self.bursts):
                    if done != BURST:
                        break
                    if i & 1:
                        self.listen(ledger)
                        done = open_burst(e, self.ahead + i * BURST, NULL, BURST, self.at_ns)
                        self.heard(ledger)
                        continue
                    start = now()
                    done = open_burst(e, self.ahead + i * BURST, NULL, BURST, self.at_ns)
                    self.all_ns += now() - start
                    self.packets += BURST
        return done == BURST


def memcpy_ns(uint32_t octets, int rounds):
    """Nanoseconds of copying `rounds` bursts of packets of this size from one place to another."""
    cdef uint64_t stride = (octets + 63) & ~63
    cdef uint8_t *a = <uint8_t *> malloc(2 * BURST * stride)
    cdef uint64_t start, spent
    cdef int i, r
    if a == NULL:
        raise MemoryError
    memset(a, 1, 2 * BURST * stride)
    start = now()
    for r in range(rounds):
        for i in range(BURST):
            memcpy(a + (BURST + i) * stride, a + i * stride, octets)
    spent = now() - start
    free(a)
    return spent
