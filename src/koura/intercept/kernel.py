"""The kernel's side of seccomp user notification, by ctypes: install, receive, answer, add descriptors. seccomp_unotify(2)."""

import ctypes
import errno
import fcntl
import os
import struct
from dataclasses import dataclass

from koura.errors import KouraError
from koura.intercept.filter import Abi

PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_NOTIF_SIZES = 3
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5

NOTIF_RECV = 0xC0502100
NOTIF_SEND = 0xC0182101
NOTIF_ID_VALID = 0x40082102
NOTIF_ADDFD = 0x40182103
ADDFD_FLAG_SEND = 2

NOTIF_OCTETS = 80  # struct seccomp_notif: id, pid, flags, then struct seccomp_data
_NOTIF = struct.Struct("=QII iI Q 6Q")
_RESPONSE = struct.Struct("=Qqi I")
_ADDFD = struct.Struct("=QIIII")

_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(KouraError):
    """The kernel, or a filter above us, does not let us intercept; the sentence says what is missing and what to do."""


class Gone(KouraError):
    """The caller left (was killed, or a signal interrupted its call) before it was answered."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One call that waits for its answer. `pid` is the thread's id in our pid namespace."""

    id: int
    pid: int
    number: int
    args: tuple[int, ...]


def syscall(number: int, *args: int | ctypes.Array[ctypes.c_char] | ctypes.Structure | None) -> int:
    """A raw system call; raises OSError."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else (ctypes.byref(a) if a is not None else None) for a in args]
    result = int(_libc.syscall(ctypes.c_long(number), *converted))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, value: int) -> None:
    if _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(numbers: Abi, octets: bytes) -> int:
    """Installs the filter on this thread and returns the listener's descriptor. Without CAP_SYS_ADMIN it first sets NO_NEW_PRIVS.

    NO_NEW_PRIVS takes setuid from children, so it is set only where the kernel insists. Raises OSError.
    """
    fprog = _SockFprog(len(octets) // 8, octets)
    for flags in (SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, SECCOMP_FILTER_FLAG_NEW_LISTENER):
        try:
            return syscall(numbers.seccomp, SECCOMP_SET_MODE_FILTER, flags, fprog)
        except OSError as error:
            if error.errno == errno.EACCES:
                prctl(PR_SET_NO_NEW_PRIVS, 1)
                return install(numbers, octets)
            if error.errno != errno.EINVAL or flags == SECCOMP_FILTER_FLAG_NEW_LISTENER:
                raise
    raise AssertionError("unreachable")


def receive(listener: int) -> Notification | None:
    """The next notification; None if its caller was gone before we got it."""
    buffer = bytearray(NOTIF_OCTETS)
    try:
        fcntl.ioctl(listener, NOTIF_RECV, buffer, True)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    id_, pid, _flags, number, _arch, _ip, *args = _NOTIF.unpack(buffer)
    return Notification(id_, pid, number, tuple(args))


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
        fcntl.ioctl(listener, NOTIF_SEND, bytearray(_RESPONSE.pack(id_, value, -error, 1 if go_on else 0)), True)
    except OSError as failure:
        raise Gone("the caller left") from failure


def answer_with_descriptor(listener: int, id_: int, descriptor: int, *, is_cloexec: bool) -> int:
    """Puts a duplicate of `descriptor` into the caller and ends its call with the number, in one step (Linux 5.14). Raises Gone."""
    flags = os.O_CLOEXEC if is_cloexec else 0
    try:
        return int(fcntl.ioctl(listener, NOTIF_ADDFD, bytearray(_ADDFD.pack(id_, ADDFD_FLAG_SEND, descriptor, 0, flags)), True))
    except OSError as failure:
        raise Gone("the caller left") from failure


def steal(numbers: Abi, pid: int, descriptor: int) -> int:
    """A duplicate of a descriptor of the process (pidfd_getfd). The caller must close it soon. Raises OSError."""
    pidfd = syscall(numbers.pidfd_open, process_of(pid), 0)
    try:
        return syscall(numbers.pidfd_getfd, pidfd, descriptor, 0)
    finally:
        os.close(pidfd)


def process_of(thread: int) -> int:
    """The process (thread group) that a thread belongs to. Raises OSError."""
    with open(f"/proc/{thread}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Tgid:"):
                return int(line.split()[1])
    raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))


def read_memory(pid: int, address: int, count: int) -> bytes:
    """Octets of the caller's memory; may be fewer than asked for at the end of a mapping. Raises OSError."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return os.pread(memory.fileno(), count, address)


def write_memory(pid: int, address: int, octets: bytes) -> None:
    """Writes into the caller's memory (the result buffer of getsockopt). Raises OSError."""
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        os.pwrite(memory.fileno(), octets, address)
