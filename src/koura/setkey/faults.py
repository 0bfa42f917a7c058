"""Faults in a script: what is wrong, where, and what to type instead; a script has a list of them.

A line that is shown never shows a key: quoted strings and long hex strings come out as asterisks, of the same width, so that
the caret still stands below what it means.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from koura.errors import KouraError
from koura.quick import quick

_SECRETS = re.compile(r'#[^\n]*|"[^"]*"?|0[xX][0-9A-Fa-f]{9,}')
_LONG_NUMBERS = re.compile(r"0[xX][0-9A-Fa-f]{9,}")
_MAX_SHOWN = 160  # characters of a line that are shown at most


class Source:
    """A text and its name; knows lines and columns, both counted from 1. has_keys: quoted strings may be some, as in a script."""

    def __init__(self, text: str, name: str = "", *, has_keys: bool = True) -> None:
        self.text = text
        self.name = name or "<script>"
        self._secrets = _SECRETS if has_keys else _LONG_NUMBERS

    @cached_property
    def _masked(self) -> str:
        return self._secrets.sub(_mask, self.text)

    def line_of(self, offset: int) -> int:
        """The line that `offset` stands in."""
        return self.text.count("\n", 0, offset) + 1

    def column_of(self, offset: int) -> int:
        """The column of `offset` in its line."""
        return offset - self.text.rfind("\n", 0, offset)

    def shown_line(self, offset: int) -> str:
        """The line that `offset` stands in, without keys."""
        start = self.text.rfind("\n", 0, offset) + 1
        end = self.text.find("\n", offset)
        return self._masked[start : len(self.text) if end < 0 else end]

    def shown(self, start: int, end: int) -> str:
        """A piece of the text, without keys."""
        return self._masked[start:end]


def _mask(match: re.Match[str]) -> str:
    found = match.group()
    return found if found[0] == "#" else re.sub(r"[^\n]", "*", found)


@quick
@dataclass(frozen=True, slots=True)
class Span:
    """Where something stands in its script: offsets, the end excluded, and the line of the start."""

    start: int
    end: int
    line: int


NOWHERE = Span(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a script. Columns count from 1; `shown` is the line, `token` what the caret is below, both without keys."""

    file: str
    line: int
    column: int
    why: str
    hint: str = ""
    shown: str = ""
    token: str = ""

    def __str__(self) -> str:
        """File, line, column and reason; below it the line with a caret, and the hint."""
        text = f"{self.file}:{self.line}:{self.column}: {self.why}"
        if self.shown.strip():
            text += "\n" + self._caret()
        return text + (f"\n    hint: {self.hint}" if self.hint else "")

    def _caret(self) -> str:
        first = 0 if self.column <= _MAX_SHOWN else self.column - 1 - _MAX_SHOWN // 2
        window = self.shown[first : first + _MAX_SHOWN]
        blank = re.sub(r"[^\t]", " ", window[: self.column - 1 - first])  # Tabs stay tabs, so that the caret stands right.
        width = max(1, min(len(self.token.split("\n")[0]), len(window) - len(blank)))
        return f"    {window}\n    {blank}{'^' * width}"

    def bsd(self) -> str:
        """The form FreeBSD's setkey prints, for programs that look for it."""
        token = self.token if len(self.token) <= _MAX_SHOWN else self.token[:_MAX_SHOWN] + "..."
        return f"line {self.line}: {self.why} at [{token}]\nparse failed, line {self.line}."


def fault_at(source: Source, start: int, end: int, why: str, hint: str = "") -> Fault:
    """A fault whose caret stands below text[start:end]."""
    return Fault(
        source.name, source.line_of(start), source.column_of(start), why, hint, source.shown_line(start), source.shown(start, end)
    )


class BadScript(KouraError):
    """A script cannot be used; holds every fault that was found, in the order of the text. Nothing of it was sent."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults
