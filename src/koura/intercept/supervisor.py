"""The supervisor of one `koura run`: answers the program's intercepted calls until its last descendant has gone.

One thread, one epoll: the listener, signals, the kernel's news of sockets, held calls. It is a subreaper: daemons that a program
leaves behind become its children. The filter is inherited by every descendant, so "the listener hung up" means that nobody is left.
Signals that a process sends to the supervisor go on to the program (or to what it left behind); a terminal's reach both anyway.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from koura.intercept import kernel
from koura.intercept.calls import Answers
from koura.intercept.engine import Engine
from koura.intercept.launch import Launched, launch
from koura.intercept.signals import Signals


class Supervisor:
    """Runs a program to its end, and its descendants to theirs."""

    def __init__(self, engine: Engine, warn: Callable[[str], None]) -> None:
        self._engine = engine
        self._warn = warn
        self._said: set[str] = set()
        self._status: int | None = None
        self._is_empty = False

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """The program's wait status, once everybody has gone. Raises Unavailable and NoProgram."""
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        signals = Signals()
        try:
            launched = launch(command, environment, signals)
            with select.epoll() as epoll:
                self._watch(launched, signals, epoll)
        finally:
            signals.close()
        assert self._status is not None
        return self._status

    def _watch(self, launched: Launched, signals: Signals, epoll: select.epoll) -> None:
        kernel.wake_in_step(launched.listener)
        answers = Answers(launched.machine, launched.listener, self._engine, epoll, self._say)
        epoll.register(launched.listener, select.EPOLLIN)
        epoll.register(signals.descriptor, select.EPOLLIN)
        try:
            while not (self._is_empty and self._status is not None):
                for descriptor, events in epoll.poll(self._patience(answers)):
                    if descriptor == launched.listener:
                        self._notified(launched, answers, events, epoll)
                    elif descriptor == signals.descriptor:
                        self._signalled(launched, signals)
                    elif descriptor in answers.holds:
                        answers.holds.event(descriptor)
                    else:
                        answers.places.event(descriptor)
                now_s = time.monotonic()
                answers.holds.due(now_s)
                answers.places.due(now_s)
        finally:
            answers.holds.close()
            answers.places.close()
            os.close(launched.listener)

    @staticmethod
    def _patience(answers: Answers) -> float | None:
        """How long epoll may sleep."""
        ends = [end for end in (answers.holds.next_s(), answers.places.next_s()) if end is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _notified(self, launched: Launched, answers: Answers, events: int, epoll: select.epoll) -> None:
        if events & select.EPOLLIN:
            notification = kernel.receive(launched.listener)
            if notification is not None:
                answers.serve(notification, time.monotonic())
        elif events & (select.EPOLLHUP | select.EPOLLERR):
            self._is_empty = True
            epoll.unregister(launched.listener)

    def _signalled(self, launched: Launched, signals: Signals) -> None:
        for arrived in signals.take():
            if arrived.number == signal.SIGCHLD:
                self._reap(launched.pid)
            elif arrived.is_sent:
                self._pass_on(launched.pid, arrived.number)

    def _reap(self, program: int) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == program:
                self._status = status

    def _pass_on(self, program: int, number: int) -> None:
        """To the program; once it has gone, to the children that it left to us."""
        targets = [program] if self._status is None else children()
        for pid in targets:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _say(self, line: str) -> None:
        """Each sentence once: a program that asks in a loop does not fill the terminal."""
        if line not in self._said and len(self._said) < 64:
            self._said.add(line)
            self._warn(line)


def children() -> list[int]:
    """Our own children, by /proc."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                # pid (command) state ppid ...; the command may hold anything, parentheses too.
                fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == os.getpid():
                    found.append(int(process.name))
    return found
