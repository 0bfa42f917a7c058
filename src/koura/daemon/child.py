"""The engine as a process: forked from the keeper, so that it is there in milliseconds; it inherits the link and the memory only."""

import os
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from types import TracebackType

from koura.daemon import harden
from koura.daemon.ends import End
from koura.daemon.engine import Engine
from koura.fast import drivers
from koura.host import garbage
from koura.host.clock import Clock
from koura.host.loop import Loop
from koura.host.memory import Shared
from koura.sadb.ledger import Ledger

_STANDARD = 3
BROKEN = 70  # exit status of an engine that found a fault of ours in itself


@dataclass(frozen=True, slots=True)
class Child:
    """An engine that runs: its process and the keeper's end of the link."""

    pid: int
    end: socket.socket


@dataclass(frozen=True, slots=True)
class Birth:
    """What an engine is born with. incarnation: how many there were before it; handed: where descriptors come (handover)."""

    memory: int
    clock: Clock
    incarnation: int
    ends: tuple[End, ...] = ()
    handed: int = -1
    ledger: Ledger | None = None


def start(birth: Birth) -> Child:
    """Fork an engine. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    parent = os.getpid()
    drivers.has_bump_hands()
    drivers.has_hands()  # what this imports the engine may have no right to read once it has no capability
    pid = os.fork()
    if pid:
        theirs.close()
        return Child(pid, ours)
    with _Ending():
        _live(birth, theirs, parent)
    raise AssertionError("the engine came back")


def reap(child: Child, is_wanted: bool) -> int:
    """End it if it is not wanted, and collect it; its wait status."""
    if not is_wanted:
        os.kill(child.pid, signal.SIGKILL)
    return os.waitpid(child.pid, 0)[1]


def _live(birth: Birth, end: socket.socket, parent: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the keeper's; it says STOP
    harden.end_with_parent(parent, signal.SIGKILL)
    ends = {descriptor for one in birth.ends for descriptor in (one.descriptor, one.memory)}
    _close_but({end.fileno(), birth.memory, birth.handed, *ends} - {-1})
    harden.keep_secrets()
    harden.drop_capabilities()
    garbage.rarely()  # an engine's objects live long
    loop = Loop()
    Engine(loop, end, Shared(birth.memory), birth.clock, birth.incarnation, birth.ends, birth.handed, birth.ledger)
    loop.run()


def _close_but(kept: set[int]) -> None:
    """Every descriptor goes but the standard ones and these."""
    first = _STANDARD
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


class _Ending:
    """The end of the process, whatever comes: nothing of the keeper's is flushed, closed or run twice."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            _last_words(error, trace)
        os._exit(0 if error is None else BROKEN)


def _last_words(error: BaseException, trace: TracebackType | None) -> None:
    """One line: what, and where in our own code. No value of a variable is in it."""
    frames = traceback.extract_tb(trace)
    where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
    sys.stderr.write(f"koura: the engine found a fault in itself: {type(error).__name__} at {where}\n")
    sys.stderr.flush()
