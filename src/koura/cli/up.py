"""`koura up`: the daemon, in the foreground; `--check`: what it would say of its files, and nothing else."""

import dataclasses
from pathlib import Path

import click

from koura.cli.main import BAD_DATA, DONE, FAILED, NO_PERMISSION, Failed
from koura.cli.rootless import up as rootless_up
from koura.client import place
from koura.daemon import closed, configfile, ledger, scripts
from koura.daemon.config import BadConfig, Config
from koura.daemon.daemon import Daemon
from koura.daemon.house import NoHouse
from koura.daemon.network import NoNetwork

_PATH = click.Path(path_type=Path)


@click.command("up", context_settings={"allow_interspersed_args": False})
@click.option("-f", "--file", "files", type=_PATH, multiple=True, help="A setkey script, loaded at the start and again on SIGHUP.")
@click.option("-c", "--config", type=_PATH, help="koura.toml.")
@click.option("--check", "is_check", is_flag=True, help="Only say what is wrong or dubious in koura.toml and the scripts; 65 if wrong.")
@click.option("--socket", "directory", metavar="DIR", help="Where its sockets are [$KOURA_SOCKET, /run/koura].")
@click.option("-o", "tunables", multiple=True, metavar="NAME=VALUE", help="A tunable, as koura sysctl has them.")
@click.option("--pfkey-path", type=_PATH, help="The PF_KEY socket [DIR/pfkey.sock].")
@click.option("--pfkey-mode", metavar="MODE", help="Its mode [0600].")
@click.option("--pfkey-group", metavar="GROUP", help="Its group, whose members may do all that root may.")
@click.option("--state", type=_PATH, help="Where it remembers which numbers were used [/var/lib/koura].")
@click.option("--accept-lost-state", is_flag=True, help="Begin a new ledger where the old one is damaged.")
@click.option("--no-inbound-guard", is_flag=True, help="Host mode without nftables: what comes in clear is not dropped.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what is wrong.")
@click.option("--rootless", is_flag=True, help="No rights needed: PROGRAM in a namespace of its own, its traffic protected by ESP in UDP.")
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
def command(
    files: tuple[Path, ...], config: Path | None, is_check: bool, directory: str | None, tunables: tuple[str, ...],
    pfkey_path: Path | None, pfkey_mode: str | None, pfkey_group: str | None, state: Path | None, accept_lost_state: bool,
    no_inbound_guard: bool, quiet: bool, rootless: bool, program: tuple[str, ...],
) -> int:  # fmt: skip
    """Start the daemon: it serves PF_KEY and control sockets in DIR until it is told to end (SIGTERM, koura down).

    With --rootless it lives as long as PROGRAM; what comes behind -- is PROGRAM's own.
    """
    if not is_check and rootless != bool(program):
        raise click.UsageError("--rootless needs a program behind --" if rootless else "a program is for --rootless only")
    try:
        chosen = _read(place.directory(directory), config, tunables, has_scripts=bool(files))
        chosen = dataclasses.replace(
            chosen, files=files or chosen.files, pfkey_path=pfkey_path or chosen.pfkey_path, state=state or chosen.state,
            pfkey_mode=chosen.pfkey_mode if pfkey_mode is None else configfile.mode(pfkey_mode, "--pfkey-mode"),
            pfkey_group=chosen.pfkey_group if pfkey_group is None else pfkey_group, accepts_lost_state=accept_lost_state,
        )  # fmt: skip
        if no_inbound_guard and chosen.host is not None:
            chosen = dataclasses.replace(chosen, host=dataclasses.replace(chosen.host, has_guard=False))
    except BadConfig as error:
        if not is_check and not rootless:
            _keep_closed(state or error.state, place.directory(directory))
        raise _bad(error, is_check=is_check) from error
    if is_check:
        return _check(chosen, config, is_quiet=quiet)
    if rootless:
        return rootless_up(chosen, program, is_private=directory is None)
    status = FAILED
    try:
        status = Daemon(chosen, is_quiet=quiet).run()
    except (NoHouse, NoNetwork) as error:
        raise Failed(str(error), NO_PERMISSION if error.is_forbidden else FAILED) from error
    finally:
        if status != DONE and chosen.host is not None:
            _keep_closed(chosen.state, chosen.directory)
    return status


def _keep_closed(state: Path | None, directory: Path) -> None:
    """No daemon runs: what the last one protected must not leave in clear."""
    said = closed.keep_closed(ledger.directory(state, directory))
    if said:
        click.echo(f"koura up: {said}", err=True)


def _read(directory: Path, config: Path | None, tunables: tuple[str, ...], *, has_scripts: bool) -> Config:
    """Raises BadConfig."""
    if config is None:
        return configfile.read(directory, more=tunables)
    return configfile.read_file(directory, config, tunables, has_scripts=has_scripts)


def _bad(error: BadConfig, *, is_check: bool) -> Failed:
    """Every fault on stderr; the last line says what came of it."""
    if not error.faults:
        return Failed(str(error), BAD_DATA)
    click.echo(str(error), err=True)
    count = len(error.faults)
    end = "" if is_check else "; nothing was started"
    return Failed(f"{error.faults[0].file}: {count} fault{'s' if count > 1 else ''}{end}", BAD_DATA)


def _check(config: Config, source: Path | None, *, is_quiet: bool) -> int:
    """What is dubious to stdout, what is wrong to stderr. Raises Failed."""
    judged = scripts.judge(config.files, config.settings)
    if not is_quiet:
        click.echo("".join(f"{remark}\n" for remark in judged.remarks), nl=False)
    click.echo("".join(f"{fault}\n" for fault in judged.faults), nl=False, err=True)
    names = ", ".join(str(path) for path in ((source,) if source is not None else ()) + config.files) or "nothing was given"
    if judged.faults:
        count = len(judged.faults)
        raise Failed(f"{names}: {count} fault{'s' if count > 1 else ''}", BAD_DATA)
    if not is_quiet:
        click.echo(f"{names}: good; {judged.sas} SAs, {judged.policies} policies, {len(judged.remarks)} remarks")
    return DONE
