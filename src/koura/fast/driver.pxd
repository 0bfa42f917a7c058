"""What a crypto driver of the fast path is: four functions over keys and jobs. The packet engine knows no cipher but by these.

A Recipe says what one SA's keys are for; `make` gives an opaque Key, or NULL for what this driver cannot do. A Job is one packet.
`seal` writes ciphertext and ICV, `open` verifies the ICV and writes the clear octets; both take whole bursts, with any mix of keys.

    AEAD        src[octets] -> dst[octets], aad[aad_octets] authenticated, nonce of 12 octets (CCM: 11)
    cipher+MAC  the MAC covers head octets in front of dst (seal) or src (open), the ciphertext, and tail_octets of tail (ESN)
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum Cipher:
    NO_CIPHER = 0
    GCM = 1
    GMAC = 2
    CCM = 3
    CHACHA = 4
    CBC = 5
    CTR = 6

cdef enum Mac:
    NO_MAC = 0
    SHA1 = 1
    SHA256 = 2
    SHA384 = 3
    SHA512 = 4
    MD5 = 5
    XCBC = 6
    CMAC = 7

ctypedef struct Recipe:
    Cipher cipher
    Mac mac
    const uint8_t *key
    uint32_t key_octets
    const uint8_t *mac_key
    uint32_t mac_key_octets
    uint32_t icv_octets

ctypedef struct Key:
    Cipher cipher
    Mac mac
    uint16_t key_octets
    uint16_t icv_octets
    bint is_alone             # its jobs are as fast alone as in company
    uint8_t touched[4][2]     # cache lines that a packet will need, first and how many, from the Key on: both ways, out, in, for the MAC

ctypedef struct Job:
    Key *key
    const uint8_t *src
    uint8_t *dst
    const uint8_t *icv       # open: what the packet carries
    uint32_t octets
    uint32_t head_octets
    uint32_t tail_octets
    uint32_t aad_octets
    uint8_t nonce[16]
    uint8_t aad[16]
    uint8_t tail[4]
    bint is_right            # open: the ICV held
    uint8_t tag[64]          # what was computed; seal: its first icv_octets are written to dst + octets

ctypedef struct Driver:
    const char *name
    Key *(*make)(const Recipe *) noexcept nogil
    void (*destroy)(Key *) noexcept nogil
    void (*seal)(Job **, int) noexcept nogil
    void (*open)(Job **, int) noexcept nogil
