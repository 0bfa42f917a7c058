"""Which addresses a bump in the wire protects: those that its policies speak of on its protected side. RFC 4301 §3.3.

    inbound policy, tunnel     the tunnel's destination            outbound policy, tunnel     the tunnel's source
    inbound, transport         where the selector leads to         outbound, transport         where the selector comes from

A packet to any other address is for policy to judge as it is, ESP that hosts make among themselves included.
"""

from collections.abc import Iterable

from koura.address import Prefix, is_unspecified
from koura.saindex import Direction, Mode
from koura.spd.entry import Entry
from koura.spd.policy import Action, Policy


def served(entries: Iterable[Entry]) -> tuple[frozenset[bytes], tuple[Prefix, ...]]:
    """Single addresses, and prefixes of more than one, in the order of the policies."""
    found = dict.fromkeys(prefix for entry in entries for prefix in _of(entry.policy))
    addresses = frozenset(prefix.address for prefix in found if prefix.is_host)
    return addresses, tuple(prefix for prefix in found if not prefix.is_host)


def _of(policy: Policy) -> Iterable[Prefix]:
    selector = policy.selector
    if policy.action is not Action.IPSEC or selector is None:
        return
    is_inbound = policy.direction is Direction.INBOUND
    is_tunnel = any(requirement.mode is Mode.TUNNEL for requirement in policy.requirements)
    for requirement in policy.requirements:
        own = requirement.dst if is_inbound else requirement.src
        if own and not is_unspecified(own):
            yield Prefix(own, 8 * len(own))
        elif not is_tunnel:
            yield selector.dst if is_inbound else selector.src
