"""The ledger's file: one directory with a lock and the file in it, written by the keeper. What stands in it: sadb.ledger, sadb.ledgerfile.

A commit is on disk when `append` returns (two fdatasync). A file that cannot be believed, or not be had at all, makes a ledger that is
lost: static keys of counter modes are refused until the operator says --accept-lost-state, which puts a new file in its place.
"""

import fcntl
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from koura.client import place
from koura.daemon.house import NoHouse
from koura.errors import KouraError
from koura.sadb import ledgerfile
from koura.sadb.ledger import Entry, Ledger
from koura.sadb.ledgerfile import KEY_OCTETS, Book, Torn

NAME, LOCK, NEW, DAMAGED = "ledger", "lock", "ledger.new", "ledger.damaged"
STATE_VARIABLE = "KOURA_STATE"
_SYSTEM = Path("/var/lib/koura")


class NotWritten(KouraError):
    """The disk refused; nothing that was to be written may be granted."""


def directory(asked: Path | None, house: Path) -> Path:
    """Where state is: as asked, else $KOURA_STATE; for the usual directory of sockets the usual place, for another one `state` in it."""
    if asked is not None or os.environ.get(STATE_VARIABLE):
        return asked or Path(os.environ[STATE_VARIABLE])
    if house != place.usual():
        return house / "state"
    if os.geteuid() == 0:
        return _SYSTEM
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "koura"


@dataclass(slots=True)
class LedgerFile:
    """One that is open and ours, with what it says. `book` None: it is lost, nothing is written."""

    ledger: Ledger
    book: Book | None
    _folder: Path
    _file: int = -1
    _lock: int = -1

    def append(self, entries: Iterable[Entry]) -> None:
        """On disk when it returns. Raises NotWritten; then the file is as it was, or says more than is granted."""
        written = tuple(entries)
        try:
            for write in self.book.append(written) if self.book is not None else ():
                _write_all(self._file, write.octets, write.at)
                os.fdatasync(self._file)
            for entry in written:
                self.ledger.put(entry)
            if self.book is not None and self.book.is_bloated(len(self.ledger)):
                self._anew()
        except OSError as error:
            self._recover()
            raise NotWritten(f"{self._folder / NAME}: {os.strerror(error.errno or 0)}") from error

    def close(self) -> None:
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def _anew(self) -> None:
        """The same in a file without what no longer counts. Raises OSError."""
        assert self.book is not None
        book, octets = ledgerfile.write(self.book.key, self.ledger.entries())
        file = _replace(self._folder, octets)
        os.close(self._file)
        self._file, self.book = file, book

    def _recover(self) -> None:
        """After a failed write the file says what it says."""
        try:
            self.book, _ = ledgerfile.read(_whole(self._file))
        except (OSError, Torn):
            return


def open_file(folder: Path, *, accepts_loss: bool) -> LedgerFile:
    """Lock and read it, or make it. Raises NoHouse where another daemon has it."""
    lock = -1
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not (folder / NAME).exists():
            return _new(folder, lock)
        file = os.open(folder / NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        book, ledger = ledgerfile.read(_whole(file))
        return LedgerFile(ledger, book, folder, file, lock)
    except BlockingIOError as error:
        os.close(lock)
        raise NoHouse(f"another daemon keeps its state in {folder}; choose another directory with --state DIR") from error
    except Torn as error:
        if accepts_loss:
            os.rename(folder / NAME, folder / DAMAGED)
            return _new(folder, lock)
        return _lost(folder, lock, f"{folder / NAME} is damaged ({error})")
    except FileExistsError:
        return _lost(folder, lock, f"{folder} cannot be used (it is no directory)", is_accepted=accepts_loss)
    except OSError as error:
        return _lost(folder, lock, f"{folder} cannot be used ({os.strerror(error.errno or 0)})", is_accepted=accepts_loss)


def _new(folder: Path, lock: int) -> LedgerFile:
    """Raises OSError."""
    key = secrets.token_bytes(KEY_OCTETS)
    book, octets = ledgerfile.write(key, ())
    return LedgerFile(Ledger(key), book, folder, _replace(folder, octets), lock)


def _lost(folder: Path, lock: int, why: str, *, is_accepted: bool = False) -> LedgerFile:
    return LedgerFile(Ledger(secrets.token_bytes(KEY_OCTETS), lost="" if is_accepted else why), None, folder, -1, lock)


def _replace(folder: Path, octets: bytes) -> int:
    """Another file in the place of the ledger, whole or not at all. Raises OSError."""
    file = os.open(folder / NEW, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _write_all(file, octets, 0)
        os.fsync(file)
        os.rename(folder / NEW, folder / NAME)
        above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(above)
        finally:
            os.close(above)
    except OSError:
        os.close(file)
        raise
    return file


def _write_all(file: int, octets: bytes, at: int) -> None:
    left = memoryview(octets)
    while left:
        done = os.pwrite(file, left, at)
        left, at = left[done:], at + done


def _whole(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)
