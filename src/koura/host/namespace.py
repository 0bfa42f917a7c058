"""A user namespace with a network namespace in it, made by an ordinary user: user_namespaces(7), network_namespaces(7).

    made = namespace.make(serve)       a process in it that has every right there and does serve(end); None of its rights reach outside
    made.enter()                       in a child before it becomes a program: in the namespaces, as the user it is, without any right

Inside, the user and the group are who they are outside, and all others are unknown. The namespaces last as long as a process is in
them or `made` is open.
"""

import ctypes
import errno
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from koura.errors import KouraError

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_READY = b"ready"
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_SWITCH = Path("/proc/sys/kernel/unprivileged_userns_clone")
_MOST = Path("/proc/sys/user/max_user_namespaces")


class Closed(KouraError):
    """This machine does not let us; says exactly what is missing."""


@dataclass(frozen=True, slots=True)
class Made:
    """The namespaces, as descriptors, and the process that serves in them, at the other end of `end`."""

    user: int
    network: int
    pid: int
    end: socket.socket

    def enter(self) -> None:
        """Go there, for good. Raises OSError."""
        for descriptor, kind in ((self.user, CLONE_NEWUSER), (self.network, CLONE_NEWNET)):
            _checked(_libc.setns(descriptor, kind))

    def close(self) -> None:
        """End the process that serves there, and forget the namespaces."""
        self.end.close()
        for descriptor in (self.user, self.network):
            os.close(descriptor)
        os.waitpid(self.pid, 0)


def make(serve: Callable[[socket.socket], None]) -> Made:
    """Fork a process into namespaces of its own, where it does `serve(end)` and ends. Raises Closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            status = _inside(theirs, serve)
        finally:
            os._exit(status)
    theirs.close()
    said, descriptors, _, _ = socket.recv_fds(ours, 4096, 2)
    if said == _READY:
        return Made(descriptors[0], descriptors[1], pid, ours)
    ours.close()
    os.waitpid(pid, 0)
    raise Closed(said.decode() or "the process for the namespace ended at once")


def _inside(end: socket.socket, serve: Callable[[socket.socket], None]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # a terminal's are for the program; the end of the pair ends this process
    uid, gid = os.geteuid(), os.getegid()
    step = "unshare"
    try:
        _checked(_libc.unshare(CLONE_NEWUSER))
        step = "uid_map"
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path("/proc/self", name).write_text(text)
        step = "network"
        _checked(_libc.unshare(CLONE_NEWNET))
        here = [os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("user", "net")]
    except OSError as error:
        end.send(_why(step, error).encode())
        return 1
    socket.send_fds(end, [_READY], here)
    for descriptor in here:
        os.close(descriptor)
    serve(end)
    return 0


def _why(step: str, error: OSError) -> str:
    """What is missing, in one sentence with what to do."""
    said = error.strerror or str(error)
    if error.errno == errno.ENOSPC or _number(_MOST) == 0:
        return f"user namespaces are closed: {_MOST} is {_number(_MOST)}; an administrator can set user.max_user_namespaces"
    if _number(_SWITCH) == 0:
        return "user namespaces are closed to users: an administrator can set kernel.unprivileged_userns_clone=1"
    if _number(_APPARMOR) == 1 and error.errno in (errno.EPERM, errno.EACCES):
        return "AppArmor closes user namespaces to users: an administrator can set kernel.apparmor_restrict_unprivileged_userns=0"
    if error.errno in (errno.EINVAL, errno.ENOSYS):
        return f"this kernel has no user namespaces (CONFIG_USER_NS): {step}: {said}"
    return f"user namespaces are closed here ({step}: {said}): a container's seccomp profile, or a chroot, forbids them"


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _checked(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
