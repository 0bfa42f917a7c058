"""netstat -s: the counters of ipsec, ipsec6, esp, ah and ipcomp under their BSD names and in BSD's words. processing.md §11.

One table, FIELDS. A field counts every Reason whose `bsd` column names it, and what traffic.tally adds under its name; so the
report cannot say anything else than the endings do. Clearing (sysctl) moves the zero of one protocol, not the counters.
"""

from collections.abc import Callable

from koura.reasons import ENDINGS
from koura.stats.counters import Counters

_HEADERS = ("hdrops", "packet shorter than header shows", "packets shorter than header shows")
_COMMON = (
    ("nopf", "packet dropped; protocol family not supported", "packets dropped; protocol family not supported"),
    ("notdb", "packet dropped; no TDB", "packets dropped; no TDB"),
    ("badkcr", "packet dropped; bad KCR", "packets dropped; bad KCR"),
    ("qfull", "packet dropped; queue full", "packets dropped; queue full"),
    ("noxform", "packet dropped; no transform", "packets dropped; no transform"),
)
_WRAP = ("wrap", "replay counter wrap", "replay counter wraps")
_TRAFFIC = (
    ("input", "packet in", "packets in"),
    ("output", "packet out", "packets out"),
    ("invalid", "packet dropped; invalid TDB", "packets dropped; invalid TDB"),
    ("ibytes", "byte in", "bytes in"),
    ("obytes", "byte out", "bytes out"),
    ("toobig", "packet dropped; larger than IP_MAXPACKET", "packets dropped; larger than IP_MAXPACKET"),
    ("pdrops", "packet blocked due to policy", "packets blocked due to policy"),
    ("crypto", "crypto processing failure", "crypto processing failures"),
)
_TUNNEL = ("tunnel", "tunnel sanity check failure", "tunnel sanity check failures")
_BADAUTH = ("badauth", "packet dropped; bad authentication detected", "packets dropped; bad authentication detected")
_REPLAY = ("replay", "possible replay packet detected", "possible replay packets detected")
_IPSEC = (
    ("in_polvio", "inbound packet violated process security policy", "inbound packets violated process security policy"),
    ("in_nomem", "inbound packet failed due to insufficient memory", "inbound packets failed due to insufficient memory"),
    ("in_inval", "invalid inbound packet", "invalid inbound packets"),
    ("out_polvio", "outbound packet violated process security policy", "outbound packets violated process security policy"),
    ("out_nosa", "outbound packet with no SA available", "outbound packets with no SA available"),
    ("out_nomem", "outbound packet failed due to insufficient memory", "outbound packets failed due to insufficient memory"),
    ("out_noroute", "outbound packet with no route available", "outbound packets with no route available"),
    ("out_inval", "invalid outbound packet", "invalid outbound packets"),
    ("out_bundlesa", "outbound packet with bundled SAs", "outbound packets with bundled SAs"),
    ("spdcache_hits", "spd cache hit", "spd cache hits"),
    ("spdcache_misses", "spd cache miss", "spd cache misses"),
)

# protocol -> rows of (field, its text for one, its text for others)
FIELDS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "ipsec": _IPSEC,
    "ipsec6": _IPSEC,
    "ah": (
        _HEADERS, *_COMMON, _WRAP, _BADAUTH,
        ("badauthl", "packet dropped; bad authentication length", "packets dropped; bad authentication length"),
        _REPLAY, *_TRAFFIC, _TUNNEL,
    ),
    "esp": (
        _HEADERS, *_COMMON, ("badilen", "packet dropped; bad ilen", "packets dropped; bad ilen"), _WRAP,
        ("badenc", "packet dropped; bad encryption detected", "packets dropped; bad encryption detected"),
        _BADAUTH, _REPLAY, *_TRAFFIC, _TUNNEL,
    ),
    "ipcomp": (
        _HEADERS, *_COMMON, _WRAP, *_TRAFFIC,
        ("threshold", "packet sent uncompressed; size < compr. algo. threshold",
         "packets sent uncompressed; size < compr. algo. threshold"),
        ("uncompr", "packet sent uncompressed; compression was useless", "packets sent uncompressed; compression was useless"),
    ),
}  # fmt: skip
_STRUCTS = {"ah": "ahs_", "esp": "esps_", "ipcomp": "ipcomps_"}
_HISTOGRAMS = {"ah": "AH", "esp": "ESP", "ipcomp": "COMP"}
_REASONS: dict[str, tuple[str, ...]] = {}
for _row in ENDINGS:
    for _field in _row.bsd.split():
        _REASONS[_field] = (*_REASONS.get(_field, ()), _row.name)


class Report:
    """What one stack's counters say in BSD's words. `states`: a word about how it runs, asked for each time."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.states: dict[str, Callable[[], str]] = {"fast": lambda: "off"}
        self._zero: dict[str, dict[str, int]] = {}

    def read(self, protocol: str) -> dict[str, int]:
        """Every counter of ipsec, ipsec6, esp, ah or ipcomp since it was cleared, by field, in netstat's order; `hist.NAME` last."""
        zero = self._zero.get(protocol, {})
        return {field: count - zero.get(field, 0) for field, count in self._raw(protocol).items()}

    def state(self, name: str) -> str:
        """`fast`: the fast path's drivers, or that it is off and why."""
        return self.states[name]()

    def clear(self, protocol: str) -> None:
        """Count from here on."""
        self._zero[protocol] = self._raw(protocol)

    def _raw(self, protocol: str) -> dict[str, int]:
        counters = self._counters
        struct = _STRUCTS.get(protocol)
        found = {}
        for field, _, _ in FIELDS[protocol]:
            # A Reason may have the field's own name (esp.replay): it is counted once.
            names = {f"{protocol}.{field}", *(_REASONS.get(f"{struct}{field}", ()) if struct else ())}
            found[field] = sum(counters[name] for name in names)
        start = f"{protocol}.hist."
        return found | {name.removeprefix(f"{protocol}."): count for name, count in counters.others().items() if name.startswith(start)}

    def show(self, protocol: str, *, hides_zeros: bool = False) -> str:
        """The section of one protocol as `netstat -s -p PROTOCOL` prints it; hides_zeros as -ss does."""
        counts = self.read(protocol)
        lines = [f"{protocol}:"]
        for field, one, many in FIELDS[protocol]:
            if counts[field] or not hides_zeros:
                lines.append(f"\t{counts[field]} {one if counts[field] == 1 else many}")
        histogram = [(name.removeprefix("hist."), count) for name, count in counts.items() if name.startswith("hist.") and count]
        if histogram:
            lines.append(f"\t{_HISTOGRAMS[protocol]} output histogram:")
            lines += [f"\t\t{name}: {count}" for name, count in histogram]
        return "\n".join(lines)
