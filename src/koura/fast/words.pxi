# Words in memory that the kernel reads and writes at the same time.

cdef extern from *:
    """
    static inline uint32_t koura_load(const uint32_t *from) { return __atomic_load_n(from, __ATOMIC_ACQUIRE); }
    static inline void koura_store(uint32_t *to, uint32_t value) { __atomic_store_n(to, value, __ATOMIC_RELEASE); }
    """
    uint32_t koura_load(const uint32_t *) nogil
    void koura_store(uint32_t *, uint32_t) nogil
