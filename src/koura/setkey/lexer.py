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
# A command as most are: no quotes, no comments. Its words need not be asked for one by one.
_PLAIN = re.compile(r"[A-Za-z0-9:._%+\-@*=\[\]/, \t\r\n\f\v]*;")
_PLAIN_POLICY = re.compile(r"(?<![A-Za-z0-9:._%+\-@*=])-P(?![A-Za-z0-9:._%+\-@*=])[ \t\r\n\f\v]*")
_POLICY_END = re.compile(r"#[^\n]*|;")
_HARDWARE = re.compile(r"-hwif(?=\s)")
_POLICY_COMMANDS = frozenset({"spdadd", "spdupdate", "spddelete"})


@dataclass(slots=True)
class Command:
    """The words of one command without its `;`, and where it starts and ends (its `;` included)."""

    lexer: "Lexer" = field(repr=False)
    start: int = 0
    line: int = 1
    words: list[str] = field(default_factory=list)
    end: int = 0

    def start_of(self, index: int) -> int:
        """Where a word starts. It is found again only when somebody asks: hardly anybody does."""
        return self.lexer.starts(self)[index]


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
            command = Command(self, position, self._line_at(position))
            faults = len(self.faults)
            position = command.end = self._plain(command, position) or self._read(command, position, [])
            if command.words and len(self.faults) == faults:
                yield command
            position = _blank(text, position)

    def starts(self, command: Command) -> list[int]:
        """Where the words of a command start, which has been read without a fault."""
        found: list[int] = []
        self._read(Command(self, command.start, command.line), command.start, found)
        return found

    def _plain(self, command: Command, position: int) -> int:
        """Fill a plain command; the offset behind its `;`, or 0 if it is none."""
        text = self.source.text
        found = _PLAIN.match(text, position)
        if found is None:
            return 0
        end = found.end()
        if text.startswith("spd", position) and (policy := _PLAIN_POLICY.search(text, position, end)) is not None:
            words = _WORD.findall(text, position, policy.end())
            if words[0] in _POLICY_COMMANDS:
                if _HARDWARE.search(text, policy.end(), end) is not None:
                    return 0
                words.append(text[policy.end() : end - 1].rstrip())
                command.words = words
                return end
        command.words = _WORD.findall(text, position, end - 1)
        return end

    def _line_at(self, position: int) -> int:
        if position < self._counted:  # Reading was taken up again further back.
            self._line, self._counted = 1, 0
        self._line += self.source.text.count("\n", self._counted, position)
        self._counted = position
        return self._line

    def _read(self, command: Command, position: int, starts: list[int]) -> int:
        """Fill `command` and the offsets of its words; the offset behind its `;`."""
        text, words = self.source.text, command.words
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
                starts.append(position)
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
