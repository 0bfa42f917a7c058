"""Text into words, one command at a time: a command ends at its `;`, so that a fault in one leaves the next one readable.

Kinds of word: a word (letters, digits and : . _ % + - and the rest of what names and numbers need), a quoted string, one of
the marks [ ] / , and, after -P in a policy command, everything up to the `;` as one word: the policy's own text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from koura.setkey.faults import Fault, Source, fault_at

_BLANK = re.compile(r"(?:[ \t\r\n\f\v]+|#[^\n]*)*")
_WORD = re.compile(r'[A-Za-z0-9:._%+\-@*=]+|"[^"]*"|[\[\]/,;]')
_POLICY_END = re.compile(r"#[^\n]*|;")
_HARDWARE = re.compile(r"-hwif(?=\s)")
_POLICY_COMMANDS = frozenset({"spdadd", "spdupdate", "spddelete"})


@dataclass(slots=True)
class Command:
    """The words of one command without its `;`, where each starts, and where the command starts and ends (its `;` included)."""

    words: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    start: int = 0
    end: int = 0
    line: int = 1


class Lexer:
    """Walks over one script. `faults` gathers what is no word at all; the command it stands in is not handed out."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.faults: list[Fault] = []
        self._line = 1
        self._counted = 0

    def commands(self, start: int = 0) -> Iterator[Command]:
        """Every readable command from `start` on; empty ones (`;;`) are left out."""
        text = self.source.text
        position = _blank(text, start)
        while position < len(text):
            command = Command(start=position, line=self._line_at(position))
            faults = len(self.faults)
            position = self._read(command, position)
            command.end = position
            if command.words and len(self.faults) == faults:
                yield command
            position = _blank(text, position)

    def _line_at(self, position: int) -> int:
        if position < self._counted:  # Reading was taken up again further back.
            self._line, self._counted = 1, 0
        self._line += self.source.text.count("\n", self._counted, position)
        self._counted = position
        return self._line

    def _read(self, command: Command, position: int) -> int:
        """Fill `command`; the offset behind its `;`."""
        text, words, starts = self.source.text, command.words, command.starts
        match = _WORD.match
        blank = _BLANK.match
        end = len(text)
        while position < end:
            found = match(text, position)
            if found is None:
                return self._unreadable(position)
            word = found.group()
            if word == ";":
                return found.end()
            words.append(word)
            starts.append(position)
            position = blank(text, found.end()).end()  # type: ignore[union-attr]  # It matches the empty string, too.
            if word == "-P" and words[0] in _POLICY_COMMANDS:
                position = self._policy(command, position)
        last = starts[-1] if starts else position
        self._fault(last, end, "the command is not ended", "every command ends with `;`")
        return end

    def _policy(self, command: Command, start: int) -> int:
        """The text between -P and `;` as one word, comments blanked; -hwif behind it stays a word of its own (S35)."""
        text = self.source.text
        position = start
        pieces = []
        while (found := _POLICY_END.search(text, position)) is not None and found.group() != ";":
            before = text[found.start() - 1]
            if before.isspace() or found.start() == start:
                pieces += [text[position : found.start()], " " * len(found.group())]
            else:  # `unique#17` is how larger request ids are printed.
                pieces.append(text[position : found.start() + 1])
                position = found.start() + 1
                continue
            position = found.end()
        end = len(text) if found is None else found.start()
        policy = "".join(pieces) + text[position:end]
        if (hardware := _HARDWARE.search(policy)) is not None:
            end = start + hardware.start()
            policy = policy[: hardware.start()]
        command.words.append(policy.rstrip())
        command.starts.append(start)
        return end

    def _unreadable(self, position: int) -> int:
        """Note what is no word and skip to behind the next `;`."""
        text = self.source.text
        if text[position] == '"':
            self._fault(position, len(text), "the string has no end", 'a closing " is missing')
            return len(text)
        self._fault(position, position + 1, f"the character {text[position]!r} means nothing here", "")
        end = text.find(";", position)
        return len(text) if end < 0 else end + 1

    def _fault(self, start: int, end: int, why: str, hint: str) -> None:
        self.faults.append(fault_at(self.source, start, end, why, hint))


def _blank(text: str, position: int) -> int:
    found = _BLANK.match(text, position)
    assert found is not None
    return found.end()
