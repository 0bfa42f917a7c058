"""Raw ESP by AF_XDP: a packet for us is taken from its interface before the kernel's IP looks at it. bpf(2), AF_XDP, if_xdp.h.

    interface -> a small program: IP, then ESP, to an address of ours, whole, not too long?  yes -> ring in shared memory
                                                                                             no  -> the kernel, as ever

A raw socket costs a packet the kernel's routing, netfilter, and a copy and a system call of its own; this costs one copy. The price: what
the host's own netfilter rules say of ESP is not asked any more, and other packets of the interface are made linear for the program (super
packets are copied once). So it is for interfaces that are named (`[host] xdp`). The program goes when its last descriptor is closed.
Copies in the kernel's generic mode: it works on every kind of interface, and a veth has no other. Not here: what is fragmented or has IPv4
options or IPv6 extension headers; link-local addresses, which say nothing without their interface.

What is protected leaves by the same socket (Leaving), past the kernel's IP: to which neighbour, host.nexthops knows. A queue of an
interface has one socket with one memory: frames that are filled first, behind them those that leave.

A bump in the wire sends by AF_XDP and does not receive by it: neither program nor ring shows a VLAN tag that the kernel keeps
beside a frame, or that a checksum is still open. What is sent is whole, with its tags in it, and needs no program.
"""

import ctypes
import errno
import mmap
import os
import platform
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from koura.address import is_link_local
from koura.errors import KouraError
from koura.host.raw import SO_SNDBUFFORCE, widen

AF_XDP, SOL_XDP = 44, 283
XDP_MMAP_OFFSETS, XDP_RX_RING, XDP_TX_RING, XDP_UMEM_REG, XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING = 1, 2, 3, 4, 5, 6
XDP_COPY = 2
_RX_AT, _TX_AT, _FILL_AT, _DONE_AT = 0, 0x8000_0000, 0x1_0000_0000, 0x1_8000_0000
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD, _LINK_CREATE = 0, 2, 3, 5, 28
_HASH, _XSKMAP, _PROG_XDP, _ATTACH_XDP, _SKB_MODE = 1, 17, 6, 37, 2
_BPF = {"x86_64": 321, "aarch64": 280}
_MOST_ADDRESSES = 1024
MOST_SOCKETS = 8  # of one daemon: fast/_io.pxd, RINGS
FRAMES, FRAME_OCTETS = 4096, 4096
LEAVING_FRAMES = 2048
BUSY_TRIES, BUSY_S = 20, 0.05
LARGEST_OCTETS = 3600  # with its Ethernet header: a frame has 256 octets in front, and room behind a packet is wanted
_OFFSETS = struct.Struct("=16Q")
_PASS = 2


class NoXdp(KouraError):
    """AF_XDP cannot be had here; says why."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One queue of an interface: the socket, and the memory of its frames (a memfd). index: of the interface. sends: it does, too."""

    name: str
    descriptor: int
    memory: int
    index: int = 0
    sends: bool = True


class Program:
    """The program, on some interfaces. `ours`: addresses whose ESP it takes, none at first."""

    def __init__(self) -> None:
        self._ours_now: frozenset[bytes] = frozenset()
        self._ours = _map(_HASH, 20, 1, _MOST_ADDRESSES)
        self._links: list[int] = []
        self._left = MOST_SOCKETS

    def take(self, interface: str) -> list[Taken]:
        """Put it on an interface: a socket for each of its queues. Raises NoXdp."""
        taken: list[Taken] = []
        queues = queues_of(interface)
        if queues > self._left:
            room = f"room is for {self._left} of {MOST_SOCKETS} (ethtool -L {interface} combined N)"
            raise NoXdp(f"AF_XDP on {interface}: it has {queues} queues, and {room}")
        self._left -= queues
        try:
            index = socket.if_nametoindex(interface)
            sockets = _map(_XSKMAP, 4, 4, MOST_SOCKETS)
            for queue in range(queues):
                taken.append(_open(f"xdp/{interface}/{queue}", index, queue, sends=not queue))
                _change(_MAP_UPDATE, sockets, struct.pack("=I", queue), struct.pack("=I", taken[-1].descriptor))
            program = _load(_program(self._ours, sockets))
            self._links.append(_bpf(_LINK_CREATE, struct.pack("=IIII", program, index, _ATTACH_XDP, _SKB_MODE)))
        except OSError as error:
            self._left += queues
            for one in taken:
                os.close(one.descriptor)
                os.close(one.memory)
            raise NoXdp(f"AF_XDP on {interface}: {error.strerror}") from error
        os.close(program)
        os.close(sockets)
        return taken

    def set_ours(self, addresses: frozenset[bytes]) -> None:
        """Take what goes to these, and to no others. Raises OSError."""
        wanted = frozenset(struct.pack("=I16s", 4 if len(one) == 4 else 6, one) for one in addresses if not _is_of_a_link(one))
        for one in self._ours_now - wanted:
            _change(_MAP_DELETE, self._ours, one)
        for one in wanted - self._ours_now:
            _change(_MAP_UPDATE, self._ours, one, b"\1")
        self._ours_now = wanted

    def close(self) -> None:
        for link in self._links:
            os.close(link)
        os.close(self._ours)


@dataclass(frozen=True, slots=True)
class Leaving:
    """What a process sees of a socket that sends: its memory, and the rings of frames to send and of those that are done with.

    first: where in the memory the frames that leave begin; they are its last.
    """

    name: str
    descriptor: int
    first: int
    frames: mmap.mmap
    sent: mmap.mmap
    done: mmap.mmap
    places: tuple[int, int, int, int, int]  # producer, consumer, entries of `sent`; producer, consumer of `done`


@dataclass(frozen=True, slots=True)
class Rings:
    """What a process sees of one socket: its frames, and the two rings with where their numbers and entries begin.

    interface: its index. leaving: what it sends by, if it does.
    """

    name: str
    descriptor: int
    frames: mmap.mmap
    filled: mmap.mmap
    received: mmap.mmap
    places: tuple[int, int, int, int, int, int]  # producer, consumer, entries: of `filled`, of `received`
    interface: int
    leaving: Leaving | None


def queues_of(interface: str) -> int:
    """How many queues it receives by; 0: it is not there."""
    return len(list(Path("/sys/class/net", interface, "queues").glob("rx-*")))


def open_leaving(name: str) -> Taken:
    """A socket that only sends, on the first queue of an interface: no program, and nothing that comes in is touched. Raises NoXdp.

    The kernel lets go of an earlier one a moment after its last descriptor is closed: until then the queue is busy.
    """
    for left in range(BUSY_TRIES - 1, -1, -1):
        try:
            return _open(name, socket.if_nametoindex(name), 0, receives=False)
        except OSError as error:
            if error.errno != errno.EBUSY or not left:
                raise NoXdp(f"AF_XDP on {name}: {error.strerror}") from error
            time.sleep(BUSY_S)
    raise AssertionError


def leaving(taken: Taken, first: int = 0, frames: mmap.mmap | None = None) -> Leaving:
    """Map a socket that sends, which another process opened. first, frames: its memory, if there is more in it. Raises OSError."""
    descriptor = taken.descriptor
    places = _places(descriptor)
    (producer, consumer, entries), done = places[4:7], places[12:14]
    return Leaving(
        taken.name, descriptor, first, frames or mmap.mmap(taken.memory, LEAVING_FRAMES * FRAME_OCTETS),
        mmap.mmap(descriptor, entries + LEAVING_FRAMES * 16, offset=_TX_AT),
        mmap.mmap(descriptor, places[14] + LEAVING_FRAMES * 8, offset=_DONE_AT), (producer, consumer, entries, done[0], done[1]),
    )  # fmt: skip


def _places(descriptor: int) -> tuple[int, ...]:
    """Four numbers for each of the rings: of what came, of what is sent, of frames to fill, of those that are done with."""
    with socket.socket(AF_XDP, socket.SOCK_RAW, 0, os.dup(descriptor)) as end:
        return _OFFSETS.unpack(end.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, _OFFSETS.size))


def rings(taken: Taken) -> Rings:
    """Map a socket that another process opened. Raises OSError."""
    descriptor, first = taken.descriptor, FRAMES * FRAME_OCTETS
    places = _places(descriptor)
    received = places[0], places[1], places[2]
    filled = places[8], places[9], places[10]
    frames = mmap.mmap(taken.memory, first + (LEAVING_FRAMES * FRAME_OCTETS if taken.sends else 0))
    return Rings(
        taken.name, descriptor, frames, mmap.mmap(descriptor, filled[2] + FRAMES * 8, offset=_FILL_AT),
        mmap.mmap(descriptor, received[2] + FRAMES * 16, offset=_RX_AT), (*filled, *received), taken.index,
        leaving(taken, first, frames) if taken.sends else None,
    )  # fmt: skip


def _open(name: str, index: int, queue: int, *, receives: bool = True, sends: bool = True) -> Taken:
    """A socket with frames that are not filled yet: whoever reads it fills the ring, and writes those that leave. Raises OSError."""
    memory = os.memfd_create(name)
    end = socket.socket(AF_XDP, socket.SOCK_RAW)
    octets = ((FRAMES if receives else 0) + (LEAVING_FRAMES if sends else 0)) * FRAME_OCTETS
    try:
        os.ftruncate(memory, octets)
        with mmap.mmap(memory, octets) as frames:
            place = ctypes.addressof(ctypes.c_char.from_buffer(frames))
            end.setsockopt(SOL_XDP, XDP_UMEM_REG, struct.pack("=QQIIII", place, octets, FRAME_OCTETS, 0, 0, 0))
            end.setsockopt(SOL_XDP, XDP_UMEM_FILL_RING, FRAMES)
            end.setsockopt(SOL_XDP, XDP_UMEM_COMPLETION_RING, LEAVING_FRAMES)
            if receives:
                end.setsockopt(SOL_XDP, XDP_RX_RING, FRAMES)
            if sends:
                end.setsockopt(SOL_XDP, XDP_TX_RING, LEAVING_FRAMES)
                widen(end, SO_SNDBUFFORCE, socket.SO_SNDBUF)
            _bind(end, struct.pack("=HHIII", AF_XDP, XDP_COPY, index, queue, 0))
    except OSError:
        end.close()
        os.close(memory)
        raise
    return Taken(name, end.detach(), memory, index, sends)


def _is_of_a_link(address: bytes) -> bool:
    """It says nothing without its interface."""
    return len(address) == 16 and is_link_local(address)


def _bind(end: socket.socket, address: bytes) -> None:
    """bind(2), for a family that Python does not know. Raises OSError."""
    if _libc().bind(end.fileno(), address, len(address)):
        raise _errno()


def _program(ours: int, sockets: int) -> bytes:
    """Its instructions: an address is looked up as its IP version and sixteen octets. Jumps name labels; "pass": let the kernel have it."""
    u32, u16, u8, put, clear = 0x61, 0x69, 0x71, 0x63, 0x62
    code: list[tuple[int, int, int, int | str, int] | str] = [
        (0xBF, 6, 1, 0, 0), (u32, 2, 1, 0, 0), (u32, 3, 1, 4, 0),  # r6: context, r2: begin, r3: end
        (0xBF, 4, 2, 0, 0), (0x07, 4, 0, 0, 14 + 20 + 8), (0x2D, 4, 3, "pass", 0),
        (0xBF, 4, 2, 0, 0), (0x07, 4, 0, 0, LARGEST_OCTETS), (0xAD, 4, 3, "pass", 0),
        (u16, 0, 2, 12, 0), (0x15, 0, 0, "IPv6", socket.htons(0x86DD)), (0x55, 0, 0, "pass", socket.htons(0x0800)),
        (u8, 0, 2, 14, 0), (0x55, 0, 0, "pass", 0x45),
        (u16, 0, 2, 20, 0), (0x57, 0, 0, 0, socket.htons(0x3FFF)), (0x55, 0, 0, "pass", 0),
        (u8, 0, 2, 23, 0), (0x55, 0, 0, "pass", socket.IPPROTO_ESP),
        (clear, 10, 0, -20, 4), (u32, 0, 2, 30, 0), (put, 10, 0, -16, 0),
        (clear, 10, 0, -12, 0), (clear, 10, 0, -8, 0), (clear, 10, 0, -4, 0), (0x05, 0, 0, "known", 0),
        "IPv6",
        (0xBF, 4, 2, 0, 0), (0x07, 4, 0, 0, 14 + 40 + 8), (0x2D, 4, 3, "pass", 0),
        (u8, 0, 2, 14, 0), (0x57, 0, 0, 0, 0xF0), (0x55, 0, 0, "pass", 0x60),
        (u8, 0, 2, 20, 0), (0x55, 0, 0, "pass", socket.IPPROTO_ESP),
        (clear, 10, 0, -20, 6),
        (u32, 0, 2, 38, 0), (put, 10, 0, -16, 0), (u32, 0, 2, 42, 0), (put, 10, 0, -12, 0),
        (u32, 0, 2, 46, 0), (put, 10, 0, -8, 0), (u32, 0, 2, 50, 0), (put, 10, 0, -4, 0),
        "known",
        (0x18, 1, 1, 0, ours), (0, 0, 0, 0, 0), (0xBF, 2, 10, 0, 0), (0x07, 2, 0, 0, -20), (0x85, 0, 0, 0, 1), (0x15, 0, 0, "pass", 0),
        (u32, 2, 6, 16, 0), (0x18, 1, 1, 0, sockets), (0, 0, 0, 0, 0), (0xB7, 3, 0, 0, _PASS), (0x85, 0, 0, 0, 51), (0x95, 0, 0, 0, 0),
        "pass",
        (0xB7, 0, 0, 0, _PASS), (0x95, 0, 0, 0, 0),
    ]  # fmt: skip
    labels: dict[str, int] = {}
    instructions: list[tuple[int, int, int, int | str, int]] = []
    for one in code:
        if isinstance(one, str):
            labels[one] = len(instructions)
        else:
            instructions.append(one)
    made = b""
    for number, (operation, to, of, at, value) in enumerate(instructions):
        offset = labels[at] - number - 1 if isinstance(at, str) else at
        made += struct.pack("=BBhi", operation, of << 4 | to, offset, value)
    return made


def _load(code: bytes) -> int:
    """Raises OSError."""
    held, license_ = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"Dual BSD/GPL")
    asked = struct.pack("=IIQQIIQII", _PROG_XDP, len(code) // 8, ctypes.addressof(held), ctypes.addressof(license_), 0, 0, 0, 0, 0)
    return _bpf(_PROG_LOAD, asked)


def _map(kind: int, key_octets: int, value_octets: int, entries: int) -> int:
    try:
        return _bpf(_MAP_CREATE, struct.pack("=IIIII", kind, key_octets, value_octets, entries, 0))
    except OSError as error:
        raise NoXdp(f"bpf(2): {error.strerror}") from error


def _change(command: int, where: int, key: bytes, value: bytes = b"") -> None:
    """An element of a map. Raises OSError."""
    key_held, value_held = ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)
    _bpf(command, struct.pack("=IIQQQ", where, 0, ctypes.addressof(key_held), ctypes.addressof(value_held), 0))


def _bpf(command: int, asked: bytes) -> int:
    """bpf(2). Raises OSError."""
    number = _BPF.get(platform.machine())
    if number is None:
        raise NoXdp(f"no bpf(2) known for {platform.machine()}")
    held = ctypes.create_string_buffer(asked, 128)
    found = int(_libc().syscall(number, command, held, 128))
    if found < 0:
        raise _errno()
    return found


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _errno() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
