"""`koura`: one table of commands, each in a file of its own that is imported when it is called.

Exit status: 0 done, 1 refused or failed (one line on stderr: what, where, what to do), 64 usage, 65 bad data, 77 no permission.
A command ends with `Failed`; nothing else leaves it but its output.
"""

import importlib
import os
import sys
import traceback
from types import TracebackType

import click

import koura
from koura.host import garbage

# name -> module below koura.cli whose `command` it is
COMMANDS: dict[str, str] = {
    "demo": "demo",
    "sim": "sim",
    "replay": "replay",
    "run": "run",
    "setkey": "setkey",
    "up": "up",
    "down": "down",
    "reload": "reload",
    "sysctl": "sysctl",
    "stat": "stat",
    "capture": "capture",
    "filter": "filter",
    "bench": "bench",
    "tunnel": "tunnel",
}

_SENTENCE = 200  # characters of a command's line in the list
DONE, FAILED, USAGE, BAD_DATA, NO_PERMISSION = 0, 1, 64, 65, 77


class Failed(Exception):
    """The command ends here: one line for a person, and the exit status."""

    def __init__(self, line: str, status: int = FAILED) -> None:
        super().__init__(line)
        self.line = line
        self.status = status


class _Commands(click.Group):
    """The table as a click group: a command costs its import only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        found = importlib.import_module(f"koura.cli.{module}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command with its whole first sentence, which click would cut."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            assert command is not None
            rows.append((name, command.get_short_help_str(_SENTENCE)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(koura.__version__, "-V", "--version", prog_name="koura")
def koura_command() -> None:
    """IPsec without the kernel: ESP, AH, IPComp, policies, PF_KEY and setkey in user space."""


def run(command: click.Command, name: str, arguments: list[str] | None = None) -> int:
    """Run a command and give its exit status; what went wrong is on stderr, in one line."""
    try:
        result = command.main(args=arguments, prog_name=name, standalone_mode=False)
    except Failed as end:
        click.echo(f"{name}: {end.line}", err=True)
        return end.status
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else name
        click.echo(f"{where}: {error.format_message()} (see {where} --help)", err=True)
        return USAGE
    except click.ClickException as error:
        click.echo(f"{name}: {error.format_message()}", err=True)
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        click.echo(f"{name}: {error.filename or 'output'}: {error.strerror or error}", err=True)
        return FAILED
    return result if isinstance(result, int) else DONE


def fault(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A fault of ours ends a command in one line, too; KOURA_TRACEBACK=1 shows it whole."""
    if os.environ.get("KOURA_TRACEBACK"):
        sys.__excepthook__(kind, error, trace)
        return
    frames = traceback.extract_tb(trace)
    where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
    click.echo(f"koura: a fault of its own: {kind.__name__} at {where} (KOURA_TRACEBACK=1 shows more)", err=True)


def main() -> None:
    """The entry point of `koura`."""
    sys.excepthook = fault
    garbage.rarely()
    sys.exit(run(koura_command, "koura"))
