"""What FreeBSD's strerror(3) says of each errno: scripts compare setkey's output with it, whatever system we run on."""

from koura.errors import Errno

_TEXTS = {
    Errno.EPERM: "Operation not permitted", Errno.ENOENT: "No such file or directory", Errno.ESRCH: "No such process",
    Errno.EINTR: "Interrupted system call", Errno.EIO: "Input/output error", Errno.ENXIO: "Device not configured",
    Errno.ENOMEM: "Cannot allocate memory", Errno.EACCES: "Permission denied", Errno.EBUSY: "Device busy", Errno.EEXIST: "File exists",
    Errno.EINVAL: "Invalid argument", Errno.EAGAIN: "Resource temporarily unavailable", Errno.EINPROGRESS: "Operation now in progress",
    Errno.EMSGSIZE: "Message too long", Errno.EPROTOTYPE: "Protocol wrong type for socket",
    Errno.EPROTONOSUPPORT: "Protocol not supported", Errno.EOPNOTSUPP: "Operation not supported",
    Errno.EPFNOSUPPORT: "Protocol family not supported", Errno.EAFNOSUPPORT: "Address family not supported by protocol family",
    Errno.ENETDOWN: "Network is down", Errno.ENOBUFS: "No buffer space available", Errno.EHOSTUNREACH: "No route to host",
    Errno.ENOSYS: "Function not implemented",
}  # fmt: skip


def strerror(errno: Errno) -> str:
    """The text, without a full stop."""
    return _TEXTS.get(errno, f"Unknown error: {errno.bsd}")
