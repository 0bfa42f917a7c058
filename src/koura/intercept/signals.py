"""Signals of a supervisor as a descriptor, with who sent each: signalfd(2), by ctypes.

A terminal sends its signals to supervisor and program alike; a person with kill(1) only to the supervisor, who passes them on.
si_code tells the two apart.
"""

import ctypes
import os
import signal
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
SIGINFO_OCTETS = 128
SIGSET_OCTETS = 128

_libc = ctypes.CDLL(None, use_errno=True)

# Not these: a program's own faults, stopping (the terminal stops us as well), and what nobody can catch.
TAKEN = frozenset(signal.valid_signals()) - {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT,
    signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS, signal.SIGPROF,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arrived:
    """One signal. is_sent: by a process with kill(2) or sigqueue(3), not by the kernel or a terminal."""

    number: int
    is_sent: bool


class Signals:
    """All signals of TAKEN, blocked and read from `descriptor`; `mask` is what was blocked before, for children."""

    def __init__(self) -> None:
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
        octets = bytearray(SIGSET_OCTETS)
        for number in TAKEN:
            octets[(number - 1) // 8] |= 1 << (number - 1) % 8
        buffer = (ctypes.c_char * SIGSET_OCTETS).from_buffer(octets)
        self.descriptor = int(_libc.signalfd(-1, buffer, SFD_NONBLOCK_CLOEXEC))
        if self.descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def close(self) -> None:
        """Back to what it was before."""
        os.close(self.descriptor)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def take(self) -> Iterator[Arrived]:
        """What has arrived. struct signalfd_siginfo: signo u32, errno s32, code s32, ..."""
        while True:
            try:
                octets = os.read(self.descriptor, SIGINFO_OCTETS)
            except BlockingIOError:
                return
            number, _, code = struct.unpack_from("=Iii", octets)
            yield Arrived(number, code <= 0)


def restore(mask: Iterable[int]) -> None:
    """In a child before it becomes the program: what Python changed is as it was."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if hasattr(signal, "SIGXFSZ"):
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def die_of(number: int) -> None:
    """End this process as the program ended, by the same signal, without a core dump of ours; returns if that signal kills nobody."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
