"""Rootless mode: a network namespace of an ordinary user in the place of the host's network; ESP in UDP leaves by ordinary sockets.

    program -> its namespace's routes -> interface -> engine (outside) -> UDP socket (outside) -> the peer

As in host mode the keeper makes routes of policies, but a steward inside sets them (host.steward), and nobody needs a right. There is no
other way out of the namespace, so nothing leaves it in clear: no guard is needed, and what policy lets bypass has nowhere to go.
"""

import os
import socket
import syslog
from collections.abc import Iterable

from koura import address
from koura.address import Prefix
from koura.daemon import ends
from koura.daemon.config import HostConfig, RootlessConfig
from koura.daemon.ends import End, Kind
from koura.daemon.network import Log, Network, NoNetwork, Say
from koura.host import namespace, routes, steward
from koura.host.loop import Loop
from koura.host.namespace import Made
from koura.host.routes import Wanted
from koura.host.steward import NotDone, Steward
from koura.settings import Settings

SHOWN_PORT = 4500


def prepare() -> Made:
    """The namespaces, made before this process hides its memory. Raises Closed."""
    return namespace.make(steward.serve)


class Outside:
    """Routes inside, addresses and paths outside: what `Network` asks of a table."""

    def __init__(self, inside: Steward, interface: str) -> None:
        self._inside = inside
        self._outside = routes.Routes(interface)
        self._addresses: frozenset[bytes] = frozenset()

    def have(self, addresses: Iterable[tuple[bytes, int]]) -> bool:
        """Addresses of the interface, besides those it has; whether any are new. Raises NotDone."""
        wanted = [(address.show(one), bits) for one, bits in addresses if one not in self._addresses]
        if wanted:
            self._inside.ask(do="have", addresses=wanted)
            self._addresses |= {address.parse(text) for text, _ in wanted}
        return bool(wanted)

    @property
    def ours(self) -> frozenset[bytes]:
        return self._outside.ours | self._addresses

    def sync(self, wanted: Iterable[Wanted], *, only_adds: bool = False, is_anew: bool = False) -> None:
        """Raises OSError. A namespace is new: nothing of an earlier daemon is in it that `only_adds` could keep."""
        try:
            self._inside.sync(wanted)
        except NotDone as error:
            raise OSError(0, str(error)) from error

    def change(self, wanted: Iterable[Wanted], unwanted: Iterable[Prefix]) -> None:
        """Raises OSError."""
        try:
            self._inside.change(wanted, unwanted)
        except NotDone as error:
            raise OSError(0, str(error)) from error

    def look(self) -> None:
        self._outside.look()

    def is_ours(self, one: bytes) -> bool:
        return one in self._addresses

    def mtus(self, destinations: Iterable[bytes]) -> dict[bytes, int]:
        return self._outside.mtus(destinations)

    def fileno(self) -> int:
        return self._outside.fileno()

    def drain(self) -> bool:
        return self._outside.drain()

    def close(self) -> None:
        self._outside.close()


class Rootless(Network):
    """One namespace as the network. `made`: by `prepare`."""

    def __init__(self, loop: Loop, config: RootlessConfig, settings: Settings, say: Say, log: Log, made: Made) -> None:
        super().__init__(loop, HostConfig(has_guard=False), settings, say, log)
        self._rootless = config
        self._made = made
        self._outside: Outside | None = None
        self.device = ""

    def open(self) -> None:
        """Raises NoNetwork."""
        config = self._rootless
        try:
            opened = ends.open_rootless(config.port, config.port or SHOWN_PORT)
        except OSError as error:
            raise NoNetwork(f"UDP port {config.port}: {error.strerror}; [rootless] port = 0 takes any that is free") from error
        inside = Steward(self._made.end)
        try:
            answer, descriptors = inside.ask(
                do="raise", interface=config.interface, device=config.device, mtu=config.mtu_octets, group=os.getegid(),
                is_native=opened[0].is_native,
            )  # fmt: skip
            self._routes = self._outside = Outside(inside, config.interface)
            self._outside.have(config.addresses)
        except NotDone as error:
            ends.close(opened)
            raise NoNetwork(str(error), is_forbidden=True) from error
        self.device = answer["device"]
        is_native = opened[0].is_native and self.device == "tun"
        if not is_native:
            opened = tuple(_plain(end) for end in opened)
        near = bytes.fromhex(answer.get("near", ""))
        if self.device == "tun":
            self.ends = (*ends.queues(config.interface, descriptors, is_native), *opened)
        else:
            self.ends = (End(Kind.VETH, config.interface, descriptors[0], 0, is_native, near, answer.get("far", "")), *opened)
        self._loop.watch(self._routes.fileno(), self._changed_outside)

    def commit(self) -> None:
        """Addresses that the policies speak from, unless the configuration has some; then routes."""
        if self._is_changed and self._outside is not None and not self._rootless.addresses:
            try:
                if self._outside.have(sources(self._destinations.spoken)):
                    self.tell_engine()
            except NotDone as error:
                self._log(syslog.LOG_ERR, str(error))
        super().commit()

    def close(self, *, leaves_closed: bool = False) -> None:
        """Interface and routes go with the namespace, whose last program has ended or is alone now."""
        if self._routes is None:
            return
        self._loop.forget(self._routes.fileno())
        ends.close(self.ends)
        self._routes.close()
        self._routes = self._outside = None
        self._made.close()


def _plain(end: End) -> End:
    """A socket that nobody reads natively."""
    with socket.socket(fileno=os.dup(end.descriptor)) as copy:
        copy.setsockopt(socket.IPPROTO_UDP, 104, 0)  # UDP_GRO: no trains
    return End(end.kind, end.name, end.descriptor, end.number)


def sources(spoken: Iterable[bytes]) -> tuple[tuple[bytes, int], ...]:
    """The addresses that a file's outbound policies speak from, where they name one: what the inside has unless told otherwise."""
    return tuple((one, 8 * len(one)) for one in sorted(spoken, key=lambda one: (len(one), one)))
