"""The Internet checksum over whole payloads, as fast as the compiler can: one loop, compiled for wide registers too."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
    __attribute__((target_clones("avx2", "default")))
    #endif
    static uint64_t koura_sum(const uint8_t *data, uint32_t octets) {
        uint64_t total = 0;
        uint32_t i, word, count = octets / 4;
        for (i = 0; i < count; i++) { memcpy(&word, data + 4 * i, 4); total += word; }
        data += 4 * count;
        if (octets & 2) { uint16_t half; memcpy(&half, data, 2); total += half; data += 2; }
        if (octets & 1) total += *data;
        return total;
    }
    """
    uint64_t wide_sum "koura_sum"(const uint8_t *data, uint32_t octets) noexcept nogil
