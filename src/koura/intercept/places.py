"""The sockets that have a policy or UDP_ENCAP: where they are, who was accepted from them, and when they end. R20, M32.

bind(2), connect(2) and accept(2) are not intercepted: they run at native speed, and the kernel's list of sockets is read instead.
A socket that is bound to nothing is looked for after 1 ms, 2 ms, ... 100 ms; all are looked at again each second, for what connect
and accept changed. Until then a connected socket is its port's, and an accepted one its listener's, which has the same policies.

The end of a socket is told by the kernel (sock_diag). For raw sockets it is not, and after too many ends at once some are missing:
then the descriptors of all processes are looked through.
"""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from koura.errors import Errno, Refused
from koura.host.sockdiag import Diag, Listed, Place, cookie_of, namespace_of, packed
from koura.intercept.engine import Engine

MAX_SOCKETS = 65536
FAST_FIRST_S, FAST_LAST_S, SLOW_S = 0.001, 0.1, 1.0
PORTED = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)


@dataclass(slots=True)
class Known:
    """One socket. namespace: its network namespace (inode). kind: of UDP_ENCAP, 0 none. listener: whom it was accepted from."""

    cookie: int
    family: int
    protocol: int
    inode: int
    namespace: int
    place: Place | None = None
    kind: int = 0
    listener: int = 0

    @property
    def is_unbound(self) -> bool:
        return self.place is None and self.protocol in PORTED

    @property
    def is_listener(self) -> bool:
        """Whether connections may have been accepted from it."""
        return self.protocol == socket.IPPROTO_TCP and self.place is not None and not self.place.remote_port


@dataclass(slots=True)
class _Namespace:
    diag: Diag
    watched: set[tuple[int, int]] = field(default_factory=set)
    is_blind: bool = False  # Something in it ends without our being told.


class Places:
    """All known sockets of one supervisor. `opened` and `closed` hear of descriptors that carry events."""

    def __init__(self, engine: Engine, opened: Callable[[int], None], warn: Callable[[str], None]) -> None:
        self._engine = engine
        self._opened = opened
        self._warn = warn
        self._known: dict[int, Known] = {}
        self._namespaces: dict[int, _Namespace] = {}
        self._pace_s = SLOW_S
        self._next_s: float | None = None

    def __len__(self) -> int:
        return len(self._known)

    def get(self, cookie: int) -> Known | None:
        return self._known.get(cookie)

    def note(self, stolen: socket.socket, thread: int) -> Known:
        """The socket behind a stolen descriptor, watched from now on. Raises Refused and OSError."""
        cookie = cookie_of(stolen)
        known = self._known.get(cookie)
        if known is None:
            if len(self._known) >= MAX_SOCKETS:
                raise Refused(Errno.ENOBUFS, f"{MAX_SOCKETS} sockets with policies are the most")
            protocol, inode = stolen.proto, os.fstat(stolen.fileno()).st_ino
            known = Known(cookie, stolen.family, protocol, inode, self._namespace(stolen, thread))
            self._watch(known)
        return known

    def keep(self, known: Known, stolen: socket.socket, now_s: float) -> None:
        """It has a policy or UDP_ENCAP now: its place is told, at once or as soon as it has one."""
        is_new = known.cookie not in self._known
        self._known[known.cookie] = known
        if is_new or known.place is None:
            self._place(known, _place_of(stolen, known.protocol))
        self._pace_s = FAST_FIRST_S if known.is_unbound else min(self._pace_s, SLOW_S)
        self._next_s = now_s + self._pace_s if self._next_s is None else min(self._next_s, now_s + self._pace_s)

    def encapsulate(self, known: Known, kind: int) -> None:
        """UDP_ENCAP. Raises Refused."""
        self._engine.encapsulation(known.cookie, kind, known.place.port if known.place is not None else 0)
        known.kind = kind

    # -- time and events ---------------------------------------------------------------------------------------------------

    def next_s(self) -> float | None:
        return self._next_s if self._known else None

    def due(self, now_s: float) -> None:
        """Look where everybody is, if it is time."""
        if self._next_s is None or now_s < self._next_s:
            return
        self.look()
        if any(known.is_unbound for known in self._known.values()):
            self._pace_s = min(2 * self._pace_s, FAST_LAST_S)
        else:
            self._pace_s = SLOW_S
        if any(namespace.is_blind for namespace in self._namespaces.values()):
            self._sweep()
        self._next_s = now_s + self._pace_s if self._known else None

    def event(self, descriptor: int) -> bool:
        """Ends of sockets, if the descriptor is one of ours."""
        for namespace in self._namespaces.values():
            if namespace.diag.events.fileno() == descriptor:
                ended, is_lossy = namespace.diag.closed()
                for one in ended:
                    if one.cookie in self._known and one.place.port:
                        self._place(self._known[one.cookie], one.place)
                self._ended([one.cookie for one in ended if one.cookie in self._known])
                if is_lossy:
                    self._sweep()
                return True
        return False

    def look(self) -> None:
        """Read the kernel's lists: bound, connected, accepted."""
        wanted: dict[tuple[int, int, int], list[Known]] = {}
        for known in self._known.values():
            if known.protocol in PORTED:
                wanted.setdefault((known.namespace, known.family, known.protocol), []).append(known)
        for (number, family, protocol), several in wanted.items():
            ports = {known.place.port if known.place is not None else 0 for known in several}
            port = ports.pop() if len(ports) == 1 else 0
            try:
                listed = self._namespaces[number].diag.sockets(family, protocol, port)
            except OSError as error:
                self._warn(f"the kernel does not list sockets (sock_diag: {error}); policies apply to sockets that were bound before")
                self._namespaces[number].is_blind = True
                continue
            for entry in listed:
                if entry.cookie in self._known:
                    self._known[entry.cookie].inode = entry.inode or self._known[entry.cookie].inode
                    self._place(self._known[entry.cookie], entry.place)
            self._look_for_accepted(several, listed)

    # -- inside ------------------------------------------------------------------------------------------------------------

    def _place(self, known: Known, place: Place | None) -> None:
        if place is None or place == known.place:
            return
        was_bound, known.place = known.place is not None, place
        try:
            self._engine.where(known.cookie, known.protocol, place, known.listener)
            if known.kind and not was_bound:
                self._engine.encapsulation(known.cookie, known.kind, place.port)
        except Refused as error:
            self._warn(f"socket {known.cookie}: {error}")

    def _look_for_accepted(self, known: list[Known], listed: list[Listed]) -> None:
        """Connections at the port of a socket that is not connected itself are what it accepted. M32."""
        listeners = {one.place.port: one for one in known if one.is_listener and one.place is not None}
        for entry in listed:
            listener = listeners.get(entry.place.port)
            if listener is not None and entry.cookie not in self._known and entry.place.remote_port:
                assert listener.place is not None
                if listener.place.local in (b"", entry.place.local):
                    self._accepted(listener, entry)

    def _accepted(self, listener: Known, entry: Listed) -> None:
        known = Known(entry.cookie, listener.family, listener.protocol, entry.inode, listener.namespace, listener=listener.cookie)
        if len(self._known) < MAX_SOCKETS:
            self._known[entry.cookie] = known
            self._place(known, entry.place)

    def _ended(self, cookies: list[int]) -> None:
        """Told only after those that a listener leaves behind have its policies."""
        if any(self._known[cookie].is_listener for cookie in cookies):
            self.look()
        for cookie in cookies:
            del self._known[cookie]
            try:
                self._engine.gone(cookie)
            except Refused as error:
                self._warn(f"socket {cookie}: {error}")

    def _sweep(self) -> None:
        """Who is in no process any more has ended."""
        alive = set(_open_sockets())
        self._ended([known.cookie for known in self._known.values() if known.inode and known.inode not in alive])

    def _watch(self, known: Known) -> None:
        namespace = self._namespaces[known.namespace]
        if (known.family, known.protocol) not in namespace.watched:
            namespace.watched.add((known.family, known.protocol))
            if not namespace.diag.watch(known.family, known.protocol):
                namespace.is_blind = True

    def _namespace(self, stolen: socket.socket, thread: int) -> int:
        """The network namespace of a socket, with sockets of ours in it; as far as we may know: its program's. Raises Refused, OSError."""
        try:
            descriptor = namespace_of(stolen)
        except OSError:
            descriptor = os.open(f"/proc/{thread}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            number = os.fstat(descriptor).st_ino
            if number not in self._namespaces:
                made = _Namespace(_diag_in(descriptor, number))
                self._namespaces[number] = made
                self._opened(made.diag.events.fileno())
        finally:
            os.close(descriptor)
        return number

    def close(self) -> None:
        """The program and all its descendants have gone, and their sockets with them."""
        self._ended(list(self._known))
        for namespace in self._namespaces.values():
            namespace.diag.close()


def _place_of(stolen: socket.socket, protocol: int) -> Place | None:
    """Where it is right now; None: bound to nothing yet."""
    address, port = stolen.getsockname()[:2]
    local = _packed(stolen.family, address)
    if protocol not in PORTED:
        return Place(local, 0)
    if not port:
        return None
    try:
        remote, remote_port = stolen.getpeername()[:2]
    except OSError:
        return Place(local, port)
    return Place(local, port, _packed(stolen.family, remote), remote_port)


def _packed(family: int, text: str) -> bytes:
    return packed(socket.inet_pton(family, text.partition("%")[0]))


def _diag_in(namespace: int, number: int) -> Diag:
    """A Diag in another network namespace, or in ours. Raises Refused."""
    own = Path("/proc/thread-self/ns/net")
    if own.stat().st_ino == number:
        return Diag()
    with own.open("rb") as ours:
        try:
            _enter(namespace)
        except OSError as error:
            why = "a socket of another network namespace: entering it needs CAP_SYS_ADMIN; start koura run inside of it"
            raise Refused(Errno.EOPNOTSUPP, why) from error
        try:
            return Diag()
        finally:
            _enter(ours.fileno())


def _enter(namespace: int) -> None:
    """setns(2); Python has it from 3.12 on."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, 0x4000_0000) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _open_sockets() -> Iterator[int]:
    """Inodes of all sockets that some process has open, as far as we may see."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            descriptors = list(os.scandir(process / "fd"))
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                target = os.readlink(descriptor.path)
            except OSError:
                continue
            if target.startswith("socket:["):
                yield int(target[8:-1])
