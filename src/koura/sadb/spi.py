"""Choosing an SPI for GETSPI. RFC 2367 §3.1.1, RFC 4303 §2.1."""

from koura.entropy import Entropy
from koura.errors import Errno, Refused
from koura.sadb.association import RESERVED_SPIS
from koura.sadb.database import Database
from koura.saindex import Protocol, SaIndex
from koura.settings import KeySettings

_CPI_FIRST, _CPI_LAST = 256, 61439


def allocate(database: Database, index: SaIndex, span: tuple[int, int] | None, settings: KeySettings, entropy: Entropy) -> int:
    """A free SPI for the relation's destination and protocol, drawn from `span` (first, last), or from the tunables' range.

    Raises Refused: EINVAL for an impossible range (S27), EEXIST when the one asked for is taken or `spi_trycnt` draws found none.
    """
    first, last = span or (settings.spi_minval, settings.spi_maxval)
    if index.protocol is Protocol.IPCOMP:
        first, last = (first, min(last, 0xFFFF)) if span else (_CPI_FIRST, _CPI_LAST)
    if first > last:
        raise Refused(Errno.EINVAL, f"SPI range {first:#x} to {last:#x} is empty")
    if index.protocol is not Protocol.IPCOMP and first < RESERVED_SPIS:
        raise Refused(Errno.EINVAL, f"SPIs below {RESERVED_SPIS} are reserved")
    tries = 1 if first == last else settings.spi_trycnt
    for _ in range(tries):
        spi = first + entropy.below(last - first + 1)
        if not database.has_spi(index.dst, index.protocol, spi, index.src):
            return spi
    raise Refused(Errno.EEXIST, f"no free SPI between {first:#x} and {last:#x}")
