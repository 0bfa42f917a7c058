"""TUN: the interface through which a host's, or a network's, packets come to the engine and go back. tun(4), linux/if_tun.h.

A persistent TUN outlives its openers: its routes stay, and packets into it go nowhere, which is what "fail closed" means here.
Making one needs CAP_NET_ADMIN in the network namespace; reading and writing an open one needs nothing.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from koura.attachment import BURST, Losses
from koura.host.loop import READ, Loop, Ready

DEVICE = "/dev/net/tun"
IFF_TUN, IFF_NO_PI, IFF_MULTI_QUEUE = 0x0001, 0x1000, 0x0100
IFF_VNET_HDR = 0x4000
TUNSETIFF, TUNSETPERSIST, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454CB, 0x400454D0, 0x400454D8
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_TSO_ECN, TUN_F_USO4, TUN_F_USO6 = 1, 2, 4, 8, 0x20, 0x40
_TSO = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN
VNET_OCTETS = 10
QUEUES = 4  # one for ICMP and the like, the others for flows by a hash of theirs: a lone packet does not wait behind a bulk of others
_IFREQ = struct.Struct("16sH22x")
LARGEST_OCTETS = 65535 + 20


def create(name: str, *, is_persistent: bool = False, flags: int = 0) -> int:
    """Open the TUN of this name, made if it is not there. Raises OSError: no device, no right, or somebody else has it."""
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, _IFREQ.pack(name.encode(), IFF_TUN | IFF_NO_PI | flags))
        fcntl.ioctl(descriptor, TUNSETPERSIST, int(is_persistent))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def keep_addresses(name: str) -> None:
    """IPv6 addresses stay when the interface is taken down, as IPv4's do; where that cannot be had, they are gone then."""
    set_ipv6(name, keep_addr_on_down=1)


def set_ipv6(name: str, **settings: int) -> None:
    """Write what can be written: without IPv6, or where /proc/sys is read-only, nothing."""
    for setting, value in settings.items():
        with suppress(OSError):
            Path("/proc/sys/net/ipv6/conf", name, setting).write_text(str(value))


def offload(descriptor: int) -> None:
    """Let the host hand over super packets with checksums open: for who opened it with IFF_VNET_HDR and can cut them. Raises OSError.

    Of UDP too where the kernel has that (6.2).
    """
    try:
        fcntl.ioctl(descriptor, TUNSETOFFLOAD, _TSO | TUN_F_USO4 | TUN_F_USO6)
    except OSError:
        fcntl.ioctl(descriptor, TUNSETOFFLOAD, _TSO)


def open_queues(name: str, *, is_persistent: bool = False, is_native: bool = False, most: int = QUEUES) -> list[int]:
    """Open the TUN between a host and its engine: where `is_native`, with super packets and `most` queues, which koura.fast._io reads by
    turns; else with neither. One that an earlier daemon left with a single queue keeps it. Raises OSError, with nothing left open.
    """
    flags = (IFF_VNET_HDR if is_native else 0) | IFF_MULTI_QUEUE
    found: list[int] = []
    try:
        try:
            found.append(create(name, is_persistent=is_persistent, flags=flags))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            flags &= ~IFF_MULTI_QUEUE
            found.append(create(name, is_persistent=is_persistent, flags=flags))
        if is_native:
            offload(found[0])
        else:
            fcntl.ioctl(found[0], TUNSETOFFLOAD, 0)  # an earlier daemon may have wanted super packets
        while is_native and flags & IFF_MULTI_QUEUE and len(found) < most:
            found.append(create(name, is_persistent=is_persistent, flags=flags))
    except OSError:
        for descriptor in found:
            os.close(descriptor)
        raise
    return found


def watch(loop: Loop, descriptor: int, ready: Ready, gone: Callable[[], None]) -> None:
    """Call `ready` when one of its queues has packets.

    When somebody deletes the interface, its descriptors are in error for ever: such a one is watched no longer, and `gone` is called.
    """

    def happened(events: int) -> None:
        if events & READ:
            ready(events)
        else:
            loop.forget(descriptor)
            gone()

    loop.watch(descriptor, happened)


class Tun:
    """An open TUN as an attachment."""

    def __init__(self, name: str, descriptor: int, *, has_headers: bool = False) -> None:
        """has_headers: each packet has a virtio header in front; then only koura.fast._io reads it."""
        self.name = name
        self.losses = Losses()
        self._descriptor = descriptor
        self._front = bytes(VNET_OCTETS) if has_headers else b""

    def fileno(self) -> int:
        return self._descriptor

    def receive(self) -> list[bytes]:
        """What the host sends."""
        found: list[bytes] = []
        try:
            while len(found) < BURST:
                found.append(os.read(self._descriptor, LARGEST_OCTETS))
        except BlockingIOError:
            pass
        except OSError as error:
            self.losses.lose(errno.errorcode.get(error.errno or 0, "?"))
        self.losses.received += len(found)
        return found

    def send(self, packets: list[bytes]) -> None:
        """What the host gets."""
        for packet in packets:
            try:
                os.write(self._descriptor, self._front + packet)
                self.losses.sent += 1
            except OSError as error:
                self.losses.lose(errno.errorcode.get(error.errno or 0, "?"))

    def close(self) -> None:
        os.close(self._descriptor)
