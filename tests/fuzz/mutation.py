"""Inputs without a fuzzer: the seeds themselves, then seeds bent by dice that have a number, so that every run can be repeated."""

import random
from collections.abc import Iterator

EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255)
MOST_OCTETS = 20_000


def inputs(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Every seed, nothing at all, noise, and then `count` bent ones."""
    dice = random.Random(seed)
    yield from seeds
    yield b""
    for octets in (1, 4, 8, 20, 40, 100, 1000):
        yield dice.randbytes(octets)
    for _ in range(count):
        yield bent(dice, seeds)


def bent(dice: random.Random, seeds: list[bytes]) -> bytes:
    """One seed after one to six changes."""
    octets = bytearray(dice.choice(seeds))
    for _ in range(dice.choice((1, 1, 2, 3, 6))):
        _bend(dice, octets, seeds)
    return bytes(octets[:MOST_OCTETS])


def _bend(dice: random.Random, octets: bytearray, seeds: list[bytes]) -> None:
    what = dice.randrange(8)
    if not octets or what == 0:
        octets += dice.randbytes(dice.randrange(1, 9))
        return
    at = dice.randrange(min(len(octets), dice.choice((8, 64, MOST_OCTETS))))
    if what == 1:
        octets[at] ^= 1 << dice.randrange(8)
    elif what == 2:
        octets[at] = dice.choice(EDGES)
    elif what == 3:
        octets[at : at + 2] = dice.choice((0, 1, 0xFFFF, len(octets), len(octets) + 1, dice.randrange(1 << 16))).to_bytes(4, "big")[-2:]
    elif what == 4:
        del octets[at : at + dice.randrange(1, 17)]
    elif what == 5:
        octets[at:at] = octets[at : at + dice.randrange(1, 33)]
    elif what == 6:
        del octets[dice.randrange(len(octets) + 1) :]
    else:
        other = dice.choice(seeds)
        start = dice.randrange(len(other) + 1)
        octets[at : at + dice.randrange(1, 65)] = other[start : start + dice.randrange(1, 65)]
