"""`koura replay`: captured packets through the stack, offline. docs/replay.md."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import click

from koura.cli.main import BAD_DATA, DONE, USAGE, Failed
from koura.errors import Malformed
from koura.host import garbage
from koura.host.entropy import System
from koura.moment import Moment
from koura.replay import describe
from koura.replay.load import load
from koura.replay.player import Played, Player, moment_of
from koura.replay.summary import Summary
from koura.setkey.faults import BadScript, Fault, fault_at
from koura.setkey.parse import Script, parse
from koura.setkey.statements import Add
from koura.stack import Stack
from koura.wire import capture
from koura.wire.capture import Record

_PIPE = "-"


def _time(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Moment | None:
    """ISO 8601; without a zone it is UTC."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        since = (found if found.tzinfo is not None else found.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
        return Moment(since // timedelta(microseconds=1) * 1000)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no time as ISO 8601 has it, such as 2026-11-24T20:15:00Z, from 1970 on") from None


@click.command("replay")
@click.option("-f", "script", metavar="SETKEY.CONF", required=True, help="the SAs and policies, as setkey(8) takes them; - is stdin")
@click.option("--in", "is_inbound", is_flag=True, help="the packets arrive: open them, check them, write what is delivered")
@click.option("--out", "is_outbound", is_flag=True, help="the packets are about to leave: protect them as the policies say")
@click.option("--at", metavar="ISO8601", callback=_time, help="when the script is run: lifetimes count from there [the first frame's time]")
@click.option("-v", "--verbose", is_flag=True, help="a line for each frame")
@click.option("--json", "is_json", is_flag=True, help="the summary, and the lines, as JSON objects")
@click.argument("source", metavar="IN.pcap")
@click.argument("target", metavar="OUT.pcap")
def command(
    script: str, is_inbound: bool, is_outbound: bool, at: Moment | None, verbose: bool, is_json: bool, source: str, target: str
) -> int:
    """Run the packets of a capture through the stack, offline.

    IN is pcap or pcapng; OUT is pcap of bare IP packets, with the times of IN. Either may be -. With OUT -, text goes to stderr.
    """
    if is_inbound == is_outbound:
        raise click.UsageError("say --in or --out: whether the packets arrive or leave")
    if script == source == _PIPE:
        raise click.UsageError("the script and the capture cannot both come from stdin")
    voice = _Voice(is_json=is_json, is_verbose=verbose, is_aside=target == _PIPE)
    try:
        parsed = _read_script(script)
        _tell((*parsed.warnings, *_weak(parsed)), "warning: ")
        return _replay(parsed, is_outbound, at, (source, target), voice)
    except BadScript as bad:
        _tell(bad.faults)
        return BAD_DATA


def _replay(script: Script, is_outbound: bool, at: Moment | None, paths: tuple[str, str], voice: "_Voice") -> int:
    """Frame by frame, so that a capture may be larger than memory. Raises BadScript, Failed."""
    source, target = paths
    with _open_source(source, target) as octets:
        records = _Records(octets, source)
        first = records.first()
        start = at or (moment_of(first) if first is not None else Moment(0))
        player = Player(_stack(script, start), is_outbound, start)
        if first is None and records.fault:
            raise Failed(f"{source}: {records.fault}", BAD_DATA)
        with _target(target) as sink:
            writer = capture.Writer(sink, is_ns=first is not None and first.is_ns)
            for record in records:
                played = player.play(record)
                for packet in played.written:
                    writer.write(record.at_ns, packet)
                voice.frame(played)
    player.finish()
    voice.summary(player.summary, is_outbound=is_outbound, fault=records.fault)
    if records.fault:
        raise Failed(f"{source}: {records.fault}; what came before it was kept", BAD_DATA)
    return DONE


class _Records:
    """The frames of a capture, and the fault that ended them early: '' if none did."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._frames = capture.read(file)
        self._name = name
        self._first: Record | None = None
        self.fault = ""

    def first(self) -> Record | None:
        """The first frame, which comes again in the iteration. None: there is none."""
        self._first = self._next()
        return self._first

    def __iter__(self) -> Iterator[Record]:
        record = self._first
        while record is not None:
            yield record
            record = self._next()

    def _next(self) -> Record | None:
        try:
            return next(self._frames, None)
        except Malformed as fault:
            self.fault = str(fault)
            return None
        except OSError as error:
            raise Failed(f"cannot read {self._name}: {error.strerror}") from error


class _Voice:
    """What is told, and where: text or JSON, on stdout, or on stderr where stdout carries the packets."""

    def __init__(self, *, is_json: bool, is_verbose: bool, is_aside: bool) -> None:
        self._is_json, self._is_verbose, self._is_aside = is_json, is_verbose, is_aside

    def frame(self, played: Played) -> None:
        """With --verbose: what became of one frame."""
        if self._is_verbose:
            self._say(json.dumps(describe.values(played)) if self._is_json else describe.line(played))

    def summary(self, summary: Summary, *, is_outbound: bool, fault: str) -> None:
        """The counts, after the last frame."""
        if self._is_json:
            self._say(json.dumps({"direction": "out" if is_outbound else "in", **summary.as_json(), "fault": fault}))
            return
        for line in summary.lines():
            self._say(line)

    def _say(self, line: str) -> None:
        click.echo(line, err=self._is_aside)


def _stack(script: Script, at: Moment) -> Stack:
    """Raises BadScript for what is wrong with the script, or refused of what it wants to be there."""
    # What --out seals may be sent one day, so its IVs are the operating system's dice.
    with garbage.resting():
        stack, refused = load(script, System(), at)
    if lasting := tuple(refusal.fault for refusal in refused if refusal.is_lasting):
        raise BadScript(lasting)
    return stack


def _weak(script: Script) -> tuple[Fault, ...]:
    """A warning for each weak algorithm, where it is used first. They are taken all the same: it is an old capture that is read."""
    found: dict[str, Fault] = {}
    for statement in script.statements:
        if isinstance(statement, Add):
            span, word = statement.span, "update" if statement.is_update else "add"
            for row in (statement.terms.encryption, statement.terms.integrity):
                if row is not None and row.is_weak and row.name not in found:
                    found[row.name] = fault_at(script.source, span.start, span.start + len(word), f"{row.name} is weak: {row.warning}")
    return tuple(found.values())


def _tell(faults: tuple[Fault, ...], word: str = "") -> None:
    for fault in faults:
        text = str(replace(fault, why=f"{word}{fault.why}"))
        click.echo(text.encode(errors="backslashreplace").decode(), err=True)  # What is no UTF-8 in the script is no reason to fall.


# -- files ----------------------------------------------------------------------------------------------------------------


def _read_script(path: str) -> Script:
    """Raises BadScript."""
    try:
        octets = sys.stdin.buffer.read() if path == _PIPE else Path(path).read_bytes()
    except OSError as error:
        raise Failed(f"cannot read {path}: {error.strerror}") from error
    return parse(octets.decode(errors="surrogateescape"), "<stdin>" if path == _PIPE else path)


def _open_source(path: str, target: str) -> AbstractContextManager[BinaryIO]:
    if path == _PIPE:
        return nullcontext(sys.stdin.buffer)
    try:
        if target != _PIPE and os.path.exists(target) and os.path.samefile(path, target):
            raise Failed(f"{target} is the capture that is read: name another file to write to", USAGE)
        return Path(path).open("rb")
    except OSError as error:
        raise Failed(f"cannot read {path}: {error.strerror}") from error


@contextmanager
def _target(path: str) -> Iterator[BinaryIO]:
    """The file that is written, flushed at the end whatever happens. Raises Failed where it cannot be opened, written or flushed."""
    try:
        if path == _PIPE:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        else:
            with Path(path).open("wb") as file:
                yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failed(f"cannot write {path}: {error.strerror}") from error
