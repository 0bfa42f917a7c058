"""What the engine of the fast path works on: SAs as C structs, the burst's packets, and the state of one engine."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from koura.fast.driver cimport Driver, Job, Key
from koura.fast.flows cimport Flow, FlowKey, Table
from koura.fast.headers cimport Head

cdef enum:
    BURST = 256
    GROUP = 32                # so many packets' cache misses overlap
    DRIVERS = 2
    HEADROOM = 64             # in front of what is opened, for the outer header of transport mode
    TAILROOM = 80             # behind a packet that comes in: padding and trailer are written there
    PORTS = 16

# koura.sadb.hot: asserted against it when the engine is made.
cdef enum:
    STATE = 0
    EPOCH = 1
    SEQUENCE_LAST = 2
    SEQUENCE_END = 3
    IV_NEXT = 4
    IV_LEFT = 5
    WINDOW_TOP = 6
    WINDOW_SEEN = 7
    ACCEPTED = 8
    PACKETS = 9
    OCTETS = 10
    USED_FIRST_NS = 11
    USED_LAST_NS = 12
    SOFT_TOLD = 13
    FAILED_REPLAY = 14
    FAILED_ICV = 15

# How a packet ends here besides what policy says. koura.fast.ends has the Reasons.
cdef enum End:
    NO_END = 0
    REPLAYED = 1
    OLD = 2
    ZERO = 3
    OVER = 4
    WRONG_ICV = 5
    DUMMY = 6
    WRONG_PORT = 7
    WRONG_LENGTH = 8
    ENDS = 9
    NO_SA = 9                 # of no SA: counted by the engine

# koura.sadb.replay.Numbers, as koura.fast.learn numbers them.
cdef enum Numbers:
    ONCE = 0
    CYCLIC = 1
    EXTENDED = 2

cdef enum:
    SPI_BUCKETS = 1 << 20
    LAST32 = 0xFFFFFFFF

ctypedef struct Sa:           # eight cache lines: a packet on its way out touches 0, 1 and 2, one that comes in 0, 1 and 3
    uint64_t *hot             # line 0: which SA it is, and where its things are
    uint64_t epoch
    Key *key                  # NULL: this place of the array is free
    uint64_t *ring
    uint32_t ring_mask
    uint32_t window
    uint32_t serial
    uint32_t choice           # counts how often another may have come to serve in its place
    uint32_t spi
    uint16_t sport
    uint16_t dport
    uint8_t driver
    uint8_t protocol          # 50 ESP, 51 AH
    uint8_t mode              # PF_KEY's: 0 any, 1 transport, 2 tunnel
    uint8_t has_encapsulation
    uint8_t salt_octets
    uint8_t iv_octets
    uint8_t icv_octets
    uint8_t align_octets      # of the cipher
    uint64_t near_packets     # line 1: what of hard and soft limits comes first; none: the largest number
    uint64_t near_octets
    uint64_t near_ns
    uint64_t last_sequence
    uint64_t nearly_spent
    uint8_t nonce[16]         # salt in front, a counter block's end behind
    uint8_t outer_octets      # 0: it was never seen to wrap
    uint8_t ah_octets         # of the whole AH header
    uint8_t ecn_ingress       # 0 forbidden, 1 allowed, 2 copied
    uint8_t df                # 0 clear, 1 set, 2 copied
    uint8_t is_aead
    uint8_t has_counter_iv
    uint8_t numbers           # koura.fast.learn: 0 once, 1 cyclic, 2 extended
    uint8_t is_dirty
    uint8_t outer[40]         # line 2: template of the header that it wraps in
    uint64_t sealed_packets   # since the last settling, as the counts in line 3
    uint64_t sealed_octets
    uint64_t spare2
    uint8_t src[16]           # line 3
    uint64_t receives_in      # the generation in which its destination is known to be ours
    uint64_t came
    uint64_t opened_packets
    uint64_t opened_octets
    uint8_t has_src
    uint8_t is_padding_checked
    uint8_t copies_no_ecn     # egress: the inner code stays
    uint8_t takes_dscp
    uint8_t has_failed
    uint8_t oai_octets        # NAT-T's original addresses, 0 where unknown
    uint8_t oar_octets
    uint8_t spare3[9]
    uint64_t hard_packets     # line 4: looked at where one is near
    uint64_t hard_octets
    uint64_t hard_ns
    uint64_t soft_packets
    uint64_t soft_octets
    uint64_t soft_ns
    uint64_t spare4[2]
    FlowKey spi_key           # in the table of SPIs
    uint64_t failed[ENDS]
    uint64_t spare6
    uint8_t oai[16]
    uint8_t oar[16]
    uint64_t spare7[4]

ctypedef struct Packet:
    uint8_t *data             # sealing may write TAILROOM octets behind it
    uint32_t octets
    uint32_t result_octets
    uint8_t *result
    Flow *flow                # NULL: it ended before policy was asked
    Job *job
    uint8_t kind
    uint8_t end

ctypedef struct Scan:         # a packet whose headers have been read
    Head head
    FlowKey key
    uint64_t hash
    Flow *flow
    Sa *sa

# What a burst's time goes to, in order. koura.cli.measure names them.
cdef enum Stage:
    PARSE = 0                 # headers read and checked, keys hashed
    FETCH = 1                 # what packets will need is brought near
    FIND = 2                  # flows and SAs; in: the replay window
    WRITE = 3                 # numbers, IVs, headers, padding, jobs
    CRYPT = 4
    FINISH = 5                # out: UDP checksums, AH's ICVs; in: padding and trailer, the inner header
    COUNT = 6                 # counters; in: the window again, and what policy says
    STAGES = 7

ctypedef struct Engine:
    Table outbound
    Table inbound
    Table spis
    Sa *sas
    uint32_t sa_count
    uint64_t generation
    const Driver *drivers[DRIVERS]
    uint8_t *pool             # random octets, shared with the reference: koura.entropy.Pooled
    uint64_t *pool_cursor
    uint64_t pool_octets
    uint8_t *arena            # results
    uint64_t arena_octets
    uint64_t arena_used
    uint16_t ports[PORTS]
    int port_count
    uint8_t ttl
    uint8_t hop_limit
    bint ctr_compatibility
    bint checks_source
    bint clamps_mss
    bint is_esp_on
    bint is_ah_on
    bint ah_clears_tos
    bint roams
    bint ignores_checksums
    uint16_t ah_offset_mask
    uint16_t *spi_counts      # how many SAs have an SPI of this bucket: 0 is sure
    uint64_t spi_seed
    uint64_t absent_esp       # packets without an SA, since the last settling
    uint64_t absent_udp
    uint64_t absent_ah
    uint64_t tap_out_packets
    uint64_t tap_out_octets
    uint64_t tap_in_packets
    uint64_t tap_in_octets
    Flow **dirty
    uint32_t dirty_count
    uint32_t dirty_room
    uint32_t *dirty_sas
    uint32_t dirty_sa_count
    uint8_t heads[BURST][40]  # AH on its way out: the IP header as it will be, by job
    uint8_t head_octets[BURST]
    Scan scans[GROUP]
    Job jobs[BURST]
    int job_count             # of those in use
    Job *queue[DRIVERS][BURST]
    int queued[DRIVERS]
    int in_company            # how many of them want all the burst in one call
    uint64_t *ledger          # time by Stage; NULL: nobody asks
    uint64_t stamped
