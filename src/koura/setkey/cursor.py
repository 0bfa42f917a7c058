"""A place in the words of one command, and the small things every command is made of: numbers, addresses, ports, keys."""

import re

from koura.secret import Secret
from koura.setkey.faults import Fault, Source, Span, fault_at
from koura.setkey.lexer import Command
from koura.setkey.names import SERVICES
from koura.setkey.statements import ANY_HOSTS, Endpoint, Hosts

_AIOPT = {"-4": (4, False), "-6": (6, False), "-n": (0, True), "-4n": (4, True), "-n4": (4, True), "-6n": (6, True), "-n6": (6, True)}
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]+")
_MARKS = frozenset("[]/,")
_WORD_SHOWN = 40


class Wrong(Exception):
    """The command cannot be read on; never leaves this room. `start` and `end` are offsets in the script."""

    def __init__(self, start: int, end: int, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.start, self.end, self.why, self.hint = start, end, why, hint

    def fault(self, source: Source) -> Fault:
        return fault_at(source, self.start, self.end, self.why, self.hint)


class Cursor:
    """Reads a command word by word. Each `take_*` moves on or raises Wrong at the word it does not like."""

    __slots__ = ("_count", "at", "command", "words")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.words = command.words
        self._count = len(command.words)
        self.at = 0

    # -- words ----------------------------------------------------------------------------------------------------------
    def peek(self) -> str:
        """The next word, '' at the end of the command."""
        at = self.at
        return self.words[at] if at < self._count else ""

    def take(self, what: str) -> str:
        """The next word that is not a mark; `what` names it in the fault if it is missing."""
        at = self.at
        if at >= self._count or (word := self.words[at]) in _MARKS:
            raise self.missing(what)
        self.at = at + 1
        return word

    def missing(self, what: str, hint: str = "") -> Wrong:
        """What is expected is not the next word."""
        found = self.peek()
        return self.wrong(self.at, f"{what} is missing" if not found else f"{what} is expected, not {quoted(found)}", hint)

    def wrong(self, index: int, why: str, hint: str = "") -> Wrong:
        """A fault at word `index`; behind the last word, at the command's end."""
        if index < len(self.words):
            start = self.command.start_of(index)
            return Wrong(start, start + len(self.words[index]), why, hint)
        end = max(self.command.end, self.command.start + 1)
        return Wrong(end - 1, end, why, hint)

    def last(self, why: str, hint: str = "") -> Wrong:
        """A fault at the word that was taken last."""
        return self.wrong(self.at - 1, why, hint)

    def end(self) -> None:
        """Nothing may follow."""
        if self.at < len(self.words):
            raise self.wrong(self.at, f"{quoted(self.peek())} is not expected here", "is a `;` missing before it?")

    def span(self) -> Span:
        return Span(self.command.start, self.command.end, self.command.line)

    # -- numbers --------------------------------------------------------------------------------------------------------
    def take_number(self, what: str, maximum: int, minimum: int = 0) -> int:
        """A decimal number in [minimum, maximum]."""
        word = self.take(what)
        if not (word.isascii() and word.isdigit()):
            hint = "hexadecimal is for SPIs and keys" if word[:2].lower() == "0x" else ""
            raise self.last(f"{what} is a decimal number, not {quoted(word)}", hint)
        return self._in_range(word, 10, what, maximum, minimum)

    def _in_range(self, digits: str, base: int, what: str, maximum: int, minimum: int) -> int:
        number = int(digits, base) if len(digits) <= 40 else maximum + 1
        if not minimum <= number <= maximum:
            raise self.last(f"{what} is {minimum} to {maximum}")
        return number

    def take_spi(self) -> int:
        """Decimal or 0x; 32 bits."""
        word = self.take("the SPI")
        if _NUMBER.fullmatch(word) is None:
            raise self.last(f"the SPI is a number or 0x and hexadecimal digits, not {quoted(word)}")
        number = int(word, 16 if word[:2] in ("0x", "0X") else 10) if len(word) <= 42 else 1 << 32
        if number >= 1 << 32:
            raise self.last("SPI too big.", "an SPI has 32 bits")
        return number

    def take_key(self, what: str) -> Secret:
        """A quoted string, or 0x and digits; of an odd count of digits the first makes the first octet alone."""
        word = self.take(what)
        if word[0] == '"':
            try:
                return Secret(word[1:-1].encode())
            except UnicodeEncodeError:
                raise self.last(f"{what} has a character that has no octets") from None
        if word[:2] not in ("0x", "0X"):
            raise self.last(f"{what} is a quoted string or 0x and hexadecimal digits")
        digits = word[2:] if len(word) % 2 == 0 else "0" + word[2:]
        try:
            octets = bytes.fromhex(digits)
        except ValueError:
            octets = b""
        if not octets:
            raise self.last(f"{what} has characters that are no hexadecimal digits")
        return Secret(octets)

    # -- addresses ------------------------------------------------------------------------------------------------------
    def take_hosts(self) -> Hosts:
        """-4, -6, -n in any combination."""
        if self.peek() not in _AIOPT:
            return ANY_HOSTS
        family, is_numeric = 0, False
        while (option := _AIOPT.get(self.peek())) is not None:
            if family and option[0] not in (0, family):
                raise self.wrong(self.at, "-4 and -6 exclude one another")
            family, is_numeric = family or option[0], is_numeric or option[1]
            self.at += 1
        return Hosts(family, is_numeric)

    def take_address(self, what: str, has_prefix: bool = False) -> Endpoint:
        """An address or name; with has_prefix also /N; [port] may follow either."""
        start = self.at
        host = self.take(what)
        if host[0] in '"-+=@*':
            raise self.last(f"{what} is an address or a name, not {quoted(host)}")
        prefix = None
        if has_prefix and self.peek() == "/":
            self.at += 1
            prefix = self.take_number("the prefix length", 128)
        port = self._take_port() if self.peek() == "[" else 0
        return Endpoint(host, prefix, port, self.command, start)

    def _take_port(self) -> int:
        self.at += 1
        word = self.take("a port")
        if word.isascii() and word.isdigit():
            port = self._in_range(word, 10, "a port", 65535, 0)
        elif word == "any":
            port = 0
        elif (named := SERVICES.get(word.lower())) is not None:
            port = named
        else:
            raise self.last(f"there is no service {quoted(word)}", "a port is a number, `any` or the name of a well-known service")
        if self.peek() != "]":
            raise self.missing("`]`")
        self.at += 1
        return port


def quoted(word: str) -> str:
    """A word for a message: keys as what they are, long ones cut."""
    if word[0] == '"':
        return "a quoted string"
    if word[:2] in ("0x", "0X") and len(word) > 10:
        return "a long hexadecimal string"
    return f"`{word if len(word) <= _WORD_SHOWN else word[:_WORD_SHOWN] + '...'}`"

