"""`koura filter`: rules of the packet filter on enc(4). docs/capture.md."""

import click

from koura.cli.engine import control, socket_option
from koura.cli.main import USAGE, Failed
from koura.control import Value

ACTIONS = ("pass", "block")
WAYS = ("in", "out", "both")
STAGES = ("before", "after", "input", "any")


@click.group("filter")
def command() -> None:
    """Pass or block protected packets while they are in clear: the first rule that matches decides, else they pass."""


@command.command("add", context_settings={"ignore_unknown_options": True})
@socket_option
@click.argument("words", nargs=-1, required=True, metavar="[NUMBER] pass|block [in|out] [before|after|input] [EXPRESSION]")
def add(directory: str | None, words: tuple[str, ...]) -> None:
    """Add a rule: EXPRESSION as in pcap-filter(7), e.g. koura filter add block in tcp port 23.

    before, after: enc(4)'s stages (net.enc.*.ipsec_filter_mask). input: what a tunnel brought, with net.inet.ipsec.filtertunnel=1.
    """
    rest = [word for given in words for word in given.split()]
    number = int(rest.pop(0)) if rest and rest[0].isdigit() else None
    if not rest or rest[0] not in ACTIONS:
        raise Failed(f"a rule begins with pass or block, not {rest[0] if rest else 'nothing'}", USAGE)
    does_pass = rest.pop(0) == "pass"
    way = rest.pop(0) if rest and rest[0] in WAYS else None
    stage = rest.pop(0) if rest and rest[0] in STAGES else None
    asked: dict[str, Value] = {"number": number, "pass": does_pass, "way": way, "stage": stage, "expression": " ".join(rest)}
    with control(directory) as connection:
        reply = connection.ask("filter-add", None, **asked)
    click.echo(f"rule {reply['number']}")


@command.command("list")
@socket_option
def show(directory: str | None) -> None:
    """The rules in their order, with how many packets and octets each decided about."""
    with control(directory, only_reads=True) as connection:
        rules = connection.ask("filter-list")["rules"]
    assert isinstance(rules, list)
    for rule in rules:
        assert isinstance(rule, dict)
        chosen = [str(rule[key]) for key in ("way", "stage") if rule[key] not in ("both", "any")]
        words = [f"{rule['number']:>5}", "pass " if rule["pass"] else "block", *chosen, str(rule["expression"])]
        click.echo(f"{rule['packets']:>10} {rule['octets']:>12} {' '.join(words).rstrip()}")


@command.command("del")
@socket_option
@click.argument("numbers", nargs=-1, required=True, type=int)
def delete(directory: str | None, numbers: tuple[int, ...]) -> None:
    """Delete rules by their numbers."""
    with control(directory) as connection:
        for number in numbers:
            connection.ask("filter-del", number=number)


@command.command("flush")
@socket_option
def flush(directory: str | None) -> None:
    """Delete all rules."""
    with control(directory) as connection:
        click.echo(f"{connection.ask('filter-flush')['count']} rules")
