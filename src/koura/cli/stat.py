"""`koura stat`: the counters of a running engine, as netstat -s shows them."""

import json

import click

from koura.cli.engine import control, socket_option
from koura.daemon.netstat import PROTOCOLS


@click.command("stat")
@socket_option
@click.option("-p", "--protocol", type=click.Choice(PROTOCOLS), help="Only this one.")
@click.option("-s", "nonzero", count=True, help="Twice: only counters that are not zero, as netstat -ss.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, by the names of netstat's fields.")
def command(directory: str | None, protocol: str | None, nonzero: int, as_json: bool) -> None:
    """Counters of packets and of PF_KEY; without -p also who encrypts, and what each attachment moved and lost."""
    with control(directory, only_reads=True) as connection:
        reply = connection.ask("stat", protocol=protocol, nonzero=nonzero > 1, json=as_json)
    if as_json:
        counters = reply["counters"]
        assert isinstance(counters, dict)
        more = {name: reply[name] for name in ("crypto", "drivers") if reply.get(name)}
        click.echo(json.dumps(counters | more, indent=2))
    else:
        click.echo(str(reply["text"]))
