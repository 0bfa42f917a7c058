"""Text of a script -> statements, or every fault it has. The grammar of setkey(8): FreeBSD's, and what others added.

Written by hand rather than with a grammar compiler: a configuration of 100,000 lines must load in seconds, a word's meaning
depends on its place (host names may look like keywords), and the faults must say what was meant. One command is one function,
found in _COMMANDS by its first word; it reads words off a Cursor and raises Wrong where it cannot go on. The next command is
then read behind the `;`, or from the next line that starts like a command if the `;` was forgotten.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from koura.setkey import associations, policies
from koura.setkey.cursor import Cursor, Wrong, quoted
from koura.setkey.faults import BadScript, Fault, Source
from koura.setkey.lexer import Command, Lexer
from koura.setkey.statements import PolicyDump, PolicyFlush, Statement
from koura.slices import COMMANDS, Slices, whole

_BYTE_ORDER_MARK = "\ufeff"
MAX_FAULTS = 100  # beyond so many, a text is no script


@dataclass(frozen=True, slots=True)
class Script:
    """Everything a text says. `faults` empty: it can be used. Warnings are faults that hinder nothing."""

    source: Source
    statements: tuple[Statement, ...]
    faults: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()


def parse(text: str, name: str = "") -> Script:
    """The script. Raises BadScript with every fault in it."""
    script = check(text, name)
    if script.faults:
        raise BadScript(script.faults)
    return script


def check(text: str, name: str = "") -> Script:
    """The script as far as it can be read, with its faults; raises nothing. A byte order mark, as editors leave one, is no part of it."""
    return whole(checking(text, name))


def checking(text: str, name: str = "") -> Slices[Script]:
    """The same in slices."""
    source = Source(text.removeprefix(_BYTE_ORDER_MARK), name)
    reader = _Reader(source)
    yield from reader.read(0)
    faults = sorted(reader.faults + reader.lexer.faults, key=lambda fault: (fault.line, fault.column))
    warnings = tuple(wrong.fault(source) for wrong in reader.warnings)
    return Script(source, tuple(reader.statements), tuple(faults[:MAX_FAULTS]), warnings)


def _flush_policies(cursor: Cursor, _warnings: list[Wrong]) -> Statement:
    cursor.end()
    return PolicyFlush(cursor.span())


def _dump_policies(cursor: Cursor, _warnings: list[Wrong]) -> Statement:
    cursor.end()
    return PolicyDump(cursor.span())


_COMMANDS: dict[str, Callable[[Cursor, list[Wrong]], Statement]] = {
    "add": associations.add, "update": associations.add, "getspi": associations.getspi, "get": associations.get_or_delete,
    "delete": associations.get_or_delete, "deleteall": associations.deleteall, "flush": associations.flush_or_dump,
    "dump": associations.flush_or_dump, "spdadd": policies.add, "spdupdate": policies.add, "spddelete": policies.delete,
    "spdflush": _flush_policies, "spddump": _dump_policies,
}  # fmt: skip
_ENDS = frozenset({"exit", "quit", "bye"})  # ipsec-tools: end of the script
_LINE_STARTS = re.compile(r"^[ \t]*(?:" + "|".join(_COMMANDS) + r")[ \t\r\n;]", re.MULTILINE)


class _Reader:
    """Gathers statements, faults and warnings of one source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.lexer = Lexer(source)
        self.statements: list[Statement] = []
        self.faults: list[Fault] = []
        self.warnings: list[Wrong] = []

    def read(self, start: int) -> Slices[None]:
        """Every command from the offset `start` on."""
        again: int | None = start
        while again is not None:
            again = yield from self._until_lost(again)

    def _until_lost(self, start: int) -> Slices[int | None]:
        """Read on to the end (None), or to a fault after which reading begins anew at the offset returned."""
        for count, command in enumerate(self.lexer.commands(start), 1):
            if count % COMMANDS == 0:
                yield
            if len(self.faults) >= MAX_FAULTS or command.words[0] in _ENDS:
                return None
            try:
                self.statements.append(_statement(command, self.warnings))
            except Wrong as wrong:
                self.faults.append(wrong.fault(self.source))
                if (next_start := _forgotten_end(self.source.text, command)) is not None:
                    return next_start
        return None


def _statement(command: Command, warnings: list[Wrong]) -> Statement:
    cursor = Cursor(command)
    read = _COMMANDS.get(cursor.take("a command"))
    if read is None:
        raise cursor.last(f"{quoted(command.words[0])} is no command", "one of " + ", ".join(_COMMANDS))
    return read(cursor, warnings)


def _forgotten_end(text: str, command: Command) -> int | None:
    """The start of the first line inside a faulty command that begins like a command itself: its `;` was forgotten."""
    line_end = text.find("\n", command.start, command.end)
    if line_end < 0:
        return None
    found = _LINE_STARTS.search(text, line_end + 1, command.end)
    return None if found is None else found.start()
