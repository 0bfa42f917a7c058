"""Who sees what passes enc(4): captures, and the interface enc0. In the engine; docs/capture.md.

A capture is one end of a SOCK_SEQPACKET pair that a client made. Each datagram is a packet with what is known of it:

    0        8      9      10         12         16         20          28        32
    | at_ns  | kind | way  | stage    | SPI      | flags    | link      | lost    | packet      big-endian; at_ns since 1970

kind: BEGUN, once, without a packet: from here on everything is shown; SHOWN at enc(4), or WIRE, as it came or left. link: the same number
for all that is one packet: its clear forms and its wire form.
lost: how many before it did not fit. Nobody is waited for.
"""

import errno
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

from koura.client.tap import HEAD
from koura.daemon.filters import Filters
from koura.host import tun
from koura.host.enc import Interface
from koura.host.loop import Loop
from koura.stack import Stack
from koura.traffic.outcome import Deliver, Event, Forward, Outcome, Released, Tapped

SHOWN, WIRE, BEGUN = 0, 1, 2
BUFFER_OCTETS = 4 << 20


@dataclass(slots=True)
class _Capture:
    end: socket.socket
    lost: int = 0


class Taps:
    """All listeners of one engine."""

    def __init__(self, loop: Loop, stack: Stack) -> None:
        self._loop = loop
        self._stack = stack
        self._captures: list[_Capture] = []
        self._enc: Interface | None = None
        self._is_enc_watched = False
        self._link = 0

    @property
    def is_open(self) -> bool:
        """Whether anybody looks."""
        return bool(self._captures) or self._is_enc_watched

    def capture(self, descriptor: int) -> None:
        """Show everything there, too, until its other end closes."""
        end = socket.socket(fileno=descriptor)
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_OCTETS)
        capture = _Capture(end)
        self._captures.append(capture)
        self._loop.watch(end.fileno(), lambda _events: self._gone(capture))
        self._changed()
        try:
            end.send(HEAD.pack(time.time_ns(), BEGUN, False, 0, 0, 0, 0, 0))
        except OSError:
            self._gone(capture)  # who asked has gone already

    def interface(self, name: str, device: int, sender: int) -> None:
        """enc0 is there."""
        self._enc = Interface(name, device, sender)
        tun.watch(self._loop, self._enc.fileno(), self._enc.discard, lambda: None)  # captures there have ended with it

    def listening(self, is_watched: bool) -> None:
        """Whether somebody looks at enc0."""
        self._is_enc_watched = is_watched
        self._changed()

    # -- what passes ---------------------------------------------------------------------------------------------------

    def sealed(self, outcomes: Iterable[Outcome], events: Iterable[Event]) -> None:
        """One packet went out: its clear forms, then what left."""
        tapped = [event for event in events if isinstance(event, Tapped)]
        if tapped:
            self._link += 1
            self._show(tapped)
            self._wire(True, [packet for outcome in outcomes if isinstance(outcome, Forward) for packet in outcome.packets], tapped)

    def opened(self, packet: bytes, events: Iterable[Event]) -> None:
        """One packet came in: what came, then its clear forms."""
        tapped = [event for event in events if isinstance(event, Tapped)]
        if tapped:
            self._link += 1
            self._wire(False, [packet], tapped)
            self._show(tapped)

    def happened(self, events: Iterable[Event]) -> None:
        """What had waited, and went on without its packet at hand: each release ends one."""
        tapped: list[Tapped] = []
        for event in events:
            if isinstance(event, Tapped):
                tapped.append(event)
            elif isinstance(event, Released):
                self.sealed((event.outcome,), tapped)
                tapped = []
        self.sealed((), tapped)

    def _show(self, tapped: Iterable[Tapped]) -> None:
        for one in tapped:
            self._send(SHOWN, one.is_outbound, one, one.packet)
            if self._enc is not None and self._is_enc_watched:
                self._enc.show(one.packet)

    def _wire(self, is_outbound: bool, packets: Iterable[bytes], tapped: list[Tapped]) -> None:
        for packet in packets:
            self._send(WIRE, is_outbound, tapped[-1] if is_outbound else tapped[0], packet)

    def _send(self, kind: int, is_outbound: bool, shown: Tapped, packet: bytes) -> None:
        now = time.time_ns()
        for capture in tuple(self._captures):
            head = HEAD.pack(now, kind, is_outbound, shown.stage if kind == SHOWN else 0, shown.spi, shown.flags, self._link, capture.lost)
            try:
                capture.end.send(head + packet)
                capture.lost = 0
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOBUFS, errno.EMSGSIZE):
                    capture.lost += 1
                else:
                    self._gone(capture)

    def _gone(self, capture: _Capture) -> None:
        if capture in self._captures:
            self._captures.remove(capture)
            self._loop.forget(capture.end.fileno())
            capture.end.close()
            self._changed()

    def _changed(self) -> None:
        self._stack.tap.is_open = self.is_open


@dataclass(frozen=True, slots=True)
class Watcher:
    """What a pump asks: host.pump.Watcher."""

    taps: Taps
    filters: Filters

    @property
    def is_open(self) -> bool:
        return self.taps.is_open

    def sealed(self, outcomes: Iterable[Outcome], events: Iterable[Event]) -> None:
        self.taps.sealed(outcomes, events)

    def opened(self, packet: bytes, events: Iterable[Event]) -> None:
        self.taps.opened(packet, events)

    def lets_in(self, outcome: Deliver) -> bool:
        return self.filters.lets_in(outcome)
