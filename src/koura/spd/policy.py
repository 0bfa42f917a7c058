"""Policy: a selector, what to do with what it matches, and, for ipsec, the requests in order. RFC 4301 §4.4.1.2."""

from dataclasses import dataclass
from enum import IntEnum

from koura.quick import quick
from koura.saindex import Direction, Mode, Protocol
from koura.spd.selector import Selector

MAX_REQUIREMENTS = 4
MAX_MANUAL_REQID = 0x3FFF


class Action(IntEnum):
    """Policy type, PF_KEY's numbers. ENTRUST and BYPASS are for sockets only."""

    DISCARD = 0
    NONE = 1
    IPSEC = 2
    ENTRUST = 3
    BYPASS = 4


class Level(IntEnum):
    """How badly a requirement needs an SA."""

    DEFAULT = 0
    USE = 1
    REQUIRE = 2
    UNIQUE = 3


class Scope(IntEnum):
    """Where a policy lives; PF_KEY's bits."""

    GLOBAL = 1
    INTERFACE = 2
    SOCKET = 4


@quick
@dataclass(frozen=True, slots=True)
class Requirement:
    """One request (KAME's ipsecrequest). Addresses packed or b''; both given for tunnels. Ports: NAT-T endpoints (T), 0 unset."""

    protocol: Protocol
    mode: Mode
    level: Level = Level.DEFAULT
    reqid: int = 0
    src: bytes = b""
    dst: bytes = b""
    sport: int = 0
    dport: int = 0


@quick
@dataclass(frozen=True, slots=True)
class Policy:
    """An SPD entry as given; ids, creation time and last use are the database's. requirements[0] is applied first: innermost.

    priority: FreeBSD's sense, smaller goes first (M9). lifetime_s and valid_s: 0 unlimited (M10).
    selector is None for a socket's policy, whose direction then stands in `direction`.
    """

    direction: Direction
    action: Action
    selector: Selector | None = None
    requirements: tuple[Requirement, ...] = ()
    priority: int = 0
    scope: Scope = Scope.GLOBAL
    lifetime_s: int = 0
    valid_s: int = 0
    interface: str = ""
