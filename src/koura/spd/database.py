"""The SPD: policies in order, and the first that covers a flow. RFC 4301 §4.4.1; M5-M10, M22, M31-M33; S8, S13.

Rules of the file:

- Order is priority ascending, then insertion (M9); the first match wins, however specific a later one is.
- A selector (its direction included) stands once among the global policies, and once among those of one interface; a second
  one is EEXIST. `replace` puts the new one in only when it is valid (S13), and puts it last among its priority.
- Policies of an interface (M8, M22) are seen by `match` only with that interface's name; those of a socket never.
- Every change adds one to `generation`, so that a cache of answers knows when it is stale (M5).
- Ids count up from 1, never come back, and are 32 bits on the wire; `entry.linux_index` says how Linux shows them.

Not here: what is done with a match, levels and defaults (traffic), and PF_KEY's messages about changes (pfkey).
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from koura.errors import Errno, Refused
from koura.moment import Moment
from koura.saindex import Direction
from koura.spd.classifier import Classifier
from koura.spd.entry import Entry
from koura.spd.names import Named, Names
from koura.spd.policy import Action, Policy, Scope
from koura.spd.reqids import REQID_END_U16, Reqids
from koura.spd.selector import Flow, Selector
from koura.spd.sockets import SocketPolicies
from koura.spd.validity import check_entry, check_socket

DUMP_ORDER = (Direction.INBOUND, Direction.OUTBOUND, Direction.FORWARD)


class _Space:
    """The policies of one direction that are looked up together: all global ones, or one interface's."""

    __slots__ = ("by_selector", "classifier")

    def __init__(self) -> None:
        self.by_selector: dict[Selector, Entry] = {}
        self.classifier: Classifier[Entry] = Classifier()


class Database:
    """All policies of one stack. `limit`: how many at most, sockets' included (net.koura.limits.policies); beyond: ENOBUFS.

    `tunnels`: the reqids of interfaces' policies, with how many hold each (whoever delivers their packets must ask which interface).
    `noted(entry)` hears of every entry that came or went: whoever keeps a copy of the database sets it.
    """

    def __init__(self, limit: int = 1_000_000) -> None:
        self.limit = limit
        self.generation = 0
        self.tunnels: Counter[int] = Counter()
        self._spaces: dict[tuple[Direction, str], _Space] = {}
        self._by_id: dict[int, Entry] = {}
        self._sockets = SocketPolicies()
        self._names = Names()
        self._reqids = Reqids()
        self._last_id = 0
        self._last_order = 0
        self.noted: Callable[[Entry], None] = _nobody
        self._deadlines: list[tuple[int, int]] = []  # (ns, id); entries that have gone or were used since stay in it

    def __len__(self) -> int:
        """Policies of all scopes."""
        return len(self._by_id)

    # -- changes -------------------------------------------------------------------------------------------------------

    def add(self, policy: Policy, at: Moment, reqid_end: int = REQID_END_U16, keeps_reqids: bool = False) -> Entry:
        """Put a policy in. Raises Refused: EEXIST for a selector that stands already, ENOBUFS at the limit, EINVAL (validity).

        reqid_end: the largest automatic reqid the asker's dialect can carry. keeps_reqids: those beyond the manual range are taken as
        they are (EEXIST where another policy has it), as a script that recreates a database wants.
        """
        return self._insert(policy, at, reqid_end, None, keeps_reqids)

    def replace(self, policy: Policy, at: Moment, reqid_end: int = REQID_END_U16, keeps_reqids: bool = False) -> Entry:
        """Put a policy in the place of the one with its selector, if any. When it is refused, the old one is still there (S13)."""
        check_entry(policy)
        return self._insert(policy, at, reqid_end, self._standing(policy), keeps_reqids)

    def remove(self, selector: Selector, interface: str = "") -> Entry:
        """Take out the policy with exactly this selector. Raises Refused(ENOENT)."""
        space = self._spaces.get((selector.direction, interface))
        entry = space.by_selector.get(selector) if space is not None else None
        if entry is None:
            raise Refused(Errno.ENOENT, "no policy has this selector")
        self._forget(entry)
        return entry

    def remove_id(self, entry_id: int) -> Entry:
        """Take out a global policy by id. Raises Refused: ENOENT, EACCES for an interface's or a socket's."""
        entry = self.get(entry_id)
        if entry is None:
            raise Refused(Errno.ENOENT, f"no policy has the id {entry_id}")
        if entry.scope is not Scope.GLOBAL:
            raise Refused(Errno.EACCES, f"policy {entry_id} belongs to its {entry.scope.name.lower()}; only its owner takes it away")
        self._forget(entry)
        return entry

    def flush(self, scopes: int = Scope.GLOBAL, interface: str | None = None) -> tuple[Entry, ...]:
        """Take out all policies of these scopes (bits), of one interface only if named; in dump order."""
        gone = tuple(entry for entry in self.entries(scopes) if interface is None or entry.policy.interface == interface)
        for entry in gone:
            self._forget(entry)
        return gone

    @property
    def counts(self) -> tuple[int, int, int]:
        """The last id, place and automatic reqid that were given out."""
        return self._last_id, self._last_order, self._reqids.last

    def resume(self, entries: Iterable[Entry], counts: tuple[int, int, int]) -> None:
        """Into an empty database: the entries that another one had, each with its id and place. `noted` does not hear of it."""
        self._last_id, self._last_order, self._reqids.last = counts
        for entry in entries:
            self._by_id[entry.id] = entry
            self._reqids.hold(entry.policy)
            if entry.socket is not None:
                self._sockets.put(entry.socket, entry)
            else:
                self._file(entry)
            self.generation += 1

    def of_interface(self, name: str, policies: Iterable[Policy], at: Moment) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
        """Give an interface these policies in place of those it had; (gone, come). Raises Refused with nothing changed."""
        wanted = [replace(policy, scope=Scope.INTERFACE, interface=name) for policy in policies]
        for policy in wanted:
            check_entry(policy)
        if len({policy.selector for policy in wanted}) < len(wanted):
            raise Refused(Errno.EEXIST, f"two policies of {name} have the same selector")
        standing = sum(entry.policy.interface == name for entry in self.entries(Scope.INTERFACE))
        self._check_limit(len(wanted) - standing)
        gone = self.flush(Scope.INTERFACE, name)
        return gone, tuple(self.add(policy, at) for policy in wanted)

    # -- questions -----------------------------------------------------------------------------------------------------

    def match(self, direction: Direction, flow: Flow, interface: str = "") -> Entry | None:
        """The first policy, in order, that covers the flow; None: the default policy applies.

        Its cost depends on how many shapes the selectors have (classifier), not on how many entries there are.
        """
        space = self._spaces.get((direction, interface))
        return space.classifier.match(flow) if space is not None else None

    def has_policies(self, direction: Direction, interface: str = "") -> bool:
        """Whether any global policy of this direction exists, or one of the interface: without one, and with def_policy none, nothing
        need be looked up.
        """
        return (direction, interface) in self._spaces

    def get(self, entry_id: int) -> Entry | None:
        """The policy with this id, of any scope."""
        return self._by_id.get(entry_id)

    def find(self, selector: Selector, interface: str = "") -> Entry | None:
        """The policy with exactly this selector."""
        space = self._spaces.get((selector.direction, interface))
        return space.by_selector.get(selector) if space is not None else None

    def entries(self, scopes: int = 0) -> tuple[Entry, ...]:
        """The policies of these scopes (bits; 0: global and interface) in dump order.

        Inbound, outbound, forward; in each the global ones in SPD order, then each interface's; sockets' at the end.
        """
        scopes = scopes or Scope.GLOBAL | Scope.INTERFACE
        found: list[Entry] = []
        for direction in DUMP_ORDER:
            if scopes & Scope.GLOBAL:
                found += self._ordered(direction, ("",))
            if scopes & Scope.INTERFACE:
                found += self._ordered(direction, (name for side, name in self._spaces if side is direction and name))
        if scopes & Scope.SOCKET:
            found += self._sockets.all()
        return tuple(found)

    def named_by(self, direction: Direction, sa: Named) -> tuple[Entry, ...]:
        """The policies of a direction whose requests name the SA: by its reqid or, where none does, by its endpoints (names.py)."""
        return self._names.named_by(direction, sa)

    def permits(self, direction: Direction, sa: Named, flow: Flow) -> bool:
        """Whether what came through the SA may be this flow: no policy names the SA, or one that does covers the flow (S11)."""
        return self._names.permits(direction, sa, flow)

    # -- sockets -------------------------------------------------------------------------------------------------------

    def set_socket(
        self, socket: int, policy: Policy, at: Moment, is_privileged: bool = True, reqid_end: int = REQID_END_U16
    ) -> Entry | None:
        """Set a socket's own policy for the policy's direction; `entrust` clears it. Raises Refused: EINVAL, EACCES, ENOBUFS."""
        check_socket(policy, is_privileged)
        old = self._sockets.get(socket, policy.direction)
        if policy.action is Action.ENTRUST:
            if old is not None:
                self._forget(old)
            return None
        if old is None:
            self._check_limit(1)
        policy = self._reqids.resolve(replace(policy, scope=Scope.SOCKET), reqid_end)
        if old is not None:
            self._forget(old)
        return self._give_socket(socket, policy, at)

    def socket_policy(self, socket: int, direction: Direction) -> Entry | None:
        """The socket's own policy; None: the SPD decides (what getsockopt shows as entrust, M33)."""
        return self._sockets.get(socket, direction)

    def socket_accepted(self, listener: int, socket: int, at: Moment) -> None:
        """Copy a listener's policies to a socket it accepted (M32). Raises Refused(ENOBUFS), having copied none."""
        entries = self._sockets.of(listener)
        self._check_limit(len(entries))
        for entry in entries:
            self._reqids.share(entry.policy)
            old = self._sockets.get(socket, entry.direction)
            if old is not None:
                self._forget(old)
            self._give_socket(socket, entry.policy, at)

    def socket_gone(self, socket: int) -> None:
        """Forget a socket's policies; one that had none is fine."""
        for entry in self._sockets.of(socket):
            self._forget(entry)

    # -- time ----------------------------------------------------------------------------------------------------------

    def due(self, at: Moment) -> tuple[Entry, ...]:
        """Take out the policies whose lifetime or idle time is over, the longest overdue first (M10)."""
        gone = []
        while self._deadlines and self._deadlines[0][0] <= at.ns:
            _, entry_id = heapq.heappop(self._deadlines)
            entry = self._by_id.get(entry_id)
            expires_ns = entry.expires_ns if entry is not None else None
            if entry is None or expires_ns is None:
                continue
            if expires_ns > at.ns:  # it was used since
                heapq.heappush(self._deadlines, (expires_ns, entry_id))
                continue
            self._forget(entry)
            gone.append(entry)
        return tuple(gone)

    def next_deadline(self) -> Moment | None:
        """When to call `due`; at that moment possibly nothing is due (a policy was used meanwhile)."""
        while self._deadlines and self._deadlines[0][1] not in self._by_id:
            heapq.heappop(self._deadlines)
        return Moment(self._deadlines[0][0]) if self._deadlines else None

    # -- inside --------------------------------------------------------------------------------------------------------

    def _insert(self, policy: Policy, at: Moment, reqid_end: int, old: Entry | None, keeps_reqids: bool) -> Entry:
        """Check everything first, then change everything."""
        check_entry(policy)
        if old is None:
            if self._standing(policy) is not None:
                raise Refused(Errno.EEXIST, "a policy with this selector exists")
            self._check_limit(1)
        if keeps_reqids:
            policy = self._reqids.keep(policy, reqid_end, old.policy if old is not None else None)
        else:
            policy = self._reqids.resolve(policy, reqid_end)
        if old is not None:
            self._forget(old)
        entry = self._enter(policy, at, None)
        self._file(entry)
        return entry

    def _file(self, entry: Entry) -> None:
        policy = entry.policy
        assert policy.selector is not None
        place = (policy.direction, policy.interface)
        space = self._spaces.get(place)
        if space is None:
            space = self._spaces[place] = _Space()
        space.by_selector[policy.selector] = entry
        space.classifier.add(policy.selector, entry)
        if policy.interface:
            self.tunnels.update(requirement.reqid for requirement in policy.requirements)
        self._names.add(entry)
        self._note_deadline(entry)

    def _standing(self, policy: Policy) -> Entry | None:
        assert policy.selector is not None
        return self.find(policy.selector, policy.interface)

    def _check_limit(self, more: int) -> None:
        if len(self._by_id) + more > self.limit:
            raise Refused(Errno.ENOBUFS, f"{self.limit} policies are the limit (net.koura.limits.policies)")

    def _enter(self, policy: Policy, at: Moment, socket: int | None) -> Entry:
        """Number the policy and note the change; its reqids are resolved."""
        self._last_id += 1
        self._last_order += 1
        entry = Entry(self._last_id, policy, (policy.priority, self._last_order), at, socket=socket)
        self._by_id[entry.id] = entry
        self.generation += 1
        self.noted(entry)
        return entry

    def _note_deadline(self, entry: Entry) -> None:
        expires_ns = entry.expires_ns
        if expires_ns is None:
            return
        if len(self._deadlines) > 2 * len(self._by_id) + 64:  # mostly of entries that have gone
            self._deadlines = [item for item in self._deadlines if item[1] in self._by_id]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (expires_ns, entry.id))

    def _give_socket(self, socket: int, policy: Policy, at: Moment) -> Entry:
        entry = self._enter(policy, at, socket)
        self._sockets.put(socket, entry)
        return entry

    def _forget(self, entry: Entry) -> None:
        del self._by_id[entry.id]
        self._reqids.release(entry.policy)
        self.generation += 1
        self.noted(entry)
        if entry.socket is not None:
            self._sockets.take(entry.socket, entry.direction)
            return
        place = (entry.direction, entry.policy.interface)
        space = self._spaces[place]
        assert entry.policy.selector is not None
        del space.by_selector[entry.policy.selector]
        space.classifier.remove(entry.policy.selector)
        if entry.policy.interface:
            self._forget_tunnels(entry.policy)
        if not space.by_selector:
            del self._spaces[place]
        self._names.remove(entry)

    def _forget_tunnels(self, policy: Policy) -> None:
        for requirement in policy.requirements:
            self.tunnels[requirement.reqid] -= 1
            if not self.tunnels[requirement.reqid]:
                del self.tunnels[requirement.reqid]

    def _ordered(self, direction: Direction, interfaces: Iterable[str]) -> list[Entry]:
        found: list[Entry] = []
        for interface in interfaces:
            space = self._spaces.get((direction, interface))
            if space is not None:
                found += sorted(space.by_selector.values(), key=lambda entry: entry.order)
        return found


def _nobody(_: Entry) -> None:
    return None
