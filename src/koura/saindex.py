"""The words that name an SA: protocol, mode, and SaIndex, the relation under which old and new SAs of one flow hang."""

from dataclasses import dataclass
from enum import IntEnum

from koura.quick import quick


class Protocol(IntEnum):
    """What an SA transforms packets with, by IP protocol number; TCP stands for TCP-MD5 (RFC 2385)."""

    ESP = 50
    AH = 51
    IPCOMP = 108
    TCP = 6


class Mode(IntEnum):
    """SA mode, PF_KEY's numbers. ANY matches either (setkey's default)."""

    ANY = 0
    TRANSPORT = 1
    TUNNEL = 2
    TCP_MD5 = 3


class Direction(IntEnum):
    """Direction of a policy, PF_KEY's numbers. FORWARD exists only in the Linux dialect, as an inbound twin."""

    ANY = 0
    INBOUND = 1
    OUTBOUND = 2
    FORWARD = 3


Pair = tuple[bytes, bytes, int]  # source, destination, protocol


@quick
@dataclass(frozen=True, slots=True)
class SaIndex:
    """The relation an SA belongs to. Addresses packed, host zone beside them (0: none)."""

    src: bytes
    dst: bytes
    protocol: Protocol
    mode: Mode
    reqid: int
    zone: int = 0

    @property
    def pair(self) -> Pair:
        """What no SA of another pair of addresses or protocol has to do with."""
        return self.src, self.dst, int(self.protocol)
