"""The SAs that have ESP in UDP: on which ports they expect it, and how many peers they lead to. RFC 3948.

Counts only, kept as SAs come, go and change. Several peers between two addresses are hosts behind one NAT (§5): each is known by the
port it had when its SAs were made (`Encapsulation.home`), wherever it is seen now.
"""

from typing import TypeVar

from koura.sadb.agreement import Agreement
from koura.sadb.association import Association

_K = TypeVar("_K")


class Encapsulated:
    """What of all SAs has to do with UDP."""

    def __init__(self) -> None:
        self._expected: dict[tuple[bytes, int], int] = {}  # where SAs expect ESP in UDP -> how many
        self._ports: dict[int, int] = {}  # the same by port alone
        self._sas: dict[int, Association] = {}  # by slot
        self._peers: dict[tuple[bytes, bytes, int], int] = {}  # where SAs go to, each peer by the port it was made with -> how many
        self._peers_of: dict[tuple[bytes, bytes], int] = {}  # how many different ones between two addresses
        self._shared = 0

    # -- asking --------------------------------------------------------------------------------------------------------

    def expects(self, dst: bytes, port: int) -> bool:
        """Whether some SA to this destination has ESP in UDP to this port. RFC 3948 §2.1."""
        return (dst, port) in self._expected

    def ports(self) -> frozenset[int]:
        """Every port that some SA expects ESP in UDP on."""
        return frozenset(self._ports)

    def sas(self) -> tuple[Association, ...]:
        """The SAs that have ESP in UDP, larval ones not."""
        return tuple(self._sas.values())

    @property
    def has_shared(self) -> bool:
        """Whether `is_shared` is so for any pair."""
        return self._shared > 0

    def has_peer(self, src: bytes, dst: bytes, port: int) -> bool:
        """Whether some SA leads to the peer that had this port when the SA was made."""
        return (src, dst, port) in self._peers

    def is_shared(self, src: bytes, dst: bytes) -> bool:
        """Whether SAs from here to there lead to several peers: hosts behind one NAT. RFC 3948 §5."""
        return self._peers_of.get((src, dst), 0) > 1

    # -- counting ------------------------------------------------------------------------------------------------------

    def count_port(self, agreement: Agreement, change: int) -> None:
        """An SA under this agreement receives from now on, or not any more."""
        if agreement.encapsulation is None:
            return
        port = agreement.encapsulation.dport
        _add(self._expected, (agreement.index.dst, port), change)
        _add(self._ports, port, change)

    def count_peer(self, sa: Association, agreement: Agreement, change: int) -> None:
        """An SA is found under this agreement from now on, or not any more."""
        if agreement.encapsulation is None:
            return
        if change > 0:
            self._sas[sa.slot] = sa
        else:
            self._sas.pop(sa.slot, None)
        index = agreement.index
        peer = (index.src, index.dst, agreement.encapsulation.home[1])
        before = peer in self._peers
        _add(self._peers, peer, change)
        was_shared = self.is_shared(*peer[:2])
        _add(self._peers_of, peer[:2], (peer in self._peers) - before)
        self._shared += self.is_shared(*peer[:2]) - was_shared


def _add(counts: dict[_K, int], key: _K, change: int) -> None:
    counts[key] = counts.get(key, 0) + change
    if not counts[key]:
        del counts[key]
