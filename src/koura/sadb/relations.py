"""SAs by what a policy asks for: address pair, protocol, mode and reqid. RFC 4301 §4.4.2; FreeBSD's SAHs.

SAs that serve the same wish - an old one and the one that replaces it - hang under one relation. A new SA joins the newest relation
that serves the same wish, or begins one:

    adding                  wishes it could serve           hangs under
    mode any, reqid 7       any mode, reqid 7 or none       a relation of its own
    mode any, reqid 9       any mode, reqid 9 or none       a relation of its own, newer
    transport, reqid 0      transport, no reqid             the newer one: both could have served

A wish is served by the newest relation that has a usable SA for it, and there by the oldest or the newest of them: as
net.key.preferred_oldsa says, but always by the newest where a Linux key manager made them, which relies on it.
"""

from collections.abc import Callable, Iterator

from koura.sadb.association import Association
from koura.saindex import Mode, Protocol, SaIndex

_EVERY = -1  # in the place of a reqid: all SAs of the pair
_Key = tuple[bytes, bytes, int, int]
_Groups = dict[int, dict[int, Association]]  # relation -> order -> SA; both rise


class Relations:
    """All SAs of one SAD, filed under their pair and under their reqid of it."""

    def __init__(self) -> None:
        self._filed: dict[_Key, _Groups] = {}
        self._last = 0

    def add(self, sa: Association) -> None:
        """File an SA under what its agreement says; `sa.relation` says where it hangs."""
        index = sa.agreement.index
        kin = self._newest(index, lambda _: True, is_oldest=True)
        self._last += 1
        sa.relation = kin.relation if kin is not None else self._last
        self._file(sa)

    def resume(self, sa: Association) -> None:
        """File an SA under the relation that it has from another SAD."""
        self._last = max(self._last, sa.relation)
        self._file(sa)

    def _file(self, sa: Association) -> None:
        for key in _keys(sa.agreement.index):
            groups = self._filed.get(key)
            if groups is None:
                self._filed[key] = {sa.relation: {sa.order: sa}}
                continue
            newest = next(reversed(groups), 0)
            group = groups.setdefault(sa.relation, {})
            last = next(reversed(group), 0)
            group[sa.order] = sa
            if sa.order < last:  # One that moved here is older than the last.
                groups[sa.relation] = dict(sorted(group.items()))
            if sa.relation < newest:
                self._filed[key] = dict(sorted(groups.items()))

    def drop(self, sa: Association, index: SaIndex) -> None:
        """Take an SA out, which was filed under `index`."""
        for key in _keys(index):
            groups = self._filed[key]
            del groups[sa.relation][sa.order]
            if not groups[sa.relation]:
                del groups[sa.relation]
            if not groups:
                del self._filed[key]

    def serving(self, index: SaIndex, is_oldest: bool, port: int | None = None) -> Association | None:
        """The usable SA that serves a wish. One that the ledger has granted no number yet stands back for one that can send.

        An SA whose maker expects that the newest sends yields to newer ones, even where the oldest is asked for.
        port: only those whose peer had this UDP port when they were made.
        """
        def serves(sa: Association) -> bool:
            return sa.is_usable and (port is None or _is_to(sa, port))

        found = self._newest(index, serves, is_oldest)
        if is_oldest and found is not None and found.agreement.yields_to_newer:
            is_oldest = False
            found = self._newest(index, serves, is_oldest)
        if found is None or not found.has_ledger or not found.awaits_grant:
            return found
        return self._newest(index, lambda sa: serves(sa) and not sa.awaits_grant, is_oldest) or found

    def leads_apart(self, index: SaIndex) -> bool:
        """Whether the usable SAs that serve a wish lead to several peers behind one NAT: their peers had different UDP ports."""
        serving = self._filed.get(_filed_under(index), {}).values()
        found = [sa for group in serving for sa in group.values() if sa.agreement.index.mode in (Mode.ANY, index.mode) and sa.is_usable]
        return len({around.home[1] for sa in found if (around := sa.agreement.encapsulation) is not None}) > 1

    def pair(self, src: bytes, dst: bytes, protocol: Protocol) -> Iterator[Association]:
        """Every SA of an address pair, oldest first."""
        groups = self._filed.get((src, dst, int(protocol), _EVERY), {})
        found = [sa for group in groups.values() for sa in group.values()]
        return iter(found if len(groups) < 2 else sorted(found, key=lambda sa: sa.order))

    def _newest(self, index: SaIndex, fits: Callable[[Association], bool], is_oldest: bool) -> Association | None:
        for group in reversed(self._filed.get(_filed_under(index), {}).values()):
            for sa in group.values() if is_oldest else reversed(group.values()):
                if sa.agreement.index.mode in (Mode.ANY, index.mode) and fits(sa):
                    return sa
        return None


def _filed_under(index: SaIndex) -> _Key:
    return index.src, index.dst, int(index.protocol), index.reqid or _EVERY


def _is_to(sa: Association, port: int) -> bool:
    """Whether its peer had this UDP port when the SA was made."""
    around = sa.agreement.encapsulation
    return around is not None and around.home[1] == port


def _keys(index: SaIndex) -> tuple[_Key, _Key]:
    pair = (index.src, index.dst, int(index.protocol))
    return (*pair, _EVERY), (*pair, index.reqid)
