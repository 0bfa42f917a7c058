"""SPDADD, SPDUPDATE, SPDSETIDX, SPDDELETE, SPDDELETE2, SPDGET, SPDFLUSH, SPDDUMP. pfkey.md §5.2; S13, S14, S27.

A handler changes the SPD or raises Refused and has changed nothing; it returns the reply and who gets it.
"""

from dataclasses import dataclass, replace

from koura.errors import Errno, Refused
from koura.pfkey import extensions as x
from koura.pfkey import policy as policies
from koura.pfkey import show
from koura.pfkey.dialect import Dialect
from koura.pfkey.dump import Dump
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.pfkey.ours import FORWARD, KEEP_REQIDS, KouraPolicy, merged
from koura.pfkey.request import Request
from koura.pfkey.rules import RULES, Extensions
from koura.pfkey.sockets import Audience, Outgoing
from koura.settings import Settings
from koura.spd.database import Database
from koura.spd.entry import Entry, id_from_linux_index
from koura.spd.policy import Action, Level, Policy, Scope

Reply = tuple[Outgoing, Audience] | None
_ORDERS = {kind: rule.out for kind, rule in RULES.items()}


@dataclass(slots=True)
class PolicyRequests:
    """The handlers, around the SPD they serve. `settings` is replaced when a tunable changes."""

    spd: Database
    settings: Settings

    def add(self, request: Request) -> Reply:
        """SPDADD and SPDSETIDX: EEXIST if the selector stands already."""
        return self._insert(request, is_update=False)

    def update(self, request: Request) -> Reply:
        """SPDUPDATE: replaces what has the same selector, or creates; a bad one leaves the old one (S13)."""
        return self._insert(request, is_update=True)

    def _insert(self, request: Request, is_update: bool) -> Reply:
        ours = request.find(KouraPolicy, Ext.X_KOURA_POLICY)
        dialect, extension = _speaking(request, ours), merged(request.policy, ours)
        if extension.type > Action.IPSEC:
            raise Refused(Errno.EINVAL, "the SPD takes discard, none or ipsec; the others are for sockets")
        selector = show.selector_of(request.src, request.dst, extension, dialect)
        hard = request.find(x.Lifetime, Ext.LIFETIME_HARD)
        policy = policies.agree(extension, dialect, selector)
        if hard is not None:
            policy = replace(policy, lifetime_s=hard.add_s, valid_s=hard.use_s)
        change = self.spd.replace if is_update else self.spd.add
        keeps_reqids = ours is not None and bool(ours.flags & KEEP_REQIDS)
        entry = change(policy, request.at, dialect.reqid_max, keeps_reqids)
        return _answer(request, _with_reqid(extension, entry.policy), entry), Audience.ALL

    def delete(self, request: Request) -> Reply:
        """SPDDELETE by selector: of the policy extension only the direction counts. ENOENT if nothing has it (S27)."""
        dialect, extension = _speaking(request, request.find(KouraPolicy, Ext.X_KOURA_POLICY)), request.policy
        if extension.type > Action.IPSEC and not dialect.is_lenient:
            raise Refused(Errno.EINVAL, "the SPD has discard, none or ipsec only")
        selector = show.selector_of(request.src, request.dst, extension, dialect)
        if self.settings.compat_errno and self.spd.find(selector) is None:
            raise Refused(Errno.EINVAL, "no policy has this selector")
        entry = self.spd.remove(selector)
        return _answer(request, extension, entry), Audience.ALL

    def delete_id(self, request: Request) -> Reply:
        """SPDDELETE2. EACCES for an interface's policy."""
        number = self._id(request)
        if self.spd.get(number) is None:
            raise Refused(request.socket.dialect.missing_id, f"no policy has the id {request.policy.id}")
        self.spd.remove_id(number)
        return request.echo(*_ORDERS[Type.X_SPDDELETE2]), Audience.ALL

    def get(self, request: Request) -> Reply:
        """SPDGET by id."""
        entry = self.spd.get(self._id(request))
        if entry is None:
            raise Refused(Errno.ENOENT, f"no policy has the id {request.policy.id}")
        said = show.entry_extensions(entry, request.socket.dialect)
        head = request.head
        return Outgoing.of(Message(head.type, head.satype, head.seq, head.pid, 0, show.REFERENCES + 1, said)), Audience.ONE

    def flush(self, request: Request) -> Reply:
        """SPDFLUSH: what interfaces and sockets own stays. FreeBSD refuses one that says more than that."""
        if request.values and not request.socket.dialect.is_lenient:
            raise Refused(Errno.EINVAL, "SPDFLUSH has no extensions: it removes all policies")
        self.spd.flush(Scope.GLOBAL)
        return request.echo(), Audience.ALL

    def dump(self, request: Request) -> Reply:
        """SPDDUMP: the satype is a mask of scopes. The entries wait in the socket until they are pulled."""
        dialect, head = request.socket.dialect, request.head
        scopes = 0 if dialect.is_lenient else dialect.satypes.theirs(head.satype)
        entries = self.spd.entries(scopes)
        if not entries:
            raise Refused(Errno.ENOENT, "no policies")

        def one(entry: Entry, seq: int) -> Message:
            return Message(head.type, SaType.UNSPEC, seq, head.pid, 0, show.REFERENCES, show.entry_extensions(entry, dialect))

        request.socket.dumps.append(Dump(entries, one, dialect))
        return None

    def _id(self, request: Request) -> int:
        number = request.policy.id
        return id_from_linux_index(number) if request.socket.dialect.has_linux_ids else number


def _speaking(request: Request, ours: KouraPolicy | None) -> Dialect:
    """The client's dialect, with the direction forward where our extension says it."""
    dialect = request.socket.dialect
    return replace(dialect, has_forward=True) if ours is not None and ours.flags & FORWARD else dialect


def _answer(request: Request, shown: policies.PolicyExtension, entry: Entry) -> Outgoing:
    """The request's extensions again, the policy with its id: each dialect has ids of its own."""

    def numbered(dialect: Dialect) -> Extensions:
        return {Ext.X_POLICY: shown.numbered(show.entry_id(entry, dialect))}

    return request.answer(_ORDERS[request.head.type], numbered(request.socket.dialect), numbered)


def _with_reqid(extension: policies.PolicyExtension, policy: Policy) -> policies.PolicyExtension:
    """The policy as asked for, each unique request with the reqid it got."""
    got = [
        replace(one, reqid=need.reqid) if need.level is Level.UNIQUE else one
        for one, need in zip(extension.requests, policy.requirements, strict=False)
    ]  # fmt: skip
    return replace(extension, requests=(*got, *extension.requests[len(got) :]))
