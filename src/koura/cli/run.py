"""`koura run`: an unmodified PF_KEY program against an engine, a private one where none runs. docs/run.md."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from koura.cli.main import NO_PERMISSION, Failed
from koura.client import place
from koura.client.control import Unreachable
from koura.daemon.launch import DidNotStart, Running, short
from koura.intercept.engine import ControlEngine
from koura.intercept.kernel import Unavailable
from koura.intercept.launch import NoProgram, Watched
from koura.intercept.signals import die_of
from koura.intercept.supervisor import Supervisor

# Tells a koura run inside of another which engine it is served by.
OUTER = "KOURA_RUN"


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--socket", "directory", metavar="DIR", help="The engine's directory [$KOURA_SOCKET, /run/koura, or a private engine].")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A setkey script for the private engine.")
@click.option("-o", "tunables", multiple=True, metavar="NAME=VALUE", help="A tunable of the private engine.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def command(directory: str | None, file: Path | None, tunables: tuple[str, ...], program: tuple[str, ...]) -> int:
    """Run PROGRAM (iked, racoon, setkey, charon …) with PF_KEY sockets and socket policies of the engine.

    Exit status: the program's own; a signal that kills it kills koura run, too. 77: this machine does not let us, and why.
    """
    wishes = [*(["-f", str(file)] if file is not None else []), *(word for tunable in tunables for word in ("-o", tunable))]
    with engine_of(directory, wishes) as engine:
        status = supervise(engine, program)
    if os.WIFSIGNALED(status):
        die_of(os.WTERMSIG(status))
        return 128 + os.WTERMSIG(status)
    return os.waitstatus_to_exitcode(status)


@contextmanager
def engine_of(given: str | None, wishes: list[str]) -> Iterator[ControlEngine]:
    """The engine that was named, or the one of this machine; else one of our own, for as long as this lasts. Raises Failed."""
    engine = ControlEngine(place.directory(given))
    try:
        if wishes:
            raise Unreachable("it is to be private")
        engine.connect()
    except Unreachable as error:
        if not wishes and (given or os.environ.get(place.VARIABLE)):
            raise Failed(str(error), NO_PERMISSION if error.is_forbidden else 1) from error
    else:
        yield engine
        engine.close()
        return
    if given and wishes:
        raise Failed("-f and -o are for an engine of its own: leave --socket out", 64)
    with tempfile.TemporaryDirectory(prefix="koura-run-", dir=short()) as home:
        try:
            with Running(Path(home) / "koura", *wishes, is_private=True) as running:
                warn(f"no engine in {engine.directory}: this one is private, in {running.directory}")
                engine = ControlEngine(running.directory)
                engine.connect()
                yield engine
                engine.close()
        except DidNotStart as error:
            raise Failed(error.said.strip().removeprefix("koura: ") or str(error), error.status or 1) from error


def supervise(engine: ControlEngine, program: tuple[str, ...]) -> int:
    """The program's wait status. Raises Failed."""
    served_by = str(engine.directory.resolve())
    environment = os.environ | {place.VARIABLE: str(engine.directory.absolute()), OUTER: served_by}
    try:
        return Supervisor(engine, warn).run(program, environment)
    except Watched as error:
        if os.environ.get(OUTER) == served_by:
            become(program)
        raise Failed(str(error), NO_PERMISSION) from error
    except Unavailable as error:
        raise Failed(str(error), NO_PERMISSION) from error
    except NoProgram as error:
        raise Failed(str(error), error.status) from error


def become(program: tuple[str, ...]) -> None:
    """Inside of another koura run of the same engine: that one serves the program already. Raises Failed."""
    try:
        os.execvp(program[0], program)
    except OSError as error:
        missing = NoProgram(program[0], error.errno or 0)
        raise Failed(str(missing), missing.status) from error


def warn(line: str) -> None:
    """A line for a person, beside what the program writes."""
    print(f"koura run: {line}", file=sys.stderr, flush=True)
