"""Policy text, as ipsec_set_policy(3) reads it and ipsec_dump_policy writes it. setkey.md §4.

    policy   = direction [ prio ] [ action { request } ]        without action: discard, for deletions
    prio     = ("prio" | "priority") ( number | ("low" | "def" | "high") [ ("+" | "-") number ] )       (ipsec-tools)
    request  = proto "/" mode [ "/" [ ends ] [ "/" [ level ] ] ]
    ends     = address "-" address | address port "-" address port | "me" "-" "any" | "any" "-" "me"     port: "[" number "]"
    level    = ( "default" | "use" | "require" | "unique" ) [ (":" | "#") number ]

Blanks and newlines may stand between any two words; commas and semicolons are blanks. Behind `transport//` must follow a level.
Written by hand: eleven short rules, each with its own words for what is wrong and what to type, which a
generated parser's expectations do not give.

Priority. ipsec-tools writes larger for earlier; the field, and Policy.priority, is smaller for earlier: 0x80000000 - number, so
`high` is 0x40000000. Text without the word takes the reader's default: 0 in FreeBSD's layout, 0x80000000 (`def`) in Linux's;
but a direction alone has 0, and a priority of 0 is not shown.
"""

import re

from koura import address
from koura.errors import KouraError
from koura.saindex import Direction, Mode, Protocol
from koura.spd.policy import MAX_MANUAL_REQID, MAX_REQUIREMENTS, Action, Level, Policy, Requirement

PRIORITY_UNSET = 0
PRIORITY_DEFAULT = 0x8000_0000
_PRIORITIES = {"low": 0xC000_0000, "def": PRIORITY_DEFAULT, "high": 0x4000_0000}
_DIRECTIONS = {"in": Direction.INBOUND, "out": Direction.OUTBOUND, "fwd": Direction.FORWARD}
_DIRECTION_WORDS = {Direction.ANY: "any", **{direction: word for word, direction in _DIRECTIONS.items()}}
_ACTIONS = {action.name.lower(): action for action in Action}
_PROTOCOLS = {protocol.name.lower(): protocol for protocol in Protocol}
_MODES = {"transport": Mode.TRANSPORT, "tunnel": Mode.TUNNEL}
_MODE_WORDS = {mode: mode.name.lower() for mode in (Mode.ANY, Mode.TRANSPORT, Mode.TUNNEL)} | {Mode.TCP_MD5: "tcp-md5"}
_LEVELS = {level.name.lower(): level for level in Level}
_TOKEN = re.compile(r"[A-Za-z0-9:._%#]+|[^\s,;]")
_END = ""  # no word is empty
_LEVEL = re.compile(r"([a-z]*)(?:([:#])(\d*))?", re.ASCII)
_Ends = tuple[bytes, bytes, int, int]  # addresses and ports
_NO_ENDS: _Ends = (b"", b"", 0, 0)
_RESERVED = frozenset((*_DIRECTIONS, *_ACTIONS, *_PROTOCOLS, *_MODES, *_LEVELS, "me", "any", "prio", "priority", "/", "["))

# libipsec's numbers for ipsec_strerror(3).
INVALID_ARGUMENT, INVALID_ADDRESS, INVALID_PROTOCOL, INVALID_MODE, INVALID_LEVEL = 2, 6, 7, 8, 9
INVALID_DIRECTION, FAMILY_MISMATCH, TOO_FEW_ARGUMENTS, SYSTEM_ERROR = 17, 24, 25, 26


class PolicySyntax(KouraError):
    """Text that is no policy. The fault stands at text[start:end]; `hint` says what to type; `code` is ipsec_strerror(3)'s."""

    def __init__(self, why: str, code: int, start: int, end: int, hint: str = "") -> None:
        super().__init__(f"{why} (column {start + 1})")
        self.why = why
        self.code = code
        self.start = start
        self.end = end
        self.hint = hint

    @property
    def column(self) -> int:
        """Where the fault begins, counted from 1."""
        return self.start + 1


def parse(text: str, unset_priority: int = PRIORITY_UNSET) -> Policy:
    """The policy that the text says, without selector. Raises PolicySyntax. What the SPD or a socket takes: spd.validity."""
    return _Parser(text, unset_priority).policy()


class _Parser:
    """Reads left to right, one word ahead. A fault's place is the number of its word; where that stands is looked for when it is needed."""

    def __init__(self, text: str, unset_priority: int) -> None:
        self._text = text
        self._words: list[str] = [*_TOKEN.findall(text), _END]
        self._at = 0
        self._priority = unset_priority

    # -- words ---------------------------------------------------------------------------------------------------------

    def _take(self) -> str:
        """The next word; _END, which is never passed, behind the last one."""
        word = self._words[self._at]
        self._at += word is not _END
        return word

    def _skip(self, text: str) -> bool:
        """Take the next word if it is this one."""
        is_next = self._words[self._at] == text
        self._at += is_next
        return is_next

    def _wrong(self, at: int, why: str, code: int = INVALID_ARGUMENT, hint: str = "") -> PolicySyntax:
        """A fault at the word of this place."""
        starts = [found.start() for found in _TOKEN.finditer(self._text)]
        start = starts[at] if at < len(starts) else len(self._text.rstrip())
        return PolicySyntax(why, code, start, max(start + len(self._words[at]), start + 1), hint)

    # -- rules ---------------------------------------------------------------------------------------------------------

    def policy(self) -> Policy:
        direction = _DIRECTIONS.get(self._take())
        if direction is None:
            raise self._wrong(0, "a policy begins with its direction", hint="in or out (Linux also fwd)")
        words = self._words
        if words[self._at] in ("prio", "priority"):
            self._priority = self._prio()
        elif words[self._at] is _END:
            return Policy(direction, Action.DISCARD, priority=PRIORITY_UNSET)
        at = self._at
        word = self._take()
        action = _ACTIONS.get(word)
        if action is None:
            why = f"no such action: {word}" if word else "an action is missing"
            raise self._wrong(at, why, hint="discard, none, ipsec, entrust or bypass")
        requirements: list[Requirement] = []
        while words[self._at] is not _END:
            if action is not Action.IPSEC:
                raise self._wrong(self._at, f"nothing may follow {action.name.lower()}", hint="only ipsec takes requests")
            if len(requirements) == MAX_REQUIREMENTS:
                raise self._wrong(self._at, f"more than {MAX_REQUIREMENTS} requests")
            requirements.append(self._request(direction))
        return Policy(direction, action, requirements=tuple(requirements), priority=self._priority)

    def _prio(self) -> int:
        self._take()
        first = self._at
        base = _PRIORITIES.get(self._words[first])
        if base is None:
            is_negative = self._skip("-")
            base, offset = PRIORITY_DEFAULT, self._number(PRIORITY_DEFAULT, "a number, low, def or high")
        else:
            self._take()
            is_negative = self._words[self._at] == "-"
            has_offset = self._skip("-") or self._skip("+")
            offset = self._number(0x7FFF_FFFF, "a number") if has_offset else 0
        priority = base + offset if is_negative else base - offset
        if not 0 <= priority <= 0xFFFF_FFFF:
            raise self._wrong(first, "a priority out of range", hint="from low - 1073741823 to high + 1073741824")
        return priority

    def _number(self, most: int, hint: str) -> int:
        at = self._at
        word = self._take()
        if not (word.isascii() and word.isdigit()):
            raise self._wrong(at, "a number is missing", hint=hint)
        if len(word) > 10 or int(word) > most:
            raise self._wrong(at, f"{word} is too large", hint=f"at most {most}")
        return int(word)

    def _request(self, direction: Direction) -> Requirement:
        start = self._at
        word = self._take()
        protocol = _PROTOCOLS.get(word)
        if protocol is None:
            raise self._wrong(start, f"no such protocol: {word}", INVALID_ARGUMENT, "esp, ah or ipcomp, as in esp/transport//require")
        mode = self._mode(start)
        ends, has_ends, level, reqid = _NO_ENDS, False, Level.DEFAULT, 0
        if self._skip("/"):
            if self._is_end_next():
                ends, has_ends = self._ends(direction), True
            if self._skip("/"):
                level, reqid = self._level(has_ends or mode is Mode.TUNNEL)
        if mode is Mode.TUNNEL and not ends[0]:
            raise self._wrong(start, "a tunnel needs its endpoints", INVALID_ADDRESS, "as in esp/tunnel/192.0.2.1-192.0.2.2/require")
        return Requirement(protocol, mode, level, reqid, *ends)

    def _mode(self, start: int) -> Mode:
        protocol = self._words[start]
        if not self._skip("/"):
            raise self._wrong(start, f"{protocol} needs a mode", TOO_FEW_ARGUMENTS, f"{protocol}/transport or {protocol}/tunnel")
        word = self._words[self._at]
        mode = _MODES.get(word)
        if mode is None:
            why = f"no such mode: {word}" if word else f"{protocol} needs a mode"
            raise self._wrong(self._at, why, TOO_FEW_ARGUMENTS, "transport or tunnel")
        self._take()
        return mode

    def _is_end_next(self) -> bool:
        """Whether endpoints follow a request's second slash, and not a third, the next request or nothing."""
        word = self._words[self._at]
        return word not in ("/", "") and word not in _PROTOCOLS

    def _ends(self, direction: Direction) -> _Ends:
        first = self._at
        if self._words[first] in ("me", "any"):
            return self._me_any(direction)
        src, sport = self._address()
        if not self._skip("-"):
            raise self._wrong(self._at, "an endpoint is missing", hint="two addresses with a hyphen between: 192.0.2.1-192.0.2.2")
        dst, dport = self._address()
        if (sport is None) != (dport is None):
            raise self._wrong(first, "only one endpoint has a port", hint="both or none: 192.0.2.1[4500]-192.0.2.2[4500]")
        if len(src) != len(dst):
            raise self._wrong(first, "the endpoints are of two families", FAMILY_MISMATCH, "both IPv4 or both IPv6")
        return src, dst, sport or 0, dport or 0

    def _me_any(self, direction: Direction) -> _Ends:
        first = self._at
        word = self._take()
        wanted, right = ("any", Direction.OUTBOUND) if word == "me" else ("me", Direction.INBOUND)
        if not (self._skip("-") and self._skip(wanted)):
            raise self._wrong(first, "an endpoint is missing", hint="me-any (out) or any-me (in)")
        if direction is not right:
            raise self._wrong(first, f"{word}-{wanted} does not fit {_DIRECTION_WORDS[direction]}", INVALID_DIRECTION,
                              "me-any for out, any-me for in")  # fmt: skip
        return _NO_ENDS

    def _address(self) -> tuple[bytes, int | None]:
        at = self._at
        word = self._take()
        if "%" in word:
            raise self._wrong(at, "an endpoint with a zone", INVALID_ADDRESS, "a request keeps no interface: use an address without %")
        try:
            packed = address.parse(word)
        except ValueError:
            why = f"{word!r} is no address" if word else "an endpoint is missing"
            code = INVALID_ADDRESS if word == "-" else SYSTEM_ERROR
            code = INVALID_ARGUMENT if not word or word in _RESERVED else code
            raise self._wrong(at, why, code, "numeric addresses only") from None
        port = None
        if self._skip("["):
            port = self._number(65535, "a port in brackets: 192.0.2.1[4500]")
            if not self._skip("]"):
                raise self._wrong(self._at, "a bracket is missing", hint="]")
        return packed, port

    def _level(self, may_lack: bool) -> tuple[Level, int]:
        at = self._at
        word = self._words[at]
        if word is _END or word in _PROTOCOLS:
            if not may_lack:
                raise self._wrong(at, "a level is missing", hint="default, use, require, unique or unique:N")
            return Level.DEFAULT, 0
        self._take()
        found = _LEVEL.fullmatch(word)
        level = _LEVELS.get(found[1]) if found else None
        if found is None or level is None:
            raise self._wrong(at, f"no such level: {word}", hint="default, use, require, unique or unique:N")
        if found[2] is None:
            return level, 0
        digits = found[3]
        if not digits or len(digits) > 10 or int(digits) > 0xFFFF_FFFF:
            raise self._wrong(at, f"{digits!r} is no request id", hint="unique:N with N from 1 to 16383")
        return level, int(digits)


def show(policy: Policy, delimiter: str = " ", with_priority: bool = False, with_ports: bool = False) -> str:
    """Text of a policy, octet for octet what ipsec_dump_policy(3) prints: FreeBSD's, or ipsec-tools' with `with_priority`.

    `delimiter` stands before each request. with_ports: endpoints with their ports (setkey -p). A reqid beyond the manual range
    is shown with #, which we also read; so is a number behind other levels than unique (R28).
    """
    head = [_DIRECTION_WORDS[policy.direction]]
    if with_priority and policy.priority != PRIORITY_UNSET:
        head.append(_show_priority(policy.priority))
    head.append(policy.action.name.lower())
    return delimiter.join([" ".join(head), *(_show_request(requirement, with_ports) for requirement in policy.requirements)])


def _show_request(requirement: Requirement, with_ports: bool) -> str:
    ends = ""
    if requirement.src:
        has_ports = with_ports and (requirement.sport or requirement.dport)
        ports = [f"[{port}]" if has_ports else "" for port in (requirement.sport, requirement.dport)]
        ends = f"{address.show(requirement.src)}{ports[0]}-{address.show(requirement.dst)}{ports[1]}"
    reqid = ""
    if requirement.reqid:
        reqid = f"{':' if requirement.reqid <= MAX_MANUAL_REQID else '#'}{requirement.reqid}"
    level = requirement.level.name.lower()
    return f"{requirement.protocol.name.lower()}/{_MODE_WORDS[requirement.mode]}/{ends}/{level}{reqid}"


def _show_priority(priority: int) -> str:
    """The nearest of low, def and high, and how far from it."""
    if priority < PRIORITY_DEFAULT // 4 * 3:
        word = "high"
    elif priority < PRIORITY_DEFAULT // 4 * 5:
        word = "def"
    else:
        word = "low"
    offset = _PRIORITIES[word] - priority
    return f"prio {word}" + (f" {'+' if offset > 0 else '-'} {abs(offset)}" if offset else "")
