"""`koura up --rootless ... -- CMD`: a program in a namespace of its own, for as long as it runs. docs/rootless.md."""

import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from koura.cli.main import BAD_DATA, FAILED, NO_PERMISSION, USAGE, Failed
from koura.client import place
from koura.daemon import rootless
from koura.daemon.config import Config
from koura.daemon.daemon import Daemon
from koura.daemon.house import NoHouse
from koura.daemon.launch import short
from koura.daemon.ledger import STATE_VARIABLE
from koura.daemon.network import NoNetwork
from koura.daemon.tenant import Tenant
from koura.host.namespace import Closed
from koura.intercept.signals import die_of


def up(config: Config, program: tuple[str, ...], *, is_private: bool) -> int:
    """The program's exit status. is_private: nobody said where the sockets shall be. Raises Failed."""
    if config.host is not None:
        raise Failed(f"{config.directory}: [host] is for root's koura up; --rootless has [rootless]", USAGE)
    with tempfile.TemporaryDirectory(prefix="koura-up-", dir=short()) as home:
        if is_private:
            config = replace(config, directory=Path(home) / "koura", state=_state(config, Path(home)))
        settings = config.settings
        if not settings.natt_keepalive_s:
            config = replace(config, settings=replace(settings, natt_keepalive_s=config.rootless.keepalive_s))
        status = _live(config, program)
    if status is None:
        return FAILED
    if os.WIFSIGNALED(status):
        die_of(os.WTERMSIG(status))
        return 128 + os.WTERMSIG(status)
    return os.waitstatus_to_exitcode(status)


def _state(config: Config, home: Path) -> Path | None:
    """Where the numbers that a site's keys have used are remembered from one run to the next: one place for each file."""
    if config.state is not None or os.environ.get(STATE_VARIABLE) or not config.files:
        return config.state
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "koura"
    names = b"\0".join(os.fsencode(file.resolve()) for file in config.files)
    chosen = base / f"rootless-{hashlib.sha256(names).hexdigest()[:16]}"
    try:
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        why = f"{chosen}: {error.strerror}"
        click.echo(f"koura: {why}: numbers start again at every run; --state DIR remembers them", err=True)
        return home / "state"
    return chosen


def _live(config: Config, program: tuple[str, ...]) -> int | None:
    """The program's wait status; None: it never ran. Raises Failed."""
    try:
        made = rootless.prepare()
    except Closed as error:
        raise Failed(str(error), NO_PERMISSION) from error
    tenant = Tenant(program, os.environ | {place.VARIABLE: str(config.directory.absolute())}, made)
    try:
        status = Daemon(config, is_quiet=True, tenant=tenant).run()
    except NoHouse as error:
        raise Failed(str(error), NO_PERMISSION if error.is_forbidden else FAILED) from error
    except NoNetwork as error:
        raise Failed(str(error), NO_PERMISSION if error.is_forbidden else FAILED) from error
    if status == BAD_DATA and tenant.wait_status is None:
        raise Failed("the file was refused", BAD_DATA)
    return tenant.wait_status
