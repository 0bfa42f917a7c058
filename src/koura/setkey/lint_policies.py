"""Questions about policies: whether they can ever match, whether SAs can serve them, and where protected traffic could leave in clear:

    shadowed-policy  unsatisfied-policy  clear-if-no-sa  clear-by-policy  one-way  only-compressed
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from koura import address
from koura.address import Prefix
from koura.saindex import Direction, Protocol
from koura.setkey.faults import Span
from koura.setkey.finding import Finding, Grade
from koura.setkey.lint_sas import Policies, Sas, wishes
from koura.spd.entry import Entry
from koura.spd.policy import Action, Level, Policy
from koura.spd.selector import ANY_PORT, ANY_PROTOCOL, Selector

_IKE_PORTS = (500, 4500)
_UDP = 17
_MOST_PAIRS = 4_000_000  # of policies that are compared one by one; more are not looked at for overlaps
_MIRROR = {Direction.INBOUND: Direction.OUTBOUND, Direction.OUTBOUND: Direction.INBOUND}
_WORDS = {Direction.INBOUND: "in", Direction.OUTBOUND: "out", Direction.FORWARD: "fwd"}


def policy_findings(policies: Policies, sas: Sas) -> Iterator[Finding]:
    """Everything that is dubious about the policies, which come in SPD order."""
    yield from _shadowed(policies)
    yield from _unsatisfied(policies, sas)
    yield from _clear_if_no_sa(policies)
    yield from _clear_by_policy(policies)
    yield from _one_way(policies)


def _selector(policy: Policy) -> Selector:
    assert policy.selector is not None, "a policy of the SPD has a selector"
    return policy.selector


def _show(selector: Selector) -> str:
    ports = [f"[{port}]" if port else "" for port in (selector.sport, selector.dport)]
    protocol = "any" if selector.protocol == ANY_PROTOCOL else str(selector.protocol)
    return f"{selector.src}{ports[0]} {selector.dst}{ports[1]} {protocol} {_WORDS[selector.direction]}"


# -- policies that never match ------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Shape:
    """Which parts of a packet a selector looks at."""

    direction: Direction
    family: int
    src_bits: int
    dst_bits: int
    parts: tuple[bool, ...]

    @classmethod
    def of(cls, s: Selector) -> "_Shape":
        parts = (s.protocol != ANY_PROTOCOL, s.sport != ANY_PORT, s.dport != ANY_PORT, s.icmp_type is not None, s.icmp_code is not None)
        return cls(s.direction, s.src.family, s.src.bits, s.dst.bits, parts)

    def is_wider(self, other: "_Shape") -> bool:
        """Whether a selector of this shape can cover one of the other."""
        return (
            (self.direction, self.family) == (other.direction, other.family)
            and self.src_bits <= other.src_bits and self.dst_bits <= other.dst_bits
            and all(theirs or not mine for mine, theirs in zip(self.parts, other.parts, strict=True))
        )  # fmt: skip

    def cut(self, s: Selector) -> Selector:
        """The selector, with what this shape does not look at left open."""
        protocol, sport, dport, kind, code = self.parts
        return Selector(
            s.direction, Prefix(s.src.address, self.src_bits), Prefix(s.dst.address, self.dst_bits),
            s.protocol if protocol else ANY_PROTOCOL, s.sport if sport else ANY_PORT, s.dport if dport else ANY_PORT,
            s.icmp_type if kind else None, s.icmp_code if code else None,
        )  # fmt: skip


def _shadowed(policies: Policies) -> Iterator[Finding]:
    """A policy whose every packet an earlier one takes. Looked up by shape: few shapes, however many policies."""
    seen: dict[_Shape, dict[Selector, tuple[Entry, Span]]] = {}
    for entry, span in policies:
        selector = _selector(entry.policy)
        shape = _Shape.of(selector)
        for wider, known in seen.items():
            before = known.get(wider.cut(selector)) if wider.is_wider(shape) else None
            if before is None:
                continue
            same = (before[0].policy.action, before[0].policy.requirements) == (entry.policy.action, entry.policy.requirements)
            effect = "to the same effect" if same else f"and says {before[0].policy.action.name.lower()}"
            why = f"never used: line {before[1].line} ({_show(_selector(before[0].policy))}) takes all its packets first, {effect}"
            yield Finding("shadowed-policy", Grade.WARNING, span, why, "put the narrower policy before the wider one")
            break
        seen.setdefault(shape, {}).setdefault(selector, (entry, span))


# -- policies without SAs -----------------------------------------------------------------------------------------------
def _unsatisfied(policies: Policies, sas: Sas) -> Iterator[Finding]:
    """A request that no SA of the script fits. A script without SAs leaves them to a key manager, and is not asked."""
    if not sas:
        return
    by_pair: dict[tuple[Protocol, bytes, bytes], list[int]] = {}
    by_protocol: dict[Protocol, list[int]] = {}
    for place, (sa, _) in enumerate(sas):
        index = sa.agreement.index
        by_pair.setdefault((index.protocol, index.src, index.dst), []).append(place)
        by_protocol.setdefault(index.protocol, []).append(place)
    for entry, span in policies:
        for requirement, (src, dst), wish in wishes(entry.policy):
            there = by_pair.get((requirement.protocol, src, dst), []) if src else by_protocol.get(requirement.protocol, [])
            if any(wish(sas[place][0].agreement) for place in there):
                continue
            ends = f" between {address.show(src)} and {address.show(dst)}" if src else ""
            reqid = f" with -u {requirement.reqid}" if requirement.reqid else ""
            what = f"{requirement.protocol.name.lower()}/{requirement.mode.name.lower()}"
            why = f"no SA here fits its request {what}: one{ends}{reqid} is missing"
            hint = "a key manager would have to bring it; unique without a number gets an id that no -u can name"
            yield Finding("unsatisfied-policy", Grade.WARNING, span, why, hint)


# -- holes --------------------------------------------------------------------------------------------------------------
def _is_protecting(policy: Policy) -> bool:
    return policy.action is Action.IPSEC and any(r.protocol is not Protocol.IPCOMP for r in policy.requirements)


def _clear_if_no_sa(policies: Policies) -> Iterator[Finding]:
    for entry, span in policies:
        policy = entry.policy
        if policy.action is not Action.IPSEC:
            continue
        if not _is_protecting(policy):
            why = "IPComp alone compresses and protects nothing"
            yield Finding("only-compressed", Grade.WARNING, span, why, "put esp/... behind ipcomp/...")
            continue
        weak = [r for r in policy.requirements if r.level in (Level.USE, Level.DEFAULT) and r.protocol is not Protocol.IPCOMP]
        strong = [r for r in policy.requirements if r.level in (Level.REQUIRE, Level.UNIQUE) and r.protocol is not Protocol.IPCOMP]
        if not weak or strong:
            continue
        leaves = "leaves" if policy.direction is Direction.OUTBOUND else "is accepted"
        is_default = all(r.level is Level.DEFAULT for r in weak)
        level = "default, which is `use` unless a *_deflev variable says 2" if is_default else "use"
        why = f"without an SA this traffic {leaves} in clear: its level is {level}"
        yield Finding("clear-if-no-sa", Grade.WARNING, span, why, "level require (or unique) drops instead")


def _clear_by_policy(policies: Policies) -> Iterator[Finding]:
    """A `none` that stands before protection and takes some of its packets."""
    open_: list[tuple[Entry, Span]] = []
    pairs = 0
    for entry, span in policies:
        policy = entry.policy
        if policy.action is Action.NONE and not _is_for_ike(_selector(policy)):
            open_.append((entry, span))
        if not _is_protecting(policy):
            continue
        for before, where in open_:
            pairs += 1
            if pairs > _MOST_PAIRS:
                return
            one, other = _selector(before.policy), _selector(policy)
            if one.direction is other.direction and _overlap(one, other) and not _covers(one, other):
                leaves = "leaves" if one.direction is Direction.OUTBOUND else "is accepted"
                why = f"part of what this policy protects {leaves} in clear: line {where.line} ({_show(one)}) says none to it"
                yield Finding("clear-by-policy", Grade.WARNING, span, why, "meant so? else let the protecting policy come first")


def _is_for_ike(selector: Selector) -> bool:
    """IKE's own packets must bypass."""
    return selector.protocol == _UDP and (selector.sport in _IKE_PORTS or selector.dport in _IKE_PORTS)


def _near(one: Prefix, other: Prefix) -> bool:
    wider, narrower = (one, other) if one.bits <= other.bits else (other, one)
    return wider.contains(narrower.address)


def _overlap(one: Selector, other: Selector) -> bool:
    """Whether some packet is covered by both."""
    fields = (
        (one.protocol, other.protocol, ANY_PROTOCOL), (one.sport, other.sport, ANY_PORT), (one.dport, other.dport, ANY_PORT),
        (one.icmp_type, other.icmp_type, None), (one.icmp_code, other.icmp_code, None),
    )  # fmt: skip
    return _near(one.src, other.src) and _near(one.dst, other.dst) and all(a == b or any_ in (a, b) for a, b, any_ in fields)


def _covers(wide: Selector, narrow: Selector) -> bool:
    shape = _Shape.of(wide)
    return shape.is_wider(_Shape.of(narrow)) and shape.cut(narrow) == wide


def _one_way(policies: Policies) -> Iterator[Finding]:
    """Protection in one direction only. Looked for by overlap, so that asymmetric pairs count as pairs."""
    protecting = [(entry, span) for entry, span in policies if _is_protecting(entry.policy) and entry.direction in _MIRROR]
    exact = {_selector(entry.policy) for entry, _ in protecting}
    pairs = 0
    for entry, span in protecting:
        back = _reversed(_selector(entry.policy))
        if back in exact:
            continue
        pairs += len(protecting)
        if pairs > _MOST_PAIRS:
            return
        if any(_selector(other.policy).direction is back.direction and _overlap(_selector(other.policy), back) for other, _ in protecting):
            continue
        if entry.direction is Direction.INBOUND:
            why = "what comes in must be protected, but answers leave in clear: no `out` policy mirrors this one"
        else:
            why = "what goes out is protected, but anything is accepted in clear in return: no `in` policy mirrors this one"
        yield Finding("one-way", Grade.WARNING, span, why, f"missing: {_show(back)}")


def _reversed(s: Selector) -> Selector:
    return replace(s, direction=_MIRROR[s.direction], src=s.dst, dst=s.src, sport=s.dport, dport=s.sport)
