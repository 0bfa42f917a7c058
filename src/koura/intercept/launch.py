"""Starting a program under the filter, and finding out whether this machine lets us.

    supervisor                         child
    fork  ---------------------------> installs the filter
          <--------- the listener ---  (SCM_RIGHTS), or the errno and the step that failed
    tries the child's memory and
    descriptors, as it will have to
    "go"  ---------------------------> execvp; its end of the pair closes: end of file
          <--------- an errno -------  if there is no such program
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from koura.errors import KouraError
from koura.intercept import abi, filter, kernel
from koura.intercept.abi import Machine
from koura.intercept.kernel import Unavailable
from koura.intercept.signals import Signals, restore

NOT_FOUND, NOT_EXECUTABLE = 127, 126
YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
_SAMPLE = b"koura reads its own child"
_STEP = struct.Struct("=i")


class Watched(Unavailable):
    """Another supervisor has these processes; the kernel allows one."""


class NoProgram(KouraError):
    """The program cannot be started; `status` is the shell's exit status for that."""

    def __init__(self, program: str, code: int) -> None:
        super().__init__(f"{program}: {os.strerror(code)}")
        self.status = NOT_FOUND if code == errno.ENOENT else NOT_EXECUTABLE


@dataclass(frozen=True, slots=True)
class Launched:
    """The program's process, and where its notifications arrive."""

    machine: Machine
    pid: int
    listener: int


def launch(command: Sequence[str], environment: Mapping[str, str], signals: Signals) -> Launched:
    """Starts `command` under the filter. Raises Unavailable and NoProgram; no child is left behind then."""
    machine = abi.machine()
    if machine is None:
        raise Unavailable(f"{os.uname().machine}: this machine's system call numbers are not known to koura run")
    octets = filter.program(machine)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sample = ctypes.create_string_buffer(_SAMPLE)
    pid = os.fork()
    if pid == 0:
        ours.close()  # so that our end of it is the last, and the child sees us go
        _child(machine, octets, theirs, list(command), dict(environment), signals)
    descriptor = theirs.fileno()
    theirs.close()
    with ours:
        listener = -1
        try:
            listener = _listener(ours)
            _probe(machine, pid, descriptor, ctypes.addressof(sample))
            ours.send(b"go")
            if answer := ours.recv(_STEP.size):
                raise NoProgram(command[0], _STEP.unpack(answer)[0])
        except (Unavailable, NoProgram):
            ours.close()
            os.waitpid(pid, 0)
            if listener >= 0:
                os.close(listener)
            raise
    return Launched(machine, pid, listener)


def _child(machine: Machine, octets: bytes, to_parent: socket.socket, command: list[str], environment: dict[str, str],
           signals: Signals) -> NoReturn:  # fmt: skip
    """The child until it is the program. Never returns."""
    try:
        try:
            listener = kernel.install(machine, octets)
        except OSError as error:
            to_parent.send(_STEP.pack(error.errno or errno.EINVAL))
            os._exit(1)
        socket.send_fds(to_parent, [b"listener"], [listener])
        os.close(listener)
        if to_parent.recv(2) != b"go":
            os._exit(1)
        restore(signals.mask)
        try:
            os.execvpe(command[0], command, environment)
        except OSError as error:
            to_parent.send(_STEP.pack(error.errno or errno.ENOENT))
    finally:
        os._exit(NOT_EXECUTABLE)


def _listener(ours: socket.socket) -> int:
    octets, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
    if descriptors:
        os.set_inheritable(descriptors[0], False)
        return descriptors[0]
    code = _STEP.unpack(octets)[0] if len(octets) == _STEP.size else errno.EINVAL
    if code == errno.EBUSY:
        why = "another supervisor watches these processes already (a koura run of another engine, or a container runtime)"
        raise Watched(f"{why}: start koura run outside of it")
    raise Unavailable(_why_no_listener(code))


def _why_no_listener(code: int) -> str:
    if code in (errno.EPERM, errno.EACCES):
        return "a seccomp filter above us (a container's) forbids seccomp(2): allow seccomp and its ioctls in the container's profile"
    if code in (errno.ENOSYS, errno.EINVAL):
        return "this kernel has no seccomp user notification: Linux 5.14 with CONFIG_SECCOMP_FILTER is needed"
    return f"seccomp user notification: {os.strerror(code)}"


def _probe(machine: Machine, pid: int, descriptor: int, address: int) -> None:
    """Does to the waiting child what will have to be done to the program. Raises Unavailable."""
    try:
        if kernel.read_memory(pid, address, len(_SAMPLE)) != _SAMPLE:
            raise Unavailable("the memory of a child reads as something else: process_vm_readv(2) does not work here")
        os.close(kernel.steal(machine, pid, descriptor))
    except OSError as error:
        raise Unavailable(_why_no_access(error.errno or 0)) from error
    try:
        kernel.process_of(pid)
    except OSError as error:
        raise Unavailable("/proc is not mounted, or hides our own children: mount it") from error


def _why_no_access(code: int) -> str:
    if code == errno.ENOSYS:
        return "this kernel, or a container's seccomp filter, lacks process_vm_readv, pidfd_open or pidfd_getfd (Linux 5.6)"
    try:
        scope = YAMA.read_text().strip()
    except OSError:
        scope = "0"
    if scope in ("2", "3"):
        return f"kernel.yama.ptrace_scope is {scope}: koura run must read its child; set it to 1 (sysctl kernel.yama.ptrace_scope=1)"
    return f"reading a child process is refused ({os.strerror(code)}): allow ptrace between them (a container's seccomp or LSM profile)"
