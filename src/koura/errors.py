"""The exceptions of the whole package; who raises which is in docs/architecture.md.

- Malformed: their octets. A decoder's only error; whoever handed us the octets catches it.
- Unauthentic: their ICV. Crypto's one word; `xform` turns it into a Discarded with a Reason.
- Refused: a request of an operator or a PF_KEY client; answered with an errno, state unchanged.
- Bug: ours. Never caught in the core.

`Discarded`, a packet's end, lives in `reasons`, beside the list of reasons.
"""

from enum import Enum


class Errno(Enum):
    """Error numbers as they stand in `sadb_msg_errno`: the BSDs' number, then Linux's."""

    EPERM = (1, 1)
    ENOENT = (2, 2)
    ESRCH = (3, 3)
    EINTR = (4, 4)
    EIO = (5, 5)
    ENXIO = (6, 6)
    ENOMEM = (12, 12)
    EACCES = (13, 13)
    EBUSY = (16, 16)
    EEXIST = (17, 17)
    EINVAL = (22, 22)
    EAGAIN = (35, 11)
    EINPROGRESS = (36, 115)
    EMSGSIZE = (40, 90)
    EPROTOTYPE = (41, 91)
    EPROTONOSUPPORT = (43, 93)
    EOPNOTSUPP = (45, 95)
    EPFNOSUPPORT = (46, 96)
    EAFNOSUPPORT = (47, 97)
    ENETDOWN = (50, 100)
    ENOBUFS = (55, 105)
    EHOSTUNREACH = (65, 113)
    ENOSYS = (78, 38)

    @property
    def bsd(self) -> int:
        """The number FreeBSD, NetBSD, OpenBSD and macOS use."""
        return int(self.value[0])

    @property
    def linux(self) -> int:
        """The number Linux uses."""
        return int(self.value[1])


class KouraError(Exception):
    """The root of every error that this package declares."""


class Malformed(KouraError):
    """Octets that do not say what their format demands. `where` names the format and field, `why` the fault."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class Unauthentic(KouraError):
    """An ICV did not match. Carries no detail, by design."""


class Refused(KouraError):
    """A request that is answered with an errno; the state is as if it had never come."""

    def __init__(self, errno: Errno, why: str) -> None:
        super().__init__(why)
        self.errno = errno
        self.why = why


class Bug(KouraError):
    """A promise of our own code is broken."""
