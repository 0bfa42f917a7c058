"""One side of a bump in the wire: an interface without addresses, read and written as frames. packet(7).

The socket is promiscuous for as long as it is open, sees nothing of what it sends itself, and gets super packets and open checksums as
they are (offload). VLAN tags that the kernel took off come back from PACKET_AUXDATA. Nothing passes from one side to the other but by
who reads here and writes there: there is no bridge in the kernel, and a table of nftables in front of its protocols drops all that the
two interfaces receive, engine or no engine.
"""

import errno
import fcntl
import re
import socket
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from koura.attachment import BURST, Losses
from koura.host import frames, guard, offload
from koura.host.frames import Link
from koura.host.raw import SO_RCVBUFFORCE, SO_SNDBUFFORCE, widen

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 1, 1
PACKET_AUXDATA, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 8, 15, 23
TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
_MEMBERSHIP = struct.Struct("iHH8x")
_AUXDATA = struct.Struct("=IIIHHHH")
_ANCILLARY_OCTETS = 64
_DOT1Q = 0x8100
SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFFLAGS = 0x8921, 0x8927, 0x8913
ARPHRD_ETHER = 1
LARGEST_OCTETS = 65536 + 256
TABLE = "koura-bump"
_PRIORITY = -500


def open_side(name: str) -> socket.socket:
    """The socket on an interface, which it makes promiscuous. Raises OSError."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        widen(end, SO_RCVBUFFORCE, socket.SO_RCVBUF)
        widen(end, SO_SNDBUFFORCE, socket.SO_SNDBUF)
        for option in (PACKET_VNET_HDR, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING):
            end.setsockopt(SOL_PACKET, option, 1)
        bind(end, name)
    except OSError:
        end.close()
        raise
    return end


def bind(end: socket.socket, name: str) -> None:
    """Put the socket on an interface, also where the one it was on has gone: whoever has a copy of it goes along. Raises OSError."""
    index = socket.if_nametoindex(name)
    end.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, _MEMBERSHIP.pack(index, PACKET_MR_PROMISC, 0))
    end.bind((name, ETH_P_ALL))


def stands_on(end: socket.socket) -> str:
    """The interface, by the name it has now; "" where it has gone."""
    return str(end.getsockname()[0])


def quieten(name: str) -> None:
    """Let the kernel have no address there: an interface that comes up makes itself one of IPv6. Raises OSError."""
    switch = Path("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
    if switch.exists():
        switch.write_text("1")


def loosen(name: str) -> None:
    """As it would be without us. Raises OSError."""
    switch, usual = (Path("/proc/sys/net/ipv6/conf", one, "disable_ipv6") for one in (name, "default"))
    if switch.exists():
        switch.write_text(usual.read_text())


def shut(table: str, interfaces: tuple[str, ...]) -> None:
    """Drop what these interfaces receive in front of the kernel's own protocols; packet sockets see it before. Raises NoGuard."""
    devices = ", ".join(f'"{one}"' for one in interfaces)
    guard.load(
        f"table netdev {table}\ndelete table netdev {table}\ntable netdev {table} {{ chain shut {{\n"
        f" type filter hook ingress devices = {{ {devices} }} priority {_PRIORITY}; policy accept;\n drop\n }}\n}}\n"
    )


def reopen(table: str) -> None:
    """Take such a table away; one that is not there is fine. Raises NoGuard."""
    guard.load(f"table netdev {table}\ndelete table netdev {table}\n")


def devices(table: str) -> tuple[str, ...]:
    """The interfaces in front of which a table of ours stands."""
    said = subprocess.run(["nft", "list", "table", "netdev", table], capture_output=True, text=True, check=False).stdout
    return named(said)


def named(listed: str) -> tuple[str, ...]:
    """The interfaces of a listed table: `device "in"` or `devices = { in, out }`, with quotes or without; its JSON leaves them out."""
    found = re.search(r"hook ingress devices? (?:= )?(?:\{([^}]*)\}|(\S+))", listed)
    names = (found[1] or found[2]).split(",") if found is not None else []
    return tuple(name.strip(' "') for name in names)


def standing() -> tuple[str, ...]:
    """The tables of bumps that stand here, whoever made them."""
    if not guard.is_here():
        return ()
    said = subprocess.run(["nft", "list", "tables", "netdev"], capture_output=True, text=True, check=False).stdout
    return tuple(words[2] for words in map(str.split, said.splitlines()) if len(words) == 3 and words[2].startswith(TABLE))


def _ask(end: socket.socket, request: int, name: str) -> bytes:
    return fcntl.ioctl(end, request, struct.pack("16s24x", name.encode()))


@dataclass(slots=True)
class Frame:
    """One that came. payloads: packets of IP, finished; of other kinds what the frame carries, as it is."""

    link: Link
    kind: int
    payloads: list[bytes]

    @property
    def is_ip(self) -> bool:
        return self.kind in (frames.IPV4, frames.IPV6)


class Side:
    """An open side. `mac`: its own link address, as it was when it was looked at."""

    def __init__(self, name: str, end: socket.socket) -> None:
        self.name = name
        self.losses = Losses()
        self._end = end
        self.mac = bytes(6)
        self.look()

    def look(self) -> None:
        """The interface may have another address by now, or be another one of the same name; one that has gone keeps its own."""
        with suppress(OSError):
            self.mac = _ask(self._end, SIOCGIFHWADDR, stands_on(self._end))[18:24]

    def fileno(self) -> int:
        return self._end.fileno()

    @property
    def mtu_octets(self) -> int:
        """As it is now; 0 where the interface has gone."""
        try:
            (mtu,) = struct.unpack_from("i", _ask(self._end, SIOCGIFMTU, stands_on(self._end)), 16)
        except OSError:
            return 0
        return int(mtu)

    def receive(self) -> list[Frame]:
        """What has come, at most a burst."""
        found: list[Frame] = []
        try:
            for _ in range(BURST):
                octets, ancillary, _, place = self._end.recvmsg(LARGEST_OCTETS, _ANCILLARY_OCTETS)
                frame = frame_of(octets, _tag(ancillary)) if place[2] != socket.PACKET_OUTGOING else None
                if frame is not None:
                    found.append(frame)
                elif place[2] != socket.PACKET_OUTGOING:
                    self.losses.lose("unread")
        except BlockingIOError:
            pass
        except OSError as error:
            self.losses.lose(errno.errorcode.get(error.errno or 0, "?"))
        self.losses.received += len(found)
        return found

    def send(self, link: Link, kind: int, payload: bytes) -> None:
        """One frame; what the kernel refuses is lost and counted."""
        try:
            self._end.send(bytes(offload.VNET.size) + link.front(kind) + payload)
            self.losses.sent += 1
        except OSError as error:
            self.losses.lose(errno.errorcode.get(error.errno or 0, "?"))

    def close(self) -> None:
        self._end.close()


def frame_of(octets: bytes, tag: bytes) -> Frame | None:
    """What was read as a frame with its tags (`tag`: one that stood beside it), its checksums closed, its packets apart."""
    front, frame = octets[: offload.VNET.size], octets[offload.VNET.size :]
    read = frames.read(frame)
    if read is None:
        return None
    link, kind, at = read
    payloads = offload.finish(front, frame, at)
    if payloads is None:
        return None
    if kind in (frames.IPV4, frames.IPV6):
        payloads = [frames.trimmed(packet) for packet in payloads]
    return Frame(Link(link.dst, link.src, tag + link.tags), kind, payloads)


def _tag(ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """The tag that the kernel took off; b'': none."""
    for level, kind, value in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and len(value) >= _AUXDATA.size:
            status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(value)
            if status & TP_STATUS_VLAN_VALID:
                return (tpid if status & TP_STATUS_VLAN_TPID_VALID else _DOT1Q).to_bytes(2, "big") + int(tci).to_bytes(2, "big")
    return b""
