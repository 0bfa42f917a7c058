"""Who made an intercepted call, by /proc: its process, its user, and whether it has the network privilege.

The privilege is the caller's own, never the supervisor's: CAP_NET_ADMIN in the user namespace that we are in. A process that made
itself a user namespace has every capability there, and none here. SO_PEERCRED of a key socket would name the supervisor.
"""

import errno
import os
from dataclasses import dataclass

CAP_NET_ADMIN = 12
OWN_USER_NAMESPACE = "/proc/self/ns/user"


@dataclass(frozen=True, slots=True)
class Caller:
    """uid: the effective one. is_capable: it has CAP_NET_ADMIN here. command: its name, for people."""

    thread: int
    process: int
    uid: int
    is_capable: bool
    command: str

    def is_privileged(self, owner_uid: int) -> bool:
        """Towards an engine of this user: the capability, or being that user, unless that is root, whose privilege is its capabilities."""
        return self.is_capable or (owner_uid != 0 and self.uid == owner_uid)


def of(thread: int) -> Caller:
    """The caller with this thread id. Raises OSError when it has gone."""
    fields: dict[str, str] = {}
    with open(f"/proc/{thread}/status", encoding="utf-8", errors="replace") as status:
        for line in status:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    try:
        process, uid, capabilities = int(fields["Tgid"]), int(fields["Uid"].split()[1]), int(fields["CapEff"], 16)
    except (KeyError, ValueError, IndexError) as error:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
    is_capable = bool(capabilities >> CAP_NET_ADMIN & 1) and _shares_user_namespace(thread)
    return Caller(thread, process, uid, is_capable, fields.get("Name", "?"))


def _shares_user_namespace(thread: int) -> bool:
    try:
        return os.readlink(f"/proc/{thread}/ns/user") == os.readlink(OWN_USER_NAMESPACE)
    except OSError:
        return False
