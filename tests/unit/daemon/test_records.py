"""Steps between keeper and engine: whole or not at all."""

import random

import pytest

from koura.daemon.records import Kind, Reader, Record, pack, unpack, write
from koura.errors import Malformed

STEPS = [(Record(Kind.REQUEST, 7, b"abc"),), (), (Record(Kind.KEEP, 0, b""), Record(Kind.ANSWER, (1 << 32) - 1, bytes(300)))]


def test_steps_come_out_whole_however_the_octets_are_cut() -> None:
    octets = b"".join(write(step) for step in STEPS)
    for cut in range(len(octets) + 1):
        reader = Reader()
        assert [*reader.feed(octets[:cut]), *reader.feed(octets[cut:])] == STEPS


def test_a_step_that_was_cut_off_never_was() -> None:
    octets = write(STEPS[2])
    for cut in range(len(octets)):
        assert list(Reader().feed(octets[:cut])) == []


def test_random_octets_are_steps_or_malformed() -> None:
    dice = random.Random(1)
    for _ in range(2000):
        try:
            for step in Reader().feed(bytes(3) + dice.randbytes(dice.randrange(1, 60))):
                assert all(isinstance(record, Record) for record in step)
        except Malformed:
            continue


def test_items_are_packed_and_cut_ones_are_malformed() -> None:
    items = (b"", b"a", bytes(70000))
    octets = pack(items)
    assert unpack(octets) == items
    for cut in (1, 3, 4 + 1 + 2, len(octets) - 1):
        with pytest.raises(Malformed):
            unpack(octets[:cut])
    with pytest.raises(Malformed):
        list(Reader().feed(b"\xff\xff\xff\xff"))
