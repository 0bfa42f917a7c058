"""Request ids that the stack chooses: above the 0x3fff that are left to operators. pfkey.md §5.2."""

from dataclasses import replace

from koura.errors import Errno, Refused
from koura.spd.policy import MAX_MANUAL_REQID, Level, Policy

REQID_END_U16 = 0xFFFF  # FreeBSD's request carries 16 bits
REQID_END_U32 = 0xFFFF_FFFF  # Linux's 32


class Reqids:
    """Counts up from the first automatic reqid, FreeBSD's way (16385), past those in use, and round again at the end."""

    __slots__ = ("_used", "last")

    def __init__(self) -> None:
        self.last = MAX_MANUAL_REQID + 1
        self._used: dict[int, int] = {}  # reqid -> policies that hold it

    def resolve(self, policy: Policy, end: int) -> Policy:
        """The policy with a fresh reqid, at most `end`, in each unique request that has none or one beyond the manual range.

        Raises Refused(ENOBUFS) when all are in use; then nothing is taken. `release` gives them back.
        """
        taken: list[int] = []
        requirements = []
        for requirement in policy.requirements:
            if requirement.level is Level.UNIQUE and not 0 < requirement.reqid <= MAX_MANUAL_REQID:
                try:
                    taken.append(self._take(end))
                except Refused:
                    for reqid in taken:
                        del self._used[reqid]
                    raise
                requirements.append(replace(requirement, reqid=taken[-1]))
            else:
                requirements.append(requirement)
        return replace(policy, requirements=tuple(requirements)) if taken else policy

    def keep(self, policy: Policy, end: int, old: Policy | None = None) -> Policy:
        """Like `resolve`, but a reqid beyond the manual range that is given is taken. `old`: the policy that gives its reqids back.

        Raises Refused(EEXIST) where another policy has it; then nothing is taken.
        """
        given = [r.reqid for r in policy.requirements if r.level is Level.UNIQUE and r.reqid > MAX_MANUAL_REQID]
        freed = {r.reqid for r in old.requirements if r.level is Level.UNIQUE} if old is not None else set()
        for reqid in given:
            if (reqid in self._used and not (reqid in freed and self._used[reqid] == 1)) or given.count(reqid) > 1:
                raise Refused(Errno.EEXIST, f"another request has the reqid {reqid}")
        asked = replace(
            policy,
            requirements=tuple(replace(r, level=Level.REQUIRE) if r.reqid in given else r for r in policy.requirements),
        )
        resolved = self.resolve(asked, end)
        for reqid in given:
            self._used[reqid] = self._used.get(reqid, 0) + 1
        kept = zip(resolved.requirements, policy.requirements, strict=True)
        return replace(policy, requirements=tuple(before if before.reqid in given else after for after, before in kept))

    def share(self, policy: Policy) -> None:
        """A copy of the policy holds the same reqids (an accepted socket's)."""
        for requirement in policy.requirements:
            if requirement.level is Level.UNIQUE and requirement.reqid in self._used:
                self._used[requirement.reqid] += 1

    def hold(self, policy: Policy) -> None:
        """A policy that comes back as it was, with what was chosen for it."""
        for requirement in policy.requirements:
            if requirement.level is Level.UNIQUE and requirement.reqid > MAX_MANUAL_REQID:
                self._used[requirement.reqid] = self._used.get(requirement.reqid, 0) + 1

    def release(self, policy: Policy) -> None:
        """The policy has gone; what was chosen for it alone is free again, though not soon chosen."""
        for requirement in policy.requirements:
            holders = self._used.get(requirement.reqid, 0) if requirement.level is Level.UNIQUE else 0
            if holders == 1:
                del self._used[requirement.reqid]
            elif holders:
                self._used[requirement.reqid] = holders - 1

    def _take(self, end: int) -> int:
        first = MAX_MANUAL_REQID + 1
        if len(self._used) >= end - first + 1:
            raise Refused(Errno.ENOBUFS, "all automatic reqids are in use")
        while True:
            self.last = self.last + 1 if self.last < end else first
            if self.last not in self._used:
                self._used[self.last] = 1
                return self.last
