"""Entry: one policy as it lives in the SPD or on a socket: the policy, its place, and what its use changes. RFC 4301 §4.4.1.2."""

from dataclasses import dataclass, field

from koura.moment import Moment
from koura.saindex import Direction
from koura.spd.classifier import Order
from koura.spd.policy import Policy, Scope

_LINUX_KINDS = 8
_LINUX_DIRECTIONS = {Direction.INBOUND: 0, Direction.OUTBOUND: 1, Direction.FORWARD: 2}
_LINUX_SOCKET = 3


@dataclass(slots=True, eq=False)
class Entry:
    """A policy in force. `policy`, `id` and `order` never change; packets change the rest.

    policy: as given, with every reqid that the stack had to choose filled in.
    last_used: the creation time until the first use (FreeBSD counts validtime from there).
    """

    id: int
    policy: Policy
    order: Order
    created: Moment
    last_used: Moment = field(init=False)
    packets: int = 0
    octets: int = 0
    socket: int | None = None

    def __post_init__(self) -> None:
        self.last_used = self.created

    @property
    def direction(self) -> Direction:
        return self.policy.direction

    @property
    def scope(self) -> Scope:
        return self.policy.scope

    @property
    def expires_ns(self) -> int | None:
        """When it has lived, or lain idle, too long: the first whole second past the limit (M10). None: never."""
        if not (self.policy.lifetime_s or self.policy.valid_s):
            return None
        ends = []
        if self.policy.lifetime_s:
            ends.append(self.created.s + self.policy.lifetime_s + 1)
        if self.policy.valid_s:
            ends.append(self.last_used.s + self.policy.valid_s + 1)
        return Moment.of_s(min(ends)).ns

    def use(self, octets: int, at: Moment) -> None:
        """Note one packet that this policy decided about."""
        self.packets += 1
        self.octets += octets
        self.last_used = at


def linux_index(entry: Entry) -> int:
    """An entry's id in the Linux dialect: 8·id + direction (in 0, out 1, fwd 2; 3 more for a socket's policy).

    That is how Linux itself numbers policies, and ipsec-tools reads it so: `id % 8 >= 3` is a socket's policy to it, which
    racoon ignores. Inside, and in FreeBSD's dialect, ids count up by one.
    """
    kind = _LINUX_DIRECTIONS[entry.direction] + (_LINUX_SOCKET if entry.socket is not None else 0)
    return _LINUX_KINDS * entry.id + kind


def id_from_linux_index(index: int) -> int:
    """The id behind a Linux policy index."""
    return index // _LINUX_KINDS
