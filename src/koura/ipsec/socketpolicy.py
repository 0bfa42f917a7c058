"""Per-socket policies for Python programs: R20, R27, M31-M33. docs/client.md.

    policy(sock, "out ipsec esp/transport//require")           until the socket has gone, or `entrust` is said
    with policy(sock, "in bypass", "out bypass"): ...          for a while

What setsockopt(IP_IPSEC_POLICY) is to a program under `koura run`: the engine keeps the policy by the socket's cookie and needs to know
where the socket is. That is told at the call, and again by `refresh` after a bind or connect that came later. A socket's own policy
comes before the SPD; `entrust` leaves the decision to the SPD, and is all that a process may say which may not open the engine's
control socket (M31): everything else is PermissionError.
"""

import os
import socket
import struct
import weakref
from types import TracebackType

from koura.client import place
from koura.client.control import Control, Unreachable
from koura.errors import Errno, Refused
from koura.ipsec.text import ipsec_dump_policy, ipsec_set_policy
from koura.pfkey.dialect import FREEBSD
from koura.spd import language
from koura.spd.policy import Action

_SO_COOKIE = 57
_LEVELS = {socket.AF_INET: 0, socket.AF_INET6: 41}  # IPPROTO_IP, IPPROTO_IPV6
_DIRECTIONS = {"in": 1, "out": 2}
_ENTRUST = ("in entrust", "out entrust")
Directory = str | os.PathLike[str] | None


class SocketPolicies:
    """The policies of one socket. They end with it, with `close`, and with this process."""

    def __init__(self, sock: socket.socket, directory: Directory) -> None:
        if sock.family not in _LEVELS:
            raise OSError(Errno.EAFNOSUPPORT.linux, "only IPv4 and IPv6 sockets have policies")
        self.cookie: int = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0]
        self._level = _LEVELS[sock.family]
        self._protocol = sock.proto or {socket.SOCK_STREAM: 6, socket.SOCK_DGRAM: 17}.get(sock.type, 0)
        self._family = sock.family
        self._socket = weakref.ref(sock)
        self._control = Control(place.directory(directory))

    def close(self) -> None:
        """The SPD decides again."""
        _held.pop(self.cookie, None)
        self._control.close()

    def set(self, text: str) -> None:
        """One direction's policy. Raises IpsecError for bad text, OSError for what the engine refuses."""
        octets = ipsec_set_policy(text, dialect=FREEBSD)
        self._ask("socket-policy", socket=self.cookie, level=self._level, policy=octets.hex(), dialect="freebsd", pid=os.getpid())

    def get(self, direction: str) -> str:
        """The policy of a direction, in or out, as text; entrust where none was set (M33)."""
        if direction not in _DIRECTIONS:
            raise ValueError(f"a direction is in or out, not {direction}")
        answer = self._ask("socket-policy-get", socket=self.cookie, level=self._level, direction=_DIRECTIONS[direction], dialect="freebsd")
        return ipsec_dump_policy(bytes.fromhex(str(answer)), dialect=FREEBSD)

    def refresh(self, listener: int | None = None) -> None:
        """Tell the engine where the socket is now. listener: the cookie of the socket that accepted it, whose policies it gets (M32)."""
        sock = self._socket()
        if sock is None:
            return
        local = _end(sock.getsockname())
        try:
            remote = _end(sock.getpeername())
        except OSError:
            remote = None
        where = {"local": local, "remote": remote, "listener": listener}
        self._ask("socket-where", socket=self.cookie, protocol=self._protocol, **{key: value for key, value in where.items() if value})

    def _ask(self, verb: str, **arguments: object) -> object:
        try:
            return self._control.ask(verb, **arguments).get("policy", "")  # type: ignore[arg-type]
        except Refused as error:
            raise OSError(error.errno.linux, error.why) from error


_held: dict[int, SocketPolicies] = {}


def _end(name: object) -> list[object] | None:
    """[address, port] of a socket's name; None while it has no port."""
    if not isinstance(name, tuple) or len(name) < 2 or not name[1]:
        return None
    host = str(name[0]).partition("%")[0]
    return ["" if host in ("0.0.0.0", "::") else host, name[1]]


class Given:
    """What one call of `policy` gave. As a context manager it takes it back: what was before is there again."""

    def __init__(self, policies: SocketPolicies, before: tuple[str, ...]) -> None:
        self.policies = policies
        self._before = before

    def __enter__(self) -> SocketPolicies:
        return self.policies

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        for text in self._before:
            self.policies.set(text)

    def refresh(self) -> None:
        """The socket was bound or connected since."""
        self.policies.refresh()


def policy(sock: socket.socket, *texts: str, directory: Directory = None) -> Given:
    """Give a socket policies of its own, a text for each direction.

    Raises IpsecError for bad text, with nothing done; PermissionError and other OSErrors for what the engine refuses; Unreachable.
    """
    for text in texts:
        ipsec_set_policy(text, dialect=FREEBSD)
    try:
        known = _known(sock, directory)
    except Unreachable as error:
        if not error.is_forbidden:
            raise
        if all(language.parse(text).action is Action.ENTRUST for text in texts):
            return Given(_Unprivileged(), ())
        raise PermissionError(Errno.EACCES.linux, "only entrust may be said without the right to the engine's control socket") from error
    known.refresh()
    before = tuple(known.get(language.parse(text).direction.name.lower().removesuffix("bound")) for text in texts)
    for text in texts:
        known.set(text)
    return Given(known, before)


def inherit(listener: socket.socket, sock: socket.socket, *, directory: Directory = None) -> SocketPolicies:
    """Give an accepted socket its listener's policies (M32)."""
    known = _known(sock, directory)
    known.refresh(_known(listener, directory).cookie)
    return known


def _known(sock: socket.socket, directory: Directory) -> SocketPolicies:
    """The object of a socket, made at its first policy and kept as long as the socket is."""
    cookie: int = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0]
    known = _held.get(cookie)
    if known is None:
        known = _held[cookie] = SocketPolicies(sock, directory)
        weakref.finalize(sock, known.close)
    return known


class _Unprivileged(SocketPolicies):
    """Of a process that may say entrust, and has said it: the state every socket begins in."""

    def __init__(self) -> None:
        self.cookie = 0

    def close(self) -> None:
        return None

    def set(self, text: str) -> None:
        if text.split() not in [one.split() for one in _ENTRUST]:
            raise PermissionError(Errno.EACCES.linux, "only entrust may be said without the right to the engine's control socket")

    def get(self, direction: str) -> str:
        return f"{direction} entrust"

    def refresh(self, listener: int | None = None) -> None:
        return None
