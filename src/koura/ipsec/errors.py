"""libipsec's errors: the numbers behind ipsec_strerror(3), and the exception that Python programs get. setkey.md §9.1.

A C program sees NULL or -1 and asks ipsec_strerror(); here the failure is raised, and ipsec_strerror() still tells the last one of the
thread.
"""

import threading

TEXTS = (
    "Success", "Not supported", "Invalid argument", "Invalid sadb message", "Invalid version", "Invalid security policy",
    "Invalid address specification", "Invalid ipsec protocol", "Invalid ipsec mode", "Invalid ipsec level", "Invalid SA type",
    "Invalid message type", "Invalid extension type", "Invalid algorithm type", "Invalid key length", "Invalid address family",
    "Invalid prefix length", "Invalid direction", "SPI range violation", "No protocol specified", "No algorithm specified",
    "No buffers available", "Must get supported algorithms list first", "Protocol mismatch", "Family mismatch", "Too few arguments",
    "System error", "Unknown error",
)  # fmt: skip
(
    EIPSEC_NO_ERROR, EIPSEC_NOT_SUPPORTED, EIPSEC_INVAL_ARGUMENT, EIPSEC_INVAL_SADBMSG, EIPSEC_INVAL_VERSION, EIPSEC_INVAL_POLICY,
    EIPSEC_INVAL_ADDRESS, EIPSEC_INVAL_PROTO, EIPSEC_INVAL_MODE, EIPSEC_INVAL_LEVEL, EIPSEC_INVAL_SATYPE, EIPSEC_INVAL_MSGTYPE,
    EIPSEC_INVAL_EXTTYPE, EIPSEC_INVAL_ALGS, EIPSEC_INVAL_KEYLEN, EIPSEC_INVAL_FAMILY, EIPSEC_INVAL_PREFIXLEN, EIPSEC_INVAL_DIR,
    EIPSEC_INVAL_SPI, EIPSEC_NO_PROTO, EIPSEC_NO_ALGS, EIPSEC_NO_BUFS, EIPSEC_DO_GET_SUPP_LIST, EIPSEC_PROTO_MISMATCH,
    EIPSEC_FAMILY_MISMATCH, EIPSEC_FEW_ARGUMENTS, EIPSEC_SYSTEM_ERROR, EIPSEC_MAX,
) = range(28)  # fmt: skip


class _Last(threading.local):
    text = TEXTS[EIPSEC_NO_ERROR]


_last = _Last()


class IpsecError(ValueError):
    """A call of libipsec failed: `code` is its number, `why` says more than its text does; `system`: whose text a system error has."""

    def __init__(self, code: int, why: str = "", system: str = "") -> None:
        text = (system or why or TEXTS[code]) if code == EIPSEC_SYSTEM_ERROR else TEXTS[code]
        super().__init__(text if not why or why == text else f"{text}: {why}")
        self.code = code
        self.why = why
        _last.text = text


def ipsec_strerror() -> str:
    """The text of this thread's last failure; Success after a call that did not fail."""
    return _last.text


def succeed() -> None:
    """Note that a call did not fail."""
    _last.text = TEXTS[EIPSEC_NO_ERROR]
