"""The configuration file: all of it or nothing, and only what differs."""

import itertools
from collections.abc import Callable

import pytest

from koura.daemon.site import Diff, Tunables
from koura.errors import Errno, Refused
from koura.moment import Moment
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.pfkey.numbers import Type
from koura.slices import whole
from koura.traffic.outcome import ToKeySocket
from tests.unit.daemon.kit import Engine

KEY = "0x" + bytes(range(20)).hex()
OTHER = "0x" + bytes(range(1, 21)).hex()


def sa(spi: int, key: str = KEY, more: str = "") -> str:
    return f"add 10.0.0.1 10.0.0.2 esp {spi} {more} -E aes-gcm-16 {key};\n"


def spd(n: int, what: str = "none") -> str:
    return f"spdadd 10.{n}.0.0/16 10.200.0.0/16 any -P out {what};\n"


UNIQUE = "ipsec esp/tunnel/10.0.0.1-10.0.0.2/unique"


def load(engine: Engine, text: str, is_trial: bool = False) -> tuple[int, int, int]:
    diff = engine.site.load([("site.conf", text)], engine.at, is_trial=is_trial)
    engine.keep()
    return diff.added, diff.removed, diff.unchanged


def order(engine: Engine) -> list[int]:
    return [entry.policy.selector.src.address[1] for entry in engine.stack.spd.entries() if entry.policy.selector is not None]


def test_loading_it_again_changes_nothing() -> None:
    engine = Engine()
    text = "flush; spdflush;" + sa(0x1000) + sa(0x1001, more="-lh 100") + spd(1, UNIQUE) + spd(2)
    assert load(engine, text) == (4, 0, 0)
    before, generation = engine.dumps(), engine.stack.spd.generation
    assert load(engine, text) == (0, 0, 4)
    assert engine.dumps() == before and engine.stack.spd.generation == generation


def test_only_what_differs_is_changed() -> None:
    engine = Engine()
    load(engine, sa(0x1000) + sa(0x1001) + spd(1) + spd(2))
    kept = engine.stack.sadb.by_handle(*next((s.slot, s.epoch) for s in engine.stack.sadb if s.agreement.spi == 0x1000))
    diff = engine.site.load([("site.conf", sa(0x1000) + sa(0x1002) + spd(1) + spd(3))], engine.at)
    assert sorted(line[0] for line in diff.lines) == ["+", "+", "-", "-"]
    assert diff.unchanged == 2
    assert kept in list(engine.stack.sadb), "the same object: counters and numbers go on"
    assert order(engine) == [1, 3]


def test_other_keys_are_another_sa() -> None:
    engine = Engine()
    load(engine, sa(0x1000))
    assert load(engine, sa(0x1000, OTHER)) == (1, 1, 0)
    (only,) = engine.stack.sadb
    assert only.agreement.encryption_key.reveal().hex() == OTHER[2:]


WEAK = "add 10.0.0.1 10.0.0.2 ah 0x2000 -A hmac-md5 0x" + "11" * 16 + ";\n"
ALLOWED = (("net.koura.weak_crypto", "1"), ("net.inet.ipsec.dfbit", "2"))


def loaded_with(engine: Engine, text: str, tunables: Tunables) -> Diff:
    diff = whole(engine.site.loading([("site.conf", text)], lambda: engine.at, tunables))
    engine.keep()
    return diff


def test_tunables_are_set_with_the_file_or_not_at_all() -> None:
    engine = Engine()
    engine.stack.tune("net.koura.weak_crypto", "0")
    with pytest.raises(Refused):
        loaded_with(engine, WEAK, ALLOWED[1:])
    assert engine.stack.read("net.inet.ipsec.dfbit") == "0"
    with pytest.raises(Refused):
        loaded_with(engine, "nonsense;", ALLOWED)
    assert engine.stack.read("net.koura.weak_crypto") == "0"
    diff = loaded_with(engine, WEAK, ALLOWED)
    assert (diff.added, [line for line in diff.lines if "net." in line]) == (
        1, ["~ net.koura.weak_crypto: 0 -> 1", "~ net.inet.ipsec.dfbit: 0 -> 2"],
    )  # fmt: skip
    assert engine.stack.read("net.inet.ipsec.dfbit") == "2"


def test_tunables_that_bound_one_another_come_in_any_order() -> None:
    engine = Engine()
    wanted = (("net.key.spi_minval", str(0x2000_0000)), ("net.key.spi_maxval", str(0x3000_0000)))
    loaded_with(engine, "", wanted)
    assert engine.stack.read("net.key.spi_minval") == str(0x2000_0000)


def test_a_limit_that_comes_with_the_file_is_the_one_that_counts() -> None:
    engine = Engine()
    load(engine, sa(0x1000))
    with pytest.raises(Refused, match="1 SAs: the limit is reached"):
        loaded_with(engine, sa(0x1000) + sa(0x1001), (("net.koura.limits.associations", "1"),))
    assert len(engine.stack.sadb) == 1


def test_policies_stand_in_the_order_of_the_file() -> None:
    engine = Engine()
    load(engine, spd(1) + spd(2) + spd(3))
    assert load(engine, spd(3) + spd(1) + spd(2)) == (2, 2, 1)
    assert order(engine) == [3, 1, 2]
    assert load(engine, spd(3) + spd(9) + spd(1) + spd(2)) == (3, 2, 1)
    assert order(engine) == [3, 9, 1, 2]


def test_what_others_added_stays_and_is_not_taken_over() -> None:
    engine = Engine()
    engine.script(sa(0x9000) + spd(9))
    assert load(engine, "flush; spdflush;" + sa(0x1000) + spd(1)) == (2, 0, 0)
    assert load(engine, "") == (0, 2, 0)
    assert [one.agreement.spi for one in engine.stack.sadb] == [0x9000]
    for text in (sa(0x9000, OTHER), spd(9, UNIQUE)):
        before = engine.dumps()
        with pytest.raises(Refused) as caught:
            load(engine, sa(0x1000) + text)
        assert caught.value.errno is Errno.EEXIST
        assert engine.dumps() == before


@pytest.mark.parametrize(
    ("text", "line"),
    [("nonsense;", 2), (sa(0x10), 2), (spd(1), 2), ("getspi 10.0.0.1 10.0.0.2 esp 0x7000;", None), (sa(0x1000, "0x00"), 2)],
    ids=["syntax", "reserved SPI", "twice", "no keys", "short key"],
)
def test_a_fault_anywhere_refuses_all(text: str, line: int | None) -> None:
    engine = Engine()
    load(engine, spd(7))
    before = engine.dumps()
    with pytest.raises(Refused) as caught:
        load(engine, spd(1) + text)
    assert engine.dumps() == before
    assert line is None or f"site.conf:{line}:" in caught.value.why
    assert load(engine, spd(7)) == (0, 0, 1)


def test_a_limit_refuses_all() -> None:
    engine = Engine()
    engine.stack.tune("net.koura.limits.associations", "2")
    engine.script(sa(0x9000))
    with pytest.raises(Refused) as caught:
        load(engine, sa(0x1000) + sa(0x1001))
    assert caught.value.errno is Errno.ENOBUFS and len(engine.stack.sadb) == 1


def test_a_trial_only_says_what_would_change() -> None:
    engine = Engine()
    assert load(engine, sa(0x1000) + spd(1), is_trial=True) == (2, 0, 0)
    assert len(engine.stack.sadb) == len(engine.stack.spd) == 0


def test_the_next_engine_knows_what_the_file_has() -> None:
    engine = Engine()
    load(engine, sa(0x1000) + spd(1, UNIQUE))
    engine.script(sa(0x9000))
    after = engine.next()
    assert load(after, spd(1, UNIQUE)) == (0, 1, 1)
    assert [one.agreement.spi for one in after.stack.sadb] == [0x9000]


def test_an_order_that_comes_back_is_not_the_files() -> None:
    engine = Engine()
    load(engine, sa(0x1000))
    engine.script("flush;")
    after = engine.next()
    after.script(sa(0x9000))
    assert load(after, "") == (0, 0, 0)
    assert len(after.stack.sadb) == 1


def test_key_managers_hear_of_it() -> None:
    engine = Engine()
    load(engine, sa(0x1000) + spd(1))
    diff = engine.site.load([("site.conf", sa(0x1001, more="-lh 100") + spd(2))], engine.at)
    heard = [Message.read(event.octets, FREEBSD) for event in diff.events if isinstance(event, ToKeySocket) and event.socket == 2]
    assert [message.type for message in heard] == [Type.DELETE, Type.X_SPDDELETE, Type.ADD, Type.X_SPDADD]
    assert not any("Key" in type(extension).__name__ for message in heard for extension in message.extensions), "no keys"


def test_tcp_keys_are_known_again() -> None:
    engine = Engine()
    text = 'add 10.0.0.1 10.0.0.2 tcp 0x5000 -A tcp-md5 "secret";'
    assert load(engine, text) == (1, 0, 0)
    assert load(engine, text) == (0, 0, 1)
    assert load(engine, text.replace("secret", "other")) == (1, 1, 0)


# -- in slices -------------------------------------------------------------------------------------------------------------


def sliced(engine: Engine, text: str, between: Callable[[int], None]) -> Diff:
    """Load it, and do something between the slices, which are numbered from 0."""
    work = engine.site.loading([("site.conf", text)], lambda: engine.at)
    for number in itertools.count():
        try:
            next(work)
        except StopIteration as end:
            engine.keep()
            found = end.value
            assert isinstance(found, Diff)
            return found
        between(number)
    raise AssertionError


MANY = "".join(sa(0x1000 + n) for n in range(100)) + "".join(spd(n) for n in range(100))


def test_between_slices_clients_are_served_and_see_nothing_of_the_file() -> None:
    engine = Engine()
    slices = []

    def ask(number: int) -> None:
        slices.append(number)
        assert not list(engine.stack.sadb) and not list(engine.stack.spd.entries())
        assert engine.simple(Type.DUMP)
        engine.at = Moment(engine.at.ns + 1_000_000)

    assert sliced(engine, MANY, ask).added == 200
    assert len(slices) > 10
    assert len(list(engine.stack.sadb)) == 100
    assert {sa.created for sa in engine.stack.sadb} == {engine.at}, "they came when they came, not when reading began"


def test_what_somebody_else_made_meanwhile_refuses_the_file() -> None:
    engine = Engine()

    def take_its_place(number: int) -> None:
        if number == 5:
            engine.script(sa(0x1007, OTHER))

    with pytest.raises(Refused, match="somebody else"):
        sliced(engine, MANY, take_its_place)
    assert [one.agreement.spi for one in engine.stack.sadb] == [0x1007]


def test_a_tunable_that_was_set_meanwhile_counts() -> None:
    engine = Engine()
    text = MANY + f"add 10.0.0.1 10.0.0.2 esp 0x9000 -E des-cbc 0x{'11' * 8} -A hmac-sha1 0x{'22' * 20};"

    def forbid(number: int) -> None:
        if number == 5:
            engine.stack.tune("net.koura.weak_crypto", "0")

    with pytest.raises(Refused, match="weak"):
        sliced(engine, text, forbid)
    assert not list(engine.stack.sadb)


def test_several_scripts_are_one_and_a_fault_in_any_refuses_all() -> None:
    engine = Engine()
    diff = engine.site.load([("a.conf", sa(0x1000)), ("b.conf", spd(1))], engine.at)
    assert (diff.added, diff.unchanged) == (2, 0)
    with pytest.raises(Refused) as caught:
        engine.site.load([("a.conf", "nonsense;"), ("b.conf", spd(1) + "more;")], engine.at)
    assert "a.conf:1:1" in caught.value.why and "b.conf:2:" in caught.value.why
    with pytest.raises(Refused, match=r"b\.conf:1:1"):
        engine.site.load([("a.conf", sa(0x1000)), ("b.conf", sa(0x1000))], engine.at)
    assert len(engine.stack.sadb) == 1
