"""A TOML text with places: tomllib says what it means, a scan of the same text says where each key and value stands.

tomllib has no places and stops at the first fault. So a line that it refuses is blanked out, with what belongs to it, and the rest is
read again: all faults come at once, and what can be read is there. The scan follows only what tomllib has accepted, so it checks
nothing. Not here: which keys there may be (schema).
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from koura.setkey.faults import Fault, Source, Span, fault_at

Path = tuple[str | int, ...]  # ("tunnel", 0, "addresses", 1)
MOST_FAULTS = 20
_PLACE = re.compile(r" ?\(at (?:line (\d+), column (\d+)|end of document)\)$")
_BLANKS = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACES = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL)
_BARE = re.compile(r"[^,\]}\n#]*")
_HEADER = re.compile(r"^[ \t]*\[", re.MULTILINE)
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(slots=True)
class Document:
    """What a text says: `values` as tomllib has them, the place of each key (or table's name) and of each value, and its syntax faults."""

    source: Source
    values: Mapping[str, Any] = field(default_factory=dict)
    keys: dict[Path, Span] = field(default_factory=dict)
    places: dict[Path, Span] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, path: Path, why: str, hint: str = "", *, is_key: bool = False) -> Fault:
        """What is wrong at `path`: below its value, or its key. Where that does not stand in the text, below what it would stand in."""
        while path and path not in self.keys and path not in self.places:
            path = path[:-1]
        first, second = (self.keys, self.places) if is_key else (self.places, self.keys)
        span = first.get(path) or second.get(path) or Span(0, 0, 1)
        return fault_at(self.source, span.start, span.end, why, hint)


def read(text: str, name: str) -> Document:
    """Raises nothing: faults are in the document."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
    found = Document(Source(text, name, has_keys=False))
    shown = Source(text, name)  # what is no TOML may be a setkey script, with keys in it
    reached = 0
    while len(found.faults) < MOST_FAULTS:
        try:
            found.values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            start, why = _placed(text, str(error))
            end = _end_of_line(text, start)
            found.faults.append(fault_at(shown, start, max(start + 1, end), why, _hint(why, text[start:end])))
            if start < reached or end >= len(text.rstrip()):
                return found
            text, reached = _blanked(text, start), start
        else:
            _Scan(text, found).scan()
            return found
    return found


def _placed(text: str, said: str) -> tuple[int, str]:
    """Where tomllib stopped, and why; the end of the text is shown at its last line."""
    match = _PLACE.search(said)
    why = _PLACE.sub("", said)
    if match is None or match.group(1) is None:
        return text.rstrip().rfind("\n") + 1, f"{why}: the text ends before this does"
    start = 0
    for _ in range(int(match.group(1)) - 1):
        start = text.find("\n", start) + 1
    end = _end_of_line(text, start)
    place = start + int(match.group(2)) - 1
    return place if place < end else start + len(text[start:end]) - len(text[start:end].lstrip()), why


def _hint(why: str, rest: str) -> str:
    if why.startswith("Invalid value") and re.match(r"[A-Za-z./:]|\d+[.:]\d", rest):
        return "text stands in quotes; true and false are small letters"
    if why.startswith(("Cannot overwrite", "Cannot declare")):
        return "each key and each table once; a table that comes more than once is in two pairs of brackets"
    return ""


def _blanked(text: str, place: int) -> str:
    """Without the line at `place`; a header's goes with its whole table, which would be taken for part of the one before."""
    start, end = text.rfind("\n", 0, place) + 1, _end_of_line(text, place)
    if _HEADER.match(text, start):
        after = _HEADER.search(text, end)
        end = after.start() if after is not None else len(text)
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]


def _end_of_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


class _Scan:
    """One pass over a text that tomllib has read."""

    def __init__(self, text: str, into: Document) -> None:
        self._text = text
        self._into = into
        self._at = 0
        self._many: dict[Path, int] = {}  # arrays of tables: the index of the last one

    def scan(self) -> None:
        table: Path = ()
        while True:
            self._skip(_BLANKS)
            if self._at >= len(self._text):
                return
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        is_many = self._text.startswith("[[", self._at)
        self._at += 2 if is_many else 1
        self._skip(_SPACES)
        start = self._at
        *outer, last = self._key()
        path: Path = ()
        for part in outer:
            path = self._inside((*path, part))
        path = (*path, last)
        span = self._span(start)
        if is_many:
            self._into.keys.setdefault(path, span)
            self._many[path] = self._many.get(path, -1) + 1
        path = self._inside(path)
        self._into.keys[path] = span
        self._at = self._text.index("]", self._at) + (2 if is_many else 1)
        return path

    def _inside(self, path: Path) -> Path:
        return (*path, self._many[path]) if path in self._many else path

    def _pair(self, table: Path) -> None:
        start = self._at
        path = (*table, *self._key())
        span = self._span(start)
        for length in range(len(table) + 1, len(path) + 1):
            self._into.keys.setdefault(path[:length], span)
        self._at = self._text.index("=", self._at) + 1
        self._skip(_SPACES)
        self._value(path)

    def _key(self) -> tuple[str, ...]:
        """A dotted key; what lies behind its last part is not looked at."""
        parts = []
        while True:
            match = _BARE_KEY.match(self._text, self._at)
            if match is not None:
                parts.append(match.group())
            else:
                match = _STRING.match(self._text, self._at)
                assert match is not None
                parts.append(str(tomllib.loads(f"key = {match.group()}")["key"]))
            self._at = match.end()
            blanks = _SPACES.match(self._text, self._at)
            assert blanks is not None
            if not self._text.startswith(".", blanks.end()):
                return tuple(parts)
            self._at = blanks.end() + 1
            self._skip(_SPACES)

    def _value(self, path: Path) -> None:
        start, opening = self._at, self._text[self._at]
        if opening == "[":
            self._items(path)
        elif opening == "{":
            self._inline(path)
        else:
            match = _STRING.match(self._text, self._at) or _BARE.match(self._text, self._at)
            assert match is not None
            self._at = match.start() + len(match.group().rstrip())
        self._into.places[path] = self._span(start)

    def _items(self, path: Path) -> None:
        number = 0
        self._at += 1
        while True:
            self._skip(_BLANKS)
            if self._text[self._at] == "]":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._value((*path, number))
            number += 1

    def _inline(self, path: Path) -> None:
        self._at += 1
        while True:
            self._skip(_BLANKS)
            if self._text[self._at] == "}":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._pair(path)

    def _skip(self, blanks: re.Pattern[str]) -> None:
        match = blanks.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _span(self, start: int) -> Span:
        return Span(start, self._at, 0)
