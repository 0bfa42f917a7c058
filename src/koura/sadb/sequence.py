"""The numbers an outbound SA gives out: sequence numbers and IVs, each once. RFC 4303 §3.3.3, RFC 4106 §3.1."""

from koura.errors import KouraError
from koura.sadb.association import Association, may_cycle
from koura.sadb.hot import IV_LEFT, IV_NEXT, SEQUENCE_END, SEQUENCE_LAST, SEQUENCE_RESERVED, UNLIMITED


class Spent(KouraError):
    """The number space is used up: the SA must be rekeyed."""


class Ungranted(KouraError):
    """The ledger has not reserved the next number yet."""


def next_sequence(sa: Association) -> int:
    """The next number, taken. Raises Spent at the end of the space, Ungranted at the end of a block; then nothing is taken.

    In a counter mode the block of IVs counts too: a number without an IV would leave a hole in the sequence.
    """
    words = sa.hot.words
    last = int(words[SEQUENCE_LAST])
    if last >= sa.last_sequence:
        # S2: with a replay window a number that comes again would be refused by the peer (RFC 4303 §3.3.3).
        if sa.agreement.window_packets or not may_cycle(sa.agreement):
            raise Spent
        words[SEQUENCE_LAST] = 1
        return 1
    if last >= words[SEQUENCE_END] and not draw(sa):
        raise Ungranted
    if words[IV_LEFT] == 0 and _has_counter(sa):
        raise _out_of_ivs(sa)
    words[SEQUENCE_LAST] = last + 1
    return last + 1


def next_iv(sa: Association) -> int:
    """The next IV of a counter mode, taken. Raises Spent when all 2^64 are, Ungranted at the end of the block."""
    words = sa.hot.words
    if words[IV_LEFT] == 0:
        raise _out_of_ivs(sa)
    value = int(words[IV_NEXT])
    words[IV_NEXT] = (value + 1) & UNLIMITED
    words[IV_LEFT] -= 1
    return value


def grant(sa: Association, sequence_end: int, iv_count: int, iv_from: int | None = None) -> None:
    """The ledger's word: numbers up to and with `sequence_end`, and `iv_count` IVs more. No number is taken back.

    iv_from: where those IVs begin. If that is not where the SA's end, it goes on there, and what it had left is never used.
    """
    words = sa.hot.words
    words[SEQUENCE_RESERVED] = max(int(words[SEQUENCE_RESERVED]), min(sequence_end, sa.last_sequence))
    if iv_count:
        left = int(words[IV_LEFT])
        if iv_from is not None and (int(words[IV_NEXT]) + left) & UNLIMITED != iv_from:
            words[IV_NEXT], left = iv_from, 0
        words[IV_LEFT] = min(left + iv_count, UNLIMITED)
    if words[SEQUENCE_END] <= words[SEQUENCE_LAST]:
        # Half of it, so that the other half is left when the next block is asked for.
        reserved, last = int(words[SEQUENCE_RESERVED]), int(words[SEQUENCE_LAST])
        words[SEQUENCE_END] = max(int(words[SEQUENCE_END]), reserved - (reserved - last) // 2)


def draw(sa: Association) -> bool:
    """At the end of what it may use, an SA goes on with what is reserved beyond. Whether it did: then the next block is to be asked for."""
    words = sa.hot.words
    if words[SEQUENCE_LAST] < words[SEQUENCE_END] or words[SEQUENCE_END] >= words[SEQUENCE_RESERVED]:
        return False
    words[SEQUENCE_END] = words[SEQUENCE_RESERVED]
    return True


def _out_of_ivs(sa: Association) -> KouraError:
    return Ungranted() if sa.has_ledger else Spent()


def _has_counter(sa: Association) -> bool:
    encryption = sa.agreement.encryption
    return encryption is not None and encryption.has_counter_iv
