"""`setkey -n`: what is dubious about a script that has no fault, found without an engine. docs/setkey-command.md has the list.

The script runs against a PF_KEY server of its own, so that what an engine would refuse is known, and what stands at its end - the
two databases - is looked at: `lint_sas` and `lint_policies` have one function for each question. Names of hosts are not looked up:
a command with one is left out, and said so.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace

from koura.crypto import registry
from koura.errors import Errno, Refused
from koura.moment import Moment
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.pfkey.server import Asked, Parts, Server
from koura.sadb.association import Association, Makings
from koura.sadb.database import Database as Sad
from koura.sadb.hot import Arena
from koura.saindex import SaIndex
from koura.setkey.compile import compile, numeric
from koura.setkey.faults import NOWHERE, BadScript, Fault, Source, Span, fault_at
from koura.setkey.finding import Finding, Grade
from koura.setkey.lint_policies import policy_findings
from koura.setkey.lint_sas import sa_findings
from koura.setkey.parse import Script
from koura.setkey.statements import Delete, DeleteAll, Hosts, Statement
from koura.settings import Settings
from koura.spd.database import Database as Spd
from koura.spd.entry import Entry

_SOCKET = 1
_AT = Moment(0)


class _Dice:
    """Entropy for a stack that sends nothing."""

    def __init__(self) -> None:
        self._count = 0

    def octets(self, count: int) -> bytes:
        return bytes(count)

    def below(self, limit: int) -> int:
        self._count += 1
        return self._count % limit


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings in several scripts, each with the script it is in, and how many SAs and policies stand at the end."""

    findings: tuple[tuple[Script, Finding], ...]
    sas: int
    policies: int


@dataclass(slots=True)
class Placed:
    """What the script leaves behind, and where in it each SA and policy comes from."""

    sas: list[tuple[Association, Span]]
    policies: list[tuple[Entry, Span]]


def lint(script: Script) -> tuple[Finding, ...]:
    """Every finding, in the order of the text."""
    return tuple(finding for _, finding in judge((script,)).findings)


def judge(scripts: Iterable[Script], settings: Settings | None = None) -> Verdict:
    """The same for scripts that are loaded one behind the other, into an engine with these tunables."""
    runner = _Runner(settings or Settings())
    starts = []
    for script in scripts:
        starts.append((runner.base, script))
        for statement in script.statements:
            runner.do(statement, script.source)
        runner.base += len(script.source.text) + 1
    placed = runner.placed()
    found = [*runner.findings, *sa_findings(placed.sas, placed.policies), *policy_findings(placed.policies, placed.sas)]
    found.sort(key=lambda one: (one.span.start, one.name))
    return Verdict(tuple(_unshifted(finding, starts) for finding in found), len(placed.sas), len(placed.policies))


def _unshifted(finding: Finding, starts: list[tuple[int, Script]]) -> tuple[Script, Finding]:
    """Whose finding it is, and where in that script."""
    base, script = starts[bisect_right(starts, finding.span.start, key=lambda one: one[0]) - 1]
    return script, replace(finding, span=_shifted(finding.span, -base))


def _shifted(span: Span, by: int) -> Span:
    return Span(span.start + by, span.end + by, span.line) if by else span


def fault(finding: Finding, script: Script) -> Fault:
    """The finding as a place in the text, with its caret."""
    span, text = finding.span, script.source.text
    end = text.find("\n", span.start, span.end)
    return fault_at(script.source, span.start, span.end if end < 0 else end, f"{finding.why} [{finding.name}]", finding.hint)


class _Runner:
    """The private server, and what it says. base: what stands in front of the script that is read, in all scripts as one text."""

    def __init__(self, settings: Settings) -> None:
        known, dice = registry.default(), _Dice()
        self.base = 0
        self._sad = Sad(Makings(known, Arena(), dice))
        self._spd = Spd()
        self._server = Server(Parts(self._sad, self._spd, dice, known), settings, Asked(_ignore, _ignore, lambda _relation, _at: None))
        self._server.opened(_SOCKET)
        self._sa_spans: dict[int, Span] = {}  # by the SA's place in the order of all
        self._policy_spans: dict[int, Span] = {}
        self._span = NOWHERE
        self._has_names = False
        self._sad.noted = self._note_sa
        self._spd.noted = self._note_policy
        self.findings: list[Finding] = []

    def do(self, statement: Statement, source: Source) -> None:
        self._span = _shifted(statement.span, self.base)
        try:
            messages = compile(statement, source, self._resolve)
        except BadScript as bad:
            self.findings.append(self._unaddressed(statement, bad.faults[0], source.text))
            return
        for message in messages:
            refused = self._ask(message)
            if refused is not None and not isinstance(statement, Delete | DeleteAll):
                if refused.errno is Errno.ENOENT:
                    continue
                why = f"an engine refuses this: {refused.why}"
                self.findings.append(Finding("refused", Grade.ERROR, self._span, why))

    def _resolve(self, host: str, hosts: Hosts) -> tuple[bytes, ...]:
        found = numeric(host, hosts)
        self._has_names |= not found and not numeric(host, Hosts())
        return found

    def _unaddressed(self, statement: Statement, fault: Fault, text: str) -> Finding:
        """A command that has no message: for a name that nobody looks up here, or for numbers that make no sense."""
        if self._has_names:
            self._has_names = False
            why = f"not looked at: {fault.why}"
            return Finding("name", Grade.NOTE, self._span, why, "numeric addresses can be judged without a resolver")
        start = text.index(fault.token, statement.span.start) if fault.token in text else statement.span.start
        span = _shifted(Span(start, start + len(fault.token), fault.line), self.base)
        return Finding("address", Grade.ERROR, span, fault.why, fault.hint)

    def _note_sa(self, sa: Association) -> None:
        self._sa_spans.setdefault(sa.order, self._span)

    def _note_policy(self, entry: Entry) -> None:
        self._policy_spans.setdefault(entry.id, self._span)

    def _ask(self, message: Message) -> Refused | None:
        answer = self._server.receive(_SOCKET, message.write(FREEBSD), _AT)
        while self._server.has_dump(_SOCKET):
            self._server.pull(_SOCKET, 1 << 20, _AT)
        return answer.refused

    def placed(self) -> Placed:
        sas = [(sa, self._sa_spans[sa.order]) for sa in self._sad]
        return Placed(sas, [(entry, self._policy_spans[entry.id]) for entry in self._spd.entries()])


def _ignore(_seq: int, _relation: SaIndex | None = None) -> None:
    """Nobody waits for an SA here."""
