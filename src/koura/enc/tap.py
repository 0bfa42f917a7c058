"""enc(4)'s capture side: which stages are shown, what enc0 counts, and DLT_ENC's header. processing order: docs/architecture.md §3.

                  out                          in
    stage 1   before the outer header      opened, outer header still on
    stage 2   with it, before sealing      outer header off
    stage 4   again, once the packet filter let a stage pass

     0        4        8        12
    | family | SPI    | flags  | IP packet        family and flags in host order, the SPI in network order
"""

import struct
import sys

from koura.enc.filter import BEFORE
from koura.sadb.agreement import Agreement
from koura.saindex import Direction, Protocol
from koura.settings import EncSettings

CONFIDENTIAL, AUTHENTICATED, AH = 0x0400, 0x0800, 0x2000
AF_INET, AF_INET6 = 2, 28
_HOST_ORDER = "<I" if sys.byteorder == "little" else ">I"


class Tap:
    """Who listens, whether a stage is shown to them, and the counters of the interface, which move at stage 1 only."""

    def __init__(self) -> None:
        self.is_open = False
        self.in_packets = self.in_octets = 0
        self.out_packets = self.out_octets = 0

    def wants(self, stage: int, direction: Direction, settings: EncSettings) -> bool:
        """Whether a packet at this stage is to be shown: somebody listens, and the direction's mask has the stage's bit."""
        mask = settings.in_bpf_mask if direction is Direction.INBOUND else settings.out_bpf_mask
        return self.is_open and bool(mask & stage)

    def count(self, stage: int, direction: Direction, octets: int) -> None:
        """Count a packet of so many octets that reached a stage, whoever listens."""
        if stage != BEFORE:
            return
        if direction is Direction.INBOUND:
            self.in_packets += 1
            self.in_octets += octets
        else:
            self.out_packets += 1
            self.out_octets += octets


def flags(agreement: Agreement) -> int:
    """DLT_ENC's flags for a packet under an SA. ESP counts as confidential whatever its cipher, as in FreeBSD."""
    protocol = agreement.index.protocol
    if protocol is Protocol.AH:
        return AUTHENTICATED | AH
    if protocol is not Protocol.ESP:
        return 0
    is_authenticated = agreement.integrity is not None or (agreement.encryption is not None and agreement.encryption.icv_octets > 0)
    return CONFIDENTIAL | (AUTHENTICATED if is_authenticated else 0)


def header(packet: bytes, spi: int, flag_word: int, family6: int = AF_INET6) -> bytes:
    """DLT_ENC's 12 octets in front of a packet. family6: AF_INET6 of the system whose tools will read it (BSD 24 or 28, Linux 10)."""
    family = AF_INET if packet[0] >> 4 == 4 else family6
    return struct.pack(_HOST_ORDER, family) + struct.pack(">I", spi) + struct.pack(_HOST_ORDER, flag_word)
