# Keys as the library wants them: expanded, aligned, close together on huge pages where there are many.


cdef struct Expanded:         # what is no GCM's; aligned as the library wants it
    uint8_t pads[2][64]       # HMAC: the inner and the outer hash after one block
    uint8_t enc[256]
    uint8_t dec[256]
    uint8_t mac_k1[256]       # XCBC, CMAC: expanded
    uint8_t mac_k2[16]
    uint8_t mac_k3[16]
    uint8_t raw[32]           # ChaCha20

cdef union Material:
    mb.gcm_key_data gcm       # 1024 octets
    Expanded of

cdef struct MbKey:
    d.Key base                # 28 octets
    mb.IMB_CIPHER_MODE mode
    mb.IMB_HASH_ALG hash
    uint32_t spare
    MbKey *following          # of the free ones
    uint8_t spare2[16]
    Material material         # on a cache line: the union is aligned to 64

# Keys lie close together, on huge pages where there are many: freed ones are taken first. A slab is never given back.
cdef MbKey *free_keys = NULL
cdef int slab_keys = 16
cdef mb.IMB_MGR *wide = NULL
cdef mb.IMB_MGR *narrow = NULL


cdef bint _hmac_pads(MbKey *key, const d.Recipe *recipe) noexcept nogil:
    """Precompute one block of inner and outer hash. RFC 2104: all ESP keys are shorter than a block."""
    cdef uint8_t block[128]
    cdef uint32_t size = 128 if recipe.mac in (d.Mac.SHA384, d.Mac.SHA512) else 64
    cdef uint32_t i
    cdef int side
    if recipe.mac_key_octets > size:
        return False
    for side in range(2):
        memset(block, 0x36 if side == 0 else 0x5C, size)
        for i in range(recipe.mac_key_octets):
            block[i] ^= recipe.mac_key[i]
        if recipe.mac == d.Mac.SHA1:
            mb.IMB_SHA1_ONE_BLOCK(wide, block, key.material.of.pads[side])
        elif recipe.mac == d.Mac.SHA256:
            mb.IMB_SHA256_ONE_BLOCK(wide, block, key.material.of.pads[side])
        elif recipe.mac == d.Mac.SHA384:
            mb.IMB_SHA384_ONE_BLOCK(wide, block, key.material.of.pads[side])
        elif recipe.mac == d.Mac.SHA512:
            mb.IMB_SHA512_ONE_BLOCK(wide, block, key.material.of.pads[side])
        else:
            mb.IMB_MD5_ONE_BLOCK(wide, block, key.material.of.pads[side])
    memset(block, 0, 128)
    return True


cdef bint _mac(MbKey *key, const d.Recipe *recipe) noexcept nogil:
    if recipe.mac == d.Mac.NO_MAC:
        key.hash = mb.IMB_AUTH_NULL
        return True
    if recipe.mac == d.Mac.XCBC:
        if recipe.mac_key_octets != 16:
            return False
        mb.IMB_AES_XCBC_KEYEXP(wide, recipe.mac_key, key.material.of.mac_k1, key.material.of.mac_k2, key.material.of.mac_k3)
        key.hash = mb.IMB_AUTH_AES_XCBC
        return True
    if recipe.mac == d.Mac.CMAC:
        if recipe.mac_key_octets != 16:
            return False
        mb.IMB_AES_KEYEXP_128(wide, recipe.mac_key, key.material.of.mac_k1, key.material.of.dec)
        mb.IMB_AES_CMAC_SUBKEY_GEN_128(wide, key.material.of.mac_k1, key.material.of.mac_k2, key.material.of.mac_k3)
        key.hash = mb.IMB_AUTH_AES_CMAC
        return True
    key.hash = (
        mb.IMB_AUTH_HMAC_SHA_1 if recipe.mac == d.Mac.SHA1 else mb.IMB_AUTH_HMAC_SHA_256 if recipe.mac == d.Mac.SHA256
        else mb.IMB_AUTH_HMAC_SHA_384 if recipe.mac == d.Mac.SHA384 else mb.IMB_AUTH_HMAC_SHA_512 if recipe.mac == d.Mac.SHA512
        else mb.IMB_AUTH_MD5
    )
    return _hmac_pads(key, recipe)


cdef bint _aes(MbKey *key, const d.Recipe *recipe) noexcept nogil:
    if recipe.key_octets == 16:
        mb.IMB_AES_KEYEXP_128(wide, recipe.key, key.material.of.enc, key.material.of.dec)
    elif recipe.key_octets == 24:
        mb.IMB_AES_KEYEXP_192(wide, recipe.key, key.material.of.enc, key.material.of.dec)
    elif recipe.key_octets == 32:
        mb.IMB_AES_KEYEXP_256(wide, recipe.key, key.material.of.enc, key.material.of.dec)
    else:
        return False
    return True


cdef bint _cipher(MbKey *key, const d.Recipe *recipe) noexcept nogil:
    if recipe.cipher in (d.Cipher.GCM, d.Cipher.GMAC):
        if recipe.key_octets == 16:
            mb.IMB_AES128_GCM_PRE(wide, recipe.key, &key.material.gcm)
        elif recipe.key_octets == 24:
            mb.IMB_AES192_GCM_PRE(wide, recipe.key, &key.material.gcm)
        elif recipe.key_octets == 32:
            mb.IMB_AES256_GCM_PRE(wide, recipe.key, &key.material.gcm)
        else:
            return False
        return True
    if recipe.cipher == d.Cipher.CHACHA:
        if recipe.key_octets != 32:
            return False
        memcpy(key.material.of.raw, recipe.key, 32)
        key.mode, key.hash = mb.IMB_CIPHER_CHACHA20_POLY1305, mb.IMB_AUTH_CHACHA20_POLY1305
        return True
    if recipe.cipher == d.Cipher.CCM:
        if recipe.key_octets == 24:  # The library has no CCM with 192 bits.
            return False
        key.mode, key.hash = mb.IMB_CIPHER_CCM, mb.IMB_AUTH_AES_CCM
        return _aes(key, recipe)
    if recipe.cipher == d.Cipher.NO_CIPHER:
        key.mode = mb.IMB_CIPHER_NULL
        return _mac(key, recipe)
    key.mode = mb.IMB_CIPHER_CBC if recipe.cipher == d.Cipher.CBC else mb.IMB_CIPHER_CNTR
    return _mac(key, recipe) and _aes(key, recipe)


cdef d.Key *make(const d.Recipe *recipe) noexcept nogil:
    """Expand keys; NULL for what the library has not."""
    cdef MbKey *key = _take()
    if key == NULL:
        return NULL
    key.base.cipher, key.base.mac, key.base.icv_octets = recipe.cipher, recipe.mac, recipe.icv_octets
    key.base.key_octets = recipe.key_octets
    key.base.is_alone = recipe.cipher in (d.Cipher.GCM, d.Cipher.GMAC, d.Cipher.CHACHA)
    if not _cipher(key, recipe):
        destroy(&key.base)
        return NULL
    _note_lines(key)
    return &key.base


cdef inline void _note(MbKey *key, int number, const void *start, uint64_t octets) noexcept nogil:
    cdef uint64_t offset = <uint64_t> start - <uint64_t> key
    key.base.touched[number][0] = <uint8_t> (offset >> 6)
    key.base.touched[number][1] = <uint8_t> ((octets + (offset & 63) + 63) >> 6)


cdef uint32_t _used_octets(const MbKey *key) noexcept nogil:
    """How much of GCM's key material is there: a processor of another make has more powers of the hash key."""
    cdef const uint8_t *material = <const uint8_t *> &key.material
    cdef uint32_t used = sizeof(mb.gcm_key_data)
    while used and material[used - 1] == 0:
        used -= 1
    return used


cdef void _note_lines(MbKey *key) noexcept nogil:
    """What the library will read of a key: the engine fetches it while it reads headers."""
    cdef uint32_t schedule = 16 * (key.base.key_octets // 4 + 7)
    if key.base.cipher in (d.Cipher.GCM, d.Cipher.GMAC):
        _note(key, 0, key, 64 + _used_octets(key))
        return
    _note(key, 0, key, 64)
    if key.base.cipher == d.Cipher.CHACHA:
        _note(key, 1, key.material.of.raw, 32)
        _note(key, 2, key.material.of.raw, 32)
        return
    if key.base.cipher != d.Cipher.NO_CIPHER:
        _note(key, 1, key.material.of.enc, schedule)
        _note(key, 2, &key.material.of.dec[0] if key.base.cipher == d.Cipher.CBC else &key.material.of.enc[0], schedule)
    if key.base.mac != d.Mac.NO_MAC:
        if key.base.mac in (d.Mac.XCBC, d.Mac.CMAC):
            _note(key, 3, key.material.of.mac_k1, 288)
        else:
            _note(key, 3, key.material.of.pads, 128)


cdef MbKey *_take() noexcept nogil:
    global free_keys, slab_keys
    cdef uint64_t stride = (sizeof(MbKey) + 63) & ~<uint64_t> 63
    cdef uint8_t *slab
    cdef MbKey *key
    cdef int i
    if free_keys == NULL:
        slab = <uint8_t *> zeroed(slab_keys * stride)
        if slab == NULL:
            return NULL
        for i in range(slab_keys):
            key = <MbKey *> (slab + i * stride)
            key.following = free_keys
            free_keys = key
        slab_keys = min(slab_keys * 2, 1024)
    key = free_keys
    free_keys = key.following
    key.following = NULL
    return key


cdef void destroy(d.Key *base) noexcept nogil:
    """Wipe, and keep the place for another key."""
    global free_keys
    cdef MbKey *key = <MbKey *> base
    memset(key, 0, sizeof(MbKey))
    key.following = free_keys
    free_keys = key
