"""Damaged captures: nothing but Malformed leaves the reader, nothing at all the player, and every frame is accounted for."""

import io
import random
import tracemalloc

import pytest

from koura.errors import Malformed
from koura.replay import describe
from koura.replay.load import load
from koura.replay.player import Player, moment_of
from koura.setkey.parse import parse
from koura.sim.entropy import Seeded
from koura.wire import capture
from koura.wire.capture import Record
from tests.vectors.linux import convert
from tests.vectors.linux.load import HERE, Case, cases

ROUNDS = 60


def _damaged(dice: random.Random, octets: bytes) -> bytes:
    """Some octets changed, in the packets more often than in the file's own header; now and then cut off."""
    found = bytearray(octets)
    for _ in range(dice.choice((1, 3, 30, 200))):
        at = dice.randrange(24 if dice.random() < 0.9 else 0, len(found))
        found[at] = dice.choice((0, 255, dice.randrange(256), found[at] ^ 1 << dice.randrange(8)))
    return bytes(found[: dice.randrange(len(found))] if dice.random() < 0.2 else found)


@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_damaged_capture(seed: int) -> None:
    dice = random.Random(seed)
    for round_ in range(ROUNDS):
        case = dice.choice(cases())
        is_outbound = dice.random() < 0.3
        folder = HERE / "plain" if is_outbound else HERE
        octets = _damaged(dice, (folder / f"{case.name}.pcap").read_bytes())
        try:
            _play(case, octets, is_outbound)
        except Malformed:
            continue
        except BaseException as error:
            error.add_note(f"seed {seed}, round {round_}, {case.name}, outbound {is_outbound}")
            raise


def _play(case: Case, octets: bytes, is_outbound: bool) -> None:
    script = parse(convert.outbound_script(case.entry) if is_outbound else convert.script(case.entry, "a"))
    player = None
    try:
        for record in capture.read(io.BytesIO(octets)):
            if player is None:
                player = Player(load(script, Seeded(1), moment_of(record))[0], is_outbound, moment_of(record))
            played = player.play(record)
            assert describe.line(played)
            assert describe.values(played)
    finally:
        if player is not None:
            player.finish()
            summary = player.summary
            assert summary.frames == summary.packets + sum(summary.left.values())
            assert summary.packets == sum(summary.outcomes().values())
            assert all(count >= 0 for count in summary.reasons.values())
            assert list(summary.lines())


def test_memory_does_not_grow_with_the_capture() -> None:
    """Ten times the frames, fragments and unknown SPIs among them, need no more memory."""
    case = next(case for case in cases() if case.name == "udpencap-cbc-frag-tunnel6")
    frames = case.packets()

    def peak_octets(rounds: int) -> int:
        player = Player(load(parse("flush;"), Seeded(1), moment_of(Record(0, 0, b"", 0)))[0], False, moment_of(Record(0, 0, b"", 0)))
        tracemalloc.start()
        for number in range(rounds):
            for at_ns, packet in frames:
                player.play(Record(at_ns + number * 1_000_000_000, capture.RAW, packet, len(packet)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_octets(80) < 2 * peak_octets(8) + 50_000
