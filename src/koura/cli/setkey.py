"""`setkey` and `koura setkey`: setkey(8)'s command line, in getopt(3)'s manner. docs/setkey-command.md; setkey.md §1.

Exit status is setkey(8)'s: 0 done - also if the engine refused something, unless --strict makes that 2 - and 1 for a script that
cannot be read, an engine that cannot be reached, and a command line that says nothing.
"""

import getopt
import io
import json
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import click

import koura
from koura.cli.main import DONE, FAILED, run
from koura.client import place
from koura.client.control import Unreachable
from koura.client.keysocket import KeySocket
from koura.client.offline import Offline
from koura.client.setkey import Setkey, Shape, resolve
from koura.errors import Refused
from koura.host import garbage
from koura.pfkey.numbers import Type
from koura.setkey import lint
from koura.setkey.faults import BadScript, Fault
from koura.setkey.finding import Grade
from koura.setkey.parse import Script, check
from koura.spd.policy import Scope

_SHORT = "acdf:e:ghHltvxDFPnNpkrV?"
_LONG = ["json", "script", "hide-keys", "strict", "socket=", "help", "version"]
REFUSED = 2  # --strict
_USAGE = """\
usage: setkey [-v] -c
       setkey [-v] -f filename
       setkey [-v] -e "script"
       setkey [-Pagltv] -D
       setkey [-Pv] -F
       setkey [-h] -x
       setkey -n (-c | -f filename | -e "script")
       setkey filename ...
"""
_HELP = f"""{_USAGE}
  -c -f -e     run a script from standard input, a file (- is standard input), the argument
  -D -F        show, or remove, all SAs; with -P all policies
  -a           with -D: dead SAs too             -l   with -D: a line each, again every second
  -g -t        with -DP: policies of scope global, of interfaces; both: the union
  -N           with -DP: only count the policies of sockets
  -p           show the UDP ports of tunnel endpoints in policies
  -x           show every PF_KEY message as it comes; -xx: with seconds since 1970
  -v -h (-H)   decode messages; show them in octets
  -n           read and judge the script, and send nothing: no engine is needed
  -k -r -d     accepted, for other systems' scripts
  filename...  show what these files would make, without an engine

  --json        SAs, policies and findings as JSON
  --script      SAs and policies as commands that make them again
  --hide-keys   keys as asterisks
  --strict      exit 2 if anything was refused, or if -n found something
  --socket DIR  the engine ({place.VARIABLE} says the same)
"""


@dataclass(slots=True)
class _Asked:
    """What the command line says."""

    mode: str = ""
    sources: list[tuple[str, str]] = field(default_factory=list)  # (option, argument): what holds the script
    given: set[str] = field(default_factory=set)
    directory: Path | None = None
    monitors: int = 0

    @property
    def shape(self) -> Shape:
        has = self.given.__contains__
        return Shape(
            has_dead=has("-a"), is_verbose=has("-v"), has_octets=has("-h") or has("-H"), hides_sockets=has("-N"), is_json=has("--json"),
            is_script=has("--script"), hides_keys=has("--hide-keys"), has_ports=has("-p"), has_epoch=self.monitors > 1,
        )  # fmt: skip


class _Usage(Exception):
    """The command line says nothing that can be done; `why` is for stderr."""


def _read(arguments: list[str]) -> _Asked:
    try:
        options, files = getopt.gnu_getopt(arguments, _SHORT, _LONG)
    except getopt.GetoptError as error:
        raise _Usage(str(error)) from error
    asked = _Asked()
    for option, value in options:
        asked.given.add(option)
        if option in ("-c", "-f", "-e"):
            asked.sources.append((option, value))
            asked.mode = "script"
        elif option in ("-D", "-F", "-x"):
            asked.mode = option
            asked.monitors += option == "-x"
        elif option == "--socket":
            asked.directory = Path(value)
    if files and not asked.mode:
        asked.mode = "files"
        asked.sources = [("-f", name) for name in files]
    elif files:
        raise _Usage(f"what is {files[0]}? A script comes behind -f")
    if len(asked.sources) > 1 and asked.mode != "files":
        raise _Usage("one of -c, -f and -e")
    if {"--script", "--hide-keys"} <= asked.given:
        raise _Usage("--script needs the keys that --hide-keys hides")
    if {"--script", "--json"} <= asked.given:
        raise _Usage("--script or --json")
    return asked


def main() -> None:
    """The entry point of `setkey`."""
    garbage.rarely()
    sys.exit(run(command, "setkey"))


@click.command("setkey", context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> int:
    """Make, show and remove SAs and policies: setkey(8)."""
    try:
        asked = _read(list(arguments))
        if asked.given & {"-?", "--help"}:
            click.echo(_HELP, nl=False)
            return DONE
        if asked.given & {"-V", "--version"}:
            click.echo(f"setkey (koura) {koura.__version__}")
            return DONE
        if not asked.mode or (asked.mode != "script" and "-n" in asked.given):
            raise _Usage("")
    except _Usage as error:
        click.echo(_USAGE, nl=False)
        if error.args[0]:
            click.echo(f"setkey: {error}", err=True)
        return FAILED
    try:
        return _do(asked)
    except BadScript as bad:
        return _bad(bad.faults)
    except Unreachable as error:
        click.echo(f"setkey: {error}", err=True)
        return FAILED
    except Refused as error:
        click.echo(f"setkey: {error.why}", err=True)
        return FAILED


def _do(asked: _Asked) -> int:
    if asked.mode == "files":
        return _files(asked)
    if asked.mode == "script":
        script = _script(*asked.sources[0])
        if script.faults:
            return _bad(script.faults)
        _tell(script.warnings, "WARNING: ")
        if "-n" in asked.given:
            return _judge(script, asked)
        with KeySocket.connect(place.directory(asked.directory)) as keys:
            setkey = Setkey(keys, asked.shape, _out, _err)
            setkey.script(script, resolve)
            return _status(setkey, asked)
    with KeySocket.connect(place.directory(asked.directory)) as keys:
        setkey = Setkey(keys, asked.shape, _out, _err)
        _command(setkey, asked)
        return _status(setkey, asked)


def _command(setkey: Setkey, asked: _Asked) -> None:
    is_policies = "-P" in asked.given
    if asked.mode == "-x":
        _endless()
        setkey.monitor()
        return
    kinds = (Type.X_SPDFLUSH, Type.FLUSH) if asked.mode == "-F" else (Type.X_SPDDUMP, Type.DUMP)
    try:
        if asked.mode == "-F":
            setkey.flush(is_policies)
        elif is_policies:
            setkey.dump_policies(("-g" in asked.given) * Scope.GLOBAL | ("-t" in asked.given) * Scope.INTERFACE)
        elif "-l" in asked.given:
            _endless()
            setkey.forever()
        else:
            setkey.dump_sas()
    except Refused as error:
        setkey.command_refused(kinds[0] if is_policies else kinds[1], error)


def _endless() -> None:
    """What goes on until a signal ends it: each line is out at once, and nothing is left to do when the signal comes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _status(setkey: Setkey, asked: _Asked) -> int:
    return REFUSED if setkey.refused and "--strict" in asked.given else DONE


def _files(asked: _Asked) -> int:
    """What the files would make, on an engine of their own that forwards nothing."""
    keys = Offline()
    setkey = Setkey(keys, asked.shape, _out, _err)
    for option, name in asked.sources:
        script = _script(option, name)
        if script.faults:
            return _bad(script.faults)
        setkey.script(script, resolve)
    setkey.dump_sas()
    setkey.dump_policies(0)
    return _status(setkey, asked)


def _judge(script: Script, asked: _Asked) -> int:
    """-n: findings to stdout, errors among them like refusals."""
    findings = lint.lint(script)
    if "--json" in asked.given:
        rows = [
            {"name": one.name, "grade": one.grade.value, "line": one.span.line, "why": one.why, "hint": one.hint} for one in findings
        ]  # fmt: skip
        _out(json.dumps(rows, indent=1) + "\n")
    else:
        for one in findings:
            _out(f"{one.grade.value}: {lint.fault(one, script)}\n")
    is_grave = any(one.grade is Grade.ERROR for one in findings)
    return REFUSED if "--strict" in asked.given and findings else FAILED if is_grave else DONE


def _script(option: str, argument: str) -> Script:
    if option == "-e":
        return check(argument, "-e")
    name = "-" if option == "-c" else argument
    try:
        octets = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise Unreachable(f"{name}: {os.strerror(error.errno or 0)}") from error
    return check(octets.decode("utf-8", "surrogateescape"), "<stdin>" if name == "-" else name)


def _bad(faults: tuple[Fault, ...]) -> int:
    """A script that cannot be read: FreeBSD's lines to stdout, carets and hints to stderr."""
    for fault in faults:
        _out(f"line {fault.line}: {fault.why} at [{fault.token}]\n")
    _out(f"parse failed, line {faults[0].line}.\n")
    _tell(faults, "")
    return FAILED


def _tell(faults: Iterable[Fault], before: str) -> None:
    for fault in faults:
        _err(f"{before}{fault}\n")


def _out(text: str) -> None:
    sys.stdout.write(text)


def _err(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text)
