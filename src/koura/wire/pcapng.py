"""Writes pcapng: packets of any link type, each with a comment if it has one. draft-ietf-opsawg-pcapng.

Little-endian, times in nanoseconds. An interface is described before its first packet. Reading is in `capture`.
"""

import struct

from koura.wire.capture import Sink

_SECTION, _INTERFACE, _ENHANCED = 0x0A0D0D0A, 1, 6
_MAGIC = 0x1A2B3C4D
_END_OF_OPTIONS, _COMMENT, _NAME, _RESOLUTION, _NS = 0, 1, 2, 9, 9
MAX_COMMENT_OCTETS = 65535


class Writer:
    """One section. An interface is a link type and a name (b'': none)."""

    def __init__(self, file: Sink) -> None:
        self._file = file
        self._interfaces: dict[tuple[int, bytes], int] = {}
        self._block(_SECTION, struct.pack("<IHHq", _MAGIC, 1, 0, -1))

    def write(self, at_ns: int, linktype: int, octets: bytes, comment: bytes = b"", *, interface: bytes = b"") -> None:
        """One packet; the comment is UTF-8, cut to what an option holds."""
        number = self._interface(linktype, interface)
        head = struct.pack("<IIIII", number, at_ns >> 32 & 0xFFFF_FFFF, at_ns & 0xFFFF_FFFF, len(octets), len(octets))
        self._block(_ENHANCED, head + _padded(octets) + _options((_COMMENT, comment[:MAX_COMMENT_OCTETS])))

    def _interface(self, linktype: int, name: bytes) -> int:
        number = self._interfaces.get((linktype, name))
        if number is None:
            number = self._interfaces[(linktype, name)] = len(self._interfaces)
            options = _options((_NAME, name), (_RESOLUTION, bytes((_NS,))))
            self._block(_INTERFACE, struct.pack("<HHI", linktype, 0, 0) + options)
        return number

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("<I", 12 + len(body))
        self._file.write(struct.pack("<I", kind) + length + body + length)


def _padded(octets: bytes) -> bytes:
    return octets + bytes(-len(octets) % 4)


def _options(*options: tuple[int, bytes]) -> bytes:
    """Those that have a value, and the end of the list; nothing if none has."""
    written = b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options if value)
    return written + struct.pack("<HH", _END_OF_OPTIONS, 0) if written else b""
