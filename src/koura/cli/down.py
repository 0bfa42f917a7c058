"""`koura down`: stop the daemon, and come back when it is gone. Where none runs: take away what a killed one left in the network."""

import click
from pyroute2 import NetlinkError

from koura.cli.engine import control, socket_option
from koura.cli.main import FAILED, NO_PERMISSION, Failed
from koura.client import place
from koura.client.control import Control, Unreachable
from koura.daemon import bumps, network
from koura.daemon.network import NoNetwork
from koura.host.guard import NoGuard


@click.command("down")
@socket_option
def command(directory: str | None) -> None:
    """Stop the daemon; its sockets, its SAs, its policies, and what host mode made in the network go with it."""
    try:
        Control(place.directory(directory)).close()
    except Unreachable as error:
        if error.is_forbidden:
            raise Failed(str(error), NO_PERMISSION) from error
        _clean(str(error))
        return
    with control(directory) as connection:
        connection.ask("down")
        connection.wait_closed()


def _clean(why: str) -> None:
    """No daemon answers: TUN, routes, rules and guard may stand all the same."""
    try:
        found = (*network.clean(), *bumps.clean())
    except (NoNetwork, NoGuard, OSError, NetlinkError) as error:
        raise Failed(f"{why}; {error}", FAILED) from error
    if not found:
        raise Failed(why, FAILED)
    click.echo(f"no daemon runs; taken away what one left: {', '.join(found)}")
