"""Routes that policies want, kept up with each change: the same as going through all of them, and told once."""

import random
from dataclasses import replace

from koura.address import Prefix, parse
from koura.daemon.destinations import Destinations
from koura.host.routes import Wanted, merged
from koura.saindex import Direction, Mode, Protocol
from koura.spd.policy import Action, Level, Policy, Requirement
from koura.spd.selector import Selector

OURS = frozenset(parse(f"192.0.2.{number}") for number in (1, 2))
PEERS = [parse(f"198.51.100.{number}") for number in range(3)]
SOURCES = [Prefix(one, 32) for one in sorted(OURS)] + [Prefix(parse("192.0.2.9"), 32), Prefix(parse("192.0.2.0"), 24)]
DESTINATIONS = [Prefix(parse(f"10.{number}.0.0"), 16) for number in range(4)]


def _policy(dice: random.Random) -> Policy:
    selector = Selector(dice.choice(list(Direction)[:2]), dice.choice(SOURCES), dice.choice(DESTINATIONS))
    action = dice.choice([Action.IPSEC, Action.DISCARD, Action.NONE])
    needs: tuple[Requirement, ...] = ()
    if action is Action.IPSEC:
        needs = (Requirement(Protocol.ESP, Mode.TUNNEL, Level.REQUIRE, src=parse("192.0.2.1"), dst=dice.choice(PEERS)),)
    return Policy(selector.direction, action, selector, needs)


def _expected(held: dict[bytes, Policy]) -> tuple[dict[Prefix, bytes], set[bytes]]:
    out = [one for one in held.values() if one.direction is Direction.OUTBOUND]
    wishes = []
    for one in out:
        assert one.selector is not None
        source = one.selector.src.address if one.selector.src.bits == 32 else b""
        if one.action is not Action.NONE:
            wishes.append(Wanted(one.selector.dst, source if source in OURS else b""))
    return merged(wishes), {need.dst for one in out for need in one.requirements}


def test_it_is_always_what_going_through_all_policies_would_say() -> None:
    seed = 20261125
    dice = random.Random(seed)
    held: dict[bytes, Policy] = {}
    known, standing = Destinations(), dict[Prefix, bytes]()
    peers: set[bytes] = set()
    for step in range(600):
        for _ in range(dice.randint(1, 3)):
            key = b"policy/%d" % dice.randrange(12)
            if dice.random() < 0.4:
                known.put(key, None)
                held.pop(key, None)
            else:
                held[key] = _policy(dice)
                known.put(key, held[key])
        wanted, unwanted = known.take(OURS.__contains__)
        standing |= {one.dst: one.source for one in wanted}
        for dst in unwanted:
            standing.pop(dst, None)
        for peer in known.take_peers():
            (peers.add if peer in known.peers else peers.discard)(peer)
        expected, ends = _expected(held)
        assert standing == expected == merged(known.all(OURS.__contains__)), f"seed {seed}, step {step}"
        assert peers == ends == set(known.peers), f"seed {seed}, step {step}"
    assert known.take(OURS.__contains__) == ([], [])


def test_what_did_not_change_is_not_told() -> None:
    known = Destinations()
    selector = Selector(Direction.OUTBOUND, SOURCES[0], DESTINATIONS[0])
    one = Policy(Direction.OUTBOUND, Action.DISCARD, selector)
    known.put(b"policy/1", one)
    assert known.take(OURS.__contains__) == ([Wanted(DESTINATIONS[0], SOURCES[0].address)], [])
    known.put(b"policy/1", replace(one, priority=9))  # its counters, say, were written down again
    assert known.take(OURS.__contains__) == ([], [])
    known.put(b"policy/1", replace(one, action=Action.NONE))
    assert known.take(OURS.__contains__) == ([], [DESTINATIONS[0]])
    assert list(known.spoken) == [SOURCES[0].address]


def test_policies_of_sockets_and_interfaces_want_no_route_but_their_peers_count() -> None:
    known = Destinations()
    selector = Selector(Direction.OUTBOUND, SOURCES[0], DESTINATIONS[0])
    need = Requirement(Protocol.ESP, Mode.TUNNEL, Level.REQUIRE, src=SOURCES[0].address, dst=PEERS[0])
    known.put(b"policy/1", Policy(Direction.OUTBOUND, Action.IPSEC, selector, (need,)), is_routed=False)
    assert known.take(OURS.__contains__) == ([], [])
    assert known.take_peers() == (PEERS[0],)
    known.put(b"policy/1", None)
    assert known.take_peers() == (PEERS[0],)
    assert not known.peers


def test_a_default_that_discards_wants_everything() -> None:
    known, whole = Destinations(), Prefix(bytes(4), 0)
    known.want(b"default/4", whole)
    known.want(b"default/4", whole)
    assert known.take(OURS.__contains__) == ([Wanted(whole)], [])
    known.want(b"default/4", None)
    assert known.take(OURS.__contains__) == ([], [whole])
