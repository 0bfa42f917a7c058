"""The flow cache and the SA index: one bounded table. Buckets of eight are one cache line; what they name lies dense beside them.

A key is 48 octets and compared whole, so two flows never share a verdict. It may stand in two buckets; where both are full, the least
recently used goes. The hash has a secret seed: a peer cannot aim at one bucket. Entries are guarded by a generation (policies,
settings, paths), by their SA and by what chose it; a stale one is as good as none.

Looking up goes in steps, so that a burst's cache misses overlap: table_touch (the bucket), table_peek (what it names), table_find_at.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from koura.fast.headers cimport Head

cdef extern from *:
    """
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    /* Zeroed memory on a cache line; what is large on huge pages, where the kernel has them: a page walk costs more than a miss. */
    static void *koura_zeroed(uint64_t octets) {
        void *found = NULL;
        uint64_t huge = 2 << 20;
        int is_large = octets >= huge / 4;
        if (is_large) octets = (octets + huge - 1) & ~(huge - 1);
        if (posix_memalign(&found, is_large ? huge : 128, octets) != 0) return NULL;
    #ifdef MADV_HUGEPAGE
        if (is_large) madvise(found, octets, MADV_HUGEPAGE);
    #endif
        memset(found, 0, octets);
        return found;
    }
    /* A load whose value nobody waits for. Prefetch instructions are hints: Zen 3 drops those beyond two dozen under way, and takes
       every load. In a tight loop the misses of loads overlap just as well. */
    #define koura_bring(at) ((void) *(const volatile uint8_t *) (at))
    #if defined(__x86_64__)
    #define koura_ticks() __builtin_ia32_rdtsc()
    #else
    static inline uint64_t koura_ticks(void) { uint64_t t; __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t)); return t; }
    #endif
    """
    void *zeroed "koura_zeroed"(uint64_t) noexcept nogil
    void bring "koura_bring"(const void *) noexcept nogil
    uint64_t ticks "koura_ticks"() noexcept nogil

cdef enum:
    WAYS = 8

cdef enum Kind:
    PUNTED = 0
    PROTECTED = 1
    BYPASSED = 2
    DISCARDED = 3
    DELIVERED = 4

ctypedef struct FlowKey:
    uint64_t words[6]

ctypedef struct Flow:         # two cache lines; who asks only which SA it is needs the first
    FlowKey key
    uint32_t sa
    uint32_t serial           # of that SA
    uint64_t generation
    uint64_t deadline_ns      # from when on it must be looked at anew
    uint64_t packets          # since the last settling
    uint64_t octets
    uint64_t last_ns
    uint32_t policy
    uint32_t room_octets
    uint32_t choice           # of that SA, when it was chosen
    uint32_t slot             # which way of which bucket names it
    uint8_t kind
    uint8_t is_tunnel
    uint8_t is_dirty
    uint8_t is_ipv6
    uint8_t is_used
    uint32_t outlet           # of an inbound one: which TUN gets its packets, by koura.fast._io's numbers; 0: the host's
    uint32_t spare

ctypedef struct Bucket:
    uint32_t tags[8]
    uint32_t flows[8]

ctypedef struct Table:
    Bucket *buckets
    Flow *flows
    uint64_t mask
    uint64_t seed[2]
    uint32_t capacity
    uint32_t used             # flows from here on were never used
    uint32_t hand             # where to look next for one to give up
    int log2_sets
    int log2_most             # it grows so far


cdef inline bint table_open(Table *table, int log2_sets, int log2_most, uint64_t seed0, uint64_t seed1) noexcept nogil:
    cdef uint64_t sets = <uint64_t> 1 << log2_sets
    table.capacity = <uint32_t> (sets * WAYS // 4)
    table.buckets = <Bucket *> zeroed(sets * sizeof(Bucket))
    table.flows = <Flow *> zeroed(table.capacity * sizeof(Flow))
    table.mask, table.used, table.hand = sets - 1, 0, 0
    table.log2_sets, table.log2_most = log2_sets, log2_most
    table.seed[0], table.seed[1] = seed0 | 1, seed1 | 1
    return table.buckets != NULL and table.flows != NULL


cdef inline void table_close(Table *table) noexcept nogil:
    free(table.buckets)
    free(table.flows)
    table.buckets, table.flows = NULL, NULL


cdef inline bint table_grow(Table *table) noexcept nogil:
    """Four times the room, if that is allowed and needed; nobody holds a Flow of it meanwhile."""
    cdef Table grown
    cdef Flow *flow
    cdef uint32_t i, slot
    if table.used < table.capacity or table.log2_sets >= table.log2_most:
        return False
    if not table_open(&grown, min(table.log2_sets + 2, table.log2_most), table.log2_most, table.seed[0], table.seed[1]):
        table_close(&grown)
        return False
    for i in range(table.used):
        if table.flows[i].is_used:
            flow = table_place(&grown, &table.flows[i].key)
            if flow != NULL:
                slot = flow.slot
                flow[0] = table.flows[i]
                flow.slot = slot
    table_close(table)
    table[0] = grown
    return True


cdef inline void key_of(FlowKey *key, const Head *head, uint64_t tag) noexcept nogil:
    memcpy(&key.words[0], head.src, 8)
    memcpy(&key.words[1], head.src + 8, 8)
    memcpy(&key.words[2], head.dst, 8)
    memcpy(&key.words[3], head.dst + 8, 8)
    key.words[4] = (
        <uint64_t> head.sport << 48 | <uint64_t> head.dport << 32 | <uint64_t> head.protocol << 16 | <uint64_t> head.version << 8
        | <uint64_t> head.has_ports
    )
    key.words[5] = tag


cdef inline uint64_t hash_of(const Table *table, const FlowKey *key) noexcept nogil:
    """Two multiplicative lanes over the six words, folded: quick, and unknown without the seed."""
    cdef uint64_t a = table.seed[0], b = table.seed[1]
    cdef int i
    for i in range(3):
        a = (a ^ key.words[2 * i]) * <uint64_t> 0x9E3779B97F4A7C15
        a ^= a >> 29
        b = (b ^ key.words[2 * i + 1]) * <uint64_t> 0xC2B2AE3D27D4EB4F
        b ^= b >> 31
    a = (a ^ (b << 17 | b >> 47)) * table.seed[1]
    return a ^ a >> 32


cdef inline uint64_t _second(const Table *table, uint64_t hash) noexcept nogil:
    """The other bucket."""
    return (hash >> 20 ^ hash * <uint64_t> 0xFF51AFD7ED558CCD >> 40) & table.mask


cdef inline uint32_t _tag(uint64_t hash) noexcept nogil:
    return <uint32_t> (hash >> 32) | 1


cdef inline bint is_key(const FlowKey *a, const FlowKey *b) noexcept nogil:
    return (
        (a.words[0] ^ b.words[0]) | (a.words[1] ^ b.words[1]) | (a.words[2] ^ b.words[2])
        | (a.words[3] ^ b.words[3]) | (a.words[4] ^ b.words[4]) | (a.words[5] ^ b.words[5])
    ) == 0


cdef inline void table_touch(const Table *table, uint64_t hash) noexcept nogil:
    """Fetch the bucket."""
    bring(&table.buckets[hash & table.mask])


cdef inline Flow *table_peek(const Table *table, uint64_t hash, bint is_whole) noexcept nogil:
    """Fetch what the bucket names under this hash, or its first line; not compared yet."""
    cdef const Bucket *bucket = &table.buckets[hash & table.mask]
    cdef uint32_t tag = _tag(hash)
    cdef int way
    cdef Flow *flow
    for way in range(WAYS):
        if bucket.tags[way] == tag:
            flow = &table.flows[bucket.flows[way]]
            bring(flow)
            if is_whole:
                bring(<uint8_t *> flow + 64)
            return flow
    return NULL


cdef inline Flow *_find_in(const Table *table, const Bucket *bucket, const FlowKey *key, uint32_t tag) noexcept nogil:
    cdef int way
    for way in range(WAYS):
        if bucket.tags[way] == tag and is_key(&table.flows[bucket.flows[way]].key, key):
            return &table.flows[bucket.flows[way]]
    return NULL


cdef inline Flow *table_find_at(const Table *table, const FlowKey *key, uint64_t hash) noexcept nogil:
    """The entry of a key with this hash, or NULL."""
    cdef Flow *found = _find_in(table, &table.buckets[hash & table.mask], key, _tag(hash))
    if found != NULL:
        return found
    return _find_in(table, &table.buckets[_second(table, hash)], key, _tag(hash))


cdef inline Flow *table_find(const Table *table, const FlowKey *key) noexcept nogil:
    return table_find_at(table, key, hash_of(table, key))


cdef inline void table_drop(Table *table, Flow *flow) noexcept nogil:
    """Forget an entry; the next one in need finds it by the hand."""
    cdef Bucket *bucket = &table.buckets[flow.slot // WAYS]
    bucket.tags[flow.slot % WAYS] = 0
    memset(flow, 0, sizeof(Flow))


cdef inline Flow *_spare(Table *table) noexcept nogil:
    """A flow that nobody names; NULL: the next one to give up is not settled. `hand` goes round."""
    cdef Flow *flow
    if table.used < table.capacity:
        table.used += 1
        return &table.flows[table.used - 1]
    flow = &table.flows[table.hand]
    table.hand = (table.hand + 1) % table.capacity
    if flow.is_dirty:
        return NULL
    if flow.is_used:
        table_drop(table, flow)
    return flow


cdef inline Flow *table_place(Table *table, const FlowKey *key) noexcept nogil:
    """Room for a key, named and zero but for that; NULL: what would have to go is not settled."""
    cdef uint64_t hash = hash_of(table, key)
    cdef uint64_t number
    cdef Bucket *bucket
    cdef Flow *flow = table_find_at(table, key, hash)
    cdef uint32_t slot = 0, oldest = 0
    cdef uint64_t oldest_ns = <uint64_t> -1
    cdef bint has_room = False
    cdef int side, way
    if flow != NULL:
        return NULL if flow.is_dirty else _claim(flow, key, flow.slot)
    for side in range(2):
        number = hash & table.mask if side == 0 else _second(table, hash)
        bucket = &table.buckets[number]
        for way in range(WAYS):
            if bucket.tags[way] == 0:
                if not has_room:
                    slot, has_room = <uint32_t> (number * WAYS + way), True
            elif table.flows[bucket.flows[way]].last_ns < oldest_ns:
                oldest_ns, oldest = table.flows[bucket.flows[way]].last_ns, <uint32_t> (number * WAYS + way)
        if has_room:
            break
    if has_room:
        flow = _spare(table)
        if flow == NULL:
            return NULL
    else:
        slot = oldest
        flow = &table.flows[table.buckets[slot // WAYS].flows[slot % WAYS]]
        if flow.is_dirty:
            return NULL
    bucket = &table.buckets[slot // WAYS]
    bucket.tags[slot % WAYS], bucket.flows[slot % WAYS] = _tag(hash), <uint32_t> (flow - table.flows)
    return _claim(flow, key, slot)


cdef inline Flow *_claim(Flow *flow, const FlowKey *key, uint32_t slot) noexcept nogil:
    memset(flow, 0, sizeof(Flow))
    flow.key, flow.slot, flow.is_used = key[0], slot, 1
    return flow
