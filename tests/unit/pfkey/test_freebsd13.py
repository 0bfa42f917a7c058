"""Every recorded request gets the replies that FreeBSD 13.0's own code gave, or a row of deviations.toml says why not."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from koura.errors import Malformed
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.extensions import Lifetime, Sa, SpiRange
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from tests.unit.pfkey.harness import World
from tests.unit.pfkey.recordings import Case, freebsd_cases

DEVIATIONS = tomllib.loads((Path(__file__).resolve().parents[2] / "vectors" / "deviations.toml").read_text()).get("pfkey", [])


def comparable(octets: bytes) -> object:
    """A reply without times, and without what GETSPI leaves in sadb_sa beside the SPI."""
    message = Message.read(octets, FREEBSD)
    said = []
    for one in message.extensions:
        if isinstance(one, Lifetime) and one.ext == Ext.LIFETIME_CURRENT:
            said.append(Lifetime(one.ext, one.packets, one.octets, 0, one.use_s))
        elif isinstance(one, Sa) and message.type == Type.GETSPI and not message.errno:
            said.append(Sa(one.spi))
        else:
            said.append(one)
    return message.type, message.satype, message.errno, message.seq, message.pid, message.reserved, message.version, said


def told(replies: Sequence[bytes], send_errno: int) -> str:
    """The sender's side in a word or two, as deviations.toml has it."""
    if send_errno:
        return f"send errno {send_errno}"
    if not replies:
        return "nothing"
    if len(replies) > 1:
        return f"{len(replies)} messages"
    return f"errno {replies[0][2]}" if replies[0][2] else "success"


def expect_spi(case: Case, world: World) -> None:
    """Let the dice fall as they fell there."""
    world.dice.told.clear()
    if case.send_errno or not case.replies[0] or case.request[1] != Type.GETSPI:
        return
    try:
        asked, got = Message.read(case.request, FREEBSD), Message.read(case.replies[0][0], FREEBSD)
    except Malformed:
        return
    sa, span = got.find(Sa, Ext.SA), asked.find(SpiRange, Ext.SPIRANGE)
    if sa is not None and not got.errno:
        world.dice.told.append(sa.spi - (span.min if span is not None else world.settings.key.spi_minval))


def differences() -> dict[str, tuple[str, str]]:
    """case -> (what FreeBSD told its sender, what we tell), for every case with any difference on any socket."""
    world = World()
    for socket in range(3):
        world.open(socket, pid=28800)
    world.ask(1, Message(Type.REGISTER, SaType.ESP, 1, 28801))
    found = {}
    for case in freebsd_cases():
        for socket in range(3):
            world.take(socket)
        expect_spi(case, world)
        errno = world.send(0, case.request)
        ours = [world.take(socket) for socket in range(3)]
        same = errno == case.send_errno and all(
            list(map(comparable, mine)) == list(map(comparable, theirs)) for mine, theirs in zip(ours, case.replies, strict=True)
        )
        if not same:
            found[case.name] = (told(case.replies[0], case.send_errno), told(ours[0], errno))
    return found


@pytest.mark.covers("R15", "R43", "R51")
def test_replies_are_those_of_the_kernel_except_where_we_say_so() -> None:
    listed = {row["case"]: row for row in DEVIATIONS}
    assert len(listed) == len(DEVIATIONS), "a case is listed twice"
    found = differences()
    unlisted = {case: pair for case, pair in found.items() if case not in listed}
    assert not unlisted, f"differs and is not in deviations.toml: {unlisted}"
    stale = [case for case in listed if case not in found]
    assert not stale, f"listed in deviations.toml and does not differ: {stale}"
    for case, row in listed.items():
        assert row["ours"] == found[case][1], f"{case}: deviations.toml says {row['ours']!r}, we answer {found[case][1]!r}"
        assert row["number"]
        assert row["reason"]
