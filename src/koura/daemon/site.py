"""The configuration file: a setkey script that is made true as a whole, or not at all; loading it again changes only what differs.

1. The script runs on an empty stack of its own, with the tunables of the real one, or those that are set with it. A command that is
   refused there refuses the file.
2. What came of it is held against the real databases: added, removed (an earlier load had it), unchanged.
3. What somebody else has under the same SPI or selector, and otherwise, refuses the file. Limits are looked at.
4. Only then anything changes; from here on nothing can be refused.

The first step takes most of the time and touches nothing: it is done in slices, between which clients and packets are served. The
others are done in one go, so that nobody sees half a file; where tunables changed meanwhile the script runs anew.

What is unchanged is not touched: an SA keeps its counters and numbers, a policy its id. Policies of one priority stand in the order of
the file, so one that has another place in it now is put in anew. What others added (IKE daemons, setkey) stays, whatever the file
flushes. Host names are not looked up: the file must work before there is a network.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from koura import address
from koura.daemon import codec
from koura.daemon.journal import Journal
from koura.errors import Errno, Refused
from koura.host.entropy import System
from koura.moment import Moment
from koura.pfkey.message import Message
from koura.pfkey.sockets import Delivery
from koura.sadb.agreement import Agreement
from koura.sadb.association import Association, State
from koura.saindex import Protocol
from koura.setkey import parse
from koura.setkey.faults import BadScript
from koura.setkey.run import Answered, Refusal, running
from koura.settings import Settings
from koura.slices import Slices, whole
from koura.spd import language
from koura.spd.entry import Entry
from koura.spd.policy import MAX_MANUAL_REQID, Level, Policy, Requirement
from koura.stack import Stack
from koura.sysctl import tree
from koura.traffic.outcome import Event, ToKeySocket

KEY = b"site"
_SOCKET = 1
_TAKEN = Answered()
Tunables = Sequence[tuple[str, str]]  # names and values


@dataclass(frozen=True, slots=True)
class Owned:
    """What the file has: SAs by their order, policies by their id."""

    sas: frozenset[int] = frozenset()
    policies: frozenset[int] = frozenset()


@dataclass(slots=True)
class Diff:
    """What a load does, or would: a line for each change, and how many there are."""

    lines: list[str] = field(default_factory=list)
    added: int = 0
    removed: int = 0
    unchanged: int = 0
    events: list[Event] = field(default_factory=list)

    def note(self, sign: str, what: str) -> None:
        self.lines.append(f"{sign} {what}")
        self.added += sign in "+~"
        self.removed += sign in "-~"


@dataclass(slots=True)
class _Plan:
    """What is to be done. keep: what the file has from now on, of what is there."""

    add_sas: list[Agreement] = field(default_factory=list)
    drop_sas: list[Association] = field(default_factory=list)
    keep_sas: list[Association] = field(default_factory=list)
    add_policies: list[Policy] = field(default_factory=list)
    drop_policies: list[Entry] = field(default_factory=list)
    keep_policies: list[Entry] = field(default_factory=list)
    diff: Diff = field(default_factory=Diff)


class Site:
    """The file of one engine."""

    def __init__(self, stack: Stack, book: Journal) -> None:
        self._stack = stack
        self._book = book
        self._owned = Owned()

    def resume(self, kept: Mapping[bytes, bytes]) -> None:
        """What the file had with an engine before."""
        if KEY in kept:
            owned = codec.read(Owned, kept[KEY])
            # Orders of SAs that have gone are given out again.
            self._owned = Owned(owned.sas & {sa.order for sa in self._stack.sadb}, owned.policies)

    def load(self, scripts: Sequence[tuple[str, str]], at: Moment, *, is_trial: bool = False) -> Diff:
        """Make the scripts true, each a name and its text, one behind the other.

        Raises Refused with every fault, and nothing has changed. is_trial: only say what would change.
        """
        return whole(self.loading(scripts, lambda: at, is_trial=is_trial))

    def loading(
        self, scripts: Sequence[tuple[str, str]], now: Callable[[], Moment], tunables: Tunables = (), *, is_trial: bool = False
    ) -> Slices[Diff]:
        """The same in slices. tunables: set at the same moment; the scripts are tried with them."""
        settings = None
        while settings is not self._stack.settings:
            settings = self._stack.settings
            changes = tree.set_values(settings, tunables)
            wanted = yield from self._run(scripts, changes[-1].settings if changes else settings, now())
        at = now()
        plan = _Plan()
        self._plan_sas(plan, list(wanted.sadb))
        self._plan_policies(plan, sorted(wanted.spd.entries(), key=lambda entry: entry.id))
        self._check_limits(plan, wanted)
        if not is_trial:
            for change in changes:
                self._stack.tune(change.names[0], change.new)
                if change.old != change.new:  # a person may have set it already
                    plan.diff.lines.append(f"~ {change.names[0]}: {change.old} -> {change.new}")
            self._do(plan, at)
        return plan.diff

    def _run(self, scripts: Iterable[tuple[str, str]], settings: Settings, at: Moment) -> Slices[Stack]:
        """1. The scripts on a stack of their own. Raises Refused."""
        stack = Stack(System(), settings)
        stack.server.opened(_SOCKET, is_deaf=True)

        def ask(message: Message) -> Answered:
            refused = stack.server.take(_SOCKET, message, at)  # nobody waits for anything here: no more is to be done
            return _TAKEN if refused is None else Answered(refused.errno.bsd, refused.why)

        read = []
        for name, text in scripts:
            read.append((yield from parse.checking(text, name)))
        faults = [fault for script in read for fault in script.faults]
        refusals: list[Refusal] = []
        try:
            if faults:
                raise BadScript(tuple(faults[: parse.MAX_FAULTS]))
            for script in read:
                refusals += yield from running(script, ask)
        except BadScript as bad:
            raise Refused(Errno.EINVAL, str(bad)) from bad
        lasting = [str(refusal.fault) for refusal in refusals if refusal.is_lasting]
        lasting += [f"{_show_sa(sa.agreement)}: an SA without keys has no place in a file" for sa in stack.sadb if sa.state is State.LARVAL]
        if lasting:
            raise Refused(Errno.EINVAL, "\n".join(lasting[: parse.MAX_FAULTS]))
        return stack

    # -- 2 and 3 -------------------------------------------------------------------------------------------------------

    def _plan_sas(self, plan: _Plan, wanted: list[Association]) -> None:
        sadb, owned = self._stack.sadb, self._owned.sas
        for one in wanted:
            standing = self._standing(one.agreement)
            if standing is None:
                plan.add_sas.append(one.agreement)
                plan.diff.note("+", _show_sa(one.agreement))
            elif _plain(standing.agreement) == _plain(one.agreement):
                plan.keep_sas.append(standing)
            elif standing.order in owned:
                plan.drop_sas.append(standing)
                plan.add_sas.append(one.agreement)
                plan.diff.note("~", _show_sa(one.agreement))
            else:
                raise Refused(Errno.EEXIST, f"{_show_sa(one.agreement)}: somebody else has another SA there; delete it first")
        stay = {sa.order for sa in (*plan.keep_sas, *plan.drop_sas)}
        for sa in sadb:
            if sa.order in owned and sa.order not in stay:
                plan.drop_sas.append(sa)
                plan.diff.note("-", _show_sa(sa.agreement))
        plan.diff.unchanged += len(plan.keep_sas)

    def _standing(self, agreement: Agreement) -> Association | None:
        """The SA that is where this one would be."""
        index = agreement.index
        if index.protocol is Protocol.TCP:
            return next(iter(self._stack.sadb.between(index.src, index.dst, index.protocol)), None)
        found = self._stack.sadb.by_spi(index.dst, index.protocol, agreement.spi, index.src)
        return found if found is not None and found.agreement.spi == agreement.spi else None

    def _plan_policies(self, plan: _Plan, wanted: list[Entry]) -> None:
        spd, owned = self._stack.spd, self._owned.policies
        last: dict[tuple[int, str, int], tuple[int, int] | None] = {}  # by what shares an order: the last place; None: all behind are new
        for one in wanted:
            policy = one.policy
            assert policy.selector is not None
            standing = spd.find(policy.selector, policy.interface)
            group = (policy.direction, policy.interface, policy.priority)
            before = last.setdefault(group, (policy.priority, 0))
            is_same = standing is not None and _asked(standing.policy) == _asked(policy)
            if is_same and standing is not None and before is not None and standing.order > before:
                last[group] = standing.order
                plan.keep_policies.append(standing)
                continue
            if standing is not None and standing.id not in owned:
                if is_same:
                    raise Refused(Errno.EEXIST, f"{_show_policy(policy)}: somebody else has it in another place; delete it first")
                raise Refused(Errno.EEXIST, f"{_show_policy(policy)}: somebody else has another policy there; delete it first")
            last[group] = None
            plan.add_policies.append(_asked(policy))
            if standing is not None:
                plan.drop_policies.append(standing)
            plan.diff.note("+" if standing is None else "~", _show_policy(policy))
        stay = {entry.id for entry in (*plan.keep_policies, *plan.drop_policies)}
        for entry in spd.entries():
            if entry.id in owned and entry.id not in stay:
                plan.drop_policies.append(entry)
                plan.diff.note("-", _show_policy(entry.policy))
        plan.diff.unchanged += len(plan.keep_policies)

    def _check_limits(self, plan: _Plan, wanted: Stack) -> None:
        stack, limits = self._stack, wanted.settings.limits
        if len(stack.sadb) - len(plan.drop_sas) + len(plan.add_sas) > limits.associations:
            raise Refused(Errno.ENOBUFS, f"more than {limits.associations} SAs (net.koura.limits.associations)")
        if len(stack.spd) - len(plan.drop_policies) + len(plan.add_policies) > limits.policies:
            raise Refused(Errno.ENOBUFS, f"more than {limits.policies} policies (net.koura.limits.policies)")
        if stack.sadb.windows_octets + wanted.sadb.windows_octets > limits.windows_octets:
            raise Refused(Errno.ENOBUFS, "no memory left for replay windows (net.koura.limits.windows_octets)")

    # -- 4 -------------------------------------------------------------------------------------------------------------

    def _do(self, plan: _Plan, at: Moment) -> None:
        stack = self._stack
        told: list[Delivery] = []
        tell = stack.server.tell
        for sa in plan.drop_sas:
            told += tell.changed(sa, is_added=False)
            stack.sadb.remove(sa)
        for entry in plan.drop_policies:
            stack.spd.remove_id(entry.id)
            told += tell.announce(entry, is_added=False)
        added = [stack.sadb.add(agreement, at) for agreement in plan.add_sas]
        entries = [stack.spd.add(policy, at) for policy in plan.add_policies]
        for sa in added:
            told += tell.changed(sa, is_added=True)
        for entry in entries:
            told += tell.announce(entry, is_added=True)
        plan.diff.events += [ToKeySocket(delivery.socket, delivery.octets) for delivery in told]
        self._owned = Owned(
            frozenset(sa.order for sa in (*plan.keep_sas, *added)), frozenset(entry.id for entry in (*plan.keep_policies, *entries))
        )
        self._book.keep(KEY, codec.write(self._owned))
        plan.diff.events += stack.advance(at)


def _plain(agreement: Agreement) -> Agreement:
    """What a file can say: not who asked, not where a peer is by now, and not the number that a TCP-MD5 key has inside."""
    spi = 0 if agreement.index.protocol is Protocol.TCP else agreement.spi
    around = agreement.encapsulation
    if around is not None and any(around.agreed):
        around = replace(around, sport=around.agreed[0], dport=around.agreed[1], peer=b"", agreed=(0, 0))
    return replace(agreement, seq=0, pid=0, spi=spi, encapsulation=around)


def _asked(policy: Policy) -> Policy:
    """The policy as it was asked for: reqids that were chosen for it are not in it."""
    if not any(_is_chosen(each) for each in policy.requirements):
        return policy
    return replace(policy, requirements=tuple(replace(each, reqid=0) if _is_chosen(each) else each for each in policy.requirements))


def _is_chosen(requirement: Requirement) -> bool:
    return requirement.level is Level.UNIQUE and requirement.reqid > MAX_MANUAL_REQID


def _show_sa(agreement: Agreement) -> str:
    index = agreement.index
    return f"SA {address.show(index.src)} {address.show(index.dst)} {index.protocol.name.lower()} {agreement.spi:#x}"


def _show_policy(policy: Policy) -> str:
    return " ".join(("policy", *_ends(policy), *language.show(_asked(policy), " ").split()))


def _ends(policy: Policy) -> Iterator[str]:
    selector = policy.selector
    assert selector is not None
    for prefix, port in ((selector.src, selector.sport), (selector.dst, selector.dport)):
        yield f"{address.show(prefix.address)}/{prefix.bits}[{port or 'any'}]"
    yield "any" if selector.protocol == 255 else str(selector.protocol)
