"""The intercepted calls, one function each: socket(AF_KEY), the options of policies and UDP_ENCAP, and a poll that cannot wait.

What is not ours after all (an option of a socket that is no Internet socket, another encapsulation, a poll of something else) goes on
into the kernel as if nothing had been. What a program sent is read from its memory once, and its call's id checked after that.
Every notification is answered exactly once, or held.
"""

import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from koura.errors import Refused
from koura.host import udpcopy
from koura.host.sockdiag import cookie_of
from koura.intercept import caller, kernel
from koura.intercept.abi import AF_KEY, IPPROTO_UDP, SO_DOMAIN, SO_PROTOCOL, SO_TYPE, SOCKETCALLS, SOL_SOCKET, Call, Calls, Machine
from koura.intercept.engine import Engine
from koura.intercept.holds import Holds, blocking_duplicate
from koura.intercept.kernel import Gone, Notification
from koura.intercept.places import Known, Places

PF_KEY_V2 = 2
SOCK_TYPE_MASK = 0xF
POLICY_OCTETS_MIN, POLICY_OCTETS_MAX = 16, 4096
DIRECTION_OFFSET = 6  # of sadb_x_policy_dir
UDP_ENCAP_ESPINUDP = 2
SHORT_POLL_NS = 10_000_000
KEY_SOCKETS_KNOWN = 65536
INTERNET = (socket.AF_INET, socket.AF_INET6)
NATURE = {SO_DOMAIN: AF_KEY, SO_TYPE: socket.SOCK_RAW, SO_PROTOCOL: PF_KEY_V2}  # of a key socket, as a kernel tells it


class Done(Exception):
    """What becomes of the call: a value, an errno, or (GoOn) the kernel runs it."""

    def __init__(self, value: int = 0, error: int = 0, *, is_ours: bool = True) -> None:
        super().__init__(value, error)
        self.value = value
        self.error = error
        self.is_ours = is_ours


class GoOn(Done):
    """The call is not ours after all: the kernel runs it."""

    def __init__(self) -> None:
        super().__init__(is_ours=False)


@dataclass(frozen=True, slots=True)
class Caught:
    """A notification that was understood: whose call it is and its arguments, as 64-bit words."""

    id: int
    thread: int
    abi: Calls
    call: Call
    args: tuple[int, ...]


class Answers:
    """Answers the notifications of one listener."""

    def __init__(self, machine: Machine, listener: int, engine: Engine, epoll: select.epoll, warn: Callable[[str], None]) -> None:
        self._machine = machine
        self._listener = listener
        self._engine = engine
        self._warn = warn
        self.holds = Holds(listener, epoll)
        self.places = Places(engine, lambda descriptor: epoll.register(descriptor, select.EPOLLIN), warn)
        self._key_sockets: dict[int, int] = {}  # the ends we gave away, inode to cookie, oldest first
        self._serve = {Call.SOCKET: self._socket, Call.SETSOCKOPT: self._set, Call.GETSOCKOPT: self._get, Call.POLL: self._poll}

    def serve(self, notification: Notification, now_s: float) -> None:
        """Answer one call, or hold it."""
        try:
            try:
                caught = self._understand(notification)
                self._serve[caught.call](caught, now_s)
            except Done as done:
                kernel.answer(self._listener, notification.id, done.value, done.error, go_on=not done.is_ours)
            except Refused as refused:
                self._warn(f"pid {notification.thread}: {refused.why}")
                kernel.answer(self._listener, notification.id, error=refused.errno.linux)
            except OSError as error:
                kernel.answer(self._listener, notification.id, error=error.errno or errno.EIO)
        except Gone:
            return

    def _understand(self, notification: Notification) -> Caught:
        """Which call it is. Raises OSError."""
        abi = self._machine.abi(notification.audit)
        if abi is None:
            raise OSError(errno.ENOSYS, "no such ABI")
        call, args = abi.call_of(notification.number), notification.args
        if call is None:  # socketcall(2): the arguments are in memory, in words of 32 bits.
            call = SOCKETCALLS[args[0] & 0xFFFF_FFFF]
            args = struct.unpack("=5I", self._read(notification, args[1], 20))
        return Caught(notification.id, notification.thread, abi, call, args)

    def _read(self, caught: Caught | Notification, address: int, count: int) -> bytes:
        """Octets of the caller's memory, certainly the caller's. Raises OSError and Gone."""
        octets = kernel.read_memory(caught.thread, address, count)
        if not kernel.is_valid(self._listener, caught.id):
            raise Gone("the caller left")
        return octets

    def _steal(self, caught: Caught, descriptor: int) -> socket.socket:
        """A duplicate of one of the caller's sockets; what is no socket is the kernel's business. Raises Done, OSError, Gone."""
        number = _int(descriptor)
        if number < 0:
            raise GoOn
        try:
            stolen = kernel.steal(self._machine, caught.thread, number)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise GoOn from error
            raise
        if not kernel.is_valid(self._listener, caught.id):
            os.close(stolen)
            raise Gone("the caller left")
        try:
            return blocking_duplicate(stolen)
        except OSError as error:
            raise GoOn from error

    # -- socket(AF_KEY) ----------------------------------------------------------------------------------------------------

    def _socket(self, caught: Caught, _now_s: float) -> None:
        """One end of a pair for the program, the other for the engine. Errnos as Linux's own AF_KEY has them."""
        family, kind, protocol = (_int(word) for word in caught.args[:3])
        if family != AF_KEY:
            raise GoOn
        if kind & SOCK_TYPE_MASK != socket.SOCK_RAW:
            raise Done(error=errno.ESOCKTNOSUPPORT)
        if protocol != PF_KEY_V2:
            raise Done(error=errno.EPROTONOSUPPORT)
        who = caller.of(caught.thread)
        if not kernel.is_valid(self._listener, caught.id):
            raise Gone("the caller left")
        if not who.is_privileged(self._engine.owner_uid):
            raise Done(error=errno.EPERM)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            theirs.setblocking(not kind & socket.SOCK_NONBLOCK)
            self._engine.adopt(ours.fileno(), who)
            self._remember(theirs)
            kernel.answer_with_descriptor(
                self._listener, caught.id, theirs.fileno(), is_cloexec=bool(kind & socket.SOCK_CLOEXEC)
            )

    def _remember(self, theirs: socket.socket) -> None:
        self._key_sockets[os.fstat(theirs.fileno()).st_ino] = cookie_of(theirs)
        if len(self._key_sockets) > KEY_SOCKETS_KNOWN:
            del self._key_sockets[next(iter(self._key_sockets))]

    # -- socket options ----------------------------------------------------------------------------------------------------

    def _set(self, caught: Caught, now_s: float) -> None:
        descriptor, level, _, address, octets = caught.args[:5]
        if _int(level) == SOL_SOCKET:
            raise GoOn
        with self._steal(caught, descriptor) as stolen:
            if stolen.family not in INTERNET:
                raise GoOn
            if _int(level) == IPPROTO_UDP:
                known = self._set_encapsulation(caught, stolen, address, _int(octets))
            else:
                known = self._set_policy(caught, stolen, address, _int(octets))
            self.places.keep(known, stolen, now_s)
        raise Done

    def _set_policy(self, caught: Caught, stolen: socket.socket, address: int, octets: int) -> Known:
        """R20, M31: the engine reads the policy, and judges the caller's right to it."""
        if not POLICY_OCTETS_MIN <= octets <= POLICY_OCTETS_MAX:
            raise Done(error=errno.EINVAL)
        policy = self._read(caught, address, octets)
        who = caller.of(caught.thread)
        known = self.places.note(stolen, caught.thread)
        self._engine.set_policy(known.cookie, _int(caught.args[1]), policy, who)
        return known

    def _set_encapsulation(self, caught: Caught, stolen: socket.socket, address: int, octets: int) -> Known:
        """ESP in UDP is ours: the kernel's would take the packets away. Others (L2TP, GTP) are the kernel's."""
        if stolen.type != socket.SOCK_DGRAM or stolen.proto != IPPROTO_UDP:
            raise GoOn
        if octets < 4:
            raise Done(error=errno.EINVAL)
        kind = struct.unpack("=i", self._read(caught, address, 4))[0]
        known = self.places.note(stolen, caught.thread)
        if kind != UDP_ENCAP_ESPINUDP and not (kind == 0 and known.kind):
            raise GoOn
        self.places.encapsulate(known, kind)
        udpcopy.hide(stolen, is_on=kind == UDP_ENCAP_ESPINUDP)
        return known

    def _get(self, caught: Caught, _now_s: float) -> None:
        """M33: the buffer's own header says which direction; UDP_ENCAP only where we have set it."""
        descriptor, level, option, address, length_at = caught.args[:5]
        if _int(level) == SOL_SOCKET:
            with self._steal_key_socket(caught, _int(descriptor)):
                octets = struct.pack("=i", NATURE[_int(option)])
            self._give(caught, address, length_at, octets)
        with self._steal(caught, descriptor) as stolen:
            if stolen.family not in INTERNET:
                raise GoOn
            cookie = cookie_of(stolen)
        if _int(level) == IPPROTO_UDP:
            known = self.places.get(cookie)
            if known is None or not known.kind:
                raise GoOn
            octets = struct.pack("=i", known.kind)
        else:
            if self._room(caught, length_at) < POLICY_OCTETS_MIN:
                raise Done(error=errno.EINVAL)
            direction = self._read(caught, address, POLICY_OCTETS_MIN)[DIRECTION_OFFSET]
            octets = self._engine.get_policy(cookie, _int(level), direction)
        self._give(caught, address, length_at, octets)

    def _room(self, caught: Caught, length_at: int) -> int:
        return int(struct.unpack("=i", self._read(caught, length_at, 4))[0])

    def _give(self, caught: Caught, address: int, length_at: int, octets: bytes) -> NoReturn:
        """An option's value, as much of it as there is room for. Raises Done."""
        room = self._room(caught, length_at)
        if room < 0:
            raise Done(error=errno.EINVAL)
        octets = octets[:room]
        kernel.write_memory(caught.thread, address, octets)
        kernel.write_memory(caught.thread, length_at, struct.pack("=i", len(octets)))
        raise Done

    # -- poll --------------------------------------------------------------------------------------------------------------

    def _poll(self, caught: Caught, now_s: float) -> None:
        """Hold it if it polls a key socket with a request under way; holds.py says why."""
        if not self._key_sockets:
            raise GoOn
        try:
            if caught.abi.poll is None and not self._is_short(caught):
                raise GoOn
            descriptor = struct.unpack("=i", self._read(caught, caught.args[0], 4))[0]
        except OSError as error:
            raise GoOn from error
        self.holds.hold(caught.id, self._steal_key_socket(caught, descriptor), now_s)

    def _steal_key_socket(self, caught: Caught, descriptor: int) -> socket.socket:
        """A duplicate of a key socket that we gave away; what is none is the kernel's business. Raises Done, Gone."""
        try:
            # Cheap first: most such calls are about something else. An inode's number may be another's by now, a cookie not.
            inode = _inode(os.readlink(f"/proc/{caught.thread}/fd/{descriptor}"))
            if inode not in self._key_sockets:
                raise GoOn
            stolen = self._steal(caught, descriptor)
        except OSError as error:
            raise GoOn from error
        if cookie_of(stolen) != self._key_sockets[inode]:
            stolen.close()
            raise GoOn
        return stolen

    def _is_short(self, caught: Caught) -> bool:
        """Whether the ppoll's timespec is about a millisecond."""
        seconds, nanoseconds = struct.unpack("=qq", self._read(caught, caught.args[2], 16))
        return bool(seconds == 0 and 0 < nanoseconds <= SHORT_POLL_NS)


def _inode(target: str) -> int:
    """The number in "socket:[123]"; 0 for what is no socket."""
    return int(target[8:-1]) if target.startswith("socket:[") else 0


def _int(word: int) -> int:
    """An argument of type int."""
    return int(struct.unpack("=i", struct.pack("=I", word & 0xFFFF_FFFF))[0])
