"""PF_KEY messages, bent: whole extensions dropped, doubled, swapped, resized; fields set to edges; numbers of other systems."""

import random
import struct

from koura.errors import Malformed
from koura.pfkey.dialect import FREEBSD, Dialect
from koura.pfkey.message import Message, cut, header
from tests.unit.pfkey.recordings import CLIENTS, conversation, freebsd_cases

EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 16, 26, 28, 29, 31, 32, 33, 127, 128, 129, 200, 254, 255)
WORDS = (0, 1, 2, 3, 255, 256, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)


def seeds(dialect: Dialect) -> list[bytes]:
    """Real requests that are well-formed, of this dialect's system."""
    if dialect.name == "linux":
        return [step.octets for name in CLIENTS for step in conversation(name) if step.what == "in"]
    native = [case.request for case in freebsd_cases() if case.send_errno == 0]
    return native if dialect is FREEBSD else [said for octets in native if (said := _translated(octets, dialect))]


def _translated(octets: bytes, dialect: Dialect) -> bytes:
    """FreeBSD's request in another system's numbers and layout; b'' for a message that system does not have, or that no system reads."""
    try:
        value = Message.read(octets, FREEBSD)
    except Malformed:
        return b""
    return value.write(dialect) if dialect.types.has_theirs(value.type) else b""


def _parts(octets: bytes, dialect: Dialect) -> tuple[bytearray, list[bytearray]]:
    header(octets, dialect)
    return bytearray(octets[:16]), [bytearray(octets[w.start : w.end]) for w in cut(octets, dialect)]


def _join(head: bytearray, parts: list[bytearray]) -> bytes:
    whole = bytes(head) + b"".join(bytes(part) for part in parts)
    return whole[:4] + struct.pack("<H", min(0xFFFF, len(whole) // 8)) + whole[6:]


def mutated(dice: random.Random, pool: list[bytes], dialect: Dialect) -> bytes:
    """One bent message. Most keep a consistent frame, so that they reach the handlers."""
    head, parts = _parts(dice.choice(pool), dialect)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        _bend(dice, head, parts, pool, dialect)
    whole = _join(head, parts)
    if dice.random() < 0.1:
        whole = _break(dice, whole)
    return whole


def _bend(dice: random.Random, head: bytearray, parts: list[bytearray], pool: list[bytes], dialect: Dialect) -> None:
    what = dice.randrange(9)
    if what == 0:
        head[dice.choice((0, 1, 1, 2, 3, 3, 6, 7))] = dice.choice(EDGES)
    elif what == 1:
        head[1] = dice.randrange(1, 25)
    elif what == 2:
        _, other = _parts(dice.choice(pool), dialect)
        parts += other[: dice.randrange(4)]
    elif not parts:
        head[1] = dice.randrange(1, 25)
    elif what == 3:
        del parts[dice.randrange(len(parts))]
    elif what == 4:
        dice.shuffle(parts)
    elif what == 5:
        part = dice.choice(parts)
        part[2:4] = struct.pack("<H", dice.choice((dice.randrange(42), 200, 0x8000, dice.randrange(0x10000))))
    elif what == 6:
        part = dice.choice(parts)
        part += bytes(8 * dice.randrange(1, 5)) if dice.random() < 0.5 else b""
        del part[max(8, len(part) - 8 * dice.randrange(3)) :]
        part[0:2] = struct.pack("<H", len(part) // 8)
    else:
        _scribble(dice, dice.choice(parts))


def _scribble(dice: random.Random, part: bytearray) -> None:
    octets = dice.choice((1, 1, 1, 2, 4, 8))
    at = dice.randrange(4, max(5, len(part) - octets + 1))
    value = dice.choice(EDGES) if octets == 1 else dice.choice(WORDS)
    part[at : at + octets] = (value % (1 << 8 * octets)).to_bytes(octets, "little")[: len(part) - at]


def _break(dice: random.Random, whole: bytes) -> bytes:
    """The frame itself."""
    what = dice.randrange(3)
    if what == 0:
        return whole[: dice.randrange(len(whole))]
    if what == 1:
        return whole + bytes(dice.randrange(1, 20))
    octets = bytearray(whole)
    octets[dice.randrange(len(octets))] ^= 1 << dice.randrange(8)
    return bytes(octets)
