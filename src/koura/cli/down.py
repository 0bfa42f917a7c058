"""`koura down`: stop the daemon, and come back when it is gone."""

import click

from koura.cli.engine import control, socket_option


@click.command("down")
@socket_option
def command(directory: str | None) -> None:
    """Stop the daemon; its sockets, its SAs and its policies go with it."""
    with control(directory) as connection:
        connection.ask("down")
        connection.wait_closed()
