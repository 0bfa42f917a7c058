"""`koura tunnel`: virtual tunnel interfaces of a daemon that runs. docs/tunnels.md."""

import click

from koura.cli.engine import control, socket_option


@click.group("tunnel")
def command() -> None:
    """Interfaces whose packets leave under the SA of a reqid: route-based VPN. None notices when another comes or goes."""


@command.command("add")
@socket_option
@click.argument("name")
@click.option("--reqid", type=int, required=True, help="Of the SAs, 1 to 16383.")
@click.option("--local", required=True, metavar="ADDRESS", help="Our end.")
@click.option("--remote", required=True, metavar="ADDRESS", help="The peer's.")
@click.option("--address", "addresses", multiple=True, metavar="ADDRESS/BITS", help="Of the interface; may be given again.")
@click.option("--mtu", type=int, default=1400, show_default=True)
def add(directory: str | None, name: str, reqid: int, local: str, remote: str, addresses: tuple[str, ...], mtu: int) -> None:
    """Make one."""
    with control(directory) as connection:
        connection.ask("tunnel-add", name=name, reqid=reqid, local=local, remote=remote, addresses=list(addresses), mtu=mtu)


@command.command("del")
@socket_option
@click.argument("names", nargs=-1, required=True)
def delete(directory: str | None, names: tuple[str, ...]) -> None:
    """Take some away, with their policies and routes; their SAs stay."""
    with control(directory) as connection:
        for name in names:
            connection.ask("tunnel-del", name=name)


@command.command("list")
@socket_option
def show(directory: str | None) -> None:
    """All there are."""
    with control(directory, only_reads=True) as connection:
        rows = connection.ask("tunnel-list")["tunnels"]
    assert isinstance(rows, list)
    for row in rows:
        assert isinstance(row, dict)
        addresses = row["addresses"]
        assert isinstance(addresses, list)
        words = (row["name"], f"reqid {row['reqid']}", f"{row['local']} -> {row['remote']}", f"mtu {row['mtu_octets']}", *addresses)
        click.echo("  ".join(map(str, words)))
