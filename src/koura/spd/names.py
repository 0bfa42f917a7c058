"""Which policies name an SA, so that what came through it can be held against their selectors. RFC 4301 §5.2 step 4.

A request with a reqid names the SAs of that reqid; a tunnel request names the SAs between its endpoints. An SA which an inbound
policy names may carry only what such a policy's selector covers, even where the packet's own policy is none or absent (S11).
The reqid is the sharper word: where some policy names the SA by reqid, endpoints are not asked.
"""

from dataclasses import dataclass, field
from typing import Protocol

from koura.saindex import Direction, Mode
from koura.spd.classifier import Classifier
from koura.spd.entry import Entry
from koura.spd.selector import Flow

_FEW = 8  # so many selectors are tried one by one


class Named(Protocol):
    """What of an SA a policy can name; traffic.outcome.Applied is one."""

    @property
    def protocol(self) -> int: ...
    @property
    def src(self) -> bytes: ...
    @property
    def dst(self) -> bytes: ...
    @property
    def reqid(self) -> int: ...


_Name = tuple[Direction, int, int | tuple[bytes, bytes]]


@dataclass(slots=True)
class _Group:
    """The entries that use one name, in the order they came; `classifier` is made when they are many and asked for."""

    entries: dict[int, Entry] = field(default_factory=dict)
    classifier: Classifier[Entry] | None = None

    def covers(self, flow: Flow) -> bool:
        if len(self.entries) <= _FEW:
            return any(entry.policy.selector is not None and entry.policy.selector.matches(flow) for entry in self.entries.values())
        if self.classifier is None:
            rows = ((entry.policy.selector, entry) for entry in self.entries.values())
            self.classifier = Classifier((selector, entry) for selector, entry in rows if selector is not None)
        return self.classifier.match(flow) is not None


def _names(entry: Entry) -> set[_Name]:
    names: set[_Name] = set()
    for requirement in entry.policy.requirements:
        if requirement.reqid:
            names.add((entry.direction, requirement.protocol, requirement.reqid))
        if requirement.mode is Mode.TUNNEL:
            names.add((entry.direction, requirement.protocol, (requirement.src, requirement.dst)))
    return names


class Names:
    """The index of names."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[_Name, _Group] = {}

    def add(self, entry: Entry) -> None:
        for name in _names(entry):
            group = self._groups.get(name)
            if group is None:
                group = self._groups[name] = _Group()
            group.entries[entry.id] = entry
            group.classifier = None

    def remove(self, entry: Entry) -> None:
        for name in _names(entry):
            group = self._groups[name]
            del group.entries[entry.id]
            group.classifier = None
            if not group.entries:
                del self._groups[name]

    def named_by(self, direction: Direction, sa: Named) -> tuple[Entry, ...]:
        """The entries that name the SA, in the order they came."""
        group = self._group(direction, sa)
        return tuple(group.entries.values()) if group is not None else ()

    def permits(self, direction: Direction, sa: Named, flow: Flow) -> bool:
        """Whether the SA may carry the flow: nobody names it, or an entry that does covers the flow."""
        group = self._group(direction, sa)
        return group is None or group.covers(flow)

    def _group(self, direction: Direction, sa: Named) -> _Group | None:
        group = self._groups.get((direction, sa.protocol, sa.reqid)) if sa.reqid else None
        return group if group is not None else self._groups.get((direction, sa.protocol, (sa.src, sa.dst)))
