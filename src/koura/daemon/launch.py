"""A daemon as a child process: for tests, and for whoever needs an engine of his own. It is ready when it says so, not after a while.

    with Running(tmp_path, "-f", "setkey.conf") as daemon:
        socket.connect(str(daemon.directory / "pfkey.sock"))
"""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from koura.daemon import harden
from koura.daemon.notify import VARIABLE
from koura.errors import KouraError

READY_S = 60.0
END_S = 30.0
LONGEST_PLACE = 64


class DidNotStart(KouraError):
    """The daemon ended, or said nothing; with what it wrote."""

    def __init__(self, status: int | None, said: str) -> None:
        super().__init__(f"the daemon did not start (exit status {status}): {said}")
        self.status = status
        self.said = said


def short() -> str | None:
    """Where temporary directories for sockets may lie: a socket's path has 107 octets at the most, and $TMPDIR may be longer than that."""
    return None if len(os.fsencode(tempfile.gettempdir())) <= LONGEST_PLACE else "/tmp"


class Running:
    """`koura up --socket DIRECTORY ARGUMENTS...`; `with` starts and ends it. `said`: what it wrote so far, stdout and stderr.

    is_private: it hears no signal of our terminal, and ends when we are killed; for processes of one thread.
    prefix: a command that starts it, as `ip netns exec NAME`.
    """

    def __init__(
        self, directory: Path, *arguments: str, ready_s: float = READY_S, is_private: bool = False, prefix: tuple[str, ...] = ()
    ) -> None:
        self._prefix = prefix
        self.directory = directory
        self._arguments = arguments
        self._ready_s = ready_s
        self._is_private = is_private
        self._process: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> "Running":
        """Raises DidNotStart; whatever it is that ends the waiting, nothing is left running."""
        with ExitStack() as undo:
            undo.callback(self._end)
            self.start()
            undo.pop_all()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.stop()
        self._output.close()

    @property
    def pid(self) -> int:
        """The keeper's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        self._output.seek(0)
        return self._output.read().decode()

    def start(self) -> None:
        """Returns when it serves. Raises DidNotStart."""
        with tempfile.TemporaryDirectory(dir=short()) as place, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            path = os.path.join(place, "notify")
            notices.bind(path)
            command = [*self._prefix, sys.executable, "-m", "koura", "up", "--socket", os.fspath(self.directory), *self._arguments]
            us = os.getpid()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output, env=os.environ | {VARIABLE: path},
                start_new_session=self._is_private,
                preexec_fn=(lambda: harden.end_with_parent(us, signal.SIGTERM)) if self._is_private else None,  # noqa: PLW1509
            )  # fmt: skip
            ended = os.pidfd_open(self._process.pid)
            try:
                self._wait_ready(notices, ended)
            finally:
                os.close(ended)

    def _wait_ready(self, notices: socket.socket, ended: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._ready_s
        while True:
            ready, _, _ = select.select([notices.fileno(), ended], [], [], max(0.0, deadline - time.monotonic()))
            if notices.fileno() in ready:
                if b"READY=1" in notices.recv(4096).split(b"\n"):
                    return
            elif ended in ready:
                raise DidNotStart(self._process.wait(), self.said)
            else:
                self.stop()
                raise DidNotStart(None, self.said)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self) -> None:
        if self._process is not None:
            self.stop()
        self._output.close()

    def stop(self) -> int:
        """End it; its exit status. One that has ended is fine."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
