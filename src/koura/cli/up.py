"""`koura up`: the daemon, in the foreground."""

import dataclasses
from pathlib import Path

import click

from koura.cli.main import BAD_DATA, FAILED, NO_PERMISSION, Failed
from koura.cli.rootless import up as rootless_up
from koura.client import place
from koura.daemon import config as configs
from koura.daemon.config import BadConfig
from koura.daemon.daemon import Daemon
from koura.daemon.house import NoHouse
from koura.daemon.network import NoNetwork


@click.command("up", context_settings={"allow_interspersed_args": False})
@click.option("-f", "--file", type=click.Path(path_type=Path), help="A setkey script that is loaded at the start, and again on SIGHUP.")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="koura.toml.")
@click.option("--socket", "directory", metavar="DIR", help="Where its sockets are [$KOURA_SOCKET, /run/koura].")
@click.option("-o", "tunables", multiple=True, metavar="NAME=VALUE", help="A tunable, as koura sysctl has them.")
@click.option("--pfkey-path", type=click.Path(path_type=Path), help="The PF_KEY socket [DIR/pfkey.sock].")
@click.option("--pfkey-mode", metavar="MODE", help="Its mode [0600].")
@click.option("--pfkey-group", metavar="GROUP", help="Its group, whose members may do all that root may.")
@click.option("--state", type=click.Path(path_type=Path), help="Where it remembers which numbers were used [/var/lib/koura].")
@click.option("--accept-lost-state", is_flag=True, help="Begin a new ledger where the old one is damaged.")
@click.option("--no-inbound-guard", is_flag=True, help="Host mode without nftables: what comes in clear is not dropped.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what is wrong.")
@click.option("--rootless", is_flag=True, help="No rights needed: PROGRAM in a namespace of its own, its traffic protected by ESP in UDP.")
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
def command(
    file: Path | None, config: Path | None, directory: str | None, tunables: tuple[str, ...], pfkey_path: Path | None,
    pfkey_mode: str | None, pfkey_group: str | None, state: Path | None, accept_lost_state: bool, no_inbound_guard: bool, quiet: bool,
    rootless: bool, program: tuple[str, ...],
) -> int:  # fmt: skip
    """Start the daemon: it serves PF_KEY and control sockets in DIR until it is told to end (SIGTERM, koura down).

    With --rootless it lives as long as PROGRAM; what comes behind -- is PROGRAM's own.
    """
    if rootless != bool(program):
        raise click.UsageError("--rootless needs a program behind --" if rootless else "a program is for --rootless only")
    try:
        text = config.read_text() if config is not None else ""
        chosen = configs.read(place.directory(directory), text, str(config), tunables)
        chosen = dataclasses.replace(chosen, source=config)
        if file is not None:
            chosen = dataclasses.replace(chosen, file=file)
        if pfkey_path is not None:
            chosen = dataclasses.replace(chosen, pfkey_path=pfkey_path)
        if pfkey_mode is not None:
            chosen = dataclasses.replace(chosen, pfkey_mode=configs.mode(pfkey_mode, "--pfkey-mode"))
        if pfkey_group is not None:
            chosen = dataclasses.replace(chosen, pfkey_group=pfkey_group)
        chosen = dataclasses.replace(chosen, state=state or chosen.state, accepts_lost_state=accept_lost_state)
        if no_inbound_guard and chosen.host is not None:
            chosen = dataclasses.replace(chosen, host=dataclasses.replace(chosen.host, has_guard=False))
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{config}: {error.strerror if isinstance(error, OSError) else 'not text'}", BAD_DATA) from error
    except BadConfig as error:
        raise Failed(str(error), BAD_DATA) from error
    if rootless:
        return rootless_up(chosen, program, is_private=directory is None)
    try:
        return Daemon(chosen, is_quiet=quiet).run()
    except NoHouse as error:
        raise Failed(str(error), NO_PERMISSION if error.is_forbidden else FAILED) from error
    except NoNetwork as error:
        raise Failed(str(error), NO_PERMISSION if error.is_forbidden else FAILED) from error
