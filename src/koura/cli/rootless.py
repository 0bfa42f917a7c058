"""`koura up --rootless ... -- CMD`: a program in a namespace of its own, for as long as it runs. docs/rootless.md."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from koura.cli.main import BAD_DATA, FAILED, NO_PERMISSION, USAGE, Failed
from koura.client import place
from koura.daemon import rootless
from koura.daemon.config import Config
from koura.daemon.daemon import Daemon
from koura.daemon.house import NoHouse
from koura.daemon.launch import short
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
            config = replace(config, directory=Path(home) / "koura")
        status = _live(config, program)
    if status is None:
        return FAILED
    if os.WIFSIGNALED(status):
        die_of(os.WTERMSIG(status))
        return 128 + os.WTERMSIG(status)
    return os.waitstatus_to_exitcode(status)


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
