"""The SAD: finding, filing, lifetimes, numbers and nonces."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koura.crypto.algorithm import Kind
from koura.crypto.driver import Support
from koura.errors import Bug, Errno, Refused
from koura.reasons import Discarded
from koura.sadb import sequence
from koura.sadb.acquire import Acquires
from koura.sadb.agreement import Agreement, Limits, SaFlags
from koura.sadb.association import NEXT, Happened, State
from koura.sadb.database import Database
from koura.sadb.hot import IV_LEFT, IV_NEXT, PACKETS, SEQUENCE_LAST, SEQUENCE_RESERVED, WINDOW_TOP
from koura.saindex import Mode, Protocol, SaIndex
from koura.secret import Secret
from koura.settings import KeySettings
from koura.settings import Limits as Bounds
from koura.xform import base
from tests.unit.sadb.kit import database
from tests.unit.traffic.kit import AT, ESP, IPCOMP, TRANSPORT, TUNNEL, A, B, agreement, datagram
from tests.unit.xform.kit import CBC, CTR, GCM, SHA256, context, esp, key, row

LAST32 = 0xFFFF_FFFF


def index(reqid: int = 0, mode: Mode = TRANSPORT) -> SaIndex:
    return SaIndex(A, B, ESP, mode, reqid)


# -- finding ---------------------------------------------------------------------------------------------------------------


def test_a_handle_names_one_sa_and_never_its_successor() -> None:
    sad = database()
    first = sad.add(agreement(ESP, A, B, 0x1000), AT)
    handle = (first.slot, first.epoch)
    assert sad.by_handle(*handle) is first
    sad.remove(first)
    assert sad.by_handle(*handle) is None
    sad.quiesce()
    second = sad.add(agreement(ESP, A, B, 0x1000), AT)
    assert second.slot == handle[0]
    assert second.epoch == handle[1] + 1
    assert sad.by_handle(*handle) is None
    assert sad.by_handle(second.slot, second.epoch) is second
    assert second.hot.words[PACKETS] == 0


def test_a_block_rests_until_quiesce() -> None:
    sad = database()
    gone = sad.add(agreement(ESP, A, B, 0x1000), AT)
    sad.remove(gone)
    assert sad.add(agreement(ESP, A, B, 0x1001), AT).slot != gone.slot


@pytest.mark.covers("S21")
def test_a_larval_sa_is_found_and_not_used_until_its_keys_come_with_another_mode_and_reqid() -> None:
    sad = database()
    bare = sad.larval(agreement(ESP, A, B, 0x1000, Mode.ANY), AT, 30)
    assert sad.by_spi(B, ESP, 0x1000) is bare
    assert sad.outbound(index(), oldest=True) is None
    with pytest.raises(Refused) as refused:
        sad.add(agreement(ESP, A, B, 0x1000), AT)
    assert refused.value.errno is Errno.EEXIST
    sad.mature(bare, agreement(ESP, A, B, 0x1000, TUNNEL, reqid=7), AT.after_s(1))
    assert sad.outbound(index(7, TUNNEL), oldest=True) is bare
    assert sad.outbound(index(7), oldest=True) is None
    assert bare.created == AT.after_s(1)


def test_a_larval_sa_whose_time_is_up_goes_silently() -> None:
    sad = database()
    bare = sad.larval(agreement(ESP, A, B, 0x1000), AT, 30)
    assert sad.next_deadline() == AT.after_s(30)
    assert sad.due(AT.after_s(29)) == ()
    assert sad.due(AT.after_s(30)) == ()
    assert bare.state is State.DEAD
    assert len(sad) == 0


@pytest.mark.covers("M25")
def test_tcp_md5_keys_are_stored_one_for_a_pair() -> None:
    md5 = row(Kind.INTEGRITY, "tcp-md5")
    made = Agreement(SaIndex(A, B, Protocol.TCP, Mode.TCP_MD5, 0), 0x1000, integrity=md5, integrity_key=Secret(b"secret"))
    sad = database()
    sa = sad.add(made, AT)
    assert sad.by_spi(B, Protocol.TCP, 0x1000) is sa
    assert sa.agreement.integrity_key.reveal() == b"secret"
    assert sa.digest is not None
    assert len(sa.digest.digest(b"segment")) == 16
    with pytest.raises(Refused):
        sad.add(replace(made, spi=0x1001), AT)
    assert sad.flush(Protocol.TCP) == (sa,)


def test_limits_are_errno_enobufs_and_leave_nothing_behind() -> None:
    sad = database(bounds=Bounds(associations=2, windows_octets=1 << 10, window_packets=5000))
    sad.add(agreement(ESP, A, B, 0x1000), AT)
    for window, errno in ((5001, Errno.EINVAL), (1 << 40, Errno.EINVAL)):
        with pytest.raises(Refused) as refused:
            sad.add(agreement(ESP, A, B, 0x1001, window=window), AT)
        assert refused.value.errno is errno
    sad.add(agreement(ESP, A, B, 0x1001), AT)
    with pytest.raises(Refused) as refused:
        sad.add(agreement(ESP, A, B, 0x1002), AT)
    assert refused.value.errno is Errno.ENOBUFS
    assert len(sad) == 2


# -- states and lifetimes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Happened)))
def test_every_state_and_event(state: State, event: Happened) -> None:
    sad = database()
    sa = sad.add(agreement(ESP, A, B, 0x1000), AT)
    sa.hot.words[0] = state
    if (state, event) in NEXT:
        sa.happen(event)
        assert sa.state is NEXT[(state, event)]
    else:
        with pytest.raises(Bug):
            sa.happen(event)
        assert sa.state is state


@pytest.mark.covers("S17")
@pytest.mark.parametrize(("limits", "packets"), [(Limits(packets=5), 5), (Limits(octets=500), 5), (Limits(octets=401), 5)])
def test_an_sa_ends_with_the_packet_that_reaches_its_hard_limit(limits: Limits, packets: int) -> None:
    sad = database()
    sa = sad.add(esp(GCM, hard=limits), AT)
    for count in range(1, packets + 1):
        assert sad.outbound(index(), oldest=True) is sa, count
        sad.use(sa, 100, AT)
    assert sad.outbound(index(), oldest=True) is None
    assert sad.by_spi(B, ESP, sa.agreement.spi) is None
    told = sad.due(AT)
    assert [(one.sa, one.is_hard) for one in told] == [(sa, True)]
    assert len(sad) == 0
    assert sad.due(AT) == ()


@pytest.mark.covers("S20")
@pytest.mark.parametrize(
    ("hard", "soft"), [(Limits(packets=10), 8), (Limits(octets=1000), 8), (Limits(add_s=100), 80), (Limits(use_s=100), 80)]
)
def test_soft_is_80_percent_of_hard_and_each_is_told_once(hard: Limits, soft: int) -> None:
    sad = database()
    sa = sad.add(esp(GCM, hard=hard), AT)
    if hard.packets or hard.octets:
        for _ in range(soft):
            assert sad.due(AT) == ()
            sad.use(sa, 100, AT)
        assert [one.is_hard for one in sad.due(AT)] == [False]
        assert sa.state is State.DYING
        assert sad.due(AT) == ()
        return
    sad.use(sa, 100, AT)
    assert sad.next_deadline() == AT.after_s(soft)
    assert [one.is_hard for one in sad.due(AT.after_s(soft))] == [False]
    assert sad.due(AT.after_s(99)) == ()
    assert [one.is_hard for one in sad.due(AT.after_s(100))] == [True]


@pytest.mark.covers("S18")
@pytest.mark.parametrize("word", [SEQUENCE_LAST, WINDOW_TOP])
@pytest.mark.parametrize("flags", [SaFlags.NONE, SaFlags.ESN])
def test_at_80_percent_of_the_number_space_an_sa_expires_softly_without_any_lifetime(word: int, flags: SaFlags) -> None:
    sad = database()
    sa = sad.add(esp(GCM, flags=flags), AT)
    last = (1 << 64) - 1 if flags else LAST32
    sa.hot.words[word] = last // 100 * 80
    sad.use(sa, 1, AT)
    assert sad.due(AT) == ()
    sa.hot.words[word] = last // 100 * 80 + 1
    sad.use(sa, 1, AT)
    assert [one.is_hard for one in sad.due(AT)] == [False]
    sad.use(sa, 1, AT)
    assert sad.due(AT) == ()


def test_a_renewed_sa_is_mature_again_and_told_again() -> None:
    sad = database()
    sa = sad.add(esp(GCM, hard=Limits(add_s=100)), AT)
    sad.due(AT.after_s(80))
    assert sa.state is State.DYING
    sad.renew(sa, esp(GCM, hard=Limits(add_s=1000)))
    assert sa.state is State.MATURE
    assert sad.due(AT.after_s(100)) == ()
    assert [one.is_hard for one in sad.due(AT.after_s(800))] == [False]


@pytest.mark.covers("M40")
def test_crypto_support_holds_for_sas_that_are_made_from_now_on() -> None:
    sad = database()
    old = sad.add(agreement(ESP, A, B, 0x1000), AT)
    sad.tune(6, Support.HARDWARE)
    with pytest.raises(Refused, match="no hardware driver serves aes-gcm-16"):
        sad.add(agreement(ESP, A, B, 0x1001), AT)
    assert old.is_usable
    assert base.output(old, datagram(A, B), context())
    sad.tune(6, Support.SOFTWARE)
    sad.add(agreement(ESP, A, B, 0x1001), AT)


# -- numbers and nonces ----------------------------------------------------------------------------------------------------


def ivs(sad: Database, count: int, *, flags: SaFlags = SaFlags.NONE) -> list[int]:
    sa = sad.add(esp(GCM, flags=flags, window_packets=0), AT)
    found = [sequence.next_iv(sa) for _ in range(count)]
    sad.remove(sa)
    return found


@pytest.mark.covers("S22")
def test_flush_and_add_of_the_same_key_with_other_dice_repeats_no_iv() -> None:
    """The IVs of one SA are consecutive from a random start; 300 of 50 packets each meet by a chance of about 2^-42."""
    seen: set[int] = set()
    for seed in range(300):
        found = ivs(database(seed=seed), 50)
        assert not seen & set(found), f"seed {seed}"
        seen |= set(found)
    assert len(seen) == 300 * 50


@pytest.mark.covers("S2", "S22")
@settings(max_examples=40, deadline=None)
@given(
    suite=st.sampled_from((GCM, CTR, row(Kind.AEAD, "chacha20-poly1305"), row(Kind.AEAD, "aes-ccm-8"), row(Kind.AEAD, "aes-gmac"))),
    start=st.sampled_from((0, 1, LAST32 - 3, LAST32)),
    iv=st.sampled_from((0, 5, (1 << 64) - 3, (1 << 64) - 1)),
    cyclic=st.booleans(),
    replays=st.booleans(),
)
def test_no_key_and_iv_come_twice(suite: object, start: int, iv: int, cyclic: bool, replays: bool) -> None:
    """Whatever the flags: cyclic sequence numbers, the test_replay tunable, an IV that passes 2^64."""
    flags = SaFlags.CYCSEQ if cyclic else SaFlags.NONE
    chosen = esp(suite, flags=flags, sequence=start, window_packets=0)  # type: ignore[arg-type]
    sa = database().add(chosen, AT)
    sa.hot.words[IV_NEXT] = iv
    ctx = context(test_replay=int(replays))
    seen = []
    for _ in range(8):
        try:
            sealed = base.output(sa, datagram(A, B), ctx)
        except Discarded as end:
            assert end.reason.name == "esp.seqcycled"
            break
        seen.append(sealed[28:36])
    assert len(set(seen)) == len(seen)


@pytest.mark.covers("S22")
def test_with_a_ledger_nothing_goes_before_it_is_granted_and_blocks_never_overlap() -> None:
    sad = database(has_ledger=True)
    sa = sad.add(esp(GCM, sequence=10), AT)
    for take in (sequence.next_sequence, sequence.next_iv):
        with pytest.raises(sequence.Ungranted):
            take(sa)
    assert sa.hot.words[SEQUENCE_LAST] == 10
    numbers, taken = [], []
    for end, count in ((12, 2), (12, 0), (11, 1), (15, 3)):
        sequence.grant(sa, end, count)
        while True:
            try:
                numbers.append(sequence.next_sequence(sa))
                taken.append(sequence.next_iv(sa))
            except sequence.Ungranted:
                break
    assert numbers == list(range(11, 11 + len(numbers)))
    assert numbers[-1] <= 15
    assert len(set(taken)) == len(taken) <= 6
    sequence.grant(sa, 1 << 70, 1 << 70)
    assert sa.hot.words[SEQUENCE_RESERVED] == LAST32
    assert sa.hot.words[IV_LEFT] == (1 << 64) - 1


@pytest.mark.covers("S2")
@pytest.mark.parametrize(
    ("suite", "flags", "window", "cycles"),
    [(CBC, SaFlags.CYCSEQ, 0, True), (CBC, SaFlags.NONE, 0, False), (CBC, SaFlags.CYCSEQ, 32, False),
     (CBC, SaFlags.CYCSEQ | SaFlags.ESN, 0, False),
     (GCM, SaFlags.CYCSEQ, 0, False), (CTR, SaFlags.CYCSEQ, 0, False)],
)  # fmt: skip
def test_who_may_cycle(suite: object, flags: SaFlags, window: int, cycles: bool) -> None:
    last = (1 << 64) - 1 if flags & SaFlags.ESN else LAST32
    mac = SHA256 if suite is CBC else None
    chosen = esp(suite, mac, flags=flags, window_packets=window, sequence=last)  # type: ignore[arg-type]
    sa = database().add(chosen, AT)
    if cycles:
        assert sequence.next_sequence(sa) == 1
    else:
        with pytest.raises(sequence.Spent):
            sequence.next_sequence(sa)


# -- acquires --------------------------------------------------------------------------------------------------------------


def test_deadlines_of_acquires_come_in_order_even_when_the_tunable_changes() -> None:
    asked = Acquires()
    slow, quick = KeySettings(blockacq_lifetime_s=100), KeySettings(blockacq_lifetime_s=5)
    first = asked.ask(index(1), AT, slow, 10)
    second = asked.ask(index(2), AT, quick, 10)
    assert asked.next_deadline() == AT.after_s(5)
    asked.due(AT.after_s(5))
    assert len(asked) == 1
    assert asked.next_deadline() == AT.after_s(100)
    assert first is not None
    asked.settled(first, index(1))
    assert asked.next_deadline() is None
    assert second is not None
    asked.settled(second, index(2))
    assert len(asked) == 0


def test_the_oldest_of_too_many_acquires_goes() -> None:
    asked = Acquires()
    numbers = [asked.ask(index(reqid), AT.after_s(reqid), KeySettings(), 3) for reqid in range(1, 6)]
    assert len(asked) == 3
    assert numbers == [1, 2, 3, 4, 5]
    assert asked.failed(1) is None
    assert asked.failed(5) == index(5)


@pytest.mark.covers("R57", "S1")
def test_ipcomp_is_known_by_source_below_64_and_by_cpi_above() -> None:
    sad = database()
    ends = [bytes((192, 0, 2, n)) for n in (7, 8)]
    first, second = (sad.add(agreement(IPCOMP, end, B, 2), AT) for end in ends)
    assert sad.by_spi(B, IPCOMP, 2, ends[0]) is first
    assert sad.by_spi(B, IPCOMP, 2, ends[1]) is second
    assert sad.by_spi(B, IPCOMP, 2, A) is None
    with pytest.raises(Refused):
        sad.add(agreement(IPCOMP, ends[0], B, 2), AT)
    assert key(GCM).bits == 160
