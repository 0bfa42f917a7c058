# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The crypto driver over Intel's multi-buffer library (ipsec-mb 1.3 and later), made for exactly this.

Directives: no Python container is indexed here; every C array has the length that its struct says. One thread at a time.

GCM and GMAC are single calls, as fast alone as in company, and so is ChaCha20-Poly1305. All else goes through the job API: submit
until the burst is in, flush, and every job is done. CBC with HMAC fills lanes of a wide manager; a burst below WIDE_BURST goes to a
second manager of SSE code, which has few lanes and does not make a lone packet pay for sixteen.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from cpython.pycapsule cimport PyCapsule_New

from koura.fast cimport driver as d
from koura.fast cimport mb
from koura.fast.flows cimport zeroed

DEF WIDE_BURST = 8

include "mbkeys.pxi"


cdef inline void _gcm_seal(d.Job *job) noexcept nogil:
    cdef MbKey *key = <MbKey *> job.key
    cdef mb.gcm_context_data context
    cdef uint8_t *icv = job.dst + job.octets
    if key.base.key_octets == 16:
        mb.IMB_AES128_GCM_ENC(wide, &key.material.gcm, &context, job.dst, job.src, job.octets, job.nonce, job.aad, job.aad_octets, icv,
                              key.base.icv_octets)
    elif key.base.key_octets == 32:
        mb.IMB_AES256_GCM_ENC(wide, &key.material.gcm, &context, job.dst, job.src, job.octets, job.nonce, job.aad, job.aad_octets, icv,
                              key.base.icv_octets)
    else:
        mb.IMB_AES192_GCM_ENC(wide, &key.material.gcm, &context, job.dst, job.src, job.octets, job.nonce, job.aad, job.aad_octets, icv,
                              key.base.icv_octets)


cdef inline void _gcm_open(d.Job *job) noexcept nogil:
    cdef MbKey *key = <MbKey *> job.key
    cdef mb.gcm_context_data context
    if key.base.key_octets == 16:
        mb.IMB_AES128_GCM_DEC(wide, &key.material.gcm, &context, job.dst, job.src, job.octets, job.nonce, job.aad, job.aad_octets, job.tag,
                              16)
    elif key.base.key_octets == 32:
        mb.IMB_AES256_GCM_DEC(wide, &key.material.gcm, &context, job.dst, job.src, job.octets, job.nonce, job.aad, job.aad_octets, job.tag,
                              16)
    else:
        mb.IMB_AES192_GCM_DEC(wide, &key.material.gcm, &context, job.dst, job.src, job.octets, job.nonce, job.aad, job.aad_octets, job.tag,
                              16)


cdef void _gmac(d.Job *job, const uint8_t *clear) noexcept nogil:
    """RFC 4543 §3: AAD, then IV (the end of the nonce), then the octets in clear; the tag into job.tag."""
    cdef MbKey *key = <MbKey *> job.key
    cdef mb.gcm_context_data context
    cdef uint8_t head[32]
    cdef uint32_t head_octets = job.aad_octets + 8
    memcpy(head, job.aad, job.aad_octets)
    memcpy(head + job.aad_octets, job.nonce + 4, 8)
    # Pieces before the last must be whole blocks for UPDATE: SPI, number and IV are 16 octets, with ESN 20.
    cdef uint32_t fill = 0 if head_octets == 16 else 12
    if fill > job.octets:
        fill = job.octets
    memcpy(head + head_octets, clear, fill)
    if key.base.key_octets == 16:
        mb.IMB_AES128_GMAC_INIT(wide, &key.material.gcm, &context, job.nonce, 12)
        mb.IMB_AES128_GMAC_UPDATE(wide, &key.material.gcm, &context, head, head_octets + fill)
        mb.IMB_AES128_GMAC_UPDATE(wide, &key.material.gcm, &context, clear + fill, job.octets - fill)
        mb.IMB_AES128_GMAC_FINALIZE(wide, &key.material.gcm, &context, job.tag, 16)
    elif key.base.key_octets == 24:
        mb.IMB_AES192_GMAC_INIT(wide, &key.material.gcm, &context, job.nonce, 12)
        mb.IMB_AES192_GMAC_UPDATE(wide, &key.material.gcm, &context, head, head_octets + fill)
        mb.IMB_AES192_GMAC_UPDATE(wide, &key.material.gcm, &context, clear + fill, job.octets - fill)
        mb.IMB_AES192_GMAC_FINALIZE(wide, &key.material.gcm, &context, job.tag, 16)
    else:
        mb.IMB_AES256_GMAC_INIT(wide, &key.material.gcm, &context, job.nonce, 12)
        mb.IMB_AES256_GMAC_UPDATE(wide, &key.material.gcm, &context, head, head_octets + fill)
        mb.IMB_AES256_GMAC_UPDATE(wide, &key.material.gcm, &context, clear + fill, job.octets - fill)
        mb.IMB_AES256_GMAC_FINALIZE(wide, &key.material.gcm, &context, job.tag, 16)


cdef inline bint _is_equal(const uint8_t *a, const uint8_t *b, uint32_t octets) noexcept nogil:
    """In the same time wherever they differ."""
    cdef uint64_t words[4]
    cdef uint8_t different = 0
    cdef uint32_t i
    if octets == 16:
        memcpy(words, a, 16)
        memcpy(words + 2, b, 16)
        return ((words[0] ^ words[2]) | (words[1] ^ words[3])) == 0
    for i in range(octets):
        different |= a[i] ^ b[i]
    return different == 0


cdef void _fill(mb.IMB_JOB *to, d.Job *job, bint seals) noexcept nogil:
    """One job of the library. The MAC reads what is in front of the ciphertext with it: both lie in one buffer."""
    cdef MbKey *key = <MbKey *> job.key
    cdef bint is_aead = key.mode == mb.IMB_CIPHER_CCM or key.mode == mb.IMB_CIPHER_CHACHA20_POLY1305
    to.cipher_mode, to.hash_alg = key.mode, key.hash
    to.cipher_direction = mb.IMB_DIR_ENCRYPT if seals else mb.IMB_DIR_DECRYPT
    # CCM authenticates the clear octets, everything else the ciphertext.
    to.chain_order = mb.IMB_ORDER_CIPHER_HASH if seals != (key.mode == mb.IMB_CIPHER_CCM) else mb.IMB_ORDER_HASH_CIPHER
    to.key_len_in_bytes = key.base.key_octets
    to.user_data = job
    to.iv = job.nonce
    to.auth_tag_output = job.tag
    to.msg_len_to_cipher_in_bytes = job.octets
    to.dst = job.dst
    if is_aead:
        to.src = job.src
        to.cipher_start_src_offset_in_bytes = to.hash_start_src_offset_in_bytes = 0
        to.msg_len_to_hash_in_bytes = job.octets
        if key.mode == mb.IMB_CIPHER_CCM:
            to.enc_keys = to.dec_keys = key.material.of.enc
            to.iv_len_in_bytes = 11
            to.ccm_aad, to.ccm_aad_octets = job.aad, job.aad_octets
            to.auth_tag_output_len_in_bytes = key.base.icv_octets
        else:
            to.enc_keys = to.dec_keys = key.material.of.raw
            to.iv_len_in_bytes = 12
            to.chacha_aad, to.chacha_aad_octets = job.aad, job.aad_octets
            to.auth_tag_output_len_in_bytes = 16
        return
    to.enc_keys, to.dec_keys = key.material.of.enc, key.material.of.dec
    if key.mode == mb.IMB_CIPHER_CNTR:
        to.dec_keys = key.material.of.enc
    to.iv_len_in_bytes = 16
    to.src = (job.dst if seals else job.src) - job.head_octets
    to.cipher_start_src_offset_in_bytes = job.head_octets
    to.hash_start_src_offset_in_bytes = 0
    to.msg_len_to_hash_in_bytes = job.head_octets + job.octets + job.tail_octets
    to.auth_tag_output_len_in_bytes = key.base.icv_octets
    if key.hash == mb.IMB_AUTH_AES_XCBC:
        to.k1, to.k2, to.k3 = <const uint32_t *> key.material.of.mac_k1, key.material.of.mac_k2, key.material.of.mac_k3
    elif key.hash == mb.IMB_AUTH_AES_CMAC:
        to.cmac_key, to.skey1, to.skey2 = key.material.of.mac_k1, key.material.of.mac_k2, key.material.of.mac_k3
    else:
        to.ipad, to.opad = key.material.of.pads[0], key.material.of.pads[1]


cdef void _run(d.Job **jobs, int count, bint seals) noexcept nogil:
    """Every job that is none of GCM's through one manager: in, flushed, done."""
    cdef mb.IMB_MGR *manager = wide if count >= WIDE_BURST or jobs[0].key.is_alone else narrow
    cdef mb.IMB_JOB *done
    cdef int i
    for i in range(count):
        _fill(mb.IMB_GET_NEXT_JOB(manager), jobs[i], seals)
        done = mb.IMB_SUBMIT_JOB_NOCHECK(manager)
        if done != NULL:
            (<d.Job *> done.user_data).is_right = done.status == mb.IMB_STATUS_COMPLETED
    done = mb.IMB_FLUSH_JOB(manager)
    while done != NULL:
        (<d.Job *> done.user_data).is_right = done.status == mb.IMB_STATUS_COMPLETED
        done = mb.IMB_FLUSH_JOB(manager)


cdef void seal(d.Job **jobs, int count) noexcept nogil:
    """Seal a burst: ciphertext and ICV into dst."""
    cdef d.Job *rest[256]
    cdef d.Job *job
    cdef int i, others = 0
    for i in range(count):
        job = jobs[i]
        if job.key.cipher == d.Cipher.GCM:
            _gcm_seal(job)
        elif job.key.cipher == d.Cipher.GMAC:
            memcpy(job.dst, job.src, job.octets)
            _gmac(job, job.dst)
            memcpy(job.dst + job.octets, job.tag, job.key.icv_octets)
        else:
            if job.key.cipher not in (d.Cipher.CCM, d.Cipher.CHACHA):
                memcpy(job.dst, job.src, job.octets)
                memcpy(job.dst + job.octets, job.tail, job.tail_octets)
            job.is_right = False
            rest[others] = job
            others += 1
    if others:
        _run(rest, others, True)
        for i in range(others):
            memcpy(rest[i].dst + rest[i].octets, rest[i].tag, rest[i].key.icv_octets)


cdef void open_(d.Job **jobs, int count) noexcept nogil:
    """Open a burst: clear octets into dst, is_right says whether they may be looked at."""
    cdef d.Job *rest[256]
    cdef uint8_t kept[256][4]
    cdef d.Job *job
    cdef int i, others = 0
    for i in range(count):
        job = jobs[i]
        if job.key.cipher == d.Cipher.GCM:
            _gcm_open(job)
            job.is_right = _is_equal(job.tag, job.icv, job.key.icv_octets)
        elif job.key.cipher == d.Cipher.GMAC:
            _gmac(job, job.src)
            job.is_right = _is_equal(job.tag, job.icv, job.key.icv_octets)
            if job.is_right:
                memcpy(job.dst, job.src, job.octets)
        else:
            if job.tail_octets:
                # ESN's high half is hashed behind the ciphertext: it lies over the ICV's first octets for as long as that takes.
                memcpy(kept[others], job.src + job.octets, 4)
                memcpy(<uint8_t *> job.src + job.octets, job.tail, 4)
            rest[others] = job
            others += 1
    if not others:
        return
    _run(rest, others, False)
    for i in range(others):
        job = rest[i]
        if job.tail_octets:
            memcpy(<uint8_t *> job.src + job.octets, kept[i], 4)
        if job.key.cipher == d.Cipher.NO_CIPHER and job.dst != job.src:
            memcpy(job.dst, job.src, job.octets)
        job.is_right = job.is_right and _is_equal(job.tag, job.icv, job.key.icv_octets)


cdef d.Driver table
table.name = "ipsec-mb"
table.make = make
table.destroy = destroy
table.seal = seal
table.open = open_


def capsule():
    """The driver as a capsule named koura.driver. Raises OSError where the library finds no manager for this processor."""
    global wide, narrow
    if wide == NULL:
        wide, narrow = mb.alloc_mb_mgr(0), mb.alloc_mb_mgr(0)
        if wide == NULL or narrow == NULL:
            raise OSError("ipsec-mb has no memory for a manager")
        mb.init_mb_mgr_auto(wide, NULL)
        mb.init_mb_mgr_sse(narrow)
    return PyCapsule_New(&table, "koura.driver", NULL)


def version() -> str:
    """The library's version."""
    return mb.imb_get_version_str().decode()
