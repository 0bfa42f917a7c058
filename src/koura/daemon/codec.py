"""Values as JSON and back, by their types: how the engine writes down what the keeper keeps for its successor.

A dataclass is the list of its fields, octets and secrets are hex, an algorithm is its kind and number, an enum its number. The
type says how to read, so octets from outside can make no other objects than these. Secrets are written in full: what is written
stays in the daemon's locked memory and is never put on disk.
"""

import dataclasses
import json
import operator
import types
import typing
from collections.abc import Callable
from enum import IntEnum, IntFlag
from functools import cache, lru_cache
from typing import Any, TypeVar

from koura.crypto import algorithms
from koura.crypto.algorithm import Algorithm, Kind
from koura.errors import Bug
from koura.secret import Secret

T = TypeVar("T")
_Write = Callable[[Any], Any]
_Read = Callable[[Any], Any]
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode
_FLAGS_KNOWN = 256  # combinations of flags: there are few, and making one is slow


def write(value: Any) -> bytes:
    """A dataclass of known kinds of fields."""
    return _encode(_pair(type(value))[0](value)).encode()


def read(kind: type[T], octets: bytes) -> T:
    """The value that `write` wrote. Octets of another origin raise ValueError, TypeError, KeyError or IndexError."""
    value = _pair(kind)[1](_decode(octets.decode()))
    assert isinstance(value, kind)
    return value


def _same(value: Any) -> Any:
    return value


@cache  # A number that is none raises, and is not remembered.
def _row(name: str, number: int) -> Algorithm:
    kind = Kind(name)
    row = algorithms.by_number(kind, number)
    if row is None:
        raise Bug(f"no {kind.value} algorithm has the number {number}")
    return row


_PAIRS: dict[Any, tuple[_Write, _Read]] = {
    int: (_same, _same),
    str: (_same, _same),
    bool: (_same, _same),
    bytes: (bytes.hex, bytes.fromhex),
    Secret: (lambda secret: secret.reveal().hex(), lambda text: Secret(bytes.fromhex(text))),
    Algorithm: (lambda row: [row.kind.value, row.number], lambda pair: _row(*pair)),
}


def _pair(kind: Any) -> tuple[_Write, _Read]:
    """How to write and read one type."""
    known = _PAIRS.get(kind)
    if known is None:
        known = _PAIRS[kind] = _made(kind)
    return known


def _made(kind: Any) -> tuple[_Write, _Read]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _optional(*_pair(next(each for each in arguments if each is not types.NoneType)))
    if origin in (tuple, frozenset):
        if origin is tuple and Ellipsis not in arguments:
            return _fixed([_pair(each) for each in arguments])
        write_one, read_one = _pair(arguments[0])
        return (lambda many: [write_one(one) for one in many]), (lambda many: origin(read_one(one) for one in many))
    if isinstance(kind, type) and issubclass(kind, IntFlag):
        return int, lru_cache(_FLAGS_KNOWN)(kind)
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return int, {int(member): member for member in kind}.__getitem__
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _record(kind)
    raise Bug(f"{kind} cannot be written down")


def _optional(write_one: _Write, read_one: _Read) -> tuple[_Write, _Read]:
    return (
        lambda value: None if value is None else write_one(value),
        lambda value: None if value is None else read_one(value),
    )  # fmt: skip


def _fixed(pairs: list[tuple[_Write, _Read]]) -> tuple[_Write, _Read]:
    return (
        lambda values: [pair[0](value) for pair, value in zip(pairs, values, strict=True)],
        lambda values: tuple(pair[1](value) for pair, value in zip(pairs, values, strict=True)),
    )


def _record(kind: type[Any]) -> tuple[_Write, _Read]:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    writes, reads = zip(*(_pair(hints[name]) for name in names), strict=True)
    take = operator.attrgetter(*names)
    converted = [(place, one) for place, one in enumerate(writes) if one is not _same]
    restored = [(place, one) for place, one in enumerate(reads) if one is not _same]

    def write_record(record: Any) -> Any:
        values = list(take(record)) if len(names) > 1 else [take(record)]
        for place, one in converted:
            values[place] = one(values[place])
        return values

    def read_record(values: list[Any]) -> Any:
        if len(values) != len(names):
            raise ValueError(f"{len(values)} fields of {kind.__name__}, not {len(names)}")
        for place, one in restored:  # The list was made for this value: nobody else sees it.
            values[place] = one(values[place])
        return kind(*values)

    return write_record, read_record
