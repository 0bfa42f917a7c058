"""Raw deflate for IPComp, by zlib. RFC 2394, RFC 1951."""

import zlib

from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.driver import Driver
from koura.crypto.session import Compressor, Overflow
from koura.errors import Malformed

WINDOW_BITS = 15


class Deflate:
    """Each packet stands alone: no dictionary survives it."""

    __slots__ = ("_level",)

    def __init__(self, level: int = 6) -> None:
        self._level = level

    def compress(self, octets: bytes) -> bytes:
        running = zlib.compressobj(self._level, zlib.DEFLATED, -WINDOW_BITS)
        return running.compress(octets) + running.flush()

    def expand(self, octets: bytes, limit_octets: int) -> bytes:
        running = zlib.decompressobj(-WINDOW_BITS)
        try:
            clear = running.decompress(octets, limit_octets + 1)
        except zlib.error as error:
            raise Malformed("deflate", str(error)) from error
        if len(clear) > limit_octets:
            raise Overflow(f"more than {limit_octets} octets")
        if not running.eof:
            raise Malformed("deflate", "ends in the middle")
        return clear


class Zlib(Driver):
    """Serves deflate."""

    name = "zlib"

    def score(self, row: Algorithm) -> int:
        return 1 if row.kind is Kind.COMPRESSION and row.name == "deflate" else 0

    def compressor(self, row: Algorithm, level: int) -> Compressor:
        return Deflate(level)
