"""A network namespace without a name: it lives as long as this process, or a program in it, and nothing of it is left behind.

    with netns.make() as here:
        with here.inside(): socket.socket(...)          what is opened there stays there
        subprocess.run([*here.prefix, "ping", ...])     nsenter(1)
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from pyroute2 import IPRoute

from koura.host.namespace import CLONE_NEWNET

_OURS = "/proc/self/ns/net"
_QUIET = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
_libc = ctypes.CDLL(None, use_errno=True)


class NetworkNamespace:
    """One, by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __enter__(self) -> "NetworkNamespace":
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        os.close(self.descriptor)

    @property
    def prefix(self) -> tuple[str, ...]:
        """What makes a command run in it."""
        return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self.descriptor}", "--")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, for as long as the block runs. Raises OSError."""
        before = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(self.descriptor, CLONE_NEWNET))
            yield
        finally:
            _checked(_libc.setns(before, CLONE_NEWNET))
            os.close(before)


def make(*, has_ipv6: bool = True) -> NetworkNamespace:
    """A new one, with its loopback up. has_ipv6: False keeps it from speaking of itself. Raises OSError."""
    before = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(CLONE_NEWNET))
        try:
            made = NetworkNamespace(os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC))
            if not has_ipv6 and _QUIET.exists():
                _QUIET.write_text("1")
            with IPRoute() as link:
                link.link("set", index=1, state="up")
        finally:
            _checked(_libc.setns(before, CLONE_NEWNET))
    finally:
        os.close(before)
    return made


def _checked(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
