"""The keeper's hand on the network: what policies the engine has become routes and the inbound guard, before anybody is answered.

    policy written down by the engine  -> its destination is routed into the TUN (outbound), the guard drops its clear twin (inbound)
    addresses, links, routes change    -> the engine is told which addresses are ours and how large packets may be

The engine has no rights here and decides nothing of this: the keeper reads what the engine wrote down for its successor (journal).
Routes are set in the same step in which the policy's request is answered; the guard follows soon, many changes at once (guarding).
A change costs the same among ten policies and among ten thousand.
"""

import errno
import socket
import syslog
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from pyroute2 import NetlinkError

from koura import address
from koura.address import Prefix
from koura.daemon import closed, codec, ends, site
from koura.daemon.closed import Closed
from koura.daemon.config import HostConfig, fitting
from koura.daemon.destinations import Destinations
from koura.daemon.ends import End
from koura.daemon.guarding import Guarding
from koura.daemon.journal import Written
from koura.errors import KouraError
from koura.host import guard, reverse, routes, tun, udpcopy
from koura.host.guard import NoGuard
from koura.host.loop import Loop
from koura.host.supers import Supers
from koura.host.xdp import NoXdp, Program
from koura.notices import EncapsulationPort, SocketBound
from koura.settings import Settings

T = TypeVar("T")
REFRESH_S = 0.02
Say = Callable[[dict[str, object]], None]
Log = Callable[[int, str], None]


class NoNetwork(KouraError):
    """Host or rootless mode cannot be had; says what is missing. is_forbidden: to this user, on this machine."""

    def __init__(self, why: str, is_forbidden: bool = False) -> None:
        super().__init__(why)
        self.is_forbidden = is_forbidden


class Table(Protocol):
    """What the keeper does with routes: host.routes.Routes, or those of a namespace."""

    @property
    def ours(self) -> frozenset[bytes]: ...
    def sync(self, wanted: Iterable[routes.Wanted], *, only_adds: bool = False, is_anew: bool = False) -> None: ...
    def change(self, wanted: Iterable[routes.Wanted], unwanted: Iterable[Prefix]) -> None: ...
    def look(self) -> None: ...
    def is_ours(self, address: bytes) -> bool: ...
    def mtus(self, destinations: Iterable[bytes]) -> dict[bytes, int]: ...
    def fileno(self) -> int: ...
    def drain(self) -> bool: ...
    def close(self) -> None: ...


class Network:
    """One TUN with its routes, rules and guard. `say`: to the engine. `log(priority, line)`."""

    def __init__(self, loop: Loop, config: HostConfig, settings: Settings, say: Say, log: Log) -> None:
        self._loop = loop
        self._config = config
        self._settings = settings
        self._say, self._log = say, log
        self._policies: dict[bytes, Written] = {}
        self._owned: frozenset[int] = frozenset()
        self._ports: dict[bytes, int] = {}
        self._is_changed = self._is_guard_stale = self._is_settled = self._is_refresh_due = False
        self._destinations = Destinations()
        self._guarding = Guarding(loop, config, settings, log)
        self._paths: dict[bytes, int] = {}
        self._supers: Supers | None = None
        self._lock: socket.socket | None = None
        self._program: Program | None = None
        self.is_adopted = False
        self.ends: tuple[End, ...] = ()
        self._routes: Table | None = None
        self._host: routes.Routes | None = None

    def open(self) -> None:
        """Interface, sockets, rules; adopts what an earlier daemon left, which stands until `settle`. Raises NoNetwork."""
        config = self._config
        if config.has_guard and not guard.is_here():
            raise NoNetwork("nft is not here: install nftables, or start with --no-inbound-guard")
        self._lock = take_lock()
        try:
            self.ends = (*ends.open_host(config.interface, config.ports, routes.MARK), *self._rings())
            self._routes = self._host = table = routes.Routes(config.interface)
            mtu_octets = config.mtu_octets or fitting(table.mtus([b""])[b""])
            table.raise_interface(mtu_octets, config.addresses)
            if ends.is_native():
                self._supers = supers = Supers()
                self._loop.watch(supers.fileno(), lambda _events: supers.drain())
                self.fit(table.index, mtu_octets)
            self.is_adopted = table.adopt()
            table.add_rules()
            if config.has_guard and guard.is_standing():
                self.is_adopted = True
            else:
                self._guarding.now()
        except (OSError, NetlinkError, NoGuard) as error:
            ends.close(self.ends)
            self._lock.close()
            raise NoNetwork(reason(error, config.interface)) from error
        in_the_way = reverse.let_through(config.interface, is_marked=config.has_guard)
        if in_the_way:
            self._log(syslog.LOG_WARNING, in_the_way)
        self._loop.watch(table.fileno(), self._changed_outside)

    def fit(self, index: int, mtu_octets: int) -> None:
        """A TUN of ours: the host gives it super packets that fit native I/O. mtu_octets: 0, it has gone."""
        if self._supers is not None and mtu_octets:
            self._supers.add(index, mtu_octets)
        elif self._supers is not None:
            self._supers.drop(index)

    def close(self, *, leaves_closed: bool = False) -> None:
        """`koura down`: interface, routes, rules and guard go. leaves_closed: they stay, and nothing passes."""
        if self._host is None:
            return
        self._loop.forget(self._host.fileno())
        if self._supers is not None:
            self._loop.forget(self._supers.fileno())
            self._supers.close()
        self._guarding.rest()
        ends.close(self.ends)
        if self._program is not None:
            self._program.close()
        try:
            if not leaves_closed:
                _take_down(self._host, self._config.has_guard)
        except (OSError, NetlinkError, NoGuard) as error:
            self._log(syslog.LOG_ERR, f"taking the network down: {error}")
        self._host.close()
        self._routes = self._host = None
        if self._lock is not None:
            self._lock.close()

    def _rings(self) -> tuple[End, ...]:
        """AF_XDP on the interfaces that want it; where it cannot be had, raw sockets serve them as all others."""

        def warn(why: str) -> None:
            self._log(syslog.LOG_WARNING, f"{why}; raw sockets serve it")

        if not self._config.xdp:
            return ()
        try:
            self._program = Program()
        except NoXdp as error:
            warn(str(error))
            return ()
        return ends.open_rings(self._program, self._config.xdp, warn)

    def settle(self) -> None:
        """The file is loaded: packets are read, and of what an earlier daemon left only what is wanted stays. Until now it all stood."""
        self._is_settled = True
        self._is_changed = self._is_guard_stale = False
        self._sync(is_anew=False)
        self._guard_now()
        if self._host is not None and not self._config.has_guard and guard.is_standing():
            self._drop_guard()
        self.tell_engine()

    # -- what the engine wrote down ------------------------------------------------------------------------------------

    def kept(self, key: bytes, value: bytes | None) -> None:
        """One thing was written down, or is no more."""
        if key.startswith(b"policy/"):
            written = codec.read(Written, value) if value is not None else None
            _put(self._policies, key, written)
            is_routed = written is not None and closed.is_general(written)
            self._destinations.put(key, written.policy if written is not None else None, is_routed=is_routed)
            is_guarded = self._guarding.put(key, written)
        elif key == b"settings" and value is not None:
            self._settings = codec.read(Settings, value)
            self._want_undecided()
            is_guarded = self._guarding.tune(self._settings)
        elif key == site.KEY and value is not None:
            self._owned = codec.read(site.Owned, value).policies
            return
        elif key.startswith(b"notice/bound/"):
            is_guarded = self._guarding.bind(key, codec.read(SocketBound, value) if value is not None else None)
        elif key.startswith(b"notice/port/"):
            _put(self._ports, key, codec.read(EncapsulationPort, value).port if value is not None else None)
            self._aim()
            is_guarded = self._guarding.listen(set(self._ports.values()))
        else:
            return
        self._is_guard_stale = self._is_guard_stale or is_guarded
        self._is_changed = True

    def commit(self) -> None:
        """The step is whole: make the network so, before it is answered."""
        if not self._is_changed or self._routes is None:
            return
        self._is_changed = False
        self._change()
        if self._is_settled and self._is_guard_stale:
            self._is_guard_stale = False
            self._guarding.due()

    def closed(self) -> Closed:
        """What the file protects now, to be remembered."""
        return Closed(self._config, self._settings, tuple(one for one in self._policies.values() if one.id in self._owned))

    def trust(self, tunnels: tuple[str, ...]) -> None:
        """Virtual tunnel interfaces: what comes out of them came protected."""
        self._guarding.trust(tunnels)
        if self._is_settled:
            self._guard_now()

    def _sync(self, *, is_anew: bool) -> None:
        """All routes."""
        assert self._routes is not None
        self._destinations.take(self._routes.is_ours)
        self._destinations.take_peers()
        try:
            self._routes.sync(self._destinations.all(self._routes.is_ours), only_adds=not self._is_settled, is_anew=is_anew)
        except (NetlinkError, OSError) as error:
            self._log_routes(error)
        self._tell_paths(is_anew=is_anew)

    def _change(self) -> None:
        """Those that changed. Until all is settled nothing is taken away, and nobody told."""
        assert self._routes is not None
        wanted, unwanted = self._destinations.take(self._routes.is_ours)
        try:
            if wanted or (unwanted and self._is_settled):
                self._routes.change(wanted, unwanted if self._is_settled else ())
        except (NetlinkError, OSError) as error:
            self._log_routes(error)
        if not self._is_settled:
            return
        peers = self._destinations.take_peers()
        gone = {peer: 0 for peer in peers if peer not in self._destinations.peers and self._paths.pop(peer, None) is not None}
        new = self._routes.mtus([peer for peer in peers if peer in self._destinations.peers and peer not in self._paths])
        self._paths |= new
        if gone or new:
            self._say_paths(gone | new, is_whole=False)

    def _log_routes(self, error: Exception) -> None:
        self._log(syslog.LOG_ERR, f"routes: {error}")

    def _want_undecided(self) -> None:
        """Everything, for each family whose default is to discard."""
        undecided = {one.dst for one in closed.undecided(self._settings)}
        for whole in closed.WHOLE.values():
            self._destinations.want(b"default/%d" % len(whole.address), whole if whole in undecided else None)

    def _aim(self) -> None:
        """ESP in UDP to ports that others hold is ours, too."""
        try:
            ends.aim(self.ends, {udpcopy.IKE_PORT, *self._ports.values()} - set(self._config.ports))
        except OSError as error:
            self._log(syslog.LOG_ERR, f"ESP in UDP on the ports of others: {error.strerror}")

    # -- the guard -----------------------------------------------------------------------------------------------------

    def _guard_now(self) -> None:
        try:
            self._guarding.now()
        except NoGuard as error:
            self._log(syslog.LOG_ERR, str(error))

    def _drop_guard(self) -> None:
        """That of an earlier daemon, which says what its policies were, is not wanted any more."""
        try:
            guard.remove()
        except NoGuard as error:
            self._log(syslog.LOG_ERR, str(error))

    # -- what the kernel says ------------------------------------------------------------------------------------------

    def tell_engine(self) -> None:
        """A new engine is told what it cannot know."""
        if self._routes is not None and self._is_settled:
            self._tell_addresses()
            self._paths = {}
            self._tell_paths(is_anew=True)
            self._say({"do": "begin"})

    def _changed_outside(self, _events: int) -> None:
        """Addresses, links or routes changed; many changes at once are one."""
        if self._routes is not None and self._routes.drain() and not self._is_refresh_due:
            self._is_refresh_due = True
            self._loop.after_s(REFRESH_S, self._refresh)

    def _refresh(self) -> None:
        self._is_refresh_due = False
        if self._routes is not None:
            if self._is_settled:
                self._tell_addresses()
            self._sync(is_anew=True)

    def _tell_addresses(self) -> None:
        assert self._routes is not None
        self._routes.look()
        if self._program is not None:
            try:
                self._program.set_ours(self._routes.ours)
            except OSError as error:
                self._log(syslog.LOG_ERR, f"AF_XDP: {error.strerror}")
        self._say({"do": "addresses", "addresses": sorted(address.show(one) for one in self._routes.ours)})

    def _tell_paths(self, *, is_anew: bool) -> None:
        """How large packets may be towards each end of a tunnel, and elsewhere; asked of the kernel once, and anew when it changed."""
        assert self._routes is not None
        if not self._is_settled:
            return
        wanted = sorted({*self._destinations.peers, b""})
        known = {} if is_anew else {peer: self._paths[peer] for peer in wanted if peer in self._paths}
        known |= self._routes.mtus(peer for peer in wanted if peer not in known)
        if known != self._paths:
            self._paths = known
            self._say_paths(known, is_whole=True)

    def _say_paths(self, sizes: dict[bytes, int], *, is_whole: bool) -> None:
        """is_whole: all that is known. 0: nothing any more."""
        told = {address.show(peer): octets for peer, octets in sizes.items() if peer}
        self._say({"do": "paths", "default": self._paths[b""], "paths": told, "is_whole": is_whole})


def take_lock() -> socket.socket:
    """Host mode is had once in a network namespace; a name in it is the lock. Raises NoNetwork."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        end.bind(closed.LOCK)
    except OSError as error:
        end.close()
        raise NoNetwork("another daemon is in host mode in this network namespace: stop it with koura down --socket DIR") from error
    return end


def clean() -> tuple[str, ...]:
    """Take away what a daemon left that was killed; what that was. Raises NoNetwork."""
    lock = take_lock()
    table = routes.Routes("")
    try:
        return _take_down(table, guard.is_standing())
    except (OSError, NetlinkError, NoGuard) as error:
        raise NoNetwork(reason(error, "host mode")) from error
    finally:
        table.close()
        lock.close()


def _take_down(table: routes.Routes, has_guard: bool) -> tuple[str, ...]:
    """Routes and rules first, so that what stops being protected is no longer led into nothing; then the guard and the interface."""
    found = ["routes"] if table.remove() else []
    if has_guard:
        guard.remove()
        found.append("guard")
    return (*found, *table.drop_interfaces())


def _put(filed: dict[bytes, T], key: bytes, value: T | None) -> None:
    if value is None:
        filed.pop(key, None)
    else:
        filed[key] = value


def reason(error: Exception, interface: str) -> str:
    if isinstance(error, PermissionError):
        return f"{interface}: this needs CAP_NET_ADMIN and CAP_NET_RAW here; as an ordinary user use koura up --rootless"
    if isinstance(error, FileNotFoundError):
        return f"there is no {error.filename}: load the module tun, or use koura up --rootless with veth"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE and error.filename:
        hint = "end that, or take it out of ports in [host]; an IKE daemon under koura run shares its own"
        return f"{error.filename} is another program's: {hint}"
    if isinstance(error, OSError) and error.filename == tun.DEVICE:
        return f"{tun.DEVICE}: {error.strerror}: the kernel needs the module tun, or use koura up --rootless with veth"
    if isinstance(error, OSError) and error.errno == errno.EBUSY:
        return f"{interface}: another program has this TUN open: end that, or choose another name for interface in [host]"
    if isinstance(error, NetlinkError):
        return f"{interface}: {error.args[-1] if error.args else error}"
    return f"{interface}: {error.strerror if isinstance(error, OSError) and error.strerror else error}"
