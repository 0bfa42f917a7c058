"""What commands that speak to a running engine share: the option, the connection, and how refusals end them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from koura.cli.main import FAILED, NO_PERMISSION, Failed
from koura.client import place
from koura.client.control import Control, Unreachable
from koura.errors import Errno, Refused

F = TypeVar("F", bound=Callable[..., Any])


def socket_option(function: F) -> F:
    """--socket DIR."""
    option = click.option("--socket", "directory", metavar="DIR", help="The engine's directory [$KOURA_SOCKET, /run/koura].")
    return option(function)


@contextmanager
def control(directory: str | None, *, only_reads: bool = False) -> Iterator[Control]:
    """A connection; what the engine refuses, and an engine that is not there, end the command."""
    try:
        with Control(place.directory(directory), only_reads=only_reads) as connection:
            yield connection
    except Unreachable as error:
        raise Failed(str(error), NO_PERMISSION if error.is_forbidden else FAILED) from error
    except Refused as error:
        raise Failed(error.why, NO_PERMISSION if error.errno in (Errno.EPERM, Errno.EACCES) else FAILED) from error
