# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The fast path's engine: whole bursts, without the GIL, without a Python object or an allocation per packet.

Directives: boundscheck is off because no Python container is indexed on the packet path. A peer's octets are read through the views
of headers.pxd, which compare every offset with the length, and are written nowhere; indices into our own arrays are ours.

One rule makes it identical to the reference: it answers a packet whole, or touches nothing and says "not mine" (koura.fast.path then
asks the reference). What it knows it was told: SAs by `put_sa`, verdicts by `put_flow`; it decides no policy.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from koura.fast.driver cimport CBC, CCM, CHACHA, CTR, GCM, GMAC, NO_CIPHER, Cipher, Driver, Job, Key, Mac, Recipe
from koura.fast.engine cimport *
from koura.fast.flows cimport *
from koura.fast.headers cimport *
from koura.fast.sums cimport wide_sum

from koura.sadb import hot as _hot

assert (_hot.STATE, _hot.EPOCH, _hot.SEQUENCE_LAST, _hot.SEQUENCE_END, _hot.IV_NEXT, _hot.IV_LEFT, _hot.WINDOW_TOP) == (
    STATE, EPOCH, SEQUENCE_LAST, SEQUENCE_END, IV_NEXT, IV_LEFT, WINDOW_TOP)
assert (_hot.WINDOW_SEEN, _hot.ACCEPTED, _hot.PACKETS, _hot.OCTETS, _hot.USED_FIRST_NS, _hot.USED_LAST_NS, _hot.SOFT_TOLD) == (
    WINDOW_SEEN, ACCEPTED, PACKETS, OCTETS, USED_FIRST_NS, USED_LAST_NS, SOFT_TOLD)
assert (_hot.FAILED_REPLAY, _hot.FAILED_ICV) == (FAILED_REPLAY, FAILED_ICV)

assert sizeof(Sa) == 512 and sizeof(Flow) == 128 and sizeof(Bucket) == 64

ARENA_OCTETS = 8 << 20
FORWARD, BYPASS, DISCARD, DELIVER, PUNT = PROTECTED, BYPASSED, DISCARDED, DELIVERED, PUNTED

cdef uint8_t PADDING[16]
PADDING[:] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]

include "accounts.pxi"
include "fetch.pxi"
include "jobs.pxi"
include "window.pxi"
include "arriving.pxi"
include "ah.pxi"
include "inner.pxi"
include "inbound.pxi"
include "outbound.pxi"
include "told.pxi"


cdef class Burst:
    """One engine. `capsules`: drivers, the preferred first. `pool`, `cursor`: koura.entropy.Pooled's memory. `seed`: 32 secret octets."""

    def __cinit__(self, capsules, pool, cursor, bytes seed, int log2_sets=17):
        cdef uint64_t seeds[4]
        cdef uint8_t[::1] octets = pool
        cdef uint64_t[::1] words = cursor
        cdef int number, smallest = min(log2_sets, 8)
        if len(seed) != 32 or not 0 < len(capsules) <= DRIVERS:
            raise ValueError("32 octets of seed, and one or two drivers")
        memcpy(seeds, PyBytes_AS_STRING(seed), 32)
        for number, capsule in enumerate(capsules):
            self.e.drivers[number] = <const Driver *> PyCapsule_GetPointer(capsule, "koura.driver")
        self._pool, self._cursor, self._drivers = octets, words, tuple(capsules)
        self.e.pool, self.e.pool_octets, self.e.pool_cursor = &octets[0], octets.shape[0], &words[0]
        self.e.arena_octets = ARENA_OCTETS
        self.e.arena = <uint8_t *> malloc(ARENA_OCTETS)
        self.staging = <uint8_t *> malloc(ARENA_OCTETS)
        self.e.dirty_room = <uint32_t> 2 << (log2_sets + 3)  # for every flow of both tables, and as many more
        self.e.spi_counts, self.e.spi_seed = <uint16_t *> calloc(SPI_BUCKETS, sizeof(uint16_t)), seeds[0] ^ seeds[3]
        self.e.dirty = <Flow **> calloc(self.e.dirty_room, sizeof(Flow *))
        if not (
            table_open(&self.e.outbound, smallest, log2_sets, seeds[0], seeds[1])
            and table_open(&self.e.inbound, smallest, log2_sets, seeds[2], seeds[3])
            and table_open(&self.e.spis, smallest, log2_sets, seeds[1], seeds[2])
            and self.e.arena and self.staging and self.e.dirty and self.e.spi_counts
        ):
            raise MemoryError
        self._kept, self.verdicts = {}, []

    def __dealloc__(self):
        cdef uint32_t i
        cdef int n
        for i in range(self.e.sa_count):
            if self.e.sas[i].key != NULL:
                self.e.drivers[self.e.sas[i].driver].destroy(self.e.sas[i].key)
        table_close(&self.e.outbound)
        table_close(&self.e.inbound)
        table_close(&self.e.spis)
        free(self.e.sas)
        free(self.e.spi_counts)
        free(self.e.dirty)
        free(self.e.dirty_sas)
        free(self.e.arena)
        free(self.staging)

    # -- what it is told -----------------------------------------------------------------------------------------------

    def configure(self, settings, ports):
        """Take the tunables that the packet path reads. `ports`: of ESP in UDP; False where there are too many to look through."""
        cdef int number = 0
        self.e.ttl, self.e.hop_limit = settings.ttl & 0xFF, settings.hop_limit & 0xFF
        self.e.ctr_compatibility = bool(settings.ctr_compatibility)
        self.e.checks_source = bool(settings.check_tunnel_source)
        self.e.clamps_mss = bool(settings.mss_clamp)
        self.e.is_esp_on, self.e.is_ah_on = bool(settings.esp_enable), bool(settings.ah_enable)
        self.e.ah_clears_tos, self.e.ah_offset_mask = bool(settings.ah_cleartos), settings.ah_offsetmask & 0xFFFF
        self.e.roams, self.e.ignores_checksums = bool(settings.natt_roaming), settings.natt_cksum_policy != 0
        if len(ports) > PORTS:
            return False
        for number, port in enumerate(ports):
            self.e.ports[number] = port
        self.e.port_count = len(ports)
        return True

    def begin(self, uint64_t generation):
        """The generation of everything flows depend on but SAs. Settle before it changes: verdicts are forgotten."""
        if generation != self.e.generation:
            self.e.generation = generation
            self.verdicts.clear()

    def choose_anew(self, uint32_t place):
        """Another SA may serve now where this one was chosen: flows out through it are stale."""
        self.e.sas[place].choice += 1

    def put_sa(self, place, facts, words, ring):
        """Tell of an SA: into `place`, or a new one (None); its place, or None where no driver has its algorithms.

        facts: koura.fast.learn.Facts. words, ring: the memory of its Hot and its window (None: no ring), which is kept alive.
        """
        cdef uint32_t index = self._place(place)
        cdef Sa *sa = &self.e.sas[index]
        cdef uint64_t[::1] hot = words
        cdef uint64_t[::1] bits
        cdef uint32_t serial = sa.serial + 1
        wipe(&self.e, sa)
        if not make_key(&self.e, sa, facts.keys, len(self._drivers)):
            return None
        sa.serial = serial
        sa.hot, sa.epoch = &hot[0], facts.epoch
        self._kept[index] = (hot, ring)
        if ring is not None:
            bits = ring
            sa.ring, sa.ring_mask = &bits[0], <uint32_t> (bits.shape[0] - 1)
        fill(sa, facts)
        put_spi(&self.e, index, sa, facts.dst)
        return index

    cdef uint32_t _place(self, place) except? 0xFFFFFFFF:
        cdef uint64_t room
        cdef Sa *grown = NULL
        if place is not None:
            return place
        if self.e.sa_count == self.sa_room:
            room = self.sa_room * 2 if self.sa_room else 64
            grown = <Sa *> zeroed(room * sizeof(Sa))
            if grown == NULL:
                raise MemoryError
            if self.e.sas != NULL:
                memcpy(grown, self.e.sas, self.sa_room * sizeof(Sa))
                memset(self.e.sas, 0, self.sa_room * sizeof(Sa))  # Salts are half a key.
            free(self.e.sas)
            self.e.sas = grown
            self.e.dirty_sas = <uint32_t *> realloc(self.e.dirty_sas, room * sizeof(uint32_t))
            if self.e.dirty_sas == NULL:
                raise MemoryError
            self.sa_room = room
        self.e.sa_count += 1
        return self.e.sa_count - 1

    def count_spi(self, uint32_t spi, int change):
        """An SA with this SPI came or went."""
        self.e.spi_counts[spi_bucket(&self.e, spi)] += change

    def receives(self, uint32_t place):
        """The destination of this SA is ours, until the generation changes; its SPI is put back, should it have been given up."""
        cdef Sa *sa = &self.e.sas[place]
        cdef Flow *flow = table_find(&self.e.spis, &sa.spi_key)
        sa.receives_in = self.e.generation
        if flow == NULL:
            flow = table_place(&self.e.spis, &sa.spi_key)
        if flow != NULL:
            flow.sa, flow.serial, flow.last_ns = place, sa.serial, 1

    def is_ours(self, bytes dst):
        """So is this address: what comes to it for an SPI that no SA has may be refused here."""
        cdef FlowKey key
        cdef Flow *flow
        memset(&key, 0, sizeof(FlowKey))
        memcpy(&key.words[2], PyBytes_AS_STRING(dst), min(PyBytes_GET_SIZE(dst), 16))
        key.words[5] = spi_word(4 if PyBytes_GET_SIZE(dst) == 4 else 6, 0)
        table_grow(&self.e.spis)
        flow = table_place(&self.e.spis, &key)
        if flow == NULL:
            raise MemoryError
        flow.generation, flow.last_ns = self.e.generation, 1

    def set_outer(self, uint32_t place, bytes header):
        """The IP header that an SA wraps packets in, lengths and checksum open."""
        self.e.sas[place].outer_octets = PyBytes_GET_SIZE(header)
        memcpy(self.e.sas[place].outer, PyBytes_AS_STRING(header), min(PyBytes_GET_SIZE(header), 40))

    def drop_sa(self, uint32_t place):
        """An SA is gone: its key is wiped, its place may be used again."""
        cdef uint32_t serial = self.e.sas[place].serial
        cdef Flow *flow = table_find(&self.e.spis, &self.e.sas[place].spi_key)
        if flow != NULL and flow.sa == place and flow.serial == serial:
            table_drop(&self.e.spis, flow)
        wipe(&self.e, &self.e.sas[place])
        self.e.sas[place].serial = serial
        self._kept.pop(place, None)

    def add_verdict(self, verdict):
        """What `settled` and the bursts give back for flows of this verdict; its number until the next generation."""
        self.verdicts.append(verdict)
        return len(self.verdicts) - 1

    def put_flow(self, bint is_outbound, key, int kind, uint32_t verdict, facts):
        """Tell of a flow. key: (src, dst, protocol, sport, dport, tag), ports None where not visible. facts: (place of the SA or None,
        whether it wraps, room in octets, deadline in ns, outlet). False: settle first."""
        cdef FlowKey packed
        cdef Flow *flow
        cdef Head head
        cdef Table *table = &self.e.outbound if is_outbound else &self.e.inbound
        place, wraps, room, deadline, outlet = facts
        head_of(key, &head)
        key_of(&packed, &head, key[5])
        if self.e.dirty_count == 0:
            table_grow(table)
        elif table.used == table.capacity and table.log2_sets < table.log2_most:
            return False
        flow = table_place(table, &packed)
        if flow == NULL:
            return False
        flow.generation, flow.kind, flow.is_tunnel, flow.is_ipv6 = self.e.generation, kind, wraps, head.version == 6
        flow.room_octets, flow.deadline_ns, flow.policy, flow.outlet = room, deadline, verdict, outlet
        if place is not None:
            flow.sa, flow.serial, flow.choice = place, self.e.sas[<uint32_t> place].serial, self.e.sas[<uint32_t> place].choice
        return True

    def serial(self, uint32_t place):
        """Which SA this is in its place, counted."""
        return self.e.sas[place].serial

    def is_plain(self, bytes packet):
        """Whether a packet that the engine takes came in clear, with nothing that IPsec or a tunnel would take off."""
        cdef Head head
        cdef View v
        v.data, v.octets = <const uint8_t *> PyBytes_AS_STRING(packet), <uint32_t> min(PyBytes_GET_SIZE(packet), 0xFFFFFFF)
        return bool(parse(v, &head) and is_plain(&self.e, &head))

    def shape(self, bytes packet, bint is_outer=False):
        """(src, dst, protocol, sport, dport) of a packet of the kind that the engine takes, ports None where not visible; else None.

        is_outer: AH is a protocol like others.
        """
        cdef Head head
        cdef View v
        v.data, v.octets = <const uint8_t *> PyBytes_AS_STRING(packet), <uint32_t> min(PyBytes_GET_SIZE(packet), 0xFFFFFFF)
        if not (parse_outer(v, &head) if is_outer else parse(v, &head)):
            return None
        length = 4 if head.version == 4 else 16
        ports = (head.sport, head.dport) if head.has_ports else (None, None)
        return (PyBytes_FromStringAndSize(<char *> head.src, length), PyBytes_FromStringAndSize(<char *> head.dst, length),
                head.protocol, *ports)

    # -- bursts of Python octets -----------------------------------------------------------------------------------------

    cdef int _stage(self, list packets, int start) except -1:
        """Copy packets into our memory, with room behind each; how many fit."""
        cdef uint64_t used = 0
        cdef Py_ssize_t octets
        cdef bytes packet
        cdef int count = 0
        cdef int last = min(len(packets) - start, BURST)
        while count < last:
            packet = packets[start + count]
            octets = PyBytes_GET_SIZE(packet)
            if octets > 65535 or used + 2 * octets + HEADROOM + TAILROOM + 256 > ARENA_OCTETS // 2:
                break
            memcpy(self.staging + used, PyBytes_AS_STRING(packet), octets)
            self.packets[count].data, self.packets[count].octets = self.staging + used, <uint32_t> octets
            used += (octets + TAILROOM + 63) & ~63
            count += 1
        return count

    def outbound(self, list packets, int start, uint64_t tag, uint64_t at_ns):
        """Packets from `start` on: [(kind, octets, verdict), ...], ending before the first that is the reference's."""
        cdef int count = self._stage(packets, start)
        cdef int done
        with nogil:
            done = seal_burst(&self.e, self.packets, count, tag, at_ns)
        return self._results(packets, start, done)

    def inbound(self, list packets, int start, uint64_t at_ns):
        """The same for packets that arrived."""
        cdef int count = self._stage(packets, start)
        cdef int done
        with nogil:
            done = open_burst(&self.e, self.packets, NULL, count, at_ns)
        return self._results(packets, start, done)

    cdef list _results(self, list packets, int start, int done):
        cdef list found = []
        cdef Packet *packet
        cdef int i
        for i in range(done):
            packet = &self.packets[i]
            if packet.flow == NULL:
                found.append((packet.kind, b"", packet.end))
                continue
            octets = packets[start + i] if packet.result == packet.data else PyBytes_FromStringAndSize(
                <char *> packet.result, packet.result_octets)
            found.append((packet.kind, octets, self.verdicts[packet.flow.policy]))
        return found

    # -- settling --------------------------------------------------------------------------------------------------------

    def settled(self):
        """What was counted since the last time, and begin anew.

        ([(verdict, is IPv6, packets, octets, last ns)],
         [(place, sealed, octets, came, opened, octets, how many ended by koura.fast.engine's End)],
         tap's four counts, packets without an SA: (ESP, ESP in UDP, AH))
        """
        cdef Flow *flow
        cdef Sa *sa
        cdef uint32_t i
        cdef int n
        flows, sas = [], []
        for i in range(self.e.dirty_count):
            flow = self.e.dirty[i]
            flows.append((self.verdicts[flow.policy], bool(flow.is_ipv6), flow.packets, flow.octets, flow.last_ns))
            flow.packets = flow.octets = flow.is_dirty = 0
        for i in range(self.e.dirty_sa_count):
            sa = &self.e.sas[self.e.dirty_sas[i]]
            ends = tuple([sa.failed[n] for n in range(<int> ENDS)]) if sa.has_failed else ()
            sas.append((self.e.dirty_sas[i], sa.sealed_packets, sa.sealed_octets, sa.came, sa.opened_packets, sa.opened_octets, ends))
            sa.sealed_packets = sa.sealed_octets = sa.came = sa.opened_packets = sa.opened_octets = 0
            memset(sa.failed, 0, sizeof(sa.failed))
            sa.has_failed = False
            sa.is_dirty = False
        self.e.dirty_count = self.e.dirty_sa_count = 0
        tap = (self.e.tap_out_packets, self.e.tap_out_octets, self.e.tap_in_packets, self.e.tap_in_octets)
        self.e.tap_out_packets = self.e.tap_out_octets = self.e.tap_in_packets = self.e.tap_in_octets = 0
        absent = (self.e.absent_esp, self.e.absent_udp, self.e.absent_ah)
        self.e.absent_esp = self.e.absent_udp = self.e.absent_ah = 0
        return flows, sas, tap, absent
