"""What the last good file protected, on disk beside the ledger: a start that is refused closes it, so that a typing error opens nothing.

A daemon that was killed leaves its routes and its guard standing, but one that was stopped takes them away, and a reboot does, too. If
the next start is refused - a script or koura.toml with a fault in it - nobody would protect anything. So the file's policies are
remembered with each good load, as selectors and verdicts, without SAs and keys, and such a start puts blackholes for their
destinations and their guard there. `koura down` takes them away, the next good start adopts them. Policies of others (IKE daemons,
setkey) are not remembered.
"""

import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import NetlinkError

from koura.address import Prefix
from koura.daemon import codec
from koura.daemon.config import HostConfig
from koura.daemon.journal import Written
from koura.errors import Bug, KouraError
from koura.host import guard, routes
from koura.host.guard import NoGuard
from koura.saindex import Direction
from koura.settings import Settings
from koura.spd.policy import Action, Policy

NAME, NEW = "closed", "closed.new"
WHOLE = {4: Prefix(bytes(4), 0), 6: Prefix(bytes(16), 0)}
LOCK = "\0koura host mode"  # host mode is had once in a network namespace; a name in it is the lock


class NotKept(KouraError):
    """It cannot be written down, or read back; says why."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What is closed, and how."""

    host: HostConfig
    settings: Settings
    policies: tuple[Written, ...]


def remember(folder: Path, closed: Closed) -> None:
    """On disk when it returns; nothing, where there is nothing to close. Raises NotKept."""
    try:
        if not closed.policies:
            (folder / NAME).unlink(missing_ok=True)
            return
        file = os.open(folder / NEW, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(file, "wb") as written:
            written.write(codec.write(closed))
            written.flush()
            os.fsync(written.fileno())
        os.rename(folder / NEW, folder / NAME)
    except OSError as error:
        raise NotKept(f"{folder / NAME}: {error.strerror}: a start that is refused will not know what to close") from error


def recall(folder: Path) -> Closed | None:
    """None if nothing is remembered. Raises NotKept."""
    try:
        return codec.read(Closed, (folder / NAME).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotKept(f"{folder / NAME}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, IndexError, Bug) as error:
        raise NotKept(f"{folder / NAME} is damaged, or of another version") from error


def hold(closed: Closed | None) -> bool:
    """Close it, where nothing stands closed already; whether anything is. Raises OSError, NetlinkError, NoGuard."""
    table = routes.Routes("")
    try:
        if table.adopt() or guard.is_standing():
            return True
        if closed is None:
            return False
        outbound = [one for one in ordered(closed.policies, Direction.OUTBOUND) if one.action is not Action.NONE]
        whole = [one.dst for one in undecided(closed.settings)]
        table.close_off([one.selector.dst for one in outbound if one.selector is not None] + whole)
        if closed.host.has_guard:
            inbound, leaving = (_rules(closed, direction) for direction in (Direction.INBOUND, Direction.OUTBOUND))
            said = guard.Said(
                inbound, closed.settings, ports=closed.host.ports, leaving=leaving, passes_control=closed.host.passes_control
            )  # fmt: skip
            guard.load(guard.compile_rules(said))
        return True
    finally:
        table.close()


def ordered(policies: Iterable[Written], direction: Direction) -> list[Policy]:
    """Those of one direction that are no socket's and no interface's, in their order."""
    return [one.policy for one in _chosen(policies, direction)]


def _chosen(policies: Iterable[Written], direction: Direction) -> list[Written]:
    return sorted((one for one in policies if one.policy.direction is direction and is_general(one)), key=lambda one: one.order)


def _rules(closed: Closed, direction: Direction) -> tuple[str, ...]:
    """The guard's, for the policies of one direction."""
    return tuple(line for one in _chosen(closed.policies, direction) for line in guard.rules_of(one.policy, one.id, closed.settings))


def is_general(one: Written) -> bool:
    """No socket's, and no interface's."""
    return one.socket is None and not one.policy.interface


def undecided(settings: Settings) -> Iterator[routes.Wanted]:
    """Everything, for each family whose default is to discard."""
    for version, whole in WHOLE.items():
        if settings.of(version).def_policy == 0:
            yield routes.Wanted(whole)


def keep_closed(folder: Path) -> str:
    """After a start that was refused: what the last good file protected is closed. A sentence for the operator; '' where nothing is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        try:
            lock.bind(LOCK)
        except OSError:
            return ""  # another daemon is in host mode, and has it
        try:
            is_closed = hold(recall(folder))
        except PermissionError:
            return ""
        except (NotKept, OSError, NetlinkError, NoGuard) as error:
            return f"what the last good file protected could not be closed: {error}"
    return "what the last good file protected stays closed; koura down opens it" if is_closed else ""
