"""An oracle for what IPv4 would have done: the check without history, for a packet whose headers can all be seen. processing.md of 2007.

FreeBSD's rule is short: each request that is needed wants its protocol somewhere on the packet. It cannot be asked over IPv6, where
nested headers never come that far, so the rule that says "as over IPv4" is held against this.
"""

from koura.pfkey.extensions import Address
from koura.pfkey.numbers import Ext, Type
from koura.pfkey.policy import PolicyExtension, Request
from tests.parity.difference import Difference
from tests.parity.facts import requests, tunable
from tests.parity.packets import AH, ESP, headers
from tests.parity.recordings import Sent

_DISCARD, _IPSEC, _INBOUND = 0, 2, 1
_USE, _DEFAULT = 1, 0


def accepts(difference: Difference) -> bool | None:
    """Whether such a packet passes; None where the case has more inbound policies than one, checks history, or sends several packets."""
    event = difference.event
    asked = [(m, m.find(PolicyExtension, Ext.X_POLICY)) for m in requests(difference, Type.X_SPDADD)]
    policies = [(m, policy) for m, policy in asked if policy is not None and policy.direction == _INBOUND]
    is_strict = tunable(difference, "net.inet.ipsec.check_policy_history") == "1"
    if not isinstance(event, Sent) or len(event.packets) != 1 or len(policies) > 1 or is_strict:
        return None
    layers = list(headers(event.packets[0]))
    if not policies:
        return True
    message, policy = policies[0]
    inner = [layer for layer in layers if layer.kind in (4, 41)][-1]
    for ext, address in ((Ext.ADDRESS_SRC, inner.src), (Ext.ADDRESS_DST, inner.dst)):
        selected = message.find(Address, ext)
        if selected is None or (selected.prefix_bits and selected.sockaddr.address != address):
            return True
    if policy.type != _IPSEC:
        return policy.type != _DISCARD
    side = "inet6.ipsec6" if len(inner.src) == 16 else "inet.ipsec"
    needed = {r.protocol for r in policy.requests if _is_needed(r, side, difference)}
    return needed <= {layer.kind for layer in layers}


def _is_needed(request: Request, side: str, difference: Difference) -> bool:
    if request.protocol not in (ESP, AH):
        return False
    if request.level != _DEFAULT:
        return request.level != _USE
    name = f"net.{side}.{'esp' if request.protocol == ESP else 'ah'}_{'net' if request.mode == 2 else 'trans'}_deflev"
    return tunable(difference, name) not in ("", "1", "3")
