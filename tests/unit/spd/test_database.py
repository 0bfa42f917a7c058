"""The SPD: order, identity, limits, lifetimes, sockets, scopes."""

from dataclasses import replace

import pytest

from koura.address import Prefix, parse
from koura.errors import Errno, Refused
from koura.moment import Moment
from koura.saindex import Direction, Mode, Protocol
from koura.spd.database import Database
from koura.spd.entry import id_from_linux_index, linux_index
from koura.spd.policy import Action, Level, Policy, Requirement, Scope
from koura.spd.reqids import REQID_END_U32, Reqids
from koura.spd.selector import Flow, Selector
from koura.traffic.outcome import Applied

IN, OUT, FWD = Direction.INBOUND, Direction.OUTBOUND, Direction.FORWARD
NOW = Moment.of_s(1_000)
A, B = parse("10.0.0.1"), parse("10.0.0.2")


def prefix(text: str) -> Prefix:
    address, _, bits = text.partition("/")
    return Prefix(parse(address), int(bits or 8 * len(parse(address))))


def selector(direction: Direction = OUT, src: str = "10.0.0.1", dst: str = "10.0.0.2", protocol: int = 255, **ports: int) -> Selector:
    return Selector(direction, prefix(src), prefix(dst), protocol, **ports)


def policy(of: Selector, priority: int = 0, **more: object) -> Policy:
    return replace(Policy(of.direction, Action.NONE, of, priority=priority), **more)  # type: ignore[arg-type]


def ipsec(of: Selector, *requirements: Requirement) -> Policy:
    return Policy(of.direction, Action.IPSEC, of, requirements)


UNIQUE = Requirement(Protocol.ESP, Mode.TRANSPORT, Level.UNIQUE)


def errno_of(call: object, *args: object) -> Errno:
    with pytest.raises(Refused) as refused:
        call(*args)  # type: ignore[operator]
    return refused.value.errno


@pytest.mark.covers("M9")
def test_lower_priority_number_goes_first_then_the_earlier() -> None:
    spd = Database()
    wide = spd.add(policy(selector(src="10.0.0.0/8", dst="0.0.0.0/0"), 5), NOW)
    narrow = spd.add(policy(selector(), 5), NOW)
    flow = Flow(A, B, 17, 1, 2)
    assert spd.match(OUT, flow) is wide, "of one priority the first added, not the most specific"
    first = spd.add(policy(selector(src="0.0.0.0/0", dst="10.0.0.0/8"), 1), NOW)
    assert spd.match(OUT, flow) is first
    assert spd.entries() == (first, wide, narrow)
    assert spd.match(IN, flow) is None


def test_ids_count_from_1_and_linux_sees_its_own_numbering() -> None:
    spd = Database()
    entries = [spd.add(policy(selector(direction)), NOW) for direction in (IN, OUT, FWD)]
    assert [entry.id for entry in entries] == [1, 2, 3]
    assert [linux_index(entry) for entry in entries] == [8, 17, 26]
    own = spd.set_socket(7, Policy(OUT, Action.BYPASS), NOW)
    assert own is not None and linux_index(own) % 8 == 4
    assert all(linux_index(entry) % 8 < 3 for entry in entries)
    assert [id_from_linux_index(linux_index(entry)) for entry in entries] == [1, 2, 3]
    spd.remove_id(3)
    assert spd.add(policy(selector(FWD)), NOW).id == 5, "an id never comes back"


def test_a_selector_stands_once() -> None:
    spd = Database()
    kept = spd.add(policy(selector()), NOW)
    assert errno_of(spd.add, policy(selector(), 9), NOW) is Errno.EEXIST
    assert spd.entries() == (kept,)
    spd.add(policy(selector(IN)), NOW)
    assert spd.remove(selector()) is kept
    assert errno_of(spd.remove, selector()) is Errno.ENOENT
    assert spd.match(OUT, Flow(A, B, 6)) is None


@pytest.mark.covers("S13")
def test_a_refused_replacement_leaves_the_old_one() -> None:
    spd = Database()
    old = spd.add(policy(selector()), NOW)
    before = spd.generation
    bad = Policy(OUT, Action.IPSEC, selector(), (Requirement(Protocol.ESP, Mode.TUNNEL),))
    assert errno_of(spd.replace, bad, NOW) is Errno.EINVAL
    assert spd.entries() == (old,) and spd.generation == before
    new = spd.replace(policy(selector(), action=Action.DISCARD), NOW)
    assert spd.entries() == (new,) and spd.match(OUT, Flow(A, B, 6)) is new
    assert spd.get(old.id) is None
    other = spd.replace(policy(selector(IN)), NOW)
    assert spd.entries() == (other, new), "replace of nothing adds"


@pytest.mark.covers("M5")
def test_every_change_moves_the_generation_and_no_question_does() -> None:
    spd = Database()
    seen = [spd.generation]

    def changed() -> bool:
        seen.append(spd.generation)
        return seen[-1] > seen[-2]

    spd.add(policy(selector()), NOW)
    assert changed()
    spd.match(OUT, Flow(A, B, 6))
    spd.entries()
    assert not changed()
    spd.replace(policy(selector()), NOW)
    assert changed()
    spd.remove(selector())
    assert changed()
    spd.set_socket(1, Policy(OUT, Action.BYPASS), NOW)
    assert changed()
    spd.socket_gone(1)
    assert changed()


@pytest.mark.covers("S9")
def test_icmp_type_0_is_not_any() -> None:
    spd = Database()
    echo_reply = spd.add(policy(selector(protocol=1, icmp_type=0, icmp_code=0)), NOW)
    any_code = spd.add(policy(selector(protocol=1, icmp_type=3)), NOW)
    any_icmp = spd.add(policy(selector(protocol=1)), NOW)
    assert spd.match(OUT, Flow(A, B, 1, 0, 0)) is echo_reply
    assert spd.match(OUT, Flow(A, B, 1, 0, 1)) is any_icmp
    assert spd.match(OUT, Flow(A, B, 1, 3, 9)) is any_code
    assert spd.match(OUT, Flow(A, B, 1, 8, 0)) is any_icmp
    assert spd.match(OUT, Flow(A, B, 17, 0, 0)) is None


def test_a_port_that_is_asked_for_and_hidden_does_not_match() -> None:
    spd = Database()
    spd.add(policy(selector(protocol=17, dport=53)), NOW)
    assert spd.match(OUT, Flow(A, B, 17, 1000, 53)) is not None
    assert spd.match(OUT, Flow(A, B, 17)) is None


def test_limit_is_enobufs() -> None:
    spd = Database(limit=2)
    spd.add(policy(selector()), NOW)
    spd.set_socket(1, Policy(OUT, Action.BYPASS), NOW)
    assert errno_of(spd.add, policy(selector(IN)), NOW) is Errno.ENOBUFS
    assert errno_of(spd.set_socket, 2, Policy(OUT, Action.BYPASS), NOW) is Errno.ENOBUFS
    assert errno_of(spd.socket_accepted, 1, 2, NOW) is Errno.ENOBUFS
    spd.replace(policy(selector(), 3), NOW)
    spd.set_socket(1, Policy(OUT, Action.BYPASS), NOW)
    assert len(spd) == 2


@pytest.mark.covers("M10")
def test_a_lifetime_ends_a_policy_and_use_prolongs_only_the_idle_time() -> None:
    spd = Database()
    lives = spd.add(policy(selector(IN), lifetime_s=10), NOW)
    idle = spd.add(policy(selector(OUT), valid_s=4), NOW)
    forever = spd.add(policy(selector(FWD)), NOW)
    assert spd.next_deadline() == NOW.after_s(5)
    assert spd.due(NOW.after_s(4)) == ()
    idle.use(100, NOW.after_s(4))
    lives.use(100, NOW.after_s(4))
    assert (idle.packets, idle.octets) == (1, 100)
    assert spd.due(NOW.after_s(5)) == (), "more than the limit, not the limit"
    assert spd.next_deadline() == NOW.after_s(9)
    assert spd.due(NOW.after_s(9)) == (idle,)
    assert spd.due(NOW.after_s(10)) == ()
    assert spd.due(NOW.after_s(11)) == (lives,)
    assert spd.entries() == (forever,) and spd.next_deadline() is None


def test_a_deadline_of_a_removed_policy_is_forgotten() -> None:
    spd = Database()
    for _ in range(500):
        spd.replace(policy(selector(), lifetime_s=10), NOW)
    assert len(spd._deadlines) < 200
    spd.remove(selector())
    assert spd.next_deadline() is None and spd.due(NOW.after_s(99)) == ()


@pytest.mark.covers("R28")
def test_unique_without_a_number_gets_one_beyond_the_manual_range() -> None:
    spd = Database()
    first = spd.add(ipsec(selector(OUT), UNIQUE, replace(UNIQUE, reqid=77)), NOW)
    assert [r.reqid for r in first.policy.requirements] == [16385, 77]
    second = spd.add(ipsec(selector(IN), replace(UNIQUE, reqid=0x4000)), NOW)
    assert second.policy.requirements[0].reqid == 16386
    loose = spd.add(ipsec(selector(FWD), replace(UNIQUE, level=Level.REQUIRE)), NOW)
    assert loose.policy.requirements[0].reqid == 0


def test_automatic_reqids_go_round_and_end_in_enobufs() -> None:
    reqids = Reqids()
    wish = ipsec(selector(), UNIQUE)
    given = [reqids.resolve(wish, 16388) for _ in range(5)]
    assert [p.requirements[0].reqid for p in given] == [16385, 16386, 16387, 16388, 16384]
    two = ipsec(selector(), UNIQUE, UNIQUE)
    reqids.release(given[1])
    with pytest.raises(Refused) as refused:
        reqids.resolve(two, 16388)
    assert refused.value.errno is Errno.ENOBUFS
    assert reqids.resolve(wish, 16388).requirements[0].reqid == 16386, "the refused request left nothing taken"
    assert reqids.resolve(wish, REQID_END_U32).requirements[0].reqid == 16389


@pytest.mark.covers("R20", "R27", "M31", "M32", "M33")
def test_socket_policies() -> None:
    spd = Database()
    own = spd.set_socket(1, ipsec(selector(OUT), UNIQUE), NOW)
    bypass = spd.set_socket(1, Policy(IN, Action.BYPASS), NOW)
    assert spd.socket_policy(1, OUT) is own and spd.socket_policy(1, IN) is bypass
    assert own is not None and own.scope is Scope.SOCKET and own.policy.requirements[0].reqid == 16385
    assert spd.match(OUT, Flow(A, B, 6)) is None, "a socket's policy is not the SPD's"
    assert errno_of(spd.set_socket, 2, Policy(OUT, Action.BYPASS), NOW, False) is Errno.EACCES
    assert errno_of(spd.set_socket, 2, ipsec(selector(OUT), UNIQUE), NOW, False) is Errno.EACCES
    for action in (Action.NONE, Action.DISCARD):
        assert errno_of(spd.set_socket, 1, Policy(OUT, action), NOW) is Errno.EINVAL
    spd.socket_accepted(1, 9, NOW)
    copy = spd.socket_policy(9, OUT)
    assert copy is not None and copy is not own and copy.policy == own.policy
    spd.set_socket(1, Policy(OUT, Action.ENTRUST), NOW, False)
    assert spd.socket_policy(1, OUT) is None and spd.socket_policy(9, OUT) is copy
    assert spd.entries(Scope.SOCKET) == (bypass, spd.socket_policy(9, IN), copy)
    assert spd.entries() == ()
    later = spd.add(ipsec(selector(), UNIQUE), NOW)
    assert later.policy.requirements[0].reqid == 16386, "the copy still holds the first"
    spd.socket_gone(9)
    spd.socket_gone(9)
    assert spd.socket_policy(9, IN) is None and len(spd) == 2


@pytest.mark.covers("M8")
def test_interface_policies_are_apart() -> None:
    spd = Database()
    owned = policy(selector(), scope=Scope.INTERFACE, interface="ipsec0")
    mine = spd.add(owned, NOW)
    other = spd.add(replace(owned, interface="ipsec1"), NOW)
    general = spd.add(policy(selector()), NOW)
    assert errno_of(spd.add, owned, NOW) is Errno.EEXIST
    flow = Flow(A, B, 6)
    assert spd.match(OUT, flow) is general
    assert spd.match(OUT, flow, "ipsec0") is mine and spd.match(OUT, flow, "ipsec1") is other
    assert spd.entries(Scope.GLOBAL) == (general,)
    assert spd.entries(Scope.INTERFACE) == (mine, other)
    assert spd.entries() == (general, mine, other)
    assert errno_of(spd.remove_id, mine.id) is Errno.EACCES
    assert spd.flush() == (general,)
    assert spd.flush(Scope.INTERFACE, "ipsec1") == (other,)
    assert spd.entries() == (mine,)
    assert spd.remove(selector(), "ipsec0") is mine and not spd.has_policies(OUT)


def test_the_reqids_of_interfaces_are_known_after_a_restart_too() -> None:
    spd = Database()
    owned = ipsec(selector(), Requirement(Protocol.ESP, Mode.TRANSPORT, level=Level.UNIQUE, reqid=100))
    spd.add(owned, NOW)
    assert not spd.tunnels, "a global policy's packets come out of no interface"
    for name in ("ipsec0", "ipsec1"):
        spd.add(replace(owned, scope=Scope.INTERFACE, interface=name), NOW)
    after = Database()
    after.resume(spd.entries(), spd.counts)
    for each in (spd, after):
        assert 100 in each.tunnels
        each.remove(selector(), "ipsec0")
        assert 100 in each.tunnels
        each.remove(selector(), "ipsec1")
        assert 100 not in each.tunnels


def test_dump_order_is_inbound_then_outbound_then_forward() -> None:
    spd = Database()
    forward, outbound, inbound = (spd.add(policy(selector(direction)), NOW) for direction in (FWD, OUT, IN))
    late = spd.add(policy(selector(OUT, "10.0.0.9"), -1), NOW)
    assert spd.entries() == (inbound, late, outbound, forward)
    assert errno_of(spd.remove_id, 99) is Errno.ENOENT


@pytest.mark.covers("S11")
@pytest.mark.parametrize("many", [0, 40])
def test_an_sa_that_a_policy_names_carries_only_its_selectors(many: int) -> None:
    spd = Database()
    gates = (parse("192.0.2.1"), parse("192.0.2.2"))
    tunnel = Requirement(Protocol.ESP, Mode.TUNNEL, Level.REQUIRE, 0, *gates)
    named = spd.add(ipsec(selector(IN, "10.0.0.0/24", "10.1.0.0/24"), tunnel), NOW)
    more = [spd.add(ipsec(selector(IN, f"10.2.{n}.0/24", "10.1.0.0/24"), tunnel), NOW) for n in range(many)]
    numbered = spd.add(ipsec(selector(IN, "10.0.9.0/24", "10.1.0.0/24"), replace(tunnel, reqid=5)), NOW)
    sa = Applied(Protocol.ESP, 2, True, 1, *gates, 0)
    good, bad = Flow(parse("10.0.0.5"), parse("10.1.0.5"), 6), Flow(parse("172.16.0.1"), parse("10.1.0.5"), 6)
    assert spd.named_by(IN, sa) == (named, *more, numbered)
    assert spd.permits(IN, sa, good) and not spd.permits(IN, sa, bad)
    assert spd.named_by(IN, replace(sa, reqid=5)) == (numbered,), "the reqid is the sharper word"
    assert not spd.permits(IN, replace(sa, reqid=5), good)
    assert spd.permits(IN, replace(sa, src=gates[1], dst=gates[0]), bad), "nobody names it"
    assert spd.permits(IN, replace(sa, protocol=Protocol.AH), bad)
    assert spd.permits(OUT, sa, bad)
    for entry in (named, *more, numbered):
        spd.remove_id(entry.id)
    assert spd.permits(IN, sa, bad) and spd.named_by(IN, sa) == ()
