"""The kernel's side of seccomp user notification, by ctypes: install, receive, answer, add descriptors. seccomp_unotify(2).

Also what a supervisor does to the process that waits: its memory (process_vm_readv(2), which obeys the pages' protection, unlike
/proc/PID/mem) and its descriptors (pidfd_getfd(2)). Whoever reads either asks `is_valid` afterwards: the caller may have died and
its number may be another's by then.
"""

import ctypes
import errno
import fcntl
import os
import struct
from dataclasses import dataclass

from koura.errors import KouraError
from koura.intercept.abi import Machine

PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5

NOTIF_RECV = 0xC0502100
NOTIF_SEND = 0xC0182101
NOTIF_ID_VALID = 0x40082102
NOTIF_ADDFD = 0x40182103
NOTIF_SET_FLAGS = 0x40082104
ADDFD_FLAG_SEND = 2
CONTINUE = 1
SYNC_WAKE_UP = 1
PIDFD_THREAD = os.O_EXCL

NOTIF_OCTETS = 80  # struct seccomp_notif: id, pid, flags, then struct seccomp_data
_NOTIF = struct.Struct("=QII iI Q 6Q")
_RESPONSE = struct.Struct("=QqiI")
_ADDFD = struct.Struct("=QIIII")

_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(KouraError):
    """The kernel, or a filter above us, does not let us intercept; the sentence says what is missing and what to do."""


class Gone(KouraError):
    """The caller left (it was killed) before it was answered."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One call that waits for its answer. `thread` is the caller's thread id in our pid namespace, 0 if it has none there."""

    id: int
    thread: int
    number: int
    audit: int
    args: tuple[int, ...]


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("octets", ctypes.c_size_t))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def syscall(number: int, *args: int | ctypes.Structure) -> int:
    """A raw system call; raises OSError."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else ctypes.byref(a) for a in args]
    return _checked(int(_libc.syscall(ctypes.c_long(number), *converted)))


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument; raises OSError."""
    _checked(int(_libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(v) for v in (value, 0, 0, 0)))))


def install(machine: Machine, octets: bytes) -> int:
    """Installs the filter on this thread and returns the listener's descriptor. Without CAP_SYS_ADMIN it first sets NO_NEW_PRIVS.

    NO_NEW_PRIVS takes setuid from children, so it is set only where the kernel insists. Raises OSError.
    """
    fprog = _SockFprog(len(octets) // 8, octets)
    flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    is_bare = False
    while True:
        try:
            return syscall(machine.seccomp, SECCOMP_SET_MODE_FILTER, flags, fprog)
        except OSError as error:
            if error.errno == errno.EACCES and not is_bare:
                prctl(PR_SET_NO_NEW_PRIVS, 1)
                is_bare = True
            elif error.errno == errno.EINVAL and flags != SECCOMP_FILTER_FLAG_NEW_LISTENER:
                flags = SECCOMP_FILTER_FLAG_NEW_LISTENER  # Linux before 5.19: signals interrupt a call that waits, and it starts anew.
            else:
                raise


def wake_in_step(listener: int) -> bool:
    """Whether the kernel may run supervisor and caller on one core by turns (Linux 6.6): a third of the latency."""
    try:
        fcntl.ioctl(listener, NOTIF_SET_FLAGS, SYNC_WAKE_UP)
    except OSError:
        return False
    return True


def receive(listener: int) -> Notification | None:
    """The next notification; None if its caller was gone before we got it."""
    buffer = bytearray(NOTIF_OCTETS)
    try:
        fcntl.ioctl(listener, NOTIF_RECV, buffer, True)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    id_, thread, _flags, number, audit, _ip, *args = _NOTIF.unpack(buffer)
    return Notification(id_, thread, number, audit, tuple(args))


def is_valid(listener: int, id_: int) -> bool:
    """Whether the caller still waits: what was read of its memory was its own."""
    try:
        fcntl.ioctl(listener, NOTIF_ID_VALID, bytearray(struct.pack("=Q", id_)), True)
    except OSError:
        return False
    return True


def answer(listener: int, id_: int, value: int = 0, error: int = 0, *, go_on: bool = False) -> None:
    """Ends the call with `value`, with errno `error`, or (`go_on`) lets the kernel run it as if nothing had happened. Raises Gone."""
    try:
        fcntl.ioctl(listener, NOTIF_SEND, bytearray(_RESPONSE.pack(id_, value, -error, CONTINUE if go_on else 0)), True)
    except OSError as failure:
        raise Gone("the caller left") from failure


def answer_with_descriptor(listener: int, id_: int, descriptor: int, *, is_cloexec: bool) -> int:
    """Puts a duplicate of `descriptor` into the caller and ends its call with the number, in one step (Linux 5.14).

    Raises Gone; and OSError where the caller cannot have it (EMFILE): it still waits then.
    """
    flags = os.O_CLOEXEC if is_cloexec else 0
    try:
        return int(fcntl.ioctl(listener, NOTIF_ADDFD, bytearray(_ADDFD.pack(id_, ADDFD_FLAG_SEND, descriptor, 0, flags)), True))
    except OSError as failure:
        if failure.errno == errno.ENOENT:
            raise Gone("the caller left") from failure
        raise


def steal(machine: Machine, thread: int, descriptor: int) -> int:
    """A duplicate of a descriptor of the thread's. Whoever takes it closes it soon. Raises OSError."""
    try:
        pidfd = syscall(machine.pidfd_open, thread, PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:  # Linux before 6.9 opens processes only.
            raise
        pidfd = syscall(machine.pidfd_open, process_of(thread), 0)
    try:
        return syscall(machine.pidfd_getfd, pidfd, descriptor, 0)
    finally:
        os.close(pidfd)


def process_of(thread: int) -> int:
    """The process (thread group) that a thread belongs to. Raises OSError."""
    with open(f"/proc/{thread}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Tgid:"):
                return int(line.split()[1])
    raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))


def read_memory(thread: int, address: int, count: int) -> bytes:
    """Octets of the caller's memory. Raises OSError; EFAULT if not all of them are there."""
    buffer = ctypes.create_string_buffer(count)
    _move("process_vm_readv", thread, buffer, address, count)
    return buffer.raw


def write_memory(thread: int, address: int, octets: bytes) -> None:
    """Writes into the caller's memory. Raises OSError; EFAULT where it could not write itself."""
    _move("process_vm_writev", thread, ctypes.create_string_buffer(octets, len(octets)), address, len(octets))


def _move(call: str, thread: int, buffer: "ctypes.Array[ctypes.c_char]", address: int, count: int) -> None:
    here, there = _Iovec(ctypes.addressof(buffer), count), _Iovec(address, count)
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    moved = _checked(int(getattr(_libc, call)(ctypes.c_int(thread), ctypes.byref(here), one, ctypes.byref(there), one, none)))
    if moved != count:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
