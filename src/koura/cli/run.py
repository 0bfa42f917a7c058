"""`koura run`: an unmodified PF_KEY program against our engine. docs/run.md."""

import os
import sys
from pathlib import Path

import click

from koura.cli.main import NO_PERMISSION, Failed
from koura.intercept.engine import ControlEngine
from koura.intercept.kernel import Unavailable
from koura.intercept.launch import NoProgram, Watched
from koura.intercept.signals import die_of
from koura.intercept.supervisor import Supervisor

# Tells a koura run inside of another which engine it is served by.
OUTER = "KOURA_RUN"


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--socket", "directory", type=click.Path(path_type=Path), envvar="KOURA_SOCKET", required=True,
              help="The engine's directory.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def command(directory: Path, program: tuple[str, ...]) -> int:
    """Run PROGRAM (iked, racoon, setkey, charon …) with PF_KEY sockets and socket policies of the engine.

    Exit status: the program's own; a signal that kills it kills koura run, too. 77: this machine does not let us, and why.
    """
    engine = ControlEngine(directory)
    try:
        engine.connect()
    except OSError as error:
        raise Failed(f"no engine in {directory}: {os.strerror(error.errno or 0)}; start one with koura up --socket {directory}") from error
    environment = os.environ | {"KOURA_SOCKET": str(directory), OUTER: str(directory.resolve())}
    try:
        status = Supervisor(engine, warn).run(program, environment)
    except Watched as error:
        if os.environ.get(OUTER) == str(directory.resolve()):
            become(program)
        raise Failed(str(error), NO_PERMISSION) from error
    except Unavailable as error:
        raise Failed(str(error), NO_PERMISSION) from error
    except NoProgram as error:
        raise Failed(str(error), error.status) from error
    if os.WIFSIGNALED(status):
        die_of(os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


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
