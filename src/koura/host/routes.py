"""Policy routing: what policies protect goes into our TUN, what we send ourselves does not. ip-rule(8), rtnetlink(7).

    rule  PRIORITY   not fwmark MARK  ->  table TABLE
    table TABLE      DST dev TUN src OURS            for each destination an outbound policy speaks of
                     blackhole DST metric 4096       behind it: when the TUN is gone, the packet is, too

Not even what a program wants to send to a neighbour directly goes round them: the routes are of link scope, as neighbours' are.
All of it stays when the engine or the keeper dies: no engine is no path. `koura down` takes it away, the next `koura up` adopts it.
Only destinations can be routed by; what else a policy asks for (source, ports, protocol) the stack looks at, and what it lets go
in clear leaves with our mark.
"""

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from pyroute2 import IPRoute, NetlinkError

from koura.address import Prefix, parse, show
from koura.host import rtnetlink
from koura.host.rtnetlink import RTM_F_FIB_MATCH, RTN_BLACKHOLE, Changes, Rtnetlink
from koura.host.tun import keep_addresses, set_ipv6

MARK = 0x4B6F
TABLE = 19311
PRIORITY = 19311
BLACKHOLE_METRIC = 4096
ALIAS = "koura: host mode"  # by which a TUN that was left is known
FIB_RULE_INVERT = 2
_GONE = frozenset((2, 3, 19))  # ENOENT, ESRCH, ENODEV
_FAMILIES = {4: socket.AF_INET, 16: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One destination that goes into the TUN; `source`: a local address to speak from, b'': what the real route would use."""

    dst: Prefix
    source: bytes = b""


@dataclass(frozen=True, slots=True)
class _Standing:
    """A route of ours: the source that was asked for (b'': any), and the one it has."""

    asked: bytes
    source: bytes


_CLOSED = _Standing(b"closed", b"closed")  # a blackhole with no route in front of it


class Routes:
    """The rules, the table and the interface of one TUN in this network namespace."""

    def __init__(self, interface: str) -> None:
        self._netlink = IPRoute()
        self._routes = Rtnetlink()
        self._watch = Changes()
        self._links: dict[int, int] = {}
        self.ours: frozenset[bytes] = frozenset()
        self._interface = interface
        self.index = 0
        self._standing: dict[Prefix, _Standing] = {}

    # -- the interface -------------------------------------------------------------------------------------------------

    def raise_interface(self, mtu_octets: int, addresses: Iterable[tuple[bytes, int]]) -> None:
        """Up, with its MTU and addresses; adopted if it stands. Raises NetlinkError."""
        self.index = self._netlink.link_lookup(ifname=self._interface)[0]
        _quieten(self._interface)
        keep_addresses(self._interface)
        self._netlink.link("set", index=self.index, mtu=mtu_octets, state="up", ifalias=ALIAS)
        for address, bits in addresses:
            options = {"index": self.index, "address": show(address), "prefixlen": bits}
            if len(address) == 16:
                options["flags"] = 0x02  # IFA_F_NODAD: nobody else is on a TUN
            self._replace(lambda options=options: self._netlink.addr("replace", **options))

    def add_rules(self) -> None:
        """What is not marked looks into our table first."""
        for family in _FAMILIES.values():
            if not any(rule.get_attr("FRA_PRIORITY") == PRIORITY for rule in self._netlink.get_rules(family=family)):
                self._netlink.rule("add", family=family, priority=PRIORITY, table=TABLE, fwmark=MARK, flags=FIB_RULE_INVERT)

    # -- routes --------------------------------------------------------------------------------------------------------

    def sync(self, wanted: Iterable[Wanted], *, only_adds: bool = False, is_anew: bool = False) -> None:
        """Make the table what is wanted: new routes first, so that no destination is without one in between.

        only_adds: what is wanted no longer stays. is_anew: addresses or other routes have changed, so sources are looked up again.
        Raises OSError after all that could be done was.
        """
        sources = merged(wanted)
        if is_anew:
            self._miss()
        self._set(sources, is_anew=is_anew)
        if not only_adds:
            self._delete([dst for dst in self._standing if dst not in sources])

    def change(self, wanted: Iterable[Wanted], unwanted: Iterable[Prefix]) -> None:
        """What `sync` does, for these destinations alone. Raises OSError after all that could be done was."""
        self._set(merged(wanted), is_anew=False)
        self._delete([dst for dst in unwanted if dst in self._standing])

    def adopt(self) -> bool:
        """Take what an earlier daemon left as ours, to be kept or taken away by a later `sync`; whether there was anything."""
        for family in _FAMILIES.values():
            for route in self._netlink.get_routes(family=family, table=TABLE):
                dst = route.get_attr("RTA_DST")
                address = socket.inet_pton(family, dst) if dst else bytes(4 if family == socket.AF_INET else 16)
                prefix = Prefix(address, route["dst_len"])
                if route["type"] == RTN_BLACKHOLE:
                    self._standing.setdefault(prefix, _CLOSED)
                    continue
                source = route.get_attr("RTA_PREFSRC")
                source = socket.inet_pton(family, source) if source else b""
                self._standing[prefix] = _Standing(source, source)
        return bool(self._standing)

    def close_off(self, destinations: Iterable[Prefix]) -> None:
        """Rules and blackholes without an interface: nothing gets there. Raises NetlinkError, OSError."""
        _check(self._routes.do([_blackhole(dst) for dst in dict.fromkeys(destinations)]))
        self.add_rules()

    def _miss(self) -> None:
        """A TUN that was taken down has lost its routes, of which the kernel says nothing: all of a family or none. Blackholes stand."""
        for octets in _FAR:
            shown = next((dst for dst, one in self._standing.items() if len(dst.address) == octets and one is not _CLOSED), None)
            if shown is None:
                continue
            found = self._routes.find(_probe(shown), 0)
            if found is None or found.interface != self.index:
                lost = [dst for dst in self._standing if len(dst.address) == octets]
                self._standing |= dict.fromkeys(lost, _CLOSED)

    def _set(self, sources: dict[Prefix, bytes], *, is_anew: bool) -> None:
        """Routes to these destinations, with these sources. A blackhole stands before its route does."""
        changed: dict[Prefix, _Standing] = {}
        for dst, asked in sources.items():
            standing = self._standing.get(dst)
            if standing is not None and not is_anew and standing.asked == asked:
                continue
            source = asked or self._source(dst)
            if standing is not None and standing.source == source:
                self._standing[dst] = _Standing(asked, source)
            else:
                changed[dst] = _Standing(asked, source)
        if not changed:
            return
        requests = []
        for dst, one in changed.items():
            requests += [_blackhole(dst), rtnetlink.replace(dst, TABLE, interface=self.index, source=one.source)]
        codes = self._routes.do(requests)
        self._standing |= {dst: one for (dst, one), code in zip(changed.items(), codes[1::2], strict=True) if not code}
        _check(codes)

    def _delete(self, destinations: list[Prefix]) -> None:
        requests = []
        for dst in destinations:
            del self._standing[dst]
            requests.append(rtnetlink.delete(dst, TABLE, interface=self.index))
            requests.append(rtnetlink.delete(dst, TABLE, blackhole_metric=BLACKHOLE_METRIC))
        _check(code for code in self._routes.do(requests) if code not in _GONE)

    def _source(self, dst: Prefix) -> bytes:
        """The address the host would speak from to this destination, were it not for us."""
        found = self._routes.find(_probe(dst), MARK)
        return found.source if found is not None else b""

    # -- the end -------------------------------------------------------------------------------------------------------

    def remove(self) -> bool:
        """Take rules and routes away; whether there were any."""
        found = False
        for family in _FAMILIES.values():
            for rule in self._netlink.get_rules(family=family):
                if rule.get_attr("FRA_PRIORITY") == PRIORITY:
                    found = True
                    self._forget(lambda family=family: self._netlink.rule(
                        "del", family=family, priority=PRIORITY, table=TABLE, fwmark=MARK, flags=FIB_RULE_INVERT))
            self._forget(lambda family=family: self._netlink.flush_routes(table=TABLE, family=family))
        self._standing.clear()
        return found

    def drop_interfaces(self) -> tuple[str, ...]:
        """The TUN goes, and others of its kind that were left; they must be closed everywhere. Their names."""
        names = [
            link.get_attr("IFLA_IFNAME") for link in self._netlink.get_links()
            if link.get_attr("IFLA_IFNAME") == self._interface or link.get_attr("IFLA_IFALIAS") == ALIAS
        ]  # fmt: skip
        for name in names:
            self._forget(lambda name=name: self._netlink.link("del", ifname=name))
        return tuple(names)

    # -- what the kernel says ------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable when addresses, links or routes change."""
        return int(self._watch.fileno())

    def drain(self) -> bool:
        """Read what changed; whether any of it matters: routes of our own table do not."""
        matters = self._watch.drain(TABLE)
        if matters:
            self._links = {}
        return matters

    def look(self) -> None:
        """Which addresses are ours now."""
        found = set()
        for family in _FAMILIES.values():
            for address in self._netlink.get_addr(family=family):
                text = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
                found.add(socket.inet_pton(family, text))
        self.ours = frozenset(found)

    def is_ours(self, address: bytes) -> bool:
        """Whether this host has the address."""
        return address in self.ours

    def mtus(self, destinations: Iterable[bytes]) -> dict[bytes, int]:
        """What the first link towards each destination takes, past our own routes; b'': that of the default route, or the widest."""
        return {destination: self._mtu(destination) for destination in destinations}

    def _mtu(self, destination: bytes) -> int:
        for probe in (destination,) if destination else _FAR.values():
            # The route as it was set first: what the kernel has heard of a path ends some day, and nobody would tell us.
            for flags in (RTM_F_FIB_MATCH, 0):
                found = self._routes.find(probe, MARK, flags)
                octets = (found.mtu_octets or self._link_mtu(found.interface)) if found is not None else 0
                if octets:
                    return octets
        return max((octets for index, octets in self._widths().items() if index != self.index and octets < 65536), default=1500)

    def _link_mtu(self, index: int) -> int:
        """0 for our own interface, and for none."""
        return 0 if index == self.index else self._widths(index).get(index, 0)

    def _widths(self, index: int = 0) -> dict[int, int]:
        """The MTU of each link, as it was when something changed last; of one that was not there then, anew."""
        if not self._links or (index and index not in self._links):
            self._links = {link["index"]: link.get_attr("IFLA_MTU") or 0 for link in self._netlink.get_links()}
        return self._links

    def close(self) -> None:
        self._watch.close()
        self._routes.close()
        self._netlink.close()

    @staticmethod
    def _replace(do: object) -> None:
        assert callable(do)
        do()

    @staticmethod
    def _forget(do: object) -> None:
        assert callable(do)
        try:
            do()
        except NetlinkError as error:
            if error.code not in _GONE:
                raise


def _quieten(interface: str) -> None:
    """Nobody is on this link: no link-local address, no router solicitations, which would be sent on as if they were the host's own."""
    set_ipv6(interface, addr_gen_mode=1, router_solicitations=0, accept_ra=0)


_FAR = {4: parse("198.51.100.1"), 16: parse("2001:db8::1")}


def _probe(prefix: Prefix) -> bytes:
    """An address to ask the route of: inside the prefix; for the default route some address far away."""
    octets = len(prefix.address)
    if prefix.bits == 0:
        return _FAR[octets]
    return prefix.address if prefix.bits == 8 * octets else prefix.address[:-1] + bytes((prefix.address[-1] | 1,))


def _blackhole(dst: Prefix) -> bytes:
    return rtnetlink.replace(dst, TABLE, blackhole_metric=BLACKHOLE_METRIC)


def _check(codes: Iterable[int]) -> None:
    """Raises OSError for the first that was not done."""
    failed = next((code for code in codes if code), 0)
    if failed:
        raise rtnetlink.why(failed)


def merged(wanted: Iterable[Wanted]) -> dict[Prefix, bytes]:
    """The source of each destination: of several wishes for one, that with a source counts."""
    sources: dict[Prefix, bytes] = {}
    for one in sorted(set(wanted), key=_order):
        sources[one.dst] = one.source or sources.get(one.dst, b"")
    return sources


def _order(one: Wanted) -> tuple[bytes, int, bytes]:
    return one.dst.address, one.dst.bits, one.source
