"""Bumps in the wire in the keeper, which may open their interfaces: docs/bump.md. RFC 4301 §3.3.

Each is two interfaces without addresses, brought up, with nothing of the kernel between them: no bridge, no forwarding, and in front of
its protocols a table of nftables that drops what they receive. The sockets go to every engine; with none, nothing passes.
"""

import os
import socket
import syslog
from collections.abc import Iterable

from pyroute2 import IPRoute, NetlinkError

from koura import address
from koura.daemon import ends
from koura.daemon.config import BumpConfig, HostConfig
from koura.daemon.ends import End, Kind
from koura.daemon.network import Log, Network, NoNetwork, Say
from koura.host import bridge, guard
from koura.host.guard import NoGuard
from koura.host.loop import Loop
from koura.host.xdp import NoXdp
from koura.settings import Settings

_LOCK = "\0koura bump "
_IFF_NOARP = 0x80
_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, IPV4_IFADDR, IPV6_IFADDR
SETTLE_S = 0.05


class Bumps(Network):
    """All of one daemon."""

    def __init__(self, loop: Loop, config: tuple[BumpConfig, ...], settings: Settings, say: Say, log: Log) -> None:
        super().__init__(loop, HostConfig(has_guard=False), settings, say, log)
        self._bumps = config
        self._locks: list[socket.socket] = []
        self._watch: IPRoute | None = None
        self._is_look_due = False
        self._missing: dict[str, str] = {}  # sides whose interface is not there, and why
        self._table = f"{bridge.TABLE}-{config[0].outside}"

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for one in self._bumps for name in (one.inside, one.outside))

    def open(self) -> None:
        """Interfaces up and empty, sockets on them. Raises NoNetwork."""
        has_guard = any(one.has_guard for one in self._bumps)
        if has_guard and not guard.is_here():
            raise NoNetwork("nft is not here: install nftables, or write guard = false in [[bump]]")
        found: list[End] = []
        name = ""
        try:
            self._locks = [lock(name) for name in self._names]
            for name in self._names:
                check(name)
            if has_guard:
                bridge.shut(self._table, self._names)
            for name in self._names:
                bridge.quieten(name)
                _raise(name)
            for number, one in enumerate(self._bumps):
                for kind, name in ((Kind.INSIDE, one.inside), (Kind.OUTSIDE, one.outside)):
                    end = bridge.open_side(name)
                    found.append(End(kind, name, end.detach(), number, own=one.addresses, passes_control=one.passes_control))
                found += self._leaving(one, number)
        except (OSError, NetlinkError, NoGuard) as error:
            ends.close(tuple(found))
            self._unlock()
            raise NoNetwork(_reason(error, name)) from error
        except NoNetwork:
            self._unlock()
            raise
        self.ends = tuple(found)
        self._watch = IPRoute()
        self._watch.bind(groups=_GROUPS)
        self._loop.watch(self._watch.fileno(), self._links_changed)

    def close(self, *, leaves_closed: bool = False) -> None:
        """`koura down`: the table goes; the interfaces stay up, as the kernel's own again, with nothing between them."""
        if self._watch is not None:
            self._loop.forget(self._watch.fileno())
            self._watch.close()
            self._watch = None
        ends.close(self.ends)
        self.ends = ()
        try:
            if not leaves_closed and any(one.has_guard for one in self._bumps):
                bridge.reopen(self._table)
            if not leaves_closed:
                give_back(self._names)
        except (OSError, NetlinkError, NoGuard) as error:
            self._log(syslog.LOG_ERR, f"taking the bump down: {error}")
        self._unlock()

    def _leaving(self, one: BumpConfig, number: int) -> tuple[End, ...]:
        """AF_XDP out of the outside, if it is wanted; where it cannot be had, the packet socket sends, as everywhere else."""
        try:
            return ends.open_leaving(one.outside, number) if one.has_xdp else ()
        except NoXdp as error:
            self._log(syslog.LOG_WARNING, f"{error}; a packet socket serves it")
            return ()

    # -- interfaces that go, and come back -------------------------------------------------------------------------------

    def _links_changed(self, _events: int) -> None:
        """Many changes at once are one."""
        assert self._watch is not None
        self._watch.get()
        if not self._is_look_due:
            self._is_look_due = True
            self._loop.after_s(SETTLE_S, self._look)

    def _look(self) -> None:
        """Each socket stands on the interface of its name: one that went is said to be missing, one that is there again is taken."""
        self._is_look_due = False
        for end in self.ends:
            if end.kind is Kind.LEAVING:
                continue  # one whose interface has gone sends no more
            with socket.socket(fileno=os.dup(end.descriptor)) as side:
                if bridge.stands_on(side):
                    continue  # with a new name, perhaps; it is the same interface
                self._note(end.name, self._take_again(end.name, side))

    def _take_again(self, name: str, side: socket.socket) -> str:
        """Why it cannot be had; "" if it is. The guard comes first, and a side that is refused stays shut."""
        try:
            check(name)
            if any(one.has_guard for one in self._bumps):
                bridge.shut(self._table, tuple(each for each in self._names if _is_there(each)))
            bridge.quieten(name)
            _raise(name)
            bridge.bind(side, name)
        except (OSError, NetlinkError, NoGuard) as error:
            return _reason(error, name)
        except NoNetwork as error:
            return str(error)
        return ""

    def _note(self, name: str, missing: str) -> None:
        """A line for the log, once."""
        if missing and self._missing.get(name) != missing:
            self._log(syslog.LOG_WARNING, f"nothing passes: {missing}; it is taken again when it can be")
            self._missing[name] = missing
        elif not missing:
            self._missing.pop(name, None)
            self._log(syslog.LOG_NOTICE, f"{name} is there again")

    def _unlock(self) -> None:
        for one in self._locks:
            one.close()
        self._locks = []

    def settle(self) -> None:
        """The file is loaded: packets are read."""
        self._is_settled = True
        self.tell_engine()

    def kept(self, key: bytes, value: bytes | None) -> None:
        """The engine needs no hand here for what policies say."""

    def commit(self) -> None:
        """Nor for a whole step."""

    def tell_engine(self) -> None:
        if self._is_settled:
            self._say({"do": "begin"})


def lock(name: str) -> socket.socket:
    """One daemon has an interface. Raises NoNetwork."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        end.bind(_LOCK + name)
    except OSError as error:
        end.close()
        raise NoNetwork(f"another daemon has {name} in a bump: stop it with koura down --socket DIR") from error
    return end


def check(name: str) -> None:
    """Whether an interface can be a side: Ethernet, of nobody else's, without addresses. Raises NoNetwork, NetlinkError."""
    with IPRoute() as netlink:
        found = netlink.link_lookup(ifname=name)
        if not found:
            raise NoNetwork(f"there is no interface {name}")
        (link,) = netlink.get_links(found[0])
        if link.get_attr("IFLA_MASTER"):
            raise NoNetwork(f"{name} is part of a bridge or a bond: a bump needs it alone (ip link set {name} nomaster)")
        if link["ifi_type"] != bridge.ARPHRD_ETHER:
            raise NoNetwork(f"{name} is no Ethernet interface")
        addresses = [one.get_attr("IFA_ADDRESS") for one in netlink.get_addr(index=found[0])]
        mine = [text for text in addresses if text and not address.parse(text).startswith(b"\xfe\x80")]
        if mine:
            raise NoNetwork(f"{name} has the address {mine[0]}: an interface of a bump has none (ip addr flush dev {name})")


def _is_there(name: str) -> bool:
    with IPRoute() as netlink:
        return bool(netlink.link_lookup(ifname=name))


def give_back(names: Iterable[str]) -> None:
    """Interfaces are the kernel's own again: with ARP and IPv6. Raises OSError, NetlinkError."""
    with IPRoute() as netlink:
        for name in names:
            for index in netlink.link_lookup(ifname=name):
                netlink.link("set", index=index, flags=0, change=_IFF_NOARP)
                bridge.loosen(name)


def _raise(name: str) -> None:
    """Up, without ARP of the kernel's. Raises NetlinkError."""
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=name)[0]
        netlink.link("set", index=index, flags=_IFF_NOARP, change=_IFF_NOARP)
        netlink.link("set", index=index, state="up")


def clean() -> tuple[str, ...]:
    """Take away the tables of daemons that were killed; which. Raises NoGuard, OSError, NetlinkError."""
    found = []
    for table in bridge.standing():
        try:
            lock(table.removeprefix(f"{bridge.TABLE}-")).close()
        except NoNetwork:
            continue  # its daemon lives
        names = bridge.devices(table)
        bridge.reopen(table)
        give_back(names)
        found.append(table)
    return tuple(found)


def _reason(error: Exception, name: str) -> str:
    if isinstance(error, PermissionError) or (isinstance(error, NetlinkError) and error.code == 1):
        return f"{name}: this needs CAP_NET_ADMIN and CAP_NET_RAW here"
    if isinstance(error, NetlinkError):
        return f"{name}: {error.args[-1] if error.args else error}"
    if isinstance(error, OSError) and error.errno:
        return f"{name}: {os.strerror(error.errno)}"
    return str(error)
