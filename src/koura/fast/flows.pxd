"""The flow cache and the SA index: one bounded set-associative table, eight ways a set, least recently used goes.

A key is 48 octets and compared whole, so two flows never share a verdict. The hash has a secret seed: a peer cannot aim at one set.
Entries are guarded by a generation (policies, settings, paths) and by the relation of their SA; a stale one is as good as none.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from koura.fast.headers cimport Head

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

ctypedef struct Flow:
    FlowKey key
    uint64_t generation
    uint64_t packets          # since the last settling
    uint64_t octets
    uint64_t last_ns
    uint64_t deadline_ns      # from when on it must be looked at anew
    uint32_t sa
    uint32_t serial           # of that SA
    uint32_t policy
    uint32_t room_octets
    uint8_t kind
    uint8_t is_tunnel
    uint8_t is_dirty
    uint8_t is_ipv6

ctypedef struct Table:
    Flow *flows
    uint32_t *tags
    uint64_t mask
    uint64_t seed[2]


cdef inline bint table_open(Table *table, int log2_sets, uint64_t seed0, uint64_t seed1) noexcept nogil:
    cdef uint64_t sets = <uint64_t> 1 << log2_sets
    table.flows = <Flow *> calloc(sets * WAYS, sizeof(Flow))
    table.tags = <uint32_t *> calloc(sets * WAYS, sizeof(uint32_t))
    table.mask = sets - 1
    table.seed[0], table.seed[1] = seed0 | 1, seed1 | 1
    return table.flows != NULL and table.tags != NULL


cdef inline void table_close(Table *table) noexcept nogil:
    free(table.flows)
    free(table.tags)
    table.flows, table.tags = NULL, NULL


cdef inline void key_of(FlowKey *key, const Head *head, uint64_t tag) noexcept nogil:
    memcpy(key.words, head.src, 32)
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


cdef inline Flow *table_find(Table *table, const FlowKey *key) noexcept nogil:
    cdef uint64_t hash = hash_of(table, key)
    cdef uint64_t base = (hash & table.mask) * WAYS
    cdef uint32_t tag = <uint32_t> (hash >> 32) | 1
    cdef int way
    for way in range(WAYS):
        if table.tags[base + way] == tag and memcmp(&table.flows[base + way].key, key, sizeof(FlowKey)) == 0:
            return &table.flows[base + way]
    return NULL


cdef inline Flow *table_place(Table *table, const FlowKey *key) noexcept nogil:
    """Where the key is, or may go: a free way, else the one that was used longest ago. The caller settles what lay there."""
    cdef uint64_t hash = hash_of(table, key)
    cdef uint64_t base = (hash & table.mask) * WAYS
    cdef int way, oldest = 0
    cdef Flow *found = table_find(table, key)
    if found != NULL:
        return found
    for way in range(WAYS):
        if table.tags[base + way] == 0:
            return &table.flows[base + way]
        if table.flows[base + way].last_ns < table.flows[base + oldest].last_ns:
            oldest = way
    return &table.flows[base + oldest]


cdef inline void table_claim(Table *table, Flow *flow, const FlowKey *key) noexcept nogil:
    """Make the place the key's, all else zero."""
    memset(flow, 0, sizeof(Flow))
    flow.key = key[0]
    table.tags[flow - table.flows] = <uint32_t> (hash_of(table, key) >> 32) | 1


cdef inline void table_drop(Table *table, Flow *flow) noexcept nogil:
    table.tags[flow - table.flows] = 0
    memset(flow, 0, sizeof(Flow))
