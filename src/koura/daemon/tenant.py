"""The program for which there is a rootless daemon: it runs in the namespaces, and the daemon ends with it.

Signals sent to the daemon by kill(2) are passed on to the program; a terminal's reach both anyway. So does the end: the program's exit
status, or the signal it died of, is the daemon's.
"""

import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from koura.host.loop import Loop
from koura.host.namespace import Made
from koura.intercept.signals import Signals, restore

GRACE_MS = 5000
NOT_FOUND, NOT_EXECUTABLE = 127, 126


class Tenant:
    """One program. wait_status: as waitpid(2) has it, once it ended; None: it never began."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], made: Made) -> None:
        self.made = made
        self.wait_status: int | None = None
        self._command = list(command)
        self._environment = dict(environment)
        self._signals = Signals()
        self._loop: Loop | None = None
        self._pid = 0
        self._pidfd = -1

    def watch(self, loop: Loop) -> None:
        """Signals before there is a program end the daemon."""
        self._loop = loop
        loop.watch(self._signals.descriptor, self._signalled)

    def begin(self, loop: Loop) -> None:
        """The network stands: start the program."""
        assert self._loop is loop
        self._pid = os.fork()
        if self._pid == 0:
            self._become()
        self._pidfd = os.pidfd_open(self._pid)
        loop.watch(self._pidfd, lambda _events: loop.stop())

    def end(self) -> None:
        """It has ended, or ends now: SIGTERM, and SIGKILL after a while."""
        if self._pid and self.wait_status is None:
            waiting = select.poll()
            waiting.register(self._pidfd, select.POLLIN)
            if not waiting.poll(0):
                os.kill(self._pid, signal.SIGTERM)
                if not waiting.poll(GRACE_MS):
                    os.kill(self._pid, signal.SIGKILL)
            self.wait_status = os.waitpid(self._pid, 0)[1]
            os.close(self._pidfd)
        self._signals.close()

    def _become(self) -> None:
        """The child until it is the program. Never returns."""
        status = NOT_EXECUTABLE
        try:
            self.made.enter()
            restore(self._signals.mask)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.execvpe(self._command[0], self._command, self._environment)
        except OSError as error:
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            sys.stderr.write(f"koura up: {self._command[0]}: {error.strerror}\n")
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _signalled(self, _events: int) -> None:
        assert self._loop is not None
        for arrived in self._signals.take():
            if not self._pid:
                if arrived.number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    self._loop.stop()
            elif arrived.is_sent and arrived.number != signal.SIGCHLD:
                with suppress(ProcessLookupError):
                    os.kill(self._pid, arrived.number)
