"""How badly a request needs an SA: the level it names or, for `default`, the system's variable. R22-R25, R28."""

from koura.address import Family, family
from koura.saindex import Mode, Protocol
from koura.settings import FamilySettings, Settings
from koura.spd.policy import Level, Policy, Requirement
from koura.spd.selector import Flow

_USE, _UNIQUE = 1, 3


def selector_family(policy: Policy, flow: Flow) -> Family:
    """The family whose variables a policy follows: its selector's, not the outer header's; a socket's policy has the flow's. R25."""
    return policy.selector.src.family if policy.selector is not None else family(flow.src)


def is_needed(requirement: Requirement, selector: Family, settings: Settings) -> bool:
    """Whether a packet may not go, or pass, without this request.

    `default` asks the variable for its protocol, mode and selector family. IPComp by default is `use` (R25). A variable of 3
    counts as use, as FreeBSD 13 has it; every other value but 1 as require. The number of `unique` is a matter of which SA fits.
    """
    if requirement.level is not Level.DEFAULT:
        return requirement.level is not Level.USE
    if requirement.protocol not in (Protocol.ESP, Protocol.AH):
        return False
    return _variable(requirement, settings.of(selector)) not in (_USE, _UNIQUE)


def _variable(requirement: Requirement, side: FamilySettings) -> int:
    is_net = requirement.mode is Mode.TUNNEL
    if requirement.protocol is Protocol.ESP:
        return side.esp_net_deflev if is_net else side.esp_trans_deflev
    return side.ah_net_deflev if is_net else side.ah_trans_deflev
