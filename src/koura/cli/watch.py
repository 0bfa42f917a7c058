"""What a program says on its standard output, line by line, while other things happen: tcpdump beside a ping."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

START_S, END_S = 10.0, 5.0


class DidNotBegin(Exception):
    """The program is not here, or ended instead; says why."""


class Watch:
    """`with Watch(words, sign)`: the program runs, and has said `sign` on stderr. Raises DidNotBegin."""

    def __init__(self, words: Sequence[str], sign: str) -> None:
        self._words = list(words)
        self._sign = sign
        self._buffer = b""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Watch":
        try:
            self._process = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise DidNotBegin(f"{self._words[0]}: {error.strerror}") from error
        with ExitStack() as undo:
            undo.callback(self._end)
            self._begin(self._process)
            undo.pop_all()
        return self

    def _begin(self, process: "subprocess.Popen[bytes]") -> None:
        said, deadline = b"", time.monotonic() + START_S
        assert process.stderr is not None
        while self._sign.encode() not in said:
            ready, _, _ = select.select([process.stderr], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(process.stderr.fileno(), 4096) if ready else b""
            if not more:
                raise DidNotBegin(f"{self._words[0]}: {said.decode(errors='replace').strip() or 'it does not begin'}")
            said += more

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._end()

    def take(self, count: int, patience_s: float) -> list[str]:
        """The next lines: `count` of them, or those that came until patience ended."""
        assert self._process is not None and self._process.stdout is not None
        deadline = time.monotonic() + patience_s
        while self._buffer.count(b"\n") < count:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            if not more:
                break
            self._buffer += more
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = b"".join(line + b"\n" for line in lines[count:]) + rest
        return [line.decode(errors="replace") for line in lines[:count]]

    def _end(self) -> None:
        process = self._process
        assert process is not None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
