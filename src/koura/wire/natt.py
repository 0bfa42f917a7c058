"""What a datagram on an encapsulation port carries. RFC 3948 §2."""

from enum import Enum

MARKER = bytes(4)
KEEPALIVE = b"\xff"
PORT = 4500
SHORTEST_ESP_OCTETS = 8


class Kind(Enum):
    """ESP, IKE behind a zero marker, a keepalive, or too short for any."""

    ESP = "esp"
    IKE = "ike"
    KEEPALIVE = "keepalive"
    SHORT = "short"


def demultiplex(payload: bytes) -> Kind:
    """What a UDP payload on port 4500 is. RFC 3948 §2.2: an SPI is never 0. §2.3: one octet 0xff is a keepalive."""
    if payload == KEEPALIVE:
        return Kind.KEEPALIVE
    if len(payload) >= len(MARKER) and payload[:4] == MARKER:
        return Kind.IKE
    return Kind.ESP if len(payload) >= SHORTEST_ESP_OCTETS else Kind.SHORT
