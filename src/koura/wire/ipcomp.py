"""IPComp on the wire: next header, flags, CPI. RFC 3173 §3.2."""

import struct
from dataclasses import dataclass

from koura.errors import Malformed

OCTETS = 4
DEFLATE_CPI = 2
WELL_KNOWN_BELOW = 64


@dataclass(frozen=True, slots=True)
class Header:
    """One IPComp header; flags are reserved and ignored on input."""

    next_header: int
    flags: int
    cpi: int

    @classmethod
    def read(cls, octets: bytes) -> "Header":
        """Raises Malformed below 4 octets."""
        if len(octets) < OCTETS:
            raise Malformed("IPComp", f"{len(octets)} octets, the header has {OCTETS}")
        return cls(*struct.unpack_from("!BBH", octets))

    def write(self) -> bytes:
        return struct.pack("!BBH", self.next_header, self.flags, self.cpi)
