"""The clear part of ESP: SPI and sequence number. RFC 4303 §2, drawn there; old ESP (RFC 1827) has the SPI only."""

import struct
from dataclasses import dataclass

from koura.errors import Malformed
from koura.quick import quick

OCTETS = 8
OLD_OCTETS = 4


@quick
@dataclass(frozen=True, slots=True)
class Header:
    """SPI and the sequence number's low half as they stand on the wire."""

    spi: int
    seq32: int

    @classmethod
    def read(cls, octets: bytes) -> "Header":
        """Raises Malformed below 8 octets."""
        if len(octets) < OCTETS:
            raise Malformed("ESP", f"{len(octets)} octets, the header has {OCTETS}")
        return cls(*struct.unpack_from("!II", octets))

    def write(self) -> bytes:
        return struct.pack("!II", self.spi, self.seq32)
