"""TCP headers, as far as IPsec touches them: ports, flags, the checksum's place, the MSS option, the MD5 option. RFC 9293 §3.1.

    +-------------------------------+-------------------------------+
  0 |          Source Port          |       Destination Port        |
  4 |                        Sequence Number                        |
  8 |                    Acknowledgment Number                      |
 12 |Offset |       | Flags         |            Window             |
 16 |           Checksum            |         Urgent Pointer        |
 20 |   options, then data                                          |
    +---------------------------------------------------------------+
"""

import struct
from dataclasses import dataclass

from koura.errors import Malformed

FIXED_OCTETS = 20
CHECKSUM_AT = 16
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
END_OF_LIST, NO_OPERATION, MSS, MD5 = 0, 1, 2, 19
MD5_OCTETS = 16


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its kind, its data, and where it starts within the header."""

    kind: int
    data: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """What is asked of a TCP header. octets: its length with options."""

    sport: int
    dport: int
    flags: int
    checksum: int
    octets: int
    options: bytes

    @classmethod
    def read(cls, segment: bytes) -> "Header":
        """From the header on. Raises Malformed."""
        if len(segment) < FIXED_OCTETS:
            raise Malformed("TCP", f"{len(segment)} octets, the header has {FIXED_OCTETS}")
        sport, dport, _, _, offset, flags, _, checksum, _ = struct.unpack_from("!HHIIBBHHH", segment)
        octets = (offset >> 4) * 4
        if not FIXED_OCTETS <= octets <= len(segment):
            raise Malformed("TCP", f"header of {octets} octets, {len(segment)} present")
        return cls(sport, dport, flags, checksum, octets, segment[FIXED_OCTETS:octets])


def read_options(options: bytes) -> tuple[Option, ...]:
    """Each option up to the end of the list, no-operations left out. Raises Malformed on an impossible length."""
    found = []
    place = 0
    while place < len(options) and options[place] != END_OF_LIST:
        if options[place] == NO_OPERATION:
            place += 1
            continue
        length = options[place + 1] if place + 1 < len(options) else 0
        if length < 2 or place + length > len(options):
            raise Malformed("TCP options", f"option {options[place]} at {place} has length {length}")
        found.append(Option(options[place], options[place + 2 : place + length], FIXED_OCTETS + place))
        place += length
    return tuple(found)
