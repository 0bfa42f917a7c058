"""`koura sysctl`: the tree of tunables of a running engine, as sysctl(8) shows and sets it."""

import json
from collections.abc import Mapping

import click

from koura.cli.engine import control, socket_option
from koura.cli.main import FAILED, Failed
from koura.client.control import Control
from koura.errors import Errno, Refused


@click.command("sysctl")
@socket_option
@click.option("-a", "--all", "everything", is_flag=True, help="Everything there is.")
@click.option("-n", "--values", "only_values", is_flag=True, help="Values without their names.")
@click.option("-N", "--names", "only_names", is_flag=True, help="Names without their values.")
@click.option("-d", "--describe", is_flag=True, help="What it is, in place of its value.")
@click.option("-e", "--equals", is_flag=True, help="name=value, as sysctl.conf has it.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing of names that are unknown.")
@click.option("-i", "--ignore", is_flag=True, help="Unknown names are no failure.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("names", nargs=-1, metavar="[NAME[=VALUE]]...")
def command(
    directory: str | None, everything: bool, only_values: bool, only_names: bool, describe: bool, equals: bool, quiet: bool, ignore: bool,
    as_json: bool, names: tuple[str, ...],
) -> int:  # fmt: skip
    """Show tunables, or set them: NAME, NAME=VALUE, or the NAME of a branch."""
    if not names and not everything:
        raise click.UsageError("a NAME, or -a")
    style = _Style(only_values, only_names, describe, "=" if equals else ": ")
    shown: dict[str, str] = {}
    status = 0
    with control(directory, only_reads=not any("=" in name for name in names)) as connection:
        for name in ("",) if everything else names:
            try:
                status = max(status, _one(connection, name, style, shown if as_json else None))
            except Refused as error:
                if error.errno is Errno.ENOENT and ignore:
                    continue
                if error.errno is not Errno.ENOENT:
                    raise
                if not quiet:
                    click.echo(f"koura sysctl: {error.why}", err=True)
                status = FAILED
    if as_json:
        click.echo(json.dumps(shown, indent=2))
    return status


class _Style:
    """How a line is shown."""

    def __init__(self, only_values: bool, only_names: bool, describes: bool, between: str) -> None:
        self._only_values = only_values
        self._only_names = only_names
        self._describes = describes
        self._between = between

    def line(self, name: str, value: str, sentence: str) -> str:
        if self._only_names:
            return name
        said = sentence if self._describes else value
        return said if self._only_values else f"{name}{self._between}{said}"

    @property
    def only_values(self) -> bool:
        return self._only_values


def _one(connection: Control, given: str, style: _Style, shown: dict[str, str] | None) -> int:
    """One argument; the exit status. Raises Refused."""
    name, equals, value = given.partition("=")
    if equals:
        return _set(connection, name.strip(), value.strip(), style, shown)
    for row in _rows(connection, name):
        if shown is not None:
            shown[row[0]] = row[1]
        else:
            click.echo(style.line(*row))
    return 0


def _rows(connection: Control, name: str) -> list[tuple[str, str, str]]:
    """(name, value, sentence) of a name, or of everything below it; a dot behind a branch is fine."""
    name = name.rstrip(".")
    if name:
        try:
            reply = connection.ask("sysctl", name=name)
        except Refused as error:
            if error.errno is not Errno.EINVAL:
                raise
        else:
            return [(name, str(reply["value"]), str(reply.get("help", "")))]
    nodes = connection.ask("sysctl-list", prefix=name)["nodes"]
    assert isinstance(nodes, list)
    return [(str(row[0]), str(row[1]), str(row[2])) for row in nodes if isinstance(row, list)]


def _set(connection: Control, name: str, value: str, style: _Style, shown: dict[str, str] | None) -> int:
    reply: Mapping[str, object] = connection.ask("sysctl", name=name, value=value)
    if reply["remark"]:
        click.echo(f"koura sysctl: {reply['remark']}", err=True)
    names = reply["names"]
    if not isinstance(names, list):
        raise Failed("the engine's answer has no names")
    for each in names:
        if shown is not None:
            shown[str(each)] = str(reply["value"])
        else:
            click.echo(str(reply["value"]) if style.only_values else f"{each}: {reply['old']} -> {reply['value']}")
    return 0
