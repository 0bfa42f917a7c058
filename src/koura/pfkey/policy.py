"""sadb_x_policy and its ipsecrequests: the buffer of ipsec_set_policy(3), of SPD messages and of socket options. KAME; pfkey.md §3.

     0        2        4       6    7    8         12
     | len    | 18     | type  | dir| scp| id      | priority |  then the requests, back to back
       words                                         (FreeBSD, scope ifnet: interface index)

     0        2        4    5     6      8         16
     | len    | proto  | mode|level|reqid| FreeBSD, NetBSD, macOS: sockaddrs follow at 8
     | len    | proto  | mode|level| 0   | reqid u32, 4 octets of anything | Linux: sockaddrs follow at 16
       octets!

The two sockaddrs have no padding between them; the request as a whole is padded to 8. `PolicyExtension` is what the octets say,
any numbers; `agree` makes a spd.policy.Policy of it and refuses what no Policy can be; `describe` goes back.
"""

import struct
from dataclasses import dataclass

from koura.errors import Errno, Malformed, Refused
from koura.pfkey.dialect import Dialect, Requests
from koura.pfkey.numbers import Ext
from koura.pfkey.sockaddr import Sockaddr
from koura.quick import quick
from koura.saindex import Direction, Mode, Protocol
from koura.spd.policy import Action, Level, Policy, Requirement, Scope
from koura.spd.selector import Selector

_FIXED = struct.Struct("<HBBII")
_BSD = struct.Struct("<HHBBH")
_LINUX = struct.Struct("<HHBBHI4x")
_NOWHERE = Sockaddr(b"")


@quick
@dataclass(frozen=True, slots=True)
class Request:
    """sadb_x_ipsecrequest, numbers unchecked. src and dst: both or neither; tail: octets after them that are no addresses."""

    protocol: int
    mode: int
    level: int
    reqid: int = 0
    src: Sockaddr = _NOWHERE
    dst: Sockaddr = _NOWHERE

    @property
    def has_addresses(self) -> bool:
        """Whether either names a place: then both must. Two of no family are none."""
        src, dst = self.src, self.dst
        return bool(src.address or dst.address or src.family or dst.family)


@quick
@dataclass(frozen=True, slots=True)
class PolicyExtension:
    """sadb_x_policy, numbers unchecked. direction and scope as on the wire; id as the dialect shows it."""

    type: int
    direction: int
    id: int = 0
    priority: int = 0
    scope: int = 0
    requests: tuple[Request, ...] = ()
    ext: int = Ext.X_POLICY

    @classmethod
    def read(cls, ext: int, body: bytes, dialect: Dialect, _satype: int) -> "PolicyExtension":
        """The extension's octets after its header; for Linux also with exttype 12, as iked's socket option has it. Raises Malformed."""
        if len(body) < 12:
            raise Malformed("sadb_x_policy", "too short")
        kind, direction, scope, number, priority = _FIXED.unpack_from(body)
        requests = []
        at = 12
        while at < len(body):
            request, octets = _read_request(body[at:], dialect)
            requests.append(request)
            at += octets
        return cls(kind, direction, number, priority, scope, tuple(requests), ext)

    def numbered(self, number: int) -> "PolicyExtension":
        """The same with an id."""
        return PolicyExtension(self.type, self.direction, number, self.priority, self.scope, self.requests, self.ext)

    def body(self, dialect: Dialect, _satype: int) -> bytes:
        fixed = _FIXED.pack(self.type, self.direction, self.scope, self.id, self.priority)
        return fixed + b"".join(_write_request(request, dialect) for request in self.requests)


def _read_request(body: bytes, dialect: Dialect) -> tuple[Request, int]:
    """One request from the start of `body`, and its length. Raises Malformed."""
    where = "sadb_x_ipsecrequest"
    fixed = dialect.requests.value
    if len(body) < fixed:
        raise Malformed(where, f"{len(body)} octets left, {fixed} needed")
    if dialect.requests is Requests.LINUX:
        octets, protocol, mode, level, _, reqid = _LINUX.unpack_from(body)
    else:
        octets, protocol, mode, level, reqid = _BSD.unpack_from(body)
    if octets < fixed or octets > len(body) or octets % 8:
        raise Malformed(where, f"length {octets} of {len(body)}")
    if octets == fixed:
        return Request(protocol, mode, level, reqid), octets
    src, first = Sockaddr.take(body[:octets], fixed, dialect, where)
    dst, second = Sockaddr.take(body[:octets], fixed + first, dialect, where)
    if octets - (fixed + first + second) not in range(8):
        raise Malformed(where, "more octets than its two addresses")
    return Request(protocol, mode, level, reqid, src, dst), octets


def _write_request(request: Request, dialect: Dialect) -> bytes:
    addresses = request.src.write(dialect) + request.dst.write(dialect) if request.has_addresses else b""
    octets = (dialect.requests.value + len(addresses) + 7) // 8 * 8
    if dialect.requests is Requests.LINUX:
        fixed = _LINUX.pack(octets, request.protocol, request.mode, request.level, 0, request.reqid)
    else:
        reqid = request.reqid if request.reqid <= 0xFFFF else 0
        fixed = _BSD.pack(octets, request.protocol, request.mode, request.level, reqid)
    return (fixed + addresses).ljust(octets, b"\0")


def read(octets: bytes, dialect: Dialect) -> PolicyExtension:
    """A policy buffer with its 4-octet extension header, as setsockopt gets it. iked says type 12: not looked at. Raises Malformed."""
    if len(octets) < 16:
        raise Malformed("sadb_x_policy", f"{len(octets)} octets, at least 16 needed")
    words = int.from_bytes(octets[:2], "little")
    if 8 * words != len(octets):
        raise Malformed("sadb_x_policy", f"says {8 * words} octets, has {len(octets)}")
    return PolicyExtension.read(Ext.X_POLICY, octets[4:], dialect, 0)


def write(extension: PolicyExtension, dialect: Dialect) -> bytes:
    """The buffer with its header: what ipsec_set_policy(3) makes."""
    body = extension.body(dialect, 0)
    return struct.pack("<HH", (4 + len(body)) // 8, Ext.X_POLICY) + body


def agree(extension: PolicyExtension, dialect: Dialect, selector: Selector | None = None) -> Policy:
    """The Policy that an extension asks for. Whether it may stand in the SPD or on a socket is spd.validity's question.

    Raises Refused: EINVAL for numbers that mean nothing, EPROTONOSUPPORT for a request's protocol, EAFNOSUPPORT for its addresses.
    """
    direction = direction_of(extension, dialect)
    if extension.type > Action.BYPASS:
        raise Refused(Errno.EINVAL, f"no such policy type: {extension.type}")
    action = _ACTIONS[extension.type]
    # Only ipsec has requests; other types carry none, whatever follows (KAME does not look).
    wanted = extension.requests if action is Action.IPSEC else ()
    requirements = tuple([_requirement(request) for request in wanted])
    return Policy(direction, action, selector, requirements, extension.priority)


def direction_of(extension: PolicyExtension, dialect: Dialect) -> Direction:
    """The direction. Raises Refused(EINVAL) for any, and for forward outside Linux."""
    top = Direction.FORWARD if dialect.has_forward else Direction.OUTBOUND
    if not Direction.INBOUND <= extension.direction <= top:
        raise Refused(Errno.EINVAL, f"a policy's direction is in or out, not {extension.direction}")
    return _DIRECTIONS[extension.direction]


_ACTIONS, _DIRECTIONS, _MODES, _LEVELS = tuple(Action), tuple(Direction), tuple(Mode), tuple(Level)
_PROTOCOLS = {50: Protocol.ESP, 51: Protocol.AH, 108: Protocol.IPCOMP, 6: Protocol.TCP}


def _requirement(request: Request) -> Requirement:
    protocol = _PROTOCOLS.get(request.protocol)
    if protocol is None:
        raise Refused(Errno.EPROTONOSUPPORT, f"a request's protocol is esp, ah or ipcomp, not {request.protocol}")
    if request.mode > Mode.TUNNEL:
        raise Refused(Errno.EINVAL, f"a request's mode is transport or tunnel, not {request.mode}")
    if request.level > Level.UNIQUE:
        raise Refused(Errno.EINVAL, f"no such level: {request.level}")
    for end in (request.src, request.dst) if request.has_addresses else ():
        if not end.address:
            if end.is_sized:
                raise Refused(Errno.EAFNOSUPPORT, f"a request's address is of family {end.family}")
            raise Refused(Errno.EINVAL, "a request's address has a wrong length")
    return Requirement(
        protocol, _MODES[request.mode], _LEVELS[request.level], request.reqid,
        request.src.address, request.dst.address, request.src.port, request.dst.port,
    )  # fmt: skip


def describe(policy: Policy, entry_id: int = 0, priority: int | None = None) -> PolicyExtension:
    """The extension that says what a Policy says, for a buffer or a dump. entry_id: as the dialect shows ids."""
    scope = 0 if policy.scope is Scope.GLOBAL else int(policy.scope)
    requests = tuple([
        Request(r.protocol, r.mode, r.level, r.reqid, Sockaddr(r.src, r.sport), Sockaddr(r.dst, r.dport)) for r in policy.requirements
    ])  # fmt: skip
    return PolicyExtension(
        policy.action, policy.direction, entry_id, policy.priority if priority is None else priority, scope, requests
    )
