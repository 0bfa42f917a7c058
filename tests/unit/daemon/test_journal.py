"""An engine is what the engine before was, as far as its journal and its memory say."""

import random

import pytest

from koura.daemon.journal import lefts
from koura.errors import Errno
from koura.notices import EncapsulationPort, SocketBound, SocketGone, SocketPolicy
from koura.pfkey import show
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.extensions import Lifetime, Sa
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.sadb.association import RESUME_SEQUENCE, State
from koura.sadb.hot import IV_NEXT, SEQUENCE_LAST
from koura.saindex import Direction
from koura.spd.policy import Action, Policy
from koura.traffic.outcome import Discard, Forward
from tests.unit.daemon.kit import Engine, udp

KEY = "0x" + bytes(range(20)).hex()
PAIR = f"""
add 10.0.0.1 10.0.0.2 esp 0x1000 -m tunnel -u 5 -r 8 -E aes-gcm-16 {KEY};
add 10.0.0.2 10.0.0.1 esp 0x2000 -m tunnel -r 8 -lh 100 -E aes-gcm-16 {KEY};
add 10.0.0.1 10.0.0.2 ah 0x3000 -A hmac-sha2-256 0x{bytes(32).hex()};
add 10.0.0.1 10.0.0.2 ipcomp 0x4000 -C deflate;
add 10.0.0.1 10.0.0.2 tcp 0x5000 -A tcp-md5 "secret";
spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/10.0.0.1-10.0.0.2/unique:5;
spdadd 10.1.0.0/16 10.3.0.0/16 udp -P out prio 10 none;
spdadd 10.2.0.0/16 10.1.0.0/16 any -P in ipsec esp/tunnel/10.0.0.2-10.0.0.1/require;
"""


def test_sas_and_policies_come_back_as_they_were() -> None:
    first = Engine()
    first.script(PAIR)
    second = first.next()
    assert not second.failed
    assert second.dumps() == first.dumps()
    assert second.stack.spd.counts == first.stack.spd.counts


def test_a_third_engine_has_what_the_second_changed() -> None:
    first = Engine()
    first.script(PAIR)
    second = first.next()
    second.script("delete 10.0.0.1 10.0.0.2 esp 0x1000; spddelete 10.1.0.0/16 10.3.0.0/16 udp -P out;")
    second.script(f"add 10.0.0.1 10.0.0.2 esp 0x1001 -E aes-gcm-16 {KEY};")
    third = second.next()
    assert third.dumps() == second.dumps()
    third.script("spdadd 10.9.0.0/16 10.2.0.0/16 any -P out none;")
    assert max(entry.id for entry in third.stack.spd.entries()) == 4, "an id never comes back"


def test_random_changes_are_all_in_the_journal() -> None:
    for seed in range(10):
        dice = random.Random(seed)
        engine = Engine(seed)
        for _ in range(60):
            n = dice.randrange(12)
            text = dice.choice((
                f"add 10.0.0.1 10.0.0.{n} esp {0x1000 + n} -E aes-gcm-16 {KEY};",
                f"update 10.0.0.1 10.0.0.{n} esp {0x1000 + n} -E aes-gcm-16 {KEY};",
                f"delete 10.0.0.1 10.0.0.{n} esp {0x1000 + n};",
                f"getspi 10.0.0.1 10.0.0.{n} esp {0x1000 + n};",
                f"spdadd 10.0.{n}.0/24 10.9.0.0/16 any -P out ipsec esp/tunnel/10.0.0.1-10.0.0.{n}/unique;",
                f"spdupdate 10.0.{n}.0/24 10.9.0.0/16 any -P out prio {n} none;",
                f"spddelete 10.0.{n}.0/24 10.9.0.0/16 any -P out;",
            ))  # fmt: skip
            try:
                engine.script(text)
            except AssertionError:
                engine.keep()
            ends = [show.host(ext, bytes((10, 0, 0, last)), FREEBSD) for ext, last in ((Ext.ADDRESS_SRC, 1), (Ext.ADDRESS_DST, n))]
            said = (Sa(0x1000 + n), Lifetime(Ext.LIFETIME_HARD, 0, 0, 1000 + n, 0), *ends)
            engine.ask(Message(Type.UPDATE, SaType.ESP, 5, 101, extensions=said).write(FREEBSD))
            if dice.random() < 0.1:
                engine = engine.next(0.01)
        after = engine.next(0.01)
        assert (after.dumps(), after.failed) == (engine.dumps(), []), f"seed {seed}"


def test_no_number_and_no_iv_comes_twice() -> None:
    first = Engine()
    first.script(PAIR)
    sa = next(sa for sa in first.stack.sadb if sa.agreement.spi == 0x1000)
    sent = first.stack.outbound([udp("10.1.0.1", "10.2.0.1")] * 5, first.at).outcomes
    assert all(isinstance(outcome, Forward) for outcome in sent)
    last, iv = int(sa.hot.words[SEQUENCE_LAST]), int(sa.hot.words[IV_NEXT])
    second = first.next()
    again = next(sa for sa in second.stack.sadb if sa.agreement.spi == 0x1000)
    assert again.hot.words[SEQUENCE_LAST] == last + RESUME_SEQUENCE
    assert (int(again.hot.words[IV_NEXT]) - iv) % (1 << 64) >= RESUME_SEQUENCE
    assert again.hot.words[SEQUENCE_LAST] > last


def test_what_a_window_had_seen_it_has_seen() -> None:
    sender, receiver = Engine(1), Engine(2)
    sender.script(PAIR)
    receiver.script(
        f"add 10.0.0.1 10.0.0.2 esp 0x1000 -m tunnel -r 8 -E aes-gcm-16 {KEY};"
        "spdadd 10.1.0.0/16 10.2.0.0/16 any -P in ipsec esp/tunnel/10.0.0.1-10.0.0.2/require;"
    )
    packets = [
        outcome.packets[0]
        for outcome in sender.stack.outbound([udp("10.1.0.1", "10.2.0.1")] * 3, sender.at).outcomes
        if isinstance(outcome, Forward)
    ]
    assert len(packets) == 3
    assert not isinstance(receiver.stack.inbound(packets[:2], receiver.at).outcomes[0], Discard)
    restarted = receiver.next()
    ends = restarted.stack.inbound(packets, restarted.at).outcomes
    assert [isinstance(end, Discard) for end in ends] == [True, True, False]


def test_sas_hang_where_they_hung() -> None:
    """The third joined the second's relation, which has gone since: alone it would join the first's."""
    first = Engine()
    first.script("".join(
        f"add 10.0.0.1 10.0.0.2 esp {spi} {more} -E aes-gcm-16 {KEY};"
        for spi, more in ((0x1000, "-u 7"), (0x2000, "-u 9"), (0x3000, "-m transport"))
    ))  # fmt: skip
    first.script("delete 10.0.0.1 10.0.0.2 esp 0x2000;")
    relations = [(sa.agreement.spi, sa.relation) for sa in first.stack.sadb]
    second = first.next()
    assert [(sa.agreement.spi, sa.relation) for sa in second.stack.sadb] == relations
    for engine in (first, second):
        engine.script(f"add 10.0.0.1 10.0.0.2 esp 0x4000 -E aes-gcm-16 {KEY};")
    assert [sa.relation for sa in second.stack.sadb] == [sa.relation for sa in first.stack.sadb]


def test_registrations_and_half_made_sas_stay() -> None:
    first = Engine()
    assert first.simple(Type.REGISTER, SaType.ESP)[0].errno == 0
    first.script("getspi 10.0.0.1 10.0.0.2 esp 0x1234;")
    second = first.next()
    assert second.simple(Type.REGISTER, SaType.ESP)[0].errno == Errno.EEXIST.bsd
    assert [sa.state for sa in second.stack.sadb] == [State.LARVAL]
    second.script(f"update 10.0.0.1 10.0.0.2 esp 0x1234 -E aes-gcm-16 {KEY};")
    assert second.next().dumps() == second.dumps()
    idle = first.next(40)
    idle.stack.advance(idle.at)
    assert len(idle.stack.sadb) == 0, "its timer ran on"


def test_limits_that_ran_out_meanwhile_are_told_once() -> None:
    first = Engine()
    first.simple(Type.REGISTER, SaType.ESP)
    first.script(f"add 10.0.0.1 10.0.0.2 esp 0x1000 -ls 10 -lh 1000 -E aes-gcm-16 {KEY};")
    second = first.next(20)
    events = second.stack.advance(second.at)
    second.keep()
    assert [Message.read(event.octets, FREEBSD).type for event in events] == [Type.EXPIRE]  # type: ignore[union-attr]
    third = second.next(20)
    assert third.stack.advance(third.at) == ()


def test_policies_and_places_of_sockets_stay_until_the_socket_goes() -> None:
    first = Engine()
    for direction in (Direction.INBOUND, Direction.OUTBOUND):
        first.stack.notice(SocketPolicy(99, Policy(direction, Action.BYPASS), is_privileged=True), first.at)
    bound = SocketBound(99, 17, b"", 500)
    first.stack.notice(bound, first.at)
    first.book.note(bound)
    first.book.note_port(99, 4500, True)
    first.book.note_port(98, 4500, True)
    first.keep()
    second = first.next()
    policy = second.stack.spd.socket_policy(99, Direction.INBOUND)
    assert policy is not None and policy.policy.action is Action.BYPASS
    assert (second.book.ports_of(99), second.book.has_port(4500)) == ([4500], True)
    second.stack.notice(SocketGone(99), second.at)
    second.book.note(SocketGone(99))
    second.book.note_port(99, 4500, False)
    second.keep()
    assert second.book.has_port(4500), "another socket wants it"
    third = second.next()
    assert third.stack.spd.socket_policy(99, Direction.INBOUND) is None
    assert not any(key.startswith(b"notice/bound") for key in third.kept)
    third.stack.notice(EncapsulationPort(4500, is_on=False), third.at)


def test_a_block_that_serves_another_sa_by_now_gives_no_numbers() -> None:
    first = Engine()
    first.script(f"add 10.0.0.1 10.0.0.2 esp 0x1000 -E aes-gcm-16 {KEY};")
    (left,) = lefts(first.kept)
    stale = dict(first.kept)
    first.script("flush;")
    first.stack.quiesce()
    first.script(f"add 10.0.0.1 10.0.0.2 esp 0x2000 -E aes-gcm-16 {KEY};")
    assert lefts(first.kept)[0].slot == left.slot
    second = Engine(3, first.memory, stale, first.at)
    assert len(second.failed) == 1 and len(second.stack.sadb) == 0
    second.keep()
    assert not lefts(second.kept)


def test_tunables_are_as_they_were_set() -> None:
    first = Engine()
    first.stack.tune("net.inet.ipsec.dfbit", "2")
    first.keep()
    assert first.next().stack.read("net.inet.ipsec.dfbit") == "2"


@pytest.mark.parametrize("kind", [Type.ADD, Type.FLUSH])
def test_a_refused_request_changes_nothing_that_is_kept(kind: Type) -> None:
    engine = Engine()
    engine.script(PAIR)
    before = dict(engine.kept)
    octets = bytearray(Message(kind, 0, 5, 101).write(FREEBSD))
    octets[3] = 77  # no such satype
    assert engine.ask(bytes(octets))[0].errno == Errno.EINVAL.bsd
    assert engine.kept == before
