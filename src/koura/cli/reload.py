"""`koura reload`: a running daemon reads koura.toml and its scripts again; only what differs is changed, and shown."""

import click

from koura.cli.engine import control, socket_option
from koura.daemon import reload


@click.command("reload")
@socket_option
@click.option("-q", "--quiet", is_flag=True, help="Say only what needs a restart.")
def command(directory: str | None, quiet: bool) -> None:
    """Have the daemon read koura.toml and its scripts again: what differs is changed as a whole, or nothing is; as SIGHUP does."""
    with control(directory) as connection:
        reply = connection.ask("reload")
    lines, restart = reply.get("diff"), reply.get("restart")
    if not quiet and isinstance(lines, list):
        click.echo("".join(f"{line}\n" for line in lines), nl=False)
        click.echo(f"{reply['added']} added, {reply['removed']} removed, {reply['unchanged']} unchanged")
    if isinstance(restart, list) and restart:
        click.echo(f"koura reload: {reload.sentence(tuple(str(key) for key in restart))}", err=True)
