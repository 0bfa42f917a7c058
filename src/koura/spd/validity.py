"""Which policies may stand in the SPD or on a socket. RFC 4301 §4.4.1; system.md §1, M4, R20, M31.

One place, so that PF_KEY, policy text and the Python interface refuse the same things with the same words. What only octets
can get wrong (unknown protocol numbers, lengths) is refused by `pfkey.message` before a Policy exists.
"""

from koura.address import is_multicast
from koura.errors import Errno, Refused
from koura.saindex import Direction, Mode, Protocol
from koura.spd.policy import MAX_REQUIREMENTS, Action, Policy, Requirement, Scope
from koura.spd.selector import ANY_PORT, Selector

ICMP_PROTOCOLS = (1, 58)
_DIRECTIONS = (Direction.INBOUND, Direction.OUTBOUND, Direction.FORWARD)
_SOCKET_ACTIONS = (Action.IPSEC, Action.ENTRUST, Action.BYPASS)


def check_entry(policy: Policy) -> None:
    """Refuse (EINVAL, EPROTONOSUPPORT) what may not be an SPD entry: global or of an interface."""
    if policy.scope not in (Scope.GLOBAL, Scope.INTERFACE):
        raise Refused(Errno.EINVAL, "a socket's policy is set on its socket, not in the SPD")
    if (policy.scope is Scope.INTERFACE) != bool(policy.interface):
        raise Refused(Errno.EINVAL, "a policy of interface scope names its interface, a global one names none")
    if policy.action in (Action.ENTRUST, Action.BYPASS):
        raise Refused(Errno.EINVAL, f"{policy.action.name.lower()} is for sockets only; the SPD takes discard, none or ipsec")
    if policy.selector is None:
        raise Refused(Errno.EINVAL, "an SPD entry needs a selector")
    if policy.selector.direction is not policy.direction:
        raise Refused(Errno.EINVAL, "the selector names another direction than the policy")
    _check_selector(policy.selector)
    _check_common(policy)


def check_socket(policy: Policy, is_privileged: bool) -> None:
    """Refuse what may not be a socket's own policy: EINVAL for the action, EACCES without privilege (M31)."""
    if policy.action not in _SOCKET_ACTIONS:
        raise Refused(Errno.EINVAL, f"{policy.action.name.lower()} is for the SPD only; a socket takes ipsec, entrust or bypass")
    if policy.action is not Action.ENTRUST and not is_privileged:
        raise Refused(Errno.EACCES, f"{policy.action.name.lower()} on a socket needs the network privilege; entrust does not")
    _check_common(policy)


def _check_common(policy: Policy) -> None:
    if policy.direction not in _DIRECTIONS:
        raise Refused(Errno.EINVAL, "a policy's direction is in, out or (Linux) fwd")
    if policy.lifetime_s < 0 or policy.valid_s < 0:
        raise Refused(Errno.EINVAL, "a policy's lifetime is not negative")
    if policy.action is not Action.IPSEC:
        if policy.requirements:
            raise Refused(Errno.EINVAL, f"{policy.action.name.lower()} takes no requests")
        return
    if not 1 <= len(policy.requirements) <= MAX_REQUIREMENTS:
        raise Refused(Errno.EINVAL, f"ipsec takes 1 to {MAX_REQUIREMENTS} requests, not {len(policy.requirements)}")
    for requirement in policy.requirements:
        _check_requirement(requirement)


def _check_selector(selector: Selector) -> None:
    if selector.src.family is not selector.dst.family:
        raise Refused(Errno.EINVAL, "the selector's addresses are of two families")
    if not 0 <= selector.protocol <= 255:
        raise Refused(Errno.EINVAL, f"no such protocol: {selector.protocol}")
    if not (0 <= selector.sport <= 65535 and 0 <= selector.dport <= 65535):
        raise Refused(Errno.EINVAL, "a port is 0 (any) to 65535")
    has_icmp = selector.icmp_type is not None or selector.icmp_code is not None
    if selector.protocol in ICMP_PROTOCOLS:
        if selector.sport != ANY_PORT or selector.dport != ANY_PORT:
            raise Refused(Errno.EINVAL, "an ICMP selector has a type and a code, no ports")
    elif has_icmp:
        raise Refused(Errno.EINVAL, "an ICMP type or code needs the protocol ICMP (1) or ICMPv6 (58)")
    for value in (selector.icmp_type, selector.icmp_code):
        if value is not None and not 0 <= value <= 255:
            raise Refused(Errno.EINVAL, f"an ICMP type or code is 0 to 255, not {value}")


def _check_requirement(requirement: Requirement) -> None:
    if requirement.protocol is Protocol.TCP:
        raise Refused(Errno.EPROTONOSUPPORT, "a request's protocol is esp, ah or ipcomp; TCP-MD5 needs no policy")
    if requirement.mode not in (Mode.TRANSPORT, Mode.TUNNEL):
        raise Refused(Errno.EINVAL, "a request's mode is transport or tunnel")
    if not 0 <= requirement.reqid <= 0xFFFF_FFFF:
        raise Refused(Errno.EINVAL, "a reqid has 32 bits")
    if bool(requirement.src) != bool(requirement.dst):
        raise Refused(Errno.EINVAL, "a request names both endpoints or none")
    if requirement.src and len(requirement.src) != len(requirement.dst):
        raise Refused(Errno.EINVAL, "a request's endpoints are of two families")
    if requirement.mode is Mode.TUNNEL:
        if not requirement.src:
            raise Refused(Errno.EINVAL, "a tunnel needs its two endpoints")
        if is_multicast(requirement.src):
            raise Refused(Errno.EINVAL, "a tunnel's source is no multicast address")
