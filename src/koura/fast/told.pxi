# What the engine is told of an SA, into its struct: the algorithms' keys, the numbers of koura.fast.learn.Facts, its place among SPIs.


cdef void wipe(Engine *e, Sa *sa):
    if sa.key != NULL:
        e.drivers[sa.driver].destroy(sa.key)
    memset(sa, 0, sizeof(Sa))


cdef bint make_key(Engine *e, Sa *sa, keys, int drivers) except -1:
    """Expanded by the first driver that has the algorithms; False: none has."""
    cdef bytes key = keys.key
    cdef bytes mac_key = keys.mac_key
    cdef Recipe recipe
    cdef int number
    recipe.cipher, recipe.mac = <Cipher> <int> keys.cipher, <Mac> <int> keys.mac
    recipe.key, recipe.key_octets = <const uint8_t *> PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)
    recipe.mac_key, recipe.mac_key_octets = <const uint8_t *> PyBytes_AS_STRING(mac_key), PyBytes_GET_SIZE(mac_key)
    recipe.icv_octets = keys.icv_octets
    for number in range(drivers):
        sa.key = e.drivers[number].make(&recipe)
        if sa.key != NULL:
            sa.driver = number
            return True
    return False


cdef int fill(Sa *sa, facts) except -1:
    """The numbers and sizes that packets need."""
    cdef bytes salt = facts.keys.salt
    cdef bytes src = facts.src
    sa.hard_packets, sa.hard_octets, sa.hard_ns = facts.hard
    sa.soft_packets, sa.soft_octets, sa.soft_ns = facts.soft
    sa.near_packets, sa.near_octets = min(sa.hard_packets, sa.soft_packets), min(sa.hard_octets, sa.soft_octets)
    sa.near_ns = min(sa.hard_ns, sa.soft_ns)
    sa.last_sequence, sa.nearly_spent = facts.last_sequence, facts.nearly_spent
    sa.spi, sa.window, sa.mode, sa.numbers = facts.spi, facts.window_packets, facts.mode, facts.numbers
    memset(sa.nonce, 0, 16)
    sa.nonce[15] = 1
    memcpy(sa.nonce, PyBytes_AS_STRING(salt), min(PyBytes_GET_SIZE(salt), 8))
    sa.salt_octets = PyBytes_GET_SIZE(salt)
    sa.iv_octets, sa.icv_octets, sa.align_octets = facts.keys.iv_octets, facts.keys.icv_octets, facts.keys.align_octets
    sa.is_aead = facts.keys.cipher in (GCM, GMAC, CCM, CHACHA)
    sa.has_counter_iv, sa.is_padding_checked = facts.keys.has_counter_iv, facts.is_padding_checked
    sa.ecn_ingress, sa.copies_no_ecn, sa.takes_dscp, sa.df = facts.ecn_ingress, facts.copies_no_ecn, facts.takes_dscp, facts.df
    sa.has_encapsulation = facts.ports is not None
    sa.sport, sa.dport = facts.ports or (0, 0)
    sa.has_src = any(src)
    memcpy(sa.src, PyBytes_AS_STRING(src), min(PyBytes_GET_SIZE(src), 16))
    sa.protocol, sa.ah_octets = facts.protocol, facts.ah_octets
    sa.oai_octets, sa.oar_octets = len(facts.oai), len(facts.oar)
    memcpy(sa.oai, <const char *> facts.oai, min(sa.oai_octets, 16))
    memcpy(sa.oar, <const char *> facts.oar, min(sa.oar_octets, 16))
    return 0


cdef int put_spi(Engine *e, uint32_t index, Sa *sa, bytes dst) except -1:
    """Into the table of SPIs. Raises MemoryError where that is full."""
    cdef FlowKey key
    cdef Flow *flow
    memset(&key, 0, sizeof(FlowKey))
    memcpy(&key.words[2], PyBytes_AS_STRING(dst), min(PyBytes_GET_SIZE(dst), 16))
    key.words[4], key.words[5] = sa.spi, spi_word(4 if PyBytes_GET_SIZE(dst) == 4 else 6, sa.protocol)
    table_grow(&e.spis)
    flow = table_place(&e.spis, &key)
    if flow == NULL:
        raise MemoryError
    flow.sa, flow.serial, flow.last_ns = index, sa.serial, 1
    sa.spi_key = key
    return 0


cdef int head_of(key, Head *head) except -1:
    """A flow's key as Python has it: (src, dst, protocol, sport, dport, tag), ports None where not visible."""
    cdef bytes src = key[0]
    cdef bytes dst = key[1]
    memset(head, 0, sizeof(Head))
    head.version = 4 if len(src) == 4 else 6
    memcpy(head.src, PyBytes_AS_STRING(src), min(PyBytes_GET_SIZE(src), 16))
    memcpy(head.dst, PyBytes_AS_STRING(dst), min(PyBytes_GET_SIZE(dst), 16))
    head.protocol, head.has_ports = key[2], key[3] is not None
    if head.has_ports:
        head.sport, head.dport = key[3], key[4]
    return 0
