"""The directory of a daemon: made, locked, its sockets bound with their owners and modes. Two daemons cannot have one."""

import fcntl
import grp
import os
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

from koura.client import place
from koura.errors import KouraError

LOCK = "lock"
BACKLOG = 64


class NoHouse(KouraError):
    """A directory or socket cannot be had; says why. is_forbidden: rights are missing."""

    def __init__(self, why: str, is_forbidden: bool = False) -> None:
        super().__init__(why)
        self.is_forbidden = is_forbidden


@dataclass(frozen=True, slots=True)
class Door:
    """One listening socket: where it is, and who may open it. group '': nobody's beside the owner's."""

    path: Path
    mode: int = 0o600
    group: str = ""


@dataclass(slots=True)
class House:
    """A directory that is ours. `close` leaves it as it was found, but for itself."""

    directory: Path
    _lock: int = -1
    _bound: list[Path] = field(default_factory=list)

    def take(self) -> None:
        """Make and lock it. Raises NoHouse."""
        directory = self.directory
        try:
            directory.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            owner = directory.stat()
            if owner.st_uid not in (0, os.geteuid()) or owner.st_mode & stat.S_IWOTH:
                raise NoHouse(f"{directory} can be written by others; choose another directory with --socket", is_forbidden=True)
            self._lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "?"
            os.close(self._lock)
            raise NoHouse(f"a daemon (pid {pid}) serves {directory} already; stop it with `koura down`, or choose --socket DIR") from error
        except FileExistsError as error:
            raise NoHouse(f"{directory} is no directory; choose another one with --socket") from error
        except OSError as error:
            raise NoHouse(f"{directory}: {os.strerror(error.errno or 0)}", isinstance(error, PermissionError)) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def bind(self, door: Door) -> socket.socket:
        """A bound socket that does not listen yet. Raises NoHouse."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        before = os.umask(0o777 & ~0o600)
        try:
            door.path.unlink(missing_ok=True)
            end.bind(os.fspath(door.path))
            self._bound.append(door.path)
            if door.group:
                os.chown(door.path, -1, group_id(door.group), follow_symlinks=False)
            os.chmod(door.path, door.mode)
        except OSError as error:
            end.close()
            raise NoHouse(f"{door.path}: {error.strerror or error}", isinstance(error, PermissionError)) from error
        finally:
            os.umask(before)
        return end

    def close(self) -> None:
        """Take the sockets away and unlock."""
        for path in self._bound:
            path.unlink(missing_ok=True)
        self._bound.clear()
        if self._lock >= 0:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = -1


def group_id(name: str) -> int:
    """The number of a group. Raises NoHouse."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise NoHouse(f"there is no group {name}") from error


def status_door(directory: Path, group: str) -> Door:
    """The read-only socket: for the group if there is one, else for the owner."""
    return Door(directory / place.STATUS, 0o660 if group else 0o600, group)


def has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
