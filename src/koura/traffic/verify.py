"""Whether what came off a packet is what inbound policy demands: the decapsulation history, in order. RFC 4301 §5.2 step 4.

The problem (the BUGS of the 2007 page, R52-R54): the policy is about the inner packet, but AH may have authenticated an outer one
that is gone by then. So each header that comes off leaves an Applied, and the list is compared with the policy's requests.

Requests stand in the order they are applied: requests[0] is innermost on the wire. The history is outermost first. So

    policy      esp/tunnel/A-B/use   ah/transport/A-B/require
    on the wire                      IP | AH | ESP | IP | payload
    history     [AH transport, ESP tunnel]          expected, outermost first: [ah/transport, esp/tunnel]

The rules:

1. History and expectation are walked together; every entry must be accounted for by a request, in order. A request with level use,
   and IPComp at any level (its packets may go uncompressed, RFC 3173 §2.2), may be passed over; others may not.
2. An entry satisfies a request of its protocol whose mode is the SA's - for an SA of mode `any` the mode that the packet showed:
   tunnel when an outer header came off -, whose reqid, if it has one, is the SA's, and whose addresses are the SA's.
3. A transport request without addresses wants an SA from the host that the next header inside names as the source: the tunnel's
   end, or for the innermost one the packet's own source. Else one peer could speak for another with its own SA.
4. IPComp in a tunnel that left the packet alone is plain IP in IP, whose header an SA of mode `any` around it takes off (observed
   in FreeBSD, too): such an entry may stand for its own transport request and the IPComp tunnel below it.

5. What stands outside a tunnel may be another policy's: that of the tunnel's own packets, as in the manual page's two policies

       policy      10.0.1.0/24 10.0.2.0/24   esp/tunnel/A-B/require           policy   A B   ah/transport//require
       on the wire                           IP | AH | ESP | IP | payload

   A peer that looks its tunnel packets up again (Linux) sends this; FreeBSD and Koura do not, and are not asked for it.

With check_policy_history 0 only FreeBSD's flags are looked at: was there ESP, was there AH; unlike FreeBSD's they outlive a
tunnel for both families (R52, S12). Not here: which policy is asked, and what `discard` or `none` mean (inbound).
"""

from collections.abc import Callable, Iterator

from koura.address import is_unspecified
from koura.reasons import POLICY_IN_CLEAR, POLICY_IN_EXTRA, POLICY_IN_MISSING, POLICY_IN_ORDER, Discarded, Ending
from koura.saindex import Mode, Protocol
from koura.settings import Settings
from koura.spd.policy import Policy, Requirement
from koura.spd.selector import Flow
from koura.traffic.levels import is_needed, selector_family
from koura.traffic.outcome import Applied

_Requests = tuple[Requirement, ...]
_Needed = Callable[[Requirement], bool]


def check(policy: Policy, history: tuple[Applied, ...], flow: Flow, settings: Settings) -> None:
    """Hold the history of a packet with this flow against an ipsec policy. Raises Discarded(POLICY_IN_*)."""
    side = selector_family(policy, flow)

    def needed(requirement: Requirement) -> bool:
        return requirement.protocol is not Protocol.IPCOMP and is_needed(requirement, side, settings)

    expected = policy.requirements[::-1]
    if settings.check_policy_history:
        _check_order(expected, history, flow, needed)
    else:
        _check_flags(expected, history, needed)


def passes(policy: Policy, history: tuple[Applied, ...], flow: Flow, settings: Settings) -> bool:
    """Whether `check` has nothing against it."""
    try:
        check(policy, history, flow, settings)
    except Discarded:
        return False
    return True


def parted(history: tuple[Applied, ...]) -> Iterator[tuple[tuple[Applied, ...], Flow, tuple[Applied, ...]]]:
    """Rule 5, at each tunnel inside another entry: what came off outside it, the flow of its own packets, it and all inside."""
    for at, applied in enumerate(history):
        if at and applied.was_tunnel:
            yield history[:at], Flow(applied.src, applied.dst, int(applied.protocol)), history[at:]


def _check_flags(expected: _Requests, history: tuple[Applied, ...], needed: _Needed) -> None:
    """FreeBSD's check without history: each protocol that is needed came off at least once."""
    seen = {applied.protocol for applied in history}
    for requirement in expected:
        if needed(requirement) and requirement.protocol not in seen:
            raise Discarded(POLICY_IN_MISSING if seen & {Protocol.ESP, Protocol.AH} else POLICY_IN_CLEAR)


def _check_order(expected: _Requests, history: tuple[Applied, ...], flow: Flow, needed: _Needed) -> None:
    sources = _sources(history, flow)
    if _accounts(expected, history, sources, needed):
        return
    if not history:
        raise Discarded(POLICY_IN_CLEAR)
    raise Discarded(_why(expected, history, sources, needed))


def _accounts(expected: _Requests, history: tuple[Applied, ...], sources: tuple[bytes, ...], needed: _Needed) -> bool:
    """Whether some walk accounts for every entry and passes over no needed request. At most 4 requests: recursion is bounded."""
    if not expected:
        return not history
    first, rest = expected[0], expected[1:]
    if history and _satisfies(first, history[0], sources[0]) and _accounts(rest, history[1:], sources[1:], needed):
        return True
    if history and _is_ipcomp_tunnel(rest) and _swallowed(first, history[0], rest[0]):
        return _accounts(rest[1:], history[1:], sources[1:], needed)
    return not needed(first) and _accounts(rest, history, sources, needed)


def _is_ipcomp_tunnel(rest: _Requests) -> bool:
    return bool(rest) and rest[0].protocol is Protocol.IPCOMP and rest[0].mode is Mode.TUNNEL


def _satisfies(requirement: Requirement, applied: Applied, source: bytes) -> bool:
    """Rule 2, and rule 3 by `source`: whom the header inside names as sender."""
    mode = _mode(applied)
    if requirement.protocol != applied.protocol or requirement.mode != mode:
        return False
    if requirement.reqid and requirement.reqid != applied.reqid:
        return False
    if not _is_open(requirement.dst) and requirement.dst != applied.dst:
        return False
    if _is_open(requirement.src):
        return mode == Mode.TUNNEL or applied.src == source
    return applied.src == requirement.src


def _is_open(address: bytes) -> bool:
    return not address or is_unspecified(address)


def _mode(applied: Applied) -> int:
    if applied.mode != Mode.ANY:
        return applied.mode
    return Mode.TUNNEL if applied.was_tunnel else Mode.TRANSPORT


def _swallowed(requirement: Requirement, applied: Applied, ipcomp: Requirement) -> bool:
    """Rule 4: an SA of mode any took off the header of an IPComp tunnel that had compressed nothing."""
    if applied.mode != Mode.ANY or not applied.was_tunnel or requirement.mode is not Mode.TRANSPORT:
        return False
    as_transport = Applied(applied.protocol, Mode.TRANSPORT, False, applied.spi, applied.src, applied.dst, applied.reqid)
    return ipcomp.dst == applied.dst and _satisfies(requirement, as_transport, ipcomp.src)


def _sources(history: tuple[Applied, ...], flow: Flow) -> tuple[bytes, ...]:
    """For each entry, the source address of the packet that its SA was applied to: rule 3."""
    found = []
    source = flow.src
    for applied in reversed(history):
        found.append(source)
        if _mode(applied) == Mode.TUNNEL:
            source = applied.src
    return tuple(reversed(found))


def _why(expected: _Requests, history: tuple[Applied, ...], sources: tuple[bytes, ...], needed: _Needed) -> Ending:
    """The most telling fault: a request that nothing on the packet satisfies, then an entry nobody asked for, else their order."""
    free = list(expected)
    is_extra = False
    for applied, source in zip(history, sources, strict=True):
        taken = next((requirement for requirement in free if _satisfies(requirement, applied, source)), None)
        if taken is None:
            is_extra = True
        else:
            free.remove(taken)
    if any(needed(requirement) for requirement in free):
        return POLICY_IN_MISSING
    return POLICY_IN_EXTRA if is_extra else POLICY_IN_ORDER
