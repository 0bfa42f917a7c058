"""Which SAs an outbound packet goes through: the requests of its policy, in order, each with the SA that serves it. RFC 4301 §5.1.

All SAs are chosen before anything is sealed, so that a packet which must wait or end for a missing one has used up no sequence
numbers (FreeBSD's has), and so that its final size is known exactly before the first header is written (S29).

    requests      esp/tunnel/A-B/require   ah/transport//require
    packet x>y    step 1: wrap A>B, ESP under the SA A>B      step 2: no wrap, AH under the SA A>B

Where an SA's destination, or its family, is not the packet's, the packet is wrapped even under a transport request ("proxy",
processing.md §2 step 14). Not here: what happens to the packet (outbound), and ACQUIRE (outbound asks, pfkey writes it).
"""

from dataclasses import dataclass

from koura.address import family, is_unspecified
from koura.quick import quick
from koura.reasons import NATT_AMBIGUOUS, SA_ENDPOINTS, Discarded
from koura.sadb.association import Association
from koura.sadb.database import Database
from koura.saindex import Mode, SaIndex
from koura.settings import Settings
from koura.spd.policy import Policy, Requirement
from koura.spd.selector import Flow
from koura.traffic.levels import is_needed, selector_family


@dataclass(frozen=True, slots=True)
class Step:
    """One SA to go through. `outer`: source and destination of the IP header to wrap the packet in first, None for none."""

    requirement: Requirement
    sa: Association
    outer: tuple[bytes, bytes] | None


@quick
@dataclass(frozen=True, slots=True)
class Missing:
    """A request without an SA, and under which relation one would have been found."""

    requirement: Requirement
    index: SaIndex
    is_needed: bool


@dataclass(frozen=True, slots=True)
class Bundle:
    """The answer. `missing` is in the order of the requests and ends at the first that is needed: those behind it were not asked."""

    steps: tuple[Step, ...]
    missing: tuple[Missing, ...]

    @property
    def wanted(self) -> Missing | None:
        """The request without which the packet may not go; None: it may, through the steps there are (S39)."""
        return self.missing[-1] if self.missing and self.missing[-1].is_needed else None


def choose(policy: Policy, flow: Flow, sadb: Database, settings: Settings, port: int | None = None) -> Bundle:
    """Choose an SA for each request of an ipsec policy. Raises Discarded(SA_ENDPOINTS) for a tunnel that leads nowhere.

    port: which of several peers behind one NAT the packet is for (latches); Discarded(NATT_AMBIGUOUS) where there are and nothing says.
    """
    side = selector_family(policy, flow)
    is_oldest = bool(settings.key.preferred_oldsa)
    src, dst = flow.src, flow.dst
    steps: list[Step] = []
    missing: list[Missing] = []
    for requirement in policy.requirements:
        index = _index(requirement, src, dst)
        is_shared = sadb.encapsulated.has_shared and requirement.mode is Mode.TRANSPORT and sadb.leads_apart(index)
        if is_shared and port is None:
            raise Discarded(NATT_AMBIGUOUS)
        sa = sadb.outbound(index, is_oldest, port if is_shared else None)
        if sa is None:
            missing.append(Missing(requirement, index, is_needed(requirement, side, settings)))
            if missing[-1].is_needed:
                break
            continue
        outer = None
        sa_dst = sa.agreement.goes_to if requirement.mode is Mode.TUNNEL else sa.agreement.index.dst
        if requirement.mode is Mode.TUNNEL or sa_dst != dst:
            sa_src = sa.agreement.index.src
            src, dst = (index.src if is_unspecified(sa_src) else sa_src), sa_dst
            outer = (src, dst)
        steps.append(Step(requirement, sa, outer))
    return Bundle(tuple(steps), tuple(missing))


def _index(requirement: Requirement, src: bytes, dst: bytes) -> SaIndex:
    """The relation a request asks for: its own addresses where it has them, else the packet's as it is by then."""
    if requirement.mode is Mode.TUNNEL:
        if not requirement.src or not requirement.dst or is_unspecified(requirement.src) or is_unspecified(requirement.dst):
            raise Discarded(SA_ENDPOINTS)
        if family(requirement.src) is not family(requirement.dst):
            raise Discarded(SA_ENDPOINTS)
    src = requirement.src if requirement.src and not is_unspecified(requirement.src) else src
    dst = requirement.dst if requirement.dst and not is_unspecified(requirement.dst) else dst
    return SaIndex(src, dst, requirement.protocol, requirement.mode, requirement.reqid)
