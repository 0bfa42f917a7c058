"""Bent messages get an errno or a reply, never an exception, and a refused one has changed nothing."""

import random

import pytest

from koura.pfkey.dialect import DIALECTS, LINUX, Dialect
from koura.settings import Limits, Settings
from tests.unit.pfkey.harness import World
from tests.unit.pfkey.mutate import mutated, seeds

FEW, MANY = 1_500, 100_000  # for each dialect


def _world(dialect: Dialect) -> World:
    world = World(Settings(limits=Limits(associations=200, policies=200, windows_octets=1 << 22)))
    for socket in range(3):
        world.open(socket, dialect if socket < 2 else LINUX, pid=28800)
    return world


def _run(dialect: Dialect, count: int, seed: int) -> dict[str, int]:
    dice = random.Random(seed)
    pool = seeds(dialect)
    world = _world(dialect)
    ends = {"refused by send": 0, "refused by a reply": 0, "done": 0}
    before = world.state()
    for turn in range(count):
        if len(world.sad) > 150 or len(world.spd) > 150:
            world.sad.flush()
            world.spd.flush()
            before = world.state()
        octets = mutated(dice, pool, dialect)
        try:
            errno = world.send(0, octets)
        except Exception as error:
            raise AssertionError(f"seed {seed}, turn {turn}: {octets.hex()}") from error
        replies = world.take(0)
        refused = errno or (replies and replies[0][2] and replies[0][1] == octets[1])
        if refused:
            after = world.state()
            assert after == before, f"seed {seed}, turn {turn}: refused and changed something: {octets.hex()}"
            assert not any(world.inbox[other] for other in (1, 2)), "a refusal is nobody else's business"
        else:
            before = world.state()
        for other in (1, 2):
            world.take(other)
        ends["refused by send" if errno else "refused by a reply" if refused else "done"] += 1
    return ends


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda d: d.name)
def test_some_mutated_messages(dialect: Dialect) -> None:
    ends = _run(dialect, FEW, seed=2367)
    assert ends["done"] > FEW // 20, f"the mutations are too wild to reach the handlers: {ends}"
    assert ends["refused by a reply"] > FEW // 10


@pytest.mark.slow
@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda d: d.name)
def test_a_hundred_thousand_mutated_messages(dialect: Dialect) -> None:
    assert sum(_run(dialect, MANY, seed=4301).values()) == MANY
