"""The slow, obvious twin of traffic.verify: write down every history a policy allows, and look whether this is one of them."""

from itertools import product

from koura.saindex import Mode, Protocol
from koura.spd.policy import Policy, Requirement
from koura.traffic.outcome import Applied


def allows(policy: Policy, needed: tuple[bool, ...], history: tuple[Applied, ...], packet_src: bytes) -> bool:
    """Whether some choice of the requests that may be left out leaves exactly this history. No SA of mode any around IPComp tunnels."""
    requests = list(zip(policy.requirements, needed, strict=True))[::-1]
    for present in product((True, False), repeat=len(requests)):
        left_out = [request for request, is_there in zip(requests, present, strict=True) if not is_there]
        if any(is_needed and requirement.protocol is not Protocol.IPCOMP for requirement, is_needed in left_out):
            continue
        kept = [requirement for (requirement, _), is_there in zip(requests, present, strict=True) if is_there]
        if len(kept) == len(history) and all(_is(kept, i, history[i], packet_src) for i in range(len(kept))):
            return True
    return False


def _is(kept: list[Requirement], i: int, applied: Applied, packet_src: bytes) -> bool:
    requirement = kept[i]
    mode = applied.mode if applied.mode else (Mode.TUNNEL if applied.was_tunnel else Mode.TRANSPORT)
    inner_tunnels = [inner.src for inner in kept[i + 1 :] if inner.mode is Mode.TUNNEL]
    src = requirement.src or (inner_tunnels[0] if inner_tunnels else packet_src)
    return (
        (requirement.protocol, requirement.mode, src) == (applied.protocol, mode, applied.src)
        and requirement.reqid in (0, applied.reqid)
        and requirement.dst in (b"", applied.dst)
    )
