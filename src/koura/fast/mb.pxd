"""Intel's multi-buffer library, as far as ESP and AH need it: the names of intel-ipsec-mb.h."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "intel-ipsec-mb.h" nogil:
    ctypedef struct IMB_MGR:
        pass
    struct gcm_key_data:
        pass
    struct gcm_context_data:
        pass
    ctypedef enum IMB_ARCH:
        pass
    ctypedef enum IMB_CIPHER_MODE:
        IMB_CIPHER_CBC, IMB_CIPHER_CNTR, IMB_CIPHER_NULL, IMB_CIPHER_CCM, IMB_CIPHER_CHACHA20_POLY1305
    ctypedef enum IMB_HASH_ALG:
        IMB_AUTH_NULL, IMB_AUTH_HMAC_SHA_1, IMB_AUTH_HMAC_SHA_256, IMB_AUTH_HMAC_SHA_384, IMB_AUTH_HMAC_SHA_512, IMB_AUTH_MD5
        IMB_AUTH_AES_XCBC, IMB_AUTH_AES_CMAC, IMB_AUTH_AES_CCM, IMB_AUTH_CHACHA20_POLY1305
    ctypedef enum IMB_CIPHER_DIRECTION:
        IMB_DIR_ENCRYPT, IMB_DIR_DECRYPT
    ctypedef enum IMB_CHAIN_ORDER:
        IMB_ORDER_CIPHER_HASH, IMB_ORDER_HASH_CIPHER
    ctypedef enum IMB_STATUS:
        IMB_STATUS_COMPLETED

    ctypedef struct IMB_JOB:
        const void *enc_keys
        const void *dec_keys
        uint64_t key_len_in_bytes
        const uint8_t *src
        uint8_t *dst
        uint64_t cipher_start_src_offset_in_bytes
        uint64_t msg_len_to_cipher_in_bytes
        uint64_t hash_start_src_offset_in_bytes
        uint64_t msg_len_to_hash_in_bytes
        const uint8_t *iv
        uint64_t iv_len_in_bytes
        uint8_t *auth_tag_output
        uint64_t auth_tag_output_len_in_bytes
        const uint8_t *ipad "u.HMAC._hashed_auth_key_xor_ipad"
        const uint8_t *opad "u.HMAC._hashed_auth_key_xor_opad"
        const uint32_t *k1 "u.XCBC._k1_expanded"
        const uint8_t *k2 "u.XCBC._k2"
        const uint8_t *k3 "u.XCBC._k3"
        const void *cmac_key "u.CMAC._key_expanded"
        const void *skey1 "u.CMAC._skey1"
        const void *skey2 "u.CMAC._skey2"
        const void *ccm_aad "u.CCM.aad"
        uint64_t ccm_aad_octets "u.CCM.aad_len_in_bytes"
        const void *chacha_aad "u.CHACHA20_POLY1305.aad"
        uint64_t chacha_aad_octets "u.CHACHA20_POLY1305.aad_len_in_bytes"
        IMB_STATUS status
        IMB_CIPHER_MODE cipher_mode
        IMB_CIPHER_DIRECTION cipher_direction
        IMB_HASH_ALG hash_alg
        IMB_CHAIN_ORDER chain_order
        void *user_data

    const char *imb_get_version_str()
    IMB_MGR *alloc_mb_mgr(uint64_t)
    void free_mb_mgr(IMB_MGR *)
    void init_mb_mgr_auto(IMB_MGR *, IMB_ARCH *)
    void init_mb_mgr_sse(IMB_MGR *)
    IMB_JOB *IMB_GET_NEXT_JOB(IMB_MGR *)
    IMB_JOB *IMB_SUBMIT_JOB_NOCHECK(IMB_MGR *)
    IMB_JOB *IMB_FLUSH_JOB(IMB_MGR *)
    void IMB_AES_KEYEXP_128(IMB_MGR *, const void *, void *, void *)
    void IMB_AES_KEYEXP_192(IMB_MGR *, const void *, void *, void *)
    void IMB_AES_KEYEXP_256(IMB_MGR *, const void *, void *, void *)
    void IMB_AES_CMAC_SUBKEY_GEN_128(IMB_MGR *, const void *, void *, void *)
    void IMB_AES_XCBC_KEYEXP(IMB_MGR *, const void *, void *, void *, void *)
    void IMB_SHA1_ONE_BLOCK(IMB_MGR *, const void *, void *)
    void IMB_SHA256_ONE_BLOCK(IMB_MGR *, const void *, void *)
    void IMB_SHA384_ONE_BLOCK(IMB_MGR *, const void *, void *)
    void IMB_SHA512_ONE_BLOCK(IMB_MGR *, const void *, void *)
    void IMB_MD5_ONE_BLOCK(IMB_MGR *, const void *, void *)
    void IMB_AES128_GCM_PRE(IMB_MGR *, const void *, gcm_key_data *)
    void IMB_AES192_GCM_PRE(IMB_MGR *, const void *, gcm_key_data *)
    void IMB_AES256_GCM_PRE(IMB_MGR *, const void *, gcm_key_data *)
    void IMB_AES128_GCM_ENC(IMB_MGR *, const gcm_key_data *, gcm_context_data *, uint8_t *, const uint8_t *, uint64_t,
                            const uint8_t *, const uint8_t *, uint64_t, uint8_t *, uint64_t)
    void IMB_AES192_GCM_ENC(IMB_MGR *, const gcm_key_data *, gcm_context_data *, uint8_t *, const uint8_t *, uint64_t,
                            const uint8_t *, const uint8_t *, uint64_t, uint8_t *, uint64_t)
    void IMB_AES256_GCM_ENC(IMB_MGR *, const gcm_key_data *, gcm_context_data *, uint8_t *, const uint8_t *, uint64_t,
                            const uint8_t *, const uint8_t *, uint64_t, uint8_t *, uint64_t)
    void IMB_AES128_GCM_DEC(IMB_MGR *, const gcm_key_data *, gcm_context_data *, uint8_t *, const uint8_t *, uint64_t,
                            const uint8_t *, const uint8_t *, uint64_t, uint8_t *, uint64_t)
    void IMB_AES192_GCM_DEC(IMB_MGR *, const gcm_key_data *, gcm_context_data *, uint8_t *, const uint8_t *, uint64_t,
                            const uint8_t *, const uint8_t *, uint64_t, uint8_t *, uint64_t)
    void IMB_AES256_GCM_DEC(IMB_MGR *, const gcm_key_data *, gcm_context_data *, uint8_t *, const uint8_t *, uint64_t,
                            const uint8_t *, const uint8_t *, uint64_t, uint8_t *, uint64_t)
    void IMB_AES128_GMAC_INIT(IMB_MGR *, const gcm_key_data *, gcm_context_data *, const uint8_t *, uint64_t)
    void IMB_AES192_GMAC_INIT(IMB_MGR *, const gcm_key_data *, gcm_context_data *, const uint8_t *, uint64_t)
    void IMB_AES256_GMAC_INIT(IMB_MGR *, const gcm_key_data *, gcm_context_data *, const uint8_t *, uint64_t)
    void IMB_AES128_GMAC_UPDATE(IMB_MGR *, const gcm_key_data *, gcm_context_data *, const uint8_t *, uint64_t)
    void IMB_AES192_GMAC_UPDATE(IMB_MGR *, const gcm_key_data *, gcm_context_data *, const uint8_t *, uint64_t)
    void IMB_AES256_GMAC_UPDATE(IMB_MGR *, const gcm_key_data *, gcm_context_data *, const uint8_t *, uint64_t)
    void IMB_AES128_GMAC_FINALIZE(IMB_MGR *, const gcm_key_data *, gcm_context_data *, uint8_t *, uint64_t)
    void IMB_AES192_GMAC_FINALIZE(IMB_MGR *, const gcm_key_data *, gcm_context_data *, uint8_t *, uint64_t)
    void IMB_AES256_GMAC_FINALIZE(IMB_MGR *, const gcm_key_data *, gcm_context_data *, uint8_t *, uint64_t)
