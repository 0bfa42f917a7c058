"""setkey(8) at work: scripts, dumps, flushes and the monitor, through a key socket. setkey.md §1.

What programs parse goes to `out` in FreeBSD's words: SAs and policies, `The result of line N: ...`, `No SAD entries.`; what people
need besides goes to `err`: the line, a caret, the engine's reason. A script with a fault in it sends nothing at all.
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from koura.client.exchange import unwrapped
from koura.client.strerror import strerror
from koura.errors import Errno, Refused
from koura.pfkey.dialect import FREEBSD, Dialect
from koura.pfkey.message import Message
from koura.pfkey.numbers import SaType, Type
from koura.setkey import run, show, show_json, show_message, show_policy, show_sa, show_script
from koura.setkey.compile import Resolver, numeric
from koura.setkey.faults import fault_at
from koura.setkey.parse import Script
from koura.setkey.show import View
from koura.setkey.show_json import Json
from koura.setkey.statements import DeleteAll, Hosts, Statement
from koura.spd.policy import Scope

_NO_ENTRY = (Type.DELETE, Type.GET, Type.X_SPDDELETE)
_NO_ENTRIES = {Type.DUMP: "No SAD entries", Type.X_SPDDUMP: "No SPD entries"}
_DUMPS = (Type.DUMP, Type.X_SPDDUMP)
_QUIET_S = 1.0


class Keys(Protocol):
    """What a setkey needs of a key socket; client.keysocket.KeySocket is one."""

    @property
    def dialect(self) -> Dialect: ...

    def ask(self, message: Message) -> tuple[Message, ...]: ...

    def ask_each(self, messages: Iterable[Message]) -> Iterator[tuple[Message, ...] | Refused]: ...

    def dump(self, message: Message) -> Iterator[Message]: ...

    def frames(self, timeout_s: float | None = None) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Shape:
    """How output looks: setkey's options -a -v -h -l -N --json --script --hide-keys -p, and how often -x was given."""

    has_dead: bool = False
    is_verbose: bool = False
    has_octets: bool = False
    is_short: bool = False
    hides_sockets: bool = False
    is_json: bool = False
    is_script: bool = False
    hides_keys: bool = False
    has_ports: bool = False
    has_epoch: bool = False


def local_time(seconds: int) -> str:
    """`Mon DD HH:MM:SS YYYY` where we are."""
    return time.ctime(seconds)[4:24]


def interface_name(index: int) -> str:
    """The name of an interface; its number where there is none."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"if{index}"


def resolve(host: str, hosts: Hosts) -> tuple[bytes, ...]:
    """A Resolver: getaddrinfo(3), or numbers only where -n stands. () for a name that nobody knows."""
    if numbers := numeric(host, hosts):
        return numbers
    family = {4: socket.AF_INET, 6: socket.AF_INET6}.get(hosts.family, socket.AF_UNSPEC)
    flags = socket.AI_NUMERICHOST if hosts.is_numeric else 0
    try:
        rows = socket.getaddrinfo(host, None, family, socket.SOCK_RAW, 0, flags)
    except (OSError, UnicodeError):
        return ()
    found = [socket.inet_pton(row[0], str(row[4][0]).partition("%")[0]) for row in rows if row[0] in (socket.AF_INET, socket.AF_INET6)]
    return tuple(dict.fromkeys(found))


class Setkey:
    """One run. `refused`: how many requests the engine refused."""

    def __init__(self, keys: Keys, shape: Shape, out: Callable[[str], None], err: Callable[[str], None]) -> None:
        self._keys = keys
        self._shape = shape
        self._out = out
        self._err = err
        self.refused = 0

    def _view(self) -> View:
        shape = self._shape
        return View(int(time.time()), local_time, interface_name, shape.hides_keys, shape.has_ports)

    # -- a script ------------------------------------------------------------------------------------------------------

    def script(self, script: Script, resolver: Resolver) -> None:
        """Send every command in order. A refusal stops nothing. Raises BadScript for hosts that cannot be found, with nothing sent."""
        compiled = run.messages(script, resolver)
        self._keys.ask(Message(Type.REGISTER, SaType.UNSPEC))  # setkey(8) learns algorithms so; ours knows them, and others watch for it.
        is_shown = self._shape.is_verbose or self._shape.has_octets
        batch: list[tuple[Statement, Message]] = []
        for statement, messages in compiled:
            for message in messages:
                if not is_shown and message.type not in _DUMPS:
                    batch.append((statement, message))
                    continue
                self._batch(script, batch)
                batch = []
                self._one(script, statement, message)
        self._batch(script, batch)

    def _batch(self, script: Script, batch: list[tuple[Statement, Message]]) -> None:
        """Requests one behind the other, and what came of each, in their order."""
        answers = self._keys.ask_each(message for _, message in batch)
        for (statement, message), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Refused):
                self._refusal(script, statement, message.type, answer)
            elif message.type == Type.GET:
                self._print(message.type, answer)

    def _one(self, script: Script, statement: Statement, message: Message) -> None:
        try:
            if message.type in _DUMPS:
                self._print(message.type, self._talk(message))
            else:
                for reply in self._talk(message):
                    if reply.type == Type.GET:
                        self._print(reply.type, [reply])
        except Refused as error:
            self._refusal(script, statement, message.type, error)

    def _refusal(self, script: Script, statement: Statement, kind: int, error: Refused) -> None:
        if isinstance(statement, DeleteAll) and error.errno in (Errno.ESRCH, Errno.ENOENT):
            return  # that there was nothing to delete
        span, text = statement.span, script.source.text
        self._out(f"The result of line {script.source.line_of(max(span.start, span.end - 1))}: {_said(kind, error)}.\n")
        if kind not in _NO_ENTRIES:  # That there is nothing to show is an answer, too.
            self.refused += 1
            end = text.find("\n", span.start, span.end)
            self._err(f"{fault_at(script.source, span.start, span.end if end < 0 else end, error.why)}\n")

    # -- dumps and flushes ---------------------------------------------------------------------------------------------

    def dump_sas(self) -> None:
        """-D."""
        self._command(Type.DUMP, (SaType.UNSPEC,))

    def dump_policies(self, scopes: int) -> None:
        """-DP; scopes 0: all, of which sockets' are only counted under -N."""
        if scopes:
            asked = [scope for scope in Scope if scopes & scope]
            self._command(Type.X_SPDDUMP, tuple(FREEBSD.satypes.ours(scope) for scope in asked))
            return
        sockets = FREEBSD.satypes.ours(Scope.SOCKET)
        if self._shape.hides_sockets:
            self._command(Type.X_SPDDUMP, (SaType.UNSPEC,))
            count = sum(1 for _ in self._entries(Message(Type.X_SPDDUMP, sockets)))
            self._out(f"({count} per-socket {'policy' if count == 1 else 'policies'} hidden)\n")
        else:
            self._command(Type.X_SPDDUMP, (SaType.UNSPEC, sockets))

    def _command(self, kind: int, satypes: tuple[int, ...]) -> None:
        def entries() -> Iterator[Message]:
            for satype in satypes:
                yield from self._entries(Message(kind, satype))

        if not self._print(kind, entries()):
            self._out("[]\n" if self._shape.is_json else "" if self._shape.is_script else f"{_NO_ENTRIES[Type(kind)]}.\n")

    def _entries(self, message: Message) -> Iterator[Message]:
        """A dump; nothing where there is nothing."""
        try:
            yield from self._talk(message)
        except Refused as error:
            if error.errno is not Errno.ENOENT:
                raise

    def flush(self, is_policies: bool) -> None:
        """-F, -FP. Raises Refused."""
        for _ in self._talk(Message(Type.X_SPDFLUSH if is_policies else Type.FLUSH)):
            pass

    def command_refused(self, kind: int, error: Refused) -> None:
        """A refusal of -D or -F."""
        self.refused += 1
        self._out(f"{_said(kind, error)}.\n")
        self._err(f"{error.why}\n")

    def forever(self) -> None:
        """-D -l: a line for each SA, each second, until somebody ends it."""
        self._out(show_sa.SHORT_HEADER + "\n")
        while True:
            for entry in self._entries(Message(Type.DUMP)):
                if self._shape.has_dead or not show_sa.is_dead(entry):
                    self._out(show_sa.short(entry, self._view()))
            time.sleep(_QUIET_S)

    # -- the monitor ---------------------------------------------------------------------------------------------------

    def monitor(self, most: int | None = None) -> None:
        """-x: every message that anybody gets, as it comes; at most `most` of them."""
        list(self._keys.ask(Message(Type.X_PROMISC, FREEBSD.satypes.ours(1))))
        for count, octets in enumerate(self._keys.frames(), start=1):
            text = self._stamp() + "\n"
            if self._shape.has_octets:
                text += "".join(f"{line}\n" for line in show.octets(octets))
            self._out(text + show_message.decoded(unwrapped(octets), self._view()) + "\n")
            if count == most:
                return

    def _stamp(self) -> str:
        now_ns = time.time_ns()
        seconds, micro = now_ns // 1_000_000_000, now_ns // 1000 % 1_000_000
        if self._shape.has_epoch:
            return f"{seconds}.{micro:06d} "
        return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{micro:06d} "

    # -- inside --------------------------------------------------------------------------------------------------------

    def _talk(self, message: Message) -> Iterator[Message]:
        """A request and its replies, shown as they pass under -v and -h. Raises Refused."""
        shape = self._shape
        if shape.is_verbose or shape.has_octets:
            octets = message.write(self._keys.dialect)
            if shape.is_verbose:
                self._out(show_message.decoded(octets, self._view()) + "\n")
            if shape.has_octets:
                self._out("".join(f"{line}\n" for line in show.octets(octets)))
        try:
            for reply in self._keys.dump(message) if message.type in _DUMPS else self._keys.ask(message):
                if shape.is_verbose:
                    self._out(show_message.decoded(reply.write(self._keys.dialect), self._view()) + "\n")
                yield reply
        except Refused as error:
            if shape.is_verbose:
                failed = replace(message, errno=error.errno.bsd)
                self._out(show_message.decoded(failed.write(self._keys.dialect), self._view()) + "\n")
            raise

    def _print(self, kind: int, entries: Iterable[Message]) -> bool:
        """Show what a dump or GET brought; whether there was anything."""
        is_policy, shape = kind == Type.X_SPDDUMP, self._shape
        shown = (one for one in entries if is_policy or shape.has_dead or not show_sa.is_dead(one))
        if shape.is_script:
            everything = list(shown)
            self._out(show_script.spd(everything) if is_policy else show_script.sas(everything))
            return bool(everything)
        if shape.is_json:
            return self._print_json(shown, show_json.policy if is_policy else show_json.sa)
        has_any = False
        for one in shown:
            has_any = True
            whole = show_policy.whole if is_policy else show_sa.short if shape.is_short else show_sa.whole
            self._out(whole(one, self._view()))
        return has_any

    def _print_json(self, entries: Iterable[Message], value: Callable[[Message, View], dict[str, Json]]) -> bool:
        """An array, an entry a line, as they come."""
        import json

        has_any = False
        for one in entries:
            self._out(("[\n" if not has_any else ",\n") + json.dumps(value(one, self._view())))
            has_any = True
        self._out("\n]\n" if has_any else "")
        return has_any


def _said(kind: int, error: Refused) -> str:
    """FreeBSD's words for a refusal."""
    if error.errno is Errno.ENOENT:
        if kind in _NO_ENTRY:
            return "No entry"
        if kind in _NO_ENTRIES:
            return _NO_ENTRIES[Type(kind)]
    return strerror(error.errno)
