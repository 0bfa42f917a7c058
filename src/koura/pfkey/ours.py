"""What our own clients say about a policy beyond FreeBSD's sadb_x_policy: extension 201, in our dialect only.

     0        2        4       8
     | 3      | 201    | flags | reqid of each request, u32 each, 0: as in the request |          24 octets

It stands in SPDADD, SPDUPDATE, SPDSETIDX and SPDDELETE where it is needed, and in a dump only where FreeBSD's form cannot say the
policy: direction forward, request ids beyond 16 bits. So a stock client, which stops at extensions it does not know, meets none.
"""

import struct
from dataclasses import dataclass, replace

from koura.errors import Malformed
from koura.pfkey.dialect import Dialect
from koura.pfkey.numbers import Ext
from koura.pfkey.policy import PolicyExtension
from koura.saindex import Direction
from koura.spd.policy import MAX_REQUIREMENTS, Policy

KEEP_REQIDS = 0x1  # request ids beyond the manual range are taken as they are, not chosen anew
FORWARD = 0x2  # the direction forward is meant, which FreeBSD's numbers do not have
_FIXED = struct.Struct("<I4I")
_U16 = 0xFFFF


@dataclass(frozen=True, slots=True)
class KouraPolicy:
    """The extension. reqids: one for each request, up to four; 0 leaves the request's own."""

    flags: int = 0
    reqids: tuple[int, ...] = (0, 0, 0, 0)
    ext: int = Ext.X_KOURA_POLICY

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "KouraPolicy":
        if len(body) != _FIXED.size:
            raise Malformed("sadb_x_koura_policy", f"{len(body) + 4} octets, not {_FIXED.size + 4}")
        flags, *reqids = _FIXED.unpack(body)
        return cls(flags, tuple(reqids), ext)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return _FIXED.pack(self.flags, *(*self.reqids, 0, 0, 0, 0)[:MAX_REQUIREMENTS])


def about(policy: Policy, keeps_reqids: bool = False) -> tuple[KouraPolicy, ...]:
    """The extension that a policy needs; none if FreeBSD's form says everything."""
    reqids = tuple(requirement.reqid if requirement.reqid > _U16 else 0 for requirement in policy.requirements)
    flags = (KEEP_REQIDS if keeps_reqids else 0) | (FORWARD if policy.direction is Direction.FORWARD else 0)
    return (KouraPolicy(flags, reqids),) if flags or any(reqids) else ()


def merged(policy: PolicyExtension, ours: KouraPolicy | None) -> PolicyExtension:
    """The policy with the request ids that only our extension can carry."""
    if ours is None or not any(ours.reqids):
        return policy
    wide = (*ours.reqids, 0, 0, 0, 0)
    requests = [replace(one, reqid=reqid or one.reqid) for one, reqid in zip(policy.requests, wide, strict=False)]
    return replace(policy, requests=(*requests, *policy.requests[len(requests) :]))
