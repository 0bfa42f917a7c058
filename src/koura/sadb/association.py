"""Association: an agreement and what happens to it. RFC 4301 §4.4.2, RFC 2367 §2.1 (states).

    LARVAL --keyed--> MATURE --soft limit--> DYING --hard limit--> DEAD
       \\--timed out--------------------------------------------->  /

UPDATE may make a dying SA mature again by giving it new lifetimes. One that is deleted in a rekey is retired: it stays dying for a
moment, for those packets only that are under way to it (grace).
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum

from koura.crypto.algorithm import Kind
from koura.crypto.driver import Support
from koura.crypto.registry import Registry
from koura.crypto.session import Compressor, Description, Digest, Session
from koura.entropy import Entropy
from koura.errors import Bug, Errno, Refused
from koura.moment import Moment
from koura.quick import quick
from koura.sadb.agreement import Agreement, SaFlags
from koura.sadb.hot import (
    EPOCH,
    IV_LEFT,
    IV_NEXT,
    SEQUENCE_END,
    SEQUENCE_LAST,
    SEQUENCE_RESERVED,
    SOFT_TOLD,
    STATE,
    UNLIMITED,
    WINDOW_TOP,
    Arena,
    Hot,
)
from koura.sadb.ledger import FIRST_BLOCK, Ledger, Past
from koura.sadb.replay import Numbers, Window
from koura.saindex import Protocol

RESERVED_SPIS = 256
_CYCSEQ = int(SaFlags.CYCSEQ)
LAST32 = (1 << 32) - 1
# What an engine that died may have taken without having stored it yet, at most: a resumed SA leaves out so many numbers.
RESUME_SEQUENCE = 4096
RESUME_IV = 1 << 20


class State(IntEnum):
    """PF_KEY's numbers."""

    LARVAL = 0
    MATURE = 1
    DYING = 2
    DEAD = 3


_STATES = tuple(State)
_USABLE = (State.MATURE, State.DYING)


class Happened(Enum):
    """What moves an SA from state to state."""

    KEYED = "keyed"
    RENEWED = "renewed"
    TIMED_OUT = "timed out"
    SOFT_LIMIT = "soft limit"
    HARD_LIMIT = "hard limit"
    RETIRED = "retired"
    DELETED = "deleted"


NEXT = {
    (State.LARVAL, Happened.KEYED): State.MATURE,
    (State.LARVAL, Happened.TIMED_OUT): State.DEAD,
    (State.LARVAL, Happened.DELETED): State.DEAD,
    (State.MATURE, Happened.SOFT_LIMIT): State.DYING,
    (State.MATURE, Happened.RENEWED): State.MATURE,
    (State.MATURE, Happened.HARD_LIMIT): State.DEAD,
    (State.MATURE, Happened.RETIRED): State.DYING,
    (State.MATURE, Happened.DELETED): State.DEAD,
    (State.DYING, Happened.RENEWED): State.MATURE,
    (State.DYING, Happened.HARD_LIMIT): State.DEAD,
    (State.DYING, Happened.RETIRED): State.DYING,
    (State.DYING, Happened.DELETED): State.DEAD,
}


@dataclass(slots=True, eq=False)
class Association:
    """One SA. Of session, digest and compressor its protocol's one is set, on a larval SA none."""

    agreement: Agreement
    hot: Hot
    created: Moment
    window: Window | None = None
    session: Session | None = None
    digest: Digest | None = None
    compressor: Compressor | None = None
    order: int = 0  # when it came into the SAD
    relation: int = 0  # which relation it hangs under: a higher number is a newer one
    has_ledger: bool = False  # its numbers are granted in blocks (Makings)
    is_retired: bool = False  # deleted; it only opens what was under way (grace)
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def state(self) -> State:
        return _STATES[self.hot.words[STATE]]

    @property
    def slot(self) -> int:
        return self.hot.slot

    @property
    def epoch(self) -> int:
        return int(self.hot.words[EPOCH])

    @property
    def is_usable(self) -> bool:
        return self.hot.words[STATE] in _USABLE

    @property
    def awaits_grant(self) -> bool:
        """Whether it has no number to send with until the ledger grants it some."""
        words = self.hot.words
        return self.has_ledger and words[SEQUENCE_LAST] >= words[SEQUENCE_END] and words[SEQUENCE_LAST] >= words[SEQUENCE_RESERVED]

    @property
    def last_sequence(self) -> int:
        """The highest number its 32- or 64-bit counter can reach."""
        return UNLIMITED if self.agreement.has_esn else LAST32

    def happen(self, event: Happened) -> None:
        """Moves to the next state. Raises Bug for an event that cannot happen in this one."""
        following = NEXT.get((self.state, event))
        if following is None:
            raise Bug(f"{event.value} in state {self.state.name}")
        self.hot.words[STATE] = following


def check(agreement: Agreement) -> None:
    """Refuses what no SA can be, whatever the keys. PF_KEY's ADD and UPDATE checks (RFC 2367 §3.1.2, RFC 4303 §2.1)."""
    protocol = agreement.index.protocol
    if protocol in (Protocol.ESP, Protocol.AH) and agreement.spi < RESERVED_SPIS:
        raise Refused(Errno.EINVAL, f"SPI {agreement.spi} is reserved: the first usable one is {RESERVED_SPIS}")
    if protocol is Protocol.IPCOMP:
        _check_ipcomp(agreement)
        return
    if agreement.compression is not None:
        raise Refused(Errno.EINVAL, f"{protocol.name} does not compress")
    if protocol is Protocol.ESP and agreement.encryption is None:
        raise Refused(Errno.EINVAL, "ESP needs an encryption algorithm, if only null")
    if protocol in (Protocol.AH, Protocol.TCP):
        if agreement.encryption is not None:
            raise Refused(Errno.EINVAL, f"{protocol.name} does not encrypt")
        if agreement.integrity is None:
            raise Refused(Errno.EINVAL, f"{protocol.name} needs an integrity algorithm")
    if agreement.is_old and (agreement.window_packets or agreement.has_esn):
        raise Refused(Errno.EINVAL, "old ESP and AH have no sequence numbers: no replay window, no ESN")
    if agreement.encryption is not None and agreement.encryption.kind is Kind.AEAD and agreement.is_old:
        raise Refused(Errno.EINVAL, f"old ESP knows no {agreement.encryption.name}")


def _check_ipcomp(agreement: Agreement) -> None:
    if agreement.encryption is not None or agreement.integrity is not None:
        raise Refused(Errno.EINVAL, "IPComp neither encrypts nor authenticates")
    if agreement.compression is None:
        raise Refused(Errno.EINVAL, "IPComp needs a compression algorithm")
    if agreement.spi > 0xFFFF and not agreement.flags & SaFlags.RAWCPI:
        raise Refused(Errno.EINVAL, f"CPI {agreement.spi} has more than 16 bits")


def may_cycle(agreement: Agreement) -> bool:
    """Whether its 32-bit numbers may begin again: asked for, and no cipher to which a number spent twice could mean a nonce (S2)."""
    has_counter = agreement.encryption is not None and agreement.encryption.has_counter_iv
    return int(agreement.flags) & _CYCSEQ != 0 and not has_counter and not agreement.has_esn


@dataclass(frozen=True, slots=True)
class Makings:
    """What an SA is made with."""

    registry: Registry
    arena: Arena
    entropy: Entropy
    has_ledger: bool = False  # numbers must be granted before they are used
    ipcomp_level: int = 6
    ledger: Ledger | None = None  # where numbers and windows go on
    support: Support = Support.ANY  # which drivers may serve (M40); an SA keeps the one it was made with


def larval(agreement: Agreement, makings: Makings, at: Moment) -> Association:
    """An SA with an SPI and no keys."""
    return Association(agreement, makings.arena.take(), at)


def create(agreement: Agreement, makings: Makings, at: Moment) -> Association:
    """A mature SA. Raises Refused for a bad combination, key, or missing algorithm, before anything is taken."""
    check(agreement)
    past = _recall(agreement, makings)
    session, digest, compressor = _open(agreement, makings)
    sa = Association(agreement, makings.arena.take(), at, None, session, digest, compressor)
    _start(sa, makings, past)
    return sa


def key(sa: Association, agreement: Agreement, makings: Makings) -> None:
    """Makes a larval SA mature. Raises Refused with the SA as it was."""
    check(agreement)
    past = _recall(agreement, makings)
    sa.session, sa.digest, sa.compressor = _open(agreement, makings)
    sa.agreement = agreement
    _start(sa, makings, past)


@quick
@dataclass(frozen=True, slots=True)
class Left:
    """What is left of an SA whose engine is no more: all but its sessions and the ring of its window; `slot` is its block."""

    agreement: Agreement
    slot: int
    epoch: int
    order: int
    relation: int
    created: Moment
    state: State
    is_soft_told: bool


def leave(sa: Association) -> Left:
    """What another engine needs to go on with this SA."""
    return Left(sa.agreement, sa.slot, sa.epoch, sa.order, sa.relation, sa.created, sa.state, bool(sa.hot.words[SOFT_TOLD]))


def resume(left: Left, makings: Makings) -> Association:
    """The SA goes on where it was: same place, state and counters. No number or IV comes twice; what a window had seen, it has seen.

    A number is stored as taken before a packet with it is sealed. Those who store for a burst may lag RESUME_SEQUENCE behind, so an
    SA that has sent leaves as many out. The window's ring is gone: everything up to its top counts as seen.
    """
    agreement, hot = left.agreement, makings.arena.adopt(left.slot)
    words = hot.words
    words[STATE], words[SOFT_TOLD] = left.state, int(left.is_soft_told)
    sa = Association(agreement, hot, left.created, order=left.order, relation=left.relation)
    if sa.state is State.LARVAL:
        return sa
    sa.session, sa.digest, sa.compressor = _open(agreement, makings)
    if words[SEQUENCE_LAST] != agreement.sequence:
        words[SEQUENCE_LAST] = min(int(words[SEQUENCE_LAST]) + RESUME_SEQUENCE, sa.last_sequence)
        words[IV_NEXT] = (int(words[IV_NEXT]) + RESUME_IV) & UNLIMITED
        words[IV_LEFT] -= min(int(words[IV_LEFT]), RESUME_IV)
    sa.has_ledger = _is_counted(agreement, makings)
    sa.window = Window(hot, agreement.checked_packets, _numbers(agreement), highest=int(words[WINDOW_TOP]))
    return sa


def _open(agreement: Agreement, makings: Makings) -> tuple[Session | None, Digest | None, Compressor | None]:
    registry = makings.registry
    if agreement.compression is not None:
        return None, None, registry.compressor(agreement.compression, makings.ipcomp_level, makings.support)
    if agreement.encryption is not None:
        description = Description(agreement.encryption, agreement.encryption_key, agreement.integrity, agreement.integrity_key)
        return registry.session(description, makings.support), None, None
    assert agreement.integrity is not None
    return None, registry.digest(agreement.integrity, agreement.integrity_key, makings.support), None


def _start(sa: Association, makings: Makings, past: Past) -> None:
    agreement, words = sa.agreement, sa.hot.words
    sa.has_ledger = _is_counted(agreement, makings)
    words[STATE] = State.MATURE
    words[SEQUENCE_LAST] = last = min(max(agreement.sequence, past.sequence), sa.last_sequence)
    words[SEQUENCE_END] = last if sa.has_ledger else sa.last_sequence
    words[IV_LEFT] = 0 if sa.has_ledger else UNLIMITED
    if sa.has_ledger and agreement.is_negotiated and past == Past():
        # A key made for this SA, seen for the first time: it begins at once, so that a rekey under load waits for no disk.
        words[SEQUENCE_END] = words[SEQUENCE_RESERVED] = min(last + FIRST_BLOCK, sa.last_sequence)
        words[IV_LEFT] = FIRST_BLOCK
    # The IV is a counter of its own with a random start, never the sequence number: adding a key again repeats no nonce (S22).
    words[IV_NEXT] = int.from_bytes(makings.entropy.octets(8), "big") if past.iv is None else past.iv
    sa.window = Window(sa.hot, agreement.checked_packets, _numbers(agreement), highest=max(agreement.sequence, past.mark))


def _is_counted(agreement: Agreement, makings: Makings) -> bool:
    return makings.has_ledger and agreement.index.protocol in (Protocol.ESP, Protocol.AH)


def _recall(agreement: Agreement, makings: Makings) -> Past:
    """Raises Refused."""
    return makings.ledger.recall(agreement) if makings.ledger is not None and _is_counted(agreement, makings) else Past()


def _numbers(agreement: Agreement) -> Numbers:
    return Numbers.EXTENDED if agreement.has_esn else (Numbers.CYCLIC if may_cycle(agreement) else Numbers.ONCE)
