"""The descriptors that packets come and go by: opened by the keeper, which may; used by the engine, which may not open any.

An End is a descriptor with what it is; the engine inherits it by fork and makes an attachment of it. All of them outlive engines.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from koura.attachment import Attachment
from koura.fast import drivers
from koura.host import ethernet, nexthops, packet, raw, routes, rtnetlink, tun, udp, udpcopy, xdp
from koura.host.nexthops import NextHops
from koura.host.pump import Ends

T = TypeVar("T")


class Kind(Enum):
    """What an End is."""

    TUN = "tun"
    XDP = "xdp"
    ROUTING = "routing"  # netlink sockets: one to ask, and one that is told of changes
    CHANGES = "changes"
    QUEUE = "queue"  # another one of the TUN
    RAW4 = "raw4"
    RAW6 = "raw6"
    OUT4 = "out4"
    OUT6 = "out6"
    UDP = "udp"
    VETH = "veth"
    PACKET4 = "packet4"
    PACKET6 = "packet6"
    INSIDE = "inside"
    OUTSIDE = "outside"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class End:
    """One descriptor. number: of the protocol (RAW4, RAW6), the port (UDP), the interface (XDP). is_native: for koura.fast._io (TUN, UDP).

    near: the hardware address at the other end, far: the name of this one (VETH). sends: it does, too (XDP).
    memory: a descriptor of the frames' memory (XDP, LEAVING: of a bump's outside).
    own, passes_control: of a bump (INSIDE, OUTSIDE), whose ends have one number: its addresses, and host.frames.is_control.
    """

    kind: Kind
    name: str
    descriptor: int
    number: int = 0
    is_native: bool = False
    near: bytes = b""
    far: str = ""
    own: tuple[bytes, ...] = ()
    passes_control: bool = True
    memory: int = -1
    sends: bool = False


NO_FAST = "KOURA_NO_FAST"  # in the environment: the reference alone answers
# IP in IP, too: what an IPComp tunnel sent uncompressed (M21).
PROTOCOLS = (raw.IPPROTO_ESP, raw.IPPROTO_AH, raw.IPPROTO_IPCOMP, socket.IPPROTO_IPIP, socket.IPPROTO_IPV6)
_WAYS = (
    (socket.AF_INET, Kind.RAW4, Kind.OUT4, Kind.PACKET4),
    (socket.AF_INET6, Kind.RAW6, Kind.OUT6, Kind.PACKET6),
)


def is_fast() -> bool:
    """Whether the fast path is here and wanted."""
    return not drivers.why_not() and not os.environ.get(NO_FAST)


def is_native() -> bool:
    """Whether native I/O moves a host's packets."""
    return is_fast() and drivers.has_hands()


def is_bump(opened: tuple[End, ...]) -> bool:
    """Whether these are sides of bumps in the wire."""
    return any(end.kind is Kind.INSIDE for end in opened)


def open_host(interface: str, ports: tuple[int, ...], mark: int) -> tuple[End, ...]:
    """A TUN, raw sockets of both families, and UDP ports. Raises OSError, with nothing left open."""
    found: list[End] = []
    try:
        has_hands = is_native()
        found += queues(interface, tun.open_queues(interface, is_persistent=True, is_native=has_hands), has_hands)
        for family, kind, out, whole in _WAYS:
            for protocol in PROTOCOLS:
                receives = raw.receiver(family, protocol)
                found.append(End(kind, f"{kind.value}/{protocol}", receives.fileno(), protocol, has_hands and protocol == raw.IPPROTO_ESP))
                if found[-1].is_native:
                    raw.stamp(receives)
                receives.detach()
            copies = raw.receiver(family, udpcopy.IPPROTO_UDP)
            found.append(End(kind, f"{kind.value}/{udpcopy.IPPROTO_UDP}", copies.fileno(), udpcopy.IPPROTO_UDP))
            udpcopy.aim(copies, {udpcopy.IKE_PORT} - set(ports))
            copies.detach()
            found.append(End(out, out.value, raw.sender(family, mark).detach()))
            found.append(End(whole, whole.value, packet.receiver(family).detach()))
            for port in ports:
                name = f"udp{4 if family == socket.AF_INET else 6}/{port}"
                end = _port(family, port, mark)
                found.append(End(Kind.UDP, name, end.fileno(), port, has_hands and port == ports[0]))
                if found[-1].is_native:
                    udp.take_trains(end)
                end.detach()
    except OSError:
        close(tuple(found))
        raise
    return tuple(found)


def _port(family: socket.AddressFamily, port: int, mark: int) -> socket.socket:
    """Raises OSError with the port's name."""
    try:
        return udp.open_port(family, port, mark)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"UDP port {port}") from error


def queues(interface: str, descriptors: list[int], is_native: bool) -> tuple[End, ...]:
    """An open TUN's."""
    kinds = (Kind.TUN, *(Kind.QUEUE for _ in descriptors[1:]))
    return tuple(End(kind, interface, one, number, is_native) for number, (kind, one) in enumerate(zip(kinds, descriptors, strict=True)))


def open_rings(program: xdp.Program, interfaces: tuple[str, ...], warn: Callable[[str], None]) -> tuple[End, ...]:
    """AF_XDP sockets on these, where native I/O can read and write them, and what says where to. Raises OSError.

    Of an interface that cannot have them, `warn` is told why.
    """
    if not is_native():
        return ()
    found: list[End] = []
    for interface in interfaces:
        try:
            taken = program.take(interface)
        except xdp.NoXdp as error:
            warn(str(error))
            continue
        found += [End(Kind.XDP, one.name, one.descriptor, one.index, True, memory=one.memory, sends=one.sends) for one in taken]
    for kind, groups in ((Kind.ROUTING, 0), (Kind.CHANGES, nexthops.GROUPS)):
        found.append(End(kind, kind.value, rtnetlink.listener(groups).detach()))
    return tuple(found)


def open_leaving(name: str, number: int) -> tuple[End, ...]:
    """An AF_XDP socket by which a bump's protected frames leave, where native I/O can write them. Raises NoXdp."""
    if not is_fast() or not drivers.has_bump_hands():
        return ()
    taken = xdp.open_leaving(name)
    return (End(Kind.LEAVING, name, taken.descriptor, number, True, memory=taken.memory),)


def open_rootless(port: int, shown: int) -> tuple[End, ...]:
    """Ordinary UDP sockets of the families there are, on `port` (0: any), whose packets say `shown`. Raises OSError."""
    found: list[End] = []
    is_native = is_fast() and drivers.has_hands()
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            end = udp.open_port(family, port)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT and found:
                continue
            close(tuple(found))
            raise
        if is_native:
            udp.take_trains(end)
        real = int(end.getsockname()[1])
        found.append(End(Kind.UDP, f"udp{4 if family == socket.AF_INET else 6}/{real}", end.detach(), shown, is_native))
    return tuple(found)


def aim(ends: tuple[End, ...], ports: Iterable[int]) -> None:
    """Copies of ESP in UDP are wanted from these ports, which others hold. Raises OSError."""
    for end in ends:
        if end.number == udpcopy.IPPROTO_UDP and end.kind in (Kind.RAW4, Kind.RAW6):
            with socket.socket(fileno=os.dup(end.descriptor)) as copies:
                udpcopy.aim(copies, ports)


def close(ends: tuple[End, ...]) -> None:
    """Give the descriptors back."""
    for end in ends:
        socket.close(end.descriptor)
        if end.memory >= 0:
            os.close(end.memory)


def attach(ends: tuple[End, ...]) -> Ends:
    """What a pump is between, of inherited descriptors: one TUN, and all the rest."""
    protected: Attachment | None = None
    unprotected: list[Attachment] = []
    out: dict[Kind, socket.socket] = {}
    ports: dict[tuple[bool, int], udp.Udp] = {}
    native: dict[bool, udp.Udp] = {}
    native_esp: dict[bool, Attachment] = {}
    rings: list[xdp.Rings] = []
    more_queues = tuple(end.descriptor for end in ends if end.kind is Kind.QUEUE)
    for end in ends:
        if end.kind is Kind.QUEUE:
            continue
        if end.kind is Kind.XDP:
            mapped = still_there(xdp.rings, end)
            rings += [mapped] if mapped is not None else []
            continue
        if end.kind is Kind.TUN:
            protected = tun.Tun(end.name, end.descriptor, has_headers=end.is_native)
        elif end.kind is Kind.VETH:
            protected = ethernet.Veth(end.name, socket.socket(fileno=end.descriptor), end.near, end.far)
        elif end.kind in (Kind.RAW4, Kind.RAW6):
            one = _raw(end)
            if end.is_native:
                native_esp[end.kind is Kind.RAW4] = one
            else:
                unprotected.append(one)
        elif end.kind in (Kind.PACKET4, Kind.PACKET6):
            unprotected.append(packet.Packet(end.name, socket.socket(fileno=end.descriptor), ends[0].name))
        elif end.kind is Kind.UDP:
            port = udp.Udp(end.name, socket.socket(fileno=end.descriptor), end.number)
            ports[port.is_ipv4, port.port] = port
            if end.is_native:
                native[port.is_ipv4] = port
            else:
                unprotected.append(port)
        else:
            out[end.kind] = socket.socket(fileno=end.descriptor)
    assert protected is not None, "there is a TUN or a veth"
    asked = out.pop(Kind.ROUTING, None), out.pop(Kind.CHANGES, None)
    next_hops = _next_hops(rings, *asked)
    descriptors = tuple((kind is Kind.OUT4, end.fileno()) for kind, end in out.items())
    leaving = raw.Out(out.get(Kind.OUT4), out.get(Kind.OUT6))
    return Ends(
        protected, unprotected, leaving, dict(ports), frozenset(), descriptors, dict(native), native_esp, more_queues, tuple(rings),
        next_hops,
    )  # fmt: skip


def still_there(mapping: Callable[[xdp.Taken], T], end: End) -> T | None:
    """What an AF_XDP socket shows; None if its interface was deleted: then others serve what is there in its place. Raises OSError."""
    try:
        return mapping(xdp.Taken(end.name, end.descriptor, end.memory, end.number, end.sends))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return None


def _next_hops(rings: list[xdp.Rings], routing: socket.socket | None, changes: socket.socket | None) -> NextHops | None:
    """By the sockets that send, in the order of `rings`."""
    if routing is None or changes is None:
        return None
    sending = [ring.interface for ring in rings if ring.leaving is not None]
    return NextHops(routing, changes, {index: way for way, index in enumerate(sending)}, routes.MARK, routes.TABLE)


def _raw(end: End) -> Attachment:
    receives = socket.socket(fileno=end.descriptor)
    if end.number == udpcopy.IPPROTO_UDP:
        return udpcopy.Copies4(end.name, receives) if end.kind is Kind.RAW4 else udpcopy.Copies6(end.name, receives, end.number)
    return raw.Raw4(end.name, receives) if end.kind is Kind.RAW4 else raw.Raw6(end.name, receives, end.number)
