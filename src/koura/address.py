"""Addresses as the packet path holds them: packed octets, 4 for IPv4 and 16 for IPv6, network order.

Text appears only at the border: `parse` and `show`. A zone (RFC 4007) is a number beside the address, never in it.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from koura.quick import quick

ANY4 = bytes(4)
ANY6 = bytes(16)
_OCTETS = {str(number): number for number in range(256)}
_MAPPED = bytes(10) + b"\xff\xff"


class Family(IntEnum):
    """Address family, by the IP version number."""

    IPV4 = 4
    IPV6 = 6

    @property
    def address_octets(self) -> int:
        return 4 if self is Family.IPV4 else 16

    @property
    def address_bits(self) -> int:
        return 32 if self is Family.IPV4 else 128

    @property
    def any(self) -> bytes:
        """The unspecified address of this family."""
        return ANY4 if self is Family.IPV4 else ANY6


def family(address: bytes) -> Family:
    """The family of a packed address."""
    return Family.IPV4 if len(address) == 4 else Family.IPV6


def parse(text: str) -> bytes:
    """Packed octets of a numeric address without zone. Raises ValueError."""
    parts = text.split(".")
    if len(parts) == 4:  # Large configurations are full of these.
        try:
            return bytes([_OCTETS[part] for part in parts])
        except KeyError:
            pass
    return ipaddress.ip_address(text).packed


def show(address: bytes) -> str:
    """The usual text of a packed address (RFC 5952 for IPv6; IPv4-mapped ones end in dotted decimal, its §5)."""
    if len(address) == 4:  # Large configurations are full of these.
        return f"{address[0]}.{address[1]}.{address[2]}.{address[3]}"
    if address[:12] == _MAPPED:
        return f"::ffff:{ipaddress.ip_address(address[12:])}"
    return str(ipaddress.ip_address(address))


def is_unspecified(address: bytes) -> bool:
    return not any(address)


def is_multicast(address: bytes) -> bool:
    return address[0] >> 4 == 0xE if len(address) == 4 else address[0] == 0xFF


def is_link_local(address: bytes) -> bool:
    """169.254/16, or fe80::/10."""
    if len(address) == 4:
        return address[:2] == b"\xa9\xfe"
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def is_global(address: bytes) -> bool:
    """Whether it names one host beyond its own link: no multicast, link-local, loopback or unspecified address."""
    is_loopback = address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\1"
    return not (is_loopback or is_multicast(address) or is_link_local(address) or is_unspecified(address))


def nearest(addresses: Iterable[bytes], towards: bytes) -> bytes:
    """Of some host's addresses the one to speak to somebody from: global, and nearest to his; b'': none is fit for that."""
    fit = (address for address in addresses if len(address) == len(towards) and is_global(address))
    return min(fit, key=lambda address: (int.from_bytes(address, "big") ^ int.from_bytes(towards, "big"), address), default=b"")


@quick
@dataclass(frozen=True, slots=True)
class Prefix:
    """An address and how many of its leading bits count; bits beyond `bits` are zero."""

    address: bytes
    bits: int

    def __post_init__(self) -> None:
        width = 8 * len(self.address)
        if width not in (32, 128) or not 0 <= self.bits <= width:
            raise ValueError(f"no prefix: {len(self.address)} octets, {self.bits} bits")
        if self.bits == width:
            return
        value = int.from_bytes(self.address, "big")
        host = (1 << (width - self.bits)) - 1
        if value & host:
            object.__setattr__(self, "address", (value & ~host).to_bytes(len(self.address), "big"))

    @property
    def family(self) -> Family:
        return family(self.address)

    @property
    def is_host(self) -> bool:
        return self.bits == 8 * len(self.address)

    def contains(self, address: bytes) -> bool:
        if len(address) != len(self.address):
            return False
        shift = 8 * len(address) - self.bits
        return int.from_bytes(address, "big") >> shift == int.from_bytes(self.address, "big") >> shift

    def __str__(self) -> str:
        return f"{show(self.address)}/{self.bits}"
