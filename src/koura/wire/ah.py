"""AH on the wire. RFC 4302 §2.

    +---------------+---------------+-------------------------------+
  0 |  Next Header  |  Payload Len  |          RESERVED             |
  4 |                 Security Parameters Index                     |
  8 |                    Sequence Number                            |
 12 |                 ICV, padded to whole words                    |
    +---------------------------------------------------------------+
"""

import struct
from dataclasses import dataclass

from koura.errors import Malformed
from koura.quick import quick

FIXED_OCTETS = 12
OLD_FIXED_OCTETS = 8


@quick
@dataclass(frozen=True, slots=True)
class Header:
    """One AH header. `icv` includes its padding. Old AH (RFC 1826) has no sequence number: `is_old`, seq32 0."""

    next_header: int
    spi: int
    seq32: int
    icv: bytes
    is_old: bool = False

    @property
    def fixed_octets(self) -> int:
        return OLD_FIXED_OCTETS if self.is_old else FIXED_OCTETS

    @property
    def octets(self) -> int:
        return self.fixed_octets + len(self.icv)

    @classmethod
    def read(cls, octets: bytes, is_old: bool = False) -> "Header":
        """The header at the start of `octets`, as long as its length field says. Raises Malformed."""
        fixed = OLD_FIXED_OCTETS if is_old else FIXED_OCTETS
        if len(octets) < fixed:
            raise Malformed("AH", f"{len(octets)} octets, the header has at least {fixed}")
        next_header, words, _, spi = struct.unpack_from("!BBHI", octets)
        seq32 = 0 if is_old else int.from_bytes(octets[8:12], "big")
        length = (words + 2) * 4
        if not fixed <= length <= len(octets):
            raise Malformed("AH", f"says {length} octets, {len(octets)} are there")
        return cls(next_header, spi, seq32, octets[fixed:length], is_old)

    def write(self) -> bytes:
        words = self.octets // 4 - 2
        head = struct.pack("!BBHI", self.next_header, words, 0, self.spi)
        return head + (b"" if self.is_old else struct.pack("!I", self.seq32)) + self.icv
