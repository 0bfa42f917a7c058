"""Socket addresses inside PF_KEY messages: sockaddr_in and sockaddr_in6 as each system lays them out.

         BSD                                    Linux
    0    length u8 (16 or 28), family u8        family u16, host order
    2    port u16, network order                the same
    4    in:  address[4], zero[8]               the same
    4    in6: flowinfo u32, address[16],        the same
    24        scope id u32, host order
"""

import struct
from dataclasses import dataclass

from koura.errors import Malformed
from koura.pfkey.dialect import Dialect
from koura.quick import quick

AF_INET = 2
_IN = struct.Struct(">H4s8x")
_IN6 = struct.Struct(">H4s16s")
_NO_FLOW = bytes(4)
_SCOPE = struct.Struct("<I")


@quick
@dataclass(frozen=True, slots=True)
class Sockaddr:
    """An address packed, a port in host order. Neither IPv4 nor IPv6: `address` is b'' and `foreign` holds the octets, family in `family`.

    is_sized: whether the length octet is that of the family (FreeBSD answers a wrong one with EINVAL, not with a failed send).
    """

    address: bytes
    port: int = 0
    zone: int = 0
    flowinfo: bytes = bytes(4)
    foreign: bytes = b""
    family: int = 0
    is_sized: bool = True

    @classmethod
    def read(cls, body: bytes, dialect: Dialect, where: str) -> "Sockaddr":
        """A sockaddr that fills `body` up to padding of less than 8 octets. Raises Malformed."""
        sockaddr, octets = cls.take(body, 0, dialect, where)
        if (octets + 7) >> 3 != (len(body) + 7) >> 3:
            raise Malformed(where, f"{len(body)} octets around a socket address of {octets}")
        return sockaddr

    @classmethod
    def take(cls, body: bytes, at: int, dialect: Dialect, where: str) -> tuple["Sockaddr", int]:
        """The sockaddr at offset `at`, and its length in octets. Raises Malformed."""
        if len(body) < at + 2:
            raise Malformed(where, "no room for a socket address")
        if dialect.has_length_octet:
            octets, family = body[at], body[at + 1]
        else:
            family = int.from_bytes(body[at : at + 2], "little")
            octets = 16 if family == AF_INET else 28 if family == dialect.family6 else len(body) - at
        if octets < 2 or at + octets > len(body):
            raise Malformed(where, f"a socket address of {octets} octets")
        if family == AF_INET and octets == 16:
            port, address = _IN.unpack_from(body, at + 2)
            return cls(address, port, 0, _NO_FLOW, b"", family), octets
        if family == dialect.family6 and octets == 28:
            port, flowinfo, address = _IN6.unpack_from(body, at + 2)
            return cls(address, port, _SCOPE.unpack_from(body, at + 24)[0], flowinfo, family=family), octets
        is_sized = family not in (AF_INET, dialect.family6)
        return cls(b"", foreign=body[at : at + octets], family=family, is_sized=is_sized), octets

    def write(self, dialect: Dialect) -> bytes:
        """The sockaddr's octets, without padding to whole words (28 for IPv6)."""
        if len(self.address) == 4:
            start = b"\x10\x02" if dialect.has_length_octet else b"\x02\x00"
            return start + _IN.pack(self.port, self.address)
        if len(self.address) == 16:
            start = bytes((28, dialect.family6)) if dialect.has_length_octet else bytes((dialect.family6, 0))
            return start + _IN6.pack(self.port, self.flowinfo, self.address) + _SCOPE.pack(self.zone)
        return self.foreign
