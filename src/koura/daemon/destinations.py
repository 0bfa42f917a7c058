"""Where outbound policies lead, kept up with each change: the routes they want, and the far ends of their tunnels.

A daemon with thousands of policies changes one at a time, at the pace of its key managers; what one change costs does not depend on
how many there are. So nothing is gone through here but what changed since the last time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from koura.address import Prefix
from koura.host.routes import Wanted
from koura.saindex import Direction, Mode
from koura.spd.policy import Action, Policy


@dataclass(frozen=True, slots=True)
class _Aim:
    """What one policy wants: a destination or none, with its source if that is one address (b'': none); and its peers."""

    dst: Prefix | None
    source: bytes
    peers: tuple[bytes, ...]


class Destinations:
    """By policy, whatever names it: a wish is put in the place of the one before."""

    def __init__(self) -> None:
        self._aims: dict[bytes, _Aim] = {}
        self._sources: dict[Prefix, Counter[bytes]] = {}
        self.spoken: Counter[bytes] = Counter()  # addresses that policies speak from
        self._peers: Counter[bytes] = Counter()
        self._changed: dict[Prefix, None] = {}
        self._changed_peers: dict[bytes, None] = {}

    def put(self, key: bytes, policy: Policy | None, *, is_routed: bool = True) -> None:
        """None: it is no more. is_routed: of no socket and no interface."""
        aim = _aim(policy, is_routed) if policy is not None and policy.direction is Direction.OUTBOUND else None
        before = self._aims.pop(key, None)
        if aim is not None:
            self._aims[key] = aim
        if aim == before:
            return
        for one, by in ((aim, 1), (before, -1)):
            if one is not None:
                self._count(one, by)

    def want(self, key: bytes, dst: Prefix | None) -> None:
        """A destination that no policy names."""
        before = self._aims.pop(key, None)
        if before is not None:
            self._count(before, -1)
        if dst is not None:
            self._aims[key] = _Aim(dst, b"", ())
            self._count(self._aims[key], 1)

    def _count(self, aim: _Aim, by: int) -> None:
        if aim.dst is not None:
            sources = self._sources.setdefault(aim.dst, Counter())
            _add(sources, aim.source, by)
            if not sources:
                del self._sources[aim.dst]
            self._changed[aim.dst] = None
        if aim.source:
            _add(self.spoken, aim.source, by)
        for peer in aim.peers:
            _add(self._peers, peer, by)
            self._changed_peers[peer] = None

    def all(self, is_ours: Callable[[bytes], bool]) -> Iterator[Wanted]:
        """Every destination. is_ours: whether a source is an address to speak from."""
        return (Wanted(dst, _source(sources, is_ours)) for dst, sources in self._sources.items())

    def take(self, is_ours: Callable[[bytes], bool]) -> tuple[list[Wanted], list[Prefix]]:
        """What is wanted, and what no longer, of what changed since the last time."""
        changed, self._changed = self._changed, {}
        wanted = [Wanted(dst, _source(self._sources[dst], is_ours)) for dst in changed if dst in self._sources]
        return wanted, [dst for dst in changed if dst not in self._sources]

    @property
    def peers(self) -> Counter[bytes]:
        """The far ends of tunnels."""
        return self._peers

    def take_peers(self) -> tuple[bytes, ...]:
        """Those that came or went since the last time."""
        changed, self._changed_peers = self._changed_peers, {}
        return tuple(changed)


def _aim(policy: Policy, is_routed: bool) -> _Aim | None:
    selector = policy.selector
    peers = tuple(one.dst for one in policy.requirements if one.mode is Mode.TUNNEL and any(one.dst))
    if selector is None or not is_routed:
        return _Aim(None, b"", peers) if peers else None
    source = selector.src.address if selector.src.bits == 8 * len(selector.src.address) else b""
    return _Aim(None if policy.action is Action.NONE else selector.dst, source, peers)


def _source(sources: Counter[bytes], is_ours: Callable[[bytes], bool]) -> bytes:
    """Of several the last in order, as it was always."""
    return max((one for one in sources if one and is_ours(one)), default=b"")


def _add(counts: Counter[bytes], key: bytes, by: int) -> None:
    counts[key] += by
    if not counts[key]:
        del counts[key]
