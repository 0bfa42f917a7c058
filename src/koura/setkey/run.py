"""A script through PF_KEY into a stack: each command sent, its answer awaited, refusals gathered with their place. setkey.md §1.

As setkey(8) has it, a refusal does not stop a script; unlike there, the reason is told and not the errno alone.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.quick import quick
from koura.setkey.compile import Resolver, compile, numeric
from koura.setkey.faults import BadScript, Fault, Span, fault_at
from koura.setkey.parse import Script
from koura.setkey.statements import Add, DeleteAll, GetSpi, PolicyAdd, Statement
from koura.slices import COMMANDS, Slices, whole

_COMMAND = re.compile(r"[a-z]+")


@quick
@dataclass(frozen=True, slots=True)
class Answered:
    """What came of one message: errno 0 or the number in FreeBSD's terms, and why."""

    errno: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command that was refused: where it stands, and why. is_lasting: something the script wanted is not there."""

    fault: Fault
    errno: int
    is_lasting: bool


def messages(script: Script, resolve: Resolver = numeric) -> list[tuple[Statement, tuple[Message, ...]]]:
    """Every statement with its messages, before anything is sent. Raises BadScript with every host that cannot be found."""
    return whole(_compiling(script, resolve))


def _compiling(script: Script, resolve: Resolver) -> Slices[list[tuple[Statement, tuple[Message, ...]]]]:
    made = []
    faults: list[Fault] = []
    for count, statement in enumerate(script.statements, 1):
        if count % COMMANDS == 0:
            yield
        try:
            made.append((statement, compile(statement, script.source, resolve)))
        except BadScript as bad:
            faults += bad.faults
    if faults:
        raise BadScript(tuple(faults))
    return made


def run(script: Script, ask: Callable[[bytes], Answered], resolve: Resolver = numeric) -> tuple[Refusal, ...]:
    """Send the whole script. `ask` takes a message in the FreeBSD dialect. Raises BadScript before the first is sent."""
    return whole(running(script, lambda message: ask(message.write(FREEBSD)), resolve))


def running(script: Script, ask: Callable[[Message], Answered], resolve: Resolver = numeric) -> Slices[tuple[Refusal, ...]]:
    """The same in slices, for who takes messages as values."""
    refused = []
    made = yield from _compiling(script, resolve)
    for count, (statement, said) in enumerate(made, 1):
        if count % COMMANDS == 0:
            yield
        for message in said:
            answer = ask(message)
            if answer.errno and not isinstance(statement, DeleteAll):
                refused.append(_refusal(script, statement, answer))
    return tuple(refused)


def _refusal(script: Script, statement: Statement, answer: Answered) -> Refusal:
    span: Span = statement.span
    why = answer.why or f"refused with errno {answer.errno}"
    word = _COMMAND.match(script.source.text, span.start, span.end)
    fault = fault_at(script.source, span.start, word.end() if word is not None else span.end, why)
    return Refusal(fault, answer.errno, isinstance(statement, Add | GetSpi | PolicyAdd))
