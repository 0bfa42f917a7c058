"""What netstat -s -p pfkey shows: FreeBSD's struct pfkeystat under its own names. pfkey.md §11."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Statistics:
    """Counters of one server. `out`: from user land to us; `in_`: from us to user land, as FreeBSD counts it."""

    out_total: int = 0
    out_bytes: int = 0
    out_invlen: int = 0
    out_invver: int = 0
    out_invmsgtype: int = 0
    out_tooshort: int = 0
    out_nomem: int = 0
    out_dupext: int = 0
    out_invexttype: int = 0
    out_invsatype: int = 0
    out_invaddr: int = 0
    in_total: int = 0
    in_bytes: int = 0
    in_nomem: int = 0
    in_one: int = 0
    in_all: int = 0
    in_registered: int = 0
    out_types: Counter[int] = field(default_factory=Counter)
    in_types: Counter[int] = field(default_factory=Counter)

    def took(self, kind: int, octets: int) -> None:
        """One request came, whatever becomes of it."""
        self.out_total += 1
        self.out_bytes += octets
        self.out_types[kind] += 1

    def gave(self, kind: int, octets: int) -> None:
        """One message went to one socket."""
        self.in_total += 1
        self.in_bytes += octets
        self.in_types[kind] += 1
