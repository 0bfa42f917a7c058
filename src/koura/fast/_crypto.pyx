# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The crypto driver over OpenSSL's libcrypto: on every processor, where ipsec-mb is not to be had.

Directives: no Python container is indexed here. One thread at a time: each Key has contexts of its own, used packet by packet.
AES-XCBC-MAC is unknown to OpenSSL: such SAs stay with the reference.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from cpython.pycapsule cimport PyCapsule_New

from koura.fast cimport driver as d
from koura.fast cimport libcrypto as c

cdef struct CKey:
    d.Key base
    c.EVP_CIPHER_CTX *context[2]     # open, seal
    c.EVP_MAC_CTX *mac


cdef const char *MODES[7]
MODES[:] = [b"", b"GCM", b"GCM", b"CCM", b"", b"CBC", b"CTR"]
cdef const char *DIGESTS[6]
DIGESTS[:] = [b"", b"SHA1", b"SHA256", b"SHA384", b"SHA512", b"MD5"]


cdef bint _cipher_name(char *name, const d.Recipe *recipe) noexcept nogil:
    """OpenSSL's name of a cipher with this length of key, into 32 octets."""
    if recipe.key_octets not in (16, 24, 32):
        return False
    if recipe.cipher == d.Cipher.CHACHA:
        snprintf(name, 32, "ChaCha20-Poly1305")
        return recipe.key_octets == 32
    snprintf(name, 32, "AES-%d-%s", 8 * recipe.key_octets, MODES[<int> recipe.cipher])
    return True


cdef bint _open_cipher(CKey *key, const d.Recipe *recipe) noexcept nogil:
    """Two contexts with the key in them: the way in and the way out."""
    cdef char name[32]
    cdef c.EVP_CIPHER *cipher
    cdef bint is_fine = True
    cdef int way
    if not _cipher_name(name, recipe):
        return False
    cipher = c.EVP_CIPHER_fetch(NULL, name, NULL)
    if cipher == NULL:
        return False
    for way in range(2):
        key.context[way] = c.EVP_CIPHER_CTX_new()
        is_fine = is_fine and key.context[way] != NULL and c.EVP_CipherInit_ex(key.context[way], cipher, NULL, NULL, NULL, way) == 1
        if is_fine and recipe.cipher == d.Cipher.CCM:
            is_fine = (
                c.EVP_CIPHER_CTX_ctrl(key.context[way], c.EVP_CTRL_AEAD_SET_IVLEN, 11, NULL) == 1
                and c.EVP_CIPHER_CTX_ctrl(key.context[way], c.EVP_CTRL_AEAD_SET_TAG, recipe.icv_octets, NULL) == 1
            )
        is_fine = is_fine and c.EVP_CipherInit_ex(key.context[way], NULL, NULL, recipe.key, NULL, way) == 1
        if is_fine:
            c.EVP_CIPHER_CTX_set_padding(key.context[way], 0)
    c.EVP_CIPHER_free(cipher)
    return is_fine


cdef bint _open_mac(CKey *key, const d.Recipe *recipe) noexcept nogil:
    cdef bint is_cmac = recipe.mac == d.Mac.CMAC
    cdef char name[32]
    cdef c.OSSL_PARAM parameters[2]
    cdef c.EVP_MAC *mac
    if recipe.mac == d.Mac.XCBC:
        return False
    if is_cmac:
        snprintf(name, 32, "AES-128-CBC")
        mac = c.EVP_MAC_fetch(NULL, "CMAC", NULL)
        parameters[0] = c.OSSL_PARAM_construct_utf8_string("cipher", name, 0)
    else:
        snprintf(name, 32, "%s", DIGESTS[<int> recipe.mac])
        mac = c.EVP_MAC_fetch(NULL, "HMAC", NULL)
        parameters[0] = c.OSSL_PARAM_construct_utf8_string("digest", name, 0)
    parameters[1] = c.OSSL_PARAM_construct_end()
    if mac == NULL:
        return False
    key.mac = c.EVP_MAC_CTX_new(mac)
    c.EVP_MAC_free(mac)
    return key.mac != NULL and c.EVP_MAC_init(key.mac, recipe.mac_key, recipe.mac_key_octets, parameters) == 1


cdef d.Key *make(const d.Recipe *recipe) noexcept nogil:
    """Open contexts with the keys; NULL for what this OpenSSL has not."""
    cdef CKey *key = <CKey *> calloc(1, sizeof(CKey))
    if key == NULL:
        return NULL
    key.base.cipher, key.base.mac, key.base.icv_octets = recipe.cipher, recipe.mac, recipe.icv_octets
    key.base.key_octets, key.base.is_alone = recipe.key_octets, True
    if recipe.cipher != d.Cipher.NO_CIPHER and not _open_cipher(key, recipe):
        destroy(&key.base)
        return NULL
    if recipe.mac != d.Mac.NO_MAC and not _open_mac(key, recipe):
        destroy(&key.base)
        return NULL
    return &key.base


cdef void destroy(d.Key *base) noexcept nogil:
    """OpenSSL wipes what it frees."""
    cdef CKey *key = <CKey *> base
    c.EVP_CIPHER_CTX_free(key.context[0])
    c.EVP_CIPHER_CTX_free(key.context[1])
    c.EVP_MAC_CTX_free(key.mac)
    memset(key, 0, sizeof(CKey))
    free(key)


cdef bint _aead(d.Job *job, bint seals) noexcept nogil:
    """GCM, ChaCha20-Poly1305, CCM: the tag into or from job.tag."""
    cdef CKey *key = <CKey *> job.key
    cdef c.EVP_CIPHER_CTX *context = key.context[1 if seals else 0]
    cdef uint32_t icv = key.base.icv_octets
    cdef int length = 0
    cdef bint is_ccm = key.base.cipher == d.Cipher.CCM
    if c.EVP_CipherInit_ex(context, NULL, NULL, NULL, job.nonce, -1) != 1:
        return False
    if not seals and c.EVP_CIPHER_CTX_ctrl(context, c.EVP_CTRL_AEAD_SET_TAG, icv, <void *> job.icv) != 1:
        return False
    if is_ccm and c.EVP_CipherUpdate(context, NULL, &length, NULL, job.octets) != 1:
        return False
    if c.EVP_CipherUpdate(context, NULL, &length, job.aad, job.aad_octets) != 1:
        return False
    if c.EVP_CipherUpdate(context, job.dst, &length, job.src, job.octets) != 1:
        return False
    if is_ccm and not seals:
        return True
    if c.EVP_CipherFinal_ex(context, job.dst + length, &length) != 1:
        return False
    return not seals or c.EVP_CIPHER_CTX_ctrl(context, c.EVP_CTRL_AEAD_GET_TAG, icv, job.tag) == 1


cdef bint _gmac(d.Job *job, const uint8_t *clear, bint seals) noexcept nogil:
    """RFC 4543 §3: AAD, IV (the end of the nonce), then the octets in clear are authenticated, and nothing is encrypted."""
    cdef CKey *key = <CKey *> job.key
    cdef c.EVP_CIPHER_CTX *context = key.context[1 if seals else 0]
    cdef uint8_t none[16]
    cdef int length = 0
    if c.EVP_CipherInit_ex(context, NULL, NULL, NULL, job.nonce, -1) != 1:
        return False
    if not seals and c.EVP_CIPHER_CTX_ctrl(context, c.EVP_CTRL_AEAD_SET_TAG, key.base.icv_octets, <void *> job.icv) != 1:
        return False
    if (
        c.EVP_CipherUpdate(context, NULL, &length, job.aad, job.aad_octets) != 1
        or c.EVP_CipherUpdate(context, NULL, &length, job.nonce + 4, 8) != 1
        or c.EVP_CipherUpdate(context, NULL, &length, clear, job.octets) != 1
        or c.EVP_CipherFinal_ex(context, none, &length) != 1
    ):
        return False
    return not seals or c.EVP_CIPHER_CTX_ctrl(context, c.EVP_CTRL_AEAD_GET_TAG, key.base.icv_octets, job.tag) == 1


cdef bint _crypt(d.Job *job, bint seals) noexcept nogil:
    """CBC or CTR."""
    cdef c.EVP_CIPHER_CTX *context = (<CKey *> job.key).context[1 if seals else 0]
    cdef int length = 0
    return (
        c.EVP_CipherInit_ex(context, NULL, NULL, NULL, job.nonce, -1) == 1
        and c.EVP_CipherUpdate(context, job.dst, &length, job.src, job.octets) == 1
    )


cdef bint _digest(d.Job *job, const uint8_t *start) noexcept nogil:
    """The MAC of head, ciphertext and tail into job.tag."""
    cdef CKey *key = <CKey *> job.key
    cdef size_t length = 0
    return (
        c.EVP_MAC_init(key.mac, NULL, 0, NULL) == 1
        and c.EVP_MAC_update(key.mac, start - job.head_octets, job.head_octets + job.octets) == 1
        and (job.tail_octets == 0 or c.EVP_MAC_update(key.mac, job.tail, job.tail_octets) == 1)
        and c.EVP_MAC_final(key.mac, job.tag, &length, 64) == 1
    )


cdef void seal(d.Job **jobs, int count) noexcept nogil:
    """Seal a burst, one by one."""
    cdef d.Job *job
    cdef int i
    for i in range(count):
        job = jobs[i]
        if job.key.cipher in (d.Cipher.GCM, d.Cipher.CCM, d.Cipher.CHACHA):
            job.is_right = _aead(job, True)
        elif job.key.cipher == d.Cipher.GMAC:
            memcpy(job.dst, job.src, job.octets)
            job.is_right = _gmac(job, job.dst, True)
        else:
            if job.key.cipher == d.Cipher.NO_CIPHER:
                memcpy(job.dst, job.src, job.octets)
                job.is_right = True
            else:
                job.is_right = _crypt(job, True)
            if job.key.mac != d.Mac.NO_MAC:
                job.is_right = job.is_right and _digest(job, job.dst)
        memcpy(job.dst + job.octets, job.tag, job.key.icv_octets)


cdef void open_(d.Job **jobs, int count) noexcept nogil:
    """Open a burst, one by one: authenticate, then decrypt."""
    cdef d.Job *job
    cdef int i
    for i in range(count):
        job = jobs[i]
        if job.key.cipher in (d.Cipher.GCM, d.Cipher.CCM, d.Cipher.CHACHA):
            job.is_right = _aead(job, False)
        elif job.key.cipher == d.Cipher.GMAC:
            job.is_right = _gmac(job, job.src, False)
            if job.is_right:
                memcpy(job.dst, job.src, job.octets)
        else:
            job.is_right = True
            if job.key.mac != d.Mac.NO_MAC:
                job.is_right = _digest(job, job.src) and c.CRYPTO_memcmp(job.tag, job.icv, job.key.icv_octets) == 0
            if job.is_right and job.key.cipher == d.Cipher.NO_CIPHER:
                if job.dst != job.src:
                    memcpy(job.dst, job.src, job.octets)
            elif job.is_right:
                job.is_right = _crypt(job, False)


cdef d.Driver table
table.name = "openssl"
table.make = make
table.destroy = destroy
table.seal = seal
table.open = open_


def capsule():
    """The driver as a capsule named koura.driver."""
    return PyCapsule_New(&table, "koura.driver", NULL)


def version() -> str:
    """The library's version."""
    return c.OpenSSL_version(0).decode()
