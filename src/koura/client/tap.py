"""Packets from a running engine's enc(4), as they pass. The records: koura.daemon.taps.

    with Control(place.directory()) as control:
        for packet in Tap(control).packets(): ...
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from koura.client.control import Control, Unreachable
from koura.enc import tap

HEAD = struct.Struct(">QBBHIIQI")
_BUFFER_OCTETS = 4 << 20
_LARGEST_OCTETS = HEAD.size + 65535 + 60
_STAGES = {1: "before", 2: "after", 4: "filtered"}
_AF_INET6_OF_TOOLS = 24  # BSD: what tcpdump and tshark both read


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet at one place. link: the same for all that is one packet."""

    at_ns: int
    is_wire: bool
    is_outbound: bool
    stage: int
    spi: int
    flags: int
    link: int
    octets: bytes

    @property
    def where(self) -> str:
        """Direction and stage for a person: `out before`, `in wire`."""
        return f"{'out' if self.is_outbound else 'in'} {'wire' if self.is_wire else _STAGES.get(self.stage, str(self.stage))}"

    def as_enc(self) -> bytes:
        """With DLT_ENC's header in front."""
        return tap.header(self.octets, self.spi, self.flags, _AF_INET6_OF_TOOLS) + self.octets


class Tap:
    """One subscription, for as long as it is open. `lost`: how many records did not fit so far."""

    def __init__(self, control: Control) -> None:
        """It sees every packet that comes after this has returned. Raises Refused, Unreachable."""
        self._end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
        self.lost = 0
        with theirs:
            control.ask("capture", theirs.fileno())
        if not self._end.recv(_LARGEST_OCTETS):  # the engine's first word: it has begun
            raise Unreachable(f"the engine in {control.directory} ended")

    def fileno(self) -> int:
        return self._end.fileno()

    def packets(self) -> Iterator[Packet]:
        """As they come, until the engine ends."""
        while octets := self._end.recv(_LARGEST_OCTETS):
            at_ns, kind, way, stage, spi, flags, link, lost = HEAD.unpack_from(octets)
            self.lost += lost
            yield Packet(at_ns, bool(kind), bool(way), stage, spi, flags, link, octets[HEAD.size :])

    def close(self) -> None:
        self._end.close()
