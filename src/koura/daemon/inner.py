"""Virtual tunnel interfaces in the engine: if_ipsec(4); reference order of processing as in FreeBSD's. M22, M37.

    interface -> packet -> the interface's own policy (no look into the SPD) -> its SA -> wire
    wire -> an SA of this reqid, between these ends -> the inner packet comes out of the interface

Each has four policies of scope ifnet: in and out, IPv4 and IPv6, esp/tunnel/LOCAL-REMOTE/unique:REQID. A packet that is the
tunnel's own outer one ended up here by a route into itself: it is dropped (ELOOP).
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from koura import address
from koura.address import Prefix
from koura.errors import Refused
from koura.host import tun
from koura.host.clock import Clock
from koura.host.fastpump import FastPump, Refer
from koura.host.loop import Loop
from koura.host.pump import Pump
from koura.host.tun import Tun
from koura.moment import Moment
from koura.notices import InterfacePolicies
from koura.saindex import Direction, Mode, Protocol
from koura.spd.policy import Action, Level, Policy, Requirement, Scope
from koura.spd.selector import Selector
from koura.stack import Results, Stack
from koura.traffic.outcome import Applied, Deliver, Event, Origin

Ends = tuple[int, bytes, bytes]  # reqid, source and destination of the inbound SA


@dataclass(slots=True)
class _Tunnel:
    """number: as native I/O knows it; 0: not yet, or not at all."""

    device: Tun
    descriptors: tuple[int, ...]  # its queues, the first is the device's
    is_native: bool
    origin: Origin
    outer: bytes  # addresses as they stand in an outer header
    number: int = 0
    is_deleted: bool = False


class Inner:
    """All of one engine. `tell(events)`: like a pump's."""

    def __init__(self, loop: Loop, stack: Stack, clock: Clock, tell: Callable[[Iterable[Event]], None]) -> None:
        self._loop = loop
        self._stack = stack
        self._clock = clock
        self._tell = tell
        self._tunnels: dict[str, _Tunnel] = {}
        self._by_ends: dict[Ends, _Tunnel] = {}
        self._pump: Pump | None = None
        self.log: Callable[[str], None] = lambda _line: None

    def begin(self, pump: Pump) -> None:
        """Packets may be read: by way of this pump."""
        self._pump = pump
        pump.place_of, pump.interface = self.place_of, self._named
        if isinstance(pump, FastPump):
            pump.outlets(self._outlet_of)
        for tunnel in self._tunnels.values():
            self._watch(tunnel)

    def add(self, said: Mapping[str, Any], descriptors: Sequence[int]) -> str:
        """One came; '' or why it cannot be."""
        local, remote = address.parse(said["local"]), address.parse(said["remote"])
        name, reqid = said["name"], int(said["reqid"])
        wanted = tuple(_policies(local, remote, reqid))
        try:
            if not self._has(name, wanted):
                self._tell(self._stack.notice(InterfacePolicies(name, int(said["index"]), wanted), self._clock.now()))
        except Refused as error:
            for descriptor in descriptors:
                os.close(descriptor)
            return f"{name}: {error.why}"
        device = Tun(name, descriptors[0], has_headers=said["is_native"])
        origin = Origin(is_forwarded=False, interface=name)
        tunnel = _Tunnel(device, tuple(descriptors), said["is_native"], origin, local + remote)
        self._tunnels[name] = tunnel
        self._by_ends[reqid, remote, local] = tunnel
        if self._pump is not None:
            self._watch(tunnel)
        return ""

    def _watch(self, tunnel: _Tunnel) -> None:
        pump = self._pump
        if not tunnel.is_native:
            tun.watch(self._loop, tunnel.device.fileno(), lambda _events: self._ready(tunnel), partial(self._gone, tunnel))
            return
        assert isinstance(pump, FastPump)
        tunnel.number = pump.use_outlet(tunnel.origin, tunnel.descriptors)
        for queue, descriptor in enumerate(tunnel.descriptors):
            ready = partial(_queue, pump, tunnel.number, queue, partial(self._refer, tunnel))
            tun.watch(self._loop, descriptor, ready, partial(self._gone, tunnel))

    def _gone(self, tunnel: _Tunnel) -> None:
        """Somebody deleted the interface; its policies stay, so that nothing takes another way."""
        name = tunnel.device.name
        if not tunnel.is_deleted:
            tunnel.is_deleted = True
            self.log(f"{name} was deleted by somebody else: nothing passes there until koura tunnel del {name}, and add")

    def remove(self, name: str) -> None:
        """One goes; the others do not notice."""
        tunnel = self._tunnels.pop(name, None)
        if tunnel is None:
            return
        for ends in [ends for ends, one in self._by_ends.items() if one is tunnel]:
            del self._by_ends[ends]
        if isinstance(self._pump, FastPump):
            self._pump.drop_outlet(tunnel.number)
        for descriptor in tunnel.descriptors:
            self._loop.forget(descriptor)
            os.close(descriptor)
        self._tell(self._stack.notice(InterfacePolicies(name, 0), self._clock.now()))

    def place_of(self, outcome: Deliver) -> Tun | None:
        """Out of which interface a packet comes; None: none of ours. processing.md §10."""
        tunnel = self._of(outcome.history[-1]) if outcome.history else None
        return tunnel.device if tunnel is not None else None

    def _named(self, name: str) -> Tun | None:
        tunnel = self._tunnels.get(name)
        return tunnel.device if tunnel is not None else None

    def _of(self, last: Applied) -> _Tunnel | None:
        if not last.was_tunnel or last.protocol is not Protocol.ESP:
            return None
        return self._by_ends.get((last.reqid, last.src, last.dst))

    def _outlet_of(self, applied: Applied) -> int | None:
        """The same for native I/O, as a number; None: the reference goes on delivering."""
        tunnel = self._of(applied)
        return tunnel.number or None if tunnel is not None else None

    def drivers(self) -> dict[str, str]:
        return {
            name: f"native, super packets, {len(one.descriptors)} queues" if one.is_native else "packet by packet"
            for name, one in self._tunnels.items()
        }

    def losses(self) -> dict[str, dict[str, int]]:
        return {name: self._losses_of(one) for name, one in self._tunnels.items()}

    def _losses_of(self, tunnel: _Tunnel) -> dict[str, int]:
        pump, losses = self._pump, tunnel.device.losses
        found = {"received": losses.received, "sent": losses.sent, **losses.lost}
        for name, count in pump.outlet_counts(tunnel.number).items() if isinstance(pump, FastPump) else ():
            if count or name in found:
                found[name] = found.get(name, 0) + count
        return found

    def _has(self, name: str, wanted: tuple[Policy, ...]) -> bool:
        """Whether an engine before left these policies."""
        standing = [entry.policy for entry in self._stack.spd.entries(Scope.INTERFACE) if entry.policy.interface == name]
        return {(one.selector, one.requirements) for one in standing} == {(one.selector, one.requirements) for one in wanted}

    def _ready(self, tunnel: _Tunnel) -> None:
        """The host sent packets there."""
        assert self._pump is not None
        packets = tunnel.device.receive()
        inside = [packet for packet in packets if not _is_outer(packet, tunnel.outer)]
        if len(inside) < len(packets):
            tunnel.device.losses.lose("ELOOP", len(packets) - len(inside))
        for packet in inside:
            self._went(self._stack.outbound([packet], self._clock.now(), tunnel.origin))

    def _refer(self, tunnel: _Tunnel, packet: bytes, at: Moment) -> None:
        """A packet that native I/O's engine did not answer."""
        if _is_outer(packet, tunnel.outer):
            tunnel.device.losses.lose("ELOOP")
        else:
            self._went(self._stack.outbound_by_reference(packet, at, tunnel.origin))

    def _went(self, results: Results) -> None:
        assert self._pump is not None
        self._pump.went(results.outcomes, results.events)


def _queue(pump: FastPump, number: int, queue: int, refer: Refer, _events: int) -> None:
    pump.outlet_ready(number, queue, refer)


def _is_outer(packet: bytes, outer: bytes) -> bool:
    return (packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]) == outer


def _policies(local: bytes, remote: bytes, reqid: int) -> Iterable[Policy]:
    for direction, src, dst in ((Direction.OUTBOUND, local, remote), (Direction.INBOUND, remote, local)):
        for octets in (4, 16):
            every = Prefix(bytes(octets), 0)
            selector = Selector(direction, every, every)
            request = Requirement(Protocol.ESP, Mode.TUNNEL, Level.UNIQUE, reqid, src, dst)
            yield Policy(direction, Action.IPSEC, selector, (request,))
