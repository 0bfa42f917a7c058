r"""What keeper and engine say to each other, octets only. docs/architecture.md §4, Processes.

     0        4     5        9        13
     | octets | kind | number | octets | body ... |  next record ...
       of the  \______________ one record _______/
       step

A step is what belongs together: everything that one request changed, its answer and its replies. Whoever reads gets whole steps;
one that was cut off by its writer's death never was. Numbers are big endian.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from koura.errors import Malformed
from koura.quick import quick

_STEP = struct.Struct(">I")
_RECORD = struct.Struct(">BII")
_LENGTH = struct.Struct(">I")
STEP_OCTETS = 1 << 30  # more than any step has


class Kind(IntEnum):
    """What a record says. `number` is a client's, or a call's."""

    # keeper to engine
    RESTORE = 1  # one thing that the engine before wrote down: key and value
    START = 2  # that was all
    OPENED = 3  # a client: JSON of dialect, pid, is_privileged
    CLOSED = 4
    REQUEST = 5  # PF_KEY octets of a client
    PULL = 6  # u32: room in octets for a client's dumps
    CALL = 7  # JSON of a control verb
    STOP = 8
    RESERVED = 9  # a RESERVE, by its number: u8 whether it is on disk
    # engine to keeper
    READY = 20
    KEEP = 21  # write this down: key and value
    DROP = 22  # forget this key
    ANSWER = 23  # of a REQUEST: errno u32, u8 whether a dump begins, why; the dump's first part is in the same step
    DELIVER = 24  # PF_KEY octets for a client
    PULLED = 25  # u32: how many dumps are not at their ends, then messages
    REPLY = 26  # of a CALL: messages
    LOG = 27  # a line; number: its priority
    RESERVE = 28  # lines for the ledger


@quick
@dataclass(frozen=True, slots=True)
class Record:
    """One of them."""

    kind: int
    number: int = 0
    body: bytes = b""


def write(records: Iterable[Record]) -> bytes:
    """One step."""
    body = b"".join(_RECORD.pack(record.kind, record.number, len(record.body)) + record.body for record in records)
    return _STEP.pack(len(body)) + body


class Reader:
    """Octets of a stream into steps."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, octets: bytes) -> Iterator[tuple[Record, ...]]:
        """The steps that are whole now. Raises Malformed."""
        self._buffer += octets
        at = 0
        while len(self._buffer) - at >= _STEP.size:
            (size,) = _STEP.unpack_from(self._buffer, at)
            if size > STEP_OCTETS:
                raise Malformed("step", f"{size} octets")
            if len(self._buffer) - at - _STEP.size < size:
                break
            start = at + _STEP.size
            at = start + size
            yield tuple(_records(bytes(self._buffer[start:at])))
        del self._buffer[:at]


def _records(body: bytes) -> Iterator[Record]:
    at = 0
    while at < len(body):
        if len(body) - at < _RECORD.size:
            raise Malformed("record", "cut off")
        kind, number, size = _RECORD.unpack_from(body, at)
        at += _RECORD.size
        if len(body) - at < size:
            raise Malformed("record", "longer than its step")
        yield Record(kind, number, body[at : at + size])
        at += size


def pack(items: Iterable[bytes]) -> bytes:
    """Several octet strings as one body."""
    return b"".join(_LENGTH.pack(len(item)) + item for item in items)


def unpack(body: bytes) -> tuple[bytes, ...]:
    """The strings that `pack` packed. Raises Malformed."""
    found = []
    at = 0
    while at < len(body):
        if len(body) - at < _LENGTH.size:
            raise Malformed("items", "cut off")
        (size,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        if len(body) - at < size:
            raise Malformed("items", "longer than their record")
        found.append(body[at : at + size])
        at += size
    return tuple(found)
