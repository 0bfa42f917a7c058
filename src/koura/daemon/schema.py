"""A schema as tables: what a key's value must be, what a table makes of its values, and everything that is wrong at once.

    Kind    what one value must be, in words and as a check
    Key     one key of a table, the field of the dataclass that it fills, its kind
    Table   one table of the file and the dataclass it makes; what is left out has the dataclass's own default

A new key is a field with a default, and a row; a new table a dataclass, and a row (daemon.tables). What is wrong is a `Wrong` with the
path of the value. Not here: where that stands in the text (daemon.toml), and what only the machine knows (daemon.configfile).
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from koura.daemon.toml import Path
from koura.errors import KouraError

_TYPES = {str: "text", bool: "true or false", int: "a number", float: "a number with a point", list: "a list", dict: "a table"}


class Bad(KouraError):
    """A value is not what it must be: why, and what to write instead."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be. what: in words. example: as it is written. make: the value made of it; raises Bad.

    is_list: a list of such values, which becomes a tuple; is_one_or_list: one of them without brackets will do.
    """

    what: str
    of: type
    example: str
    make: Callable[[Any], object] = lambda value: value
    is_list: bool = False
    is_one_or_list: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """One key. field: of the dataclass; '' if it has the key's name."""

    name: str
    kind: Kind
    field: str = ""
    is_needed: bool = False


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is wrong, and where. is_key: the key is, not its value."""

    path: Path
    why: str
    hint: str = ""
    is_key: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the file. is_many: it is written [[name]], and may come many times.

    needs: a table without which this one means nothing. is_apart: its interface and addresses are in a namespace of their own.
    check: what no single value shows, of the values by their keys: (key, why, hint).
    """

    name: str
    makes: Callable[..., object]
    keys: tuple[Key, ...]
    is_many: bool = False
    needs: str = ""
    is_apart: bool = False
    check: Callable[[Mapping[str, Any]], Iterable[tuple[str, str, str]]] = lambda _: ()


def make(table: Table, said: object, path: Path, wrongs: list[Wrong]) -> Any:
    """What a table makes of its values; None, and what is wrong, where it cannot."""
    before = len(wrongs)
    if not isinstance(said, dict):
        wrongs.append(Wrong(path, f"{table.name} is a table, not {_type(said)}", f"write it as {brackets(table)}", is_key=True))
        return None
    rows = {key.name: key for key in table.keys}
    made = {}
    for name, value in said.items():
        key = rows.get(name)
        if key is None:
            hint = meant(name, rows) or f"it has: {', '.join(rows)}"
            wrongs.append(Wrong((*path, name), f"[{table.name}] has no {name}", hint, is_key=True))
        else:
            made[name] = _value(table, key, value, (*path, name), wrongs)
    for key in table.keys:
        if key.is_needed and key.name not in said:
            why = f"{table.name}.{key.name} is missing"
            wrongs.append(Wrong(path, why, f"write {key.name} = {key.kind.example}", is_key=True))
    if len(wrongs) == before:
        wrongs += [Wrong((*path, name), f"{table.name}: {why}", hint) for name, why, hint in table.check(made)]
    return table.makes(**{rows[name].field or name: value for name, value in made.items()}) if len(wrongs) == before else None


def _value(table: Table, key: Key, value: object, path: Path, wrongs: list[Wrong]) -> object:
    kind, name = key.kind, f"{table.name}.{key.name}"
    if not kind.is_list:
        return _one(kind, name, value, path, wrongs, f"write {key.name} = {kind.example}")
    if kind.is_one_or_list and not isinstance(value, list):
        return (_one(kind, name, value, path, wrongs, f"write {key.name} = {kind.example}"),)
    if not isinstance(value, list):
        why = f"{name} is a list, each of it {kind.what}, not {_type(value)}"
        wrongs.append(Wrong(path, why, f"write {key.name} = [{kind.example}]"))
        return ()
    hint = f"write {key.name} = [{kind.example}]"
    return tuple(_one(kind, name, each, (*path, number), wrongs, hint) for number, each in enumerate(value))


def _one(kind: Kind, name: str, value: object, path: Path, wrongs: list[Wrong], hint: str) -> object:
    """One value made; its name stands in front of what is wrong with it."""
    if type(value) is not kind.of:
        wrongs.append(Wrong(path, f"{name} is {kind.what}, not {_type(value)}", hint))
        return None
    try:
        return kind.make(value)
    except Bad as bad:
        wrongs.append(Wrong(path, f"{name}: {bad}", bad.hint or hint))
        return None


def meant(name: str, known: Iterable[str]) -> str:
    """A hint, if one of the known names is close."""
    close = difflib.get_close_matches(name, list(known), 2, 0.6)
    return f"did you mean {' or '.join(close)}?" if close else ""


def _type(value: object) -> str:
    return _TYPES.get(type(value), "a date or time")


def brackets(table: Table) -> str:
    return f"[[{table.name}]]" if table.is_many else f"[{table.name}]"
