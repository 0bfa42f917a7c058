"""Requests that are about SAs and policies at once: ACQUIRE as a client sends it (RFC 2367 §3.1.6), and Linux's X_MIGRATE."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from koura.errors import Errno, Refused
from koura.moment import Moment
from koura.pfkey import show, terms
from koura.pfkey.numbers import Ext, Type
from koura.pfkey.policy import PolicyExtension, agree
from koura.pfkey.request import Request
from koura.pfkey.rules import RULES
from koura.pfkey.sockets import Audience, Outgoing
from koura.pfkey.tell import Tell, Wanted
from koura.sadb.agreement import Agreement
from koura.sadb.association import Association, State
from koura.sadb.database import Database as Sad
from koura.saindex import Mode, SaIndex
from koura.spd.database import Database as Spd
from koura.spd.policy import Policy, Requirement

Reply = tuple[Outgoing, Audience] | None
Ask = Callable[[SaIndex, Moment], int | None]


@dataclass(slots=True)
class Relations:
    """The handlers, around both databases. `ask(relation, at)`: the number of an ACQUIRE for it; None: one went out lately."""

    sad: Sad
    spd: Spd
    ask: Ask

    def relay(self, request: Request, tell: Tell) -> Reply:
        """ACQUIRE with addresses and a proposal: our own ACQUIRE goes to the key managers, like one for a packet, and is not repeated
        sooner. EEXIST if there is an SA that would do."""
        for ext in (Ext.ADDRESS_SRC, Ext.ADDRESS_DST, Ext.PROPOSAL):
            if ext not in request.values:
                raise Refused(Errno.EINVAL, f"ACQUIRE needs both addresses and a proposal, or nothing; {ext.name} is missing")
        relation = terms.index(request)
        if any(_serves(sa.agreement.index, relation) for sa in self.sad.between(relation.src, relation.dst, relation.protocol)):
            raise Refused(Errno.EEXIST, "there is an SA for this relation")
        seq = self.ask(relation, request.at)
        if seq is None:
            return None
        return tell.acquire_message(Wanted(relation, seq, identities=terms.identities(request))), Audience.SATYPE

    def migrate(self, request: Request) -> Reply:
        """X_MIGRATE: endpoints of one policy, and of the SAs it uses, change from the first of each pair of requests to the second.

        The policy keeps selector and priority, and gets a new id. Reqids that we chose are chosen anew, the SAs follow.
        """
        dialect = request.socket.dialect
        selector = show.selector_of(request.src, request.dst, request.policy, dialect)
        pairs = _pairs(request.policy, request)
        entry = self.spd.find(selector)
        if entry is None:
            raise Refused(Errno.ENOENT, "no policy has this selector")
        wanted = replace(entry.policy, requirements=tuple(_moved(one, pairs) for one in entry.policy.requirements))
        moving = self._concerned(entry.policy, wanted)
        self._check_free(moving)
        now = self.spd.replace(wanted, request.at, dialect.reqid_max)
        for sa, agreement, place in moving:
            reqid = now.policy.requirements[place].reqid if agreement.index.reqid else 0
            self.sad.renew(sa, replace(agreement, index=replace(agreement.index, reqid=reqid)))
        return request.echo(*RULES[Type.X_MIGRATE].out), Audience.ALL

    def _concerned(self, old: Policy, new: Policy) -> list[tuple[Association, Agreement, int]]:
        """The SAs that serve a request whose endpoints change, what they become, and which request it is. ENOENT if none changes."""
        found = []
        for place, (before, after) in enumerate(zip(old.requirements, new.requirements, strict=True)):
            if before == after:
                continue
            for sa in self.sad.between(before.src, before.dst, before.protocol):
                index = sa.agreement.index
                serves = index.mode in (Mode.ANY, before.mode) and before.reqid in (0, index.reqid)
                if serves and sa.state is not State.LARVAL:
                    found.append((sa, replace(sa.agreement, index=replace(index, src=after.src, dst=after.dst)), place))
        if old == new:
            raise Refused(Errno.ENOENT, "none of the policy's requests has these endpoints")
        return found

    def _check_free(self, moving: list[tuple[Association, Agreement, int]]) -> None:
        """Raises Refused(EEXIST) if a moved SA would meet another under its SPI."""
        taken = set()
        for sa, agreement, _ in moving:
            index = agreement.index
            there = self.sad.by_spi(index.dst, index.protocol, agreement.spi, index.src)
            key = (index.dst, index.protocol, agreement.spi)
            if (there is not None and there is not sa) or key in taken:
                raise Refused(Errno.EEXIST, f"SPI {agreement.spi:#x} is taken at the new destination")
            taken.add(key)


def _serves(index: SaIndex, wanted: SaIndex) -> bool:
    """Whether an SA would do: a reqid that is asked for is its own, and its mode is the one asked for, or any."""
    return wanted.reqid in (0, index.reqid) and index.mode in (Mode.ANY, wanted.mode)


def _pairs(extension: PolicyExtension, request: Request) -> list[tuple[Requirement, Requirement]]:
    """Requests by two: where from, where to. Raises Refused(EINVAL)."""
    requirements = agree(extension, request.socket.dialect).requirements
    if not requirements or len(requirements) % 2:
        raise Refused(Errno.EINVAL, "MIGRATE takes pairs of requests: where from, where to")
    pairs = list(zip(requirements[::2], requirements[1::2], strict=True))
    for old, new in pairs:
        if (old.protocol, old.mode) != (new.protocol, new.mode) or not (old.src and new.src and len(new.src) == len(new.dst)):
            raise Refused(Errno.EINVAL, "both requests of a pair have addresses, one protocol and one mode")
    return pairs


def _moved(requirement: Requirement, pairs: list[tuple[Requirement, Requirement]]) -> Requirement:
    for old, new in pairs:
        same = (old.protocol, old.mode, old.src, old.dst) == (requirement.protocol, requirement.mode, requirement.src, requirement.dst)
        if same and old.reqid in (0, requirement.reqid):
            return replace(requirement, src=new.src, dst=new.dst)
    return requirement
