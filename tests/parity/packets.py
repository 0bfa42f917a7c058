"""Reading the recorded packets through NULL-encrypted ESP, AH and IPComp: their headers, and their content without deflate's sizes."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

ESP, AH, IPCOMP, UDP = 50, 51, 108, 17
UNSEEN = -1
_ICV_OCTETS = (12, 16, 24, 32, 0)  # HMAC-SHA-1-96, what SHA-256 and GCM have, SHA-384, SHA-512, none


@dataclass(frozen=True)
class Layer:
    """One header. kind: its protocol number (4 and 41 for IP); number: identification or sequence number; rest: what is behind it."""

    kind: int
    number: int = 0
    spi: int = 0
    src: bytes = b""
    dst: bytes = b""
    is_df: bool = False
    offset_octets: int = 0
    is_more: bool = False
    head: bytes = b""
    rest: bytes = b""


def headers(packet: bytes) -> Iterator[Layer]:
    """Every header that can be seen, outermost first; an encrypted payload ends it."""
    kind, rest = _version(packet), packet
    while kind != UNSEEN:
        layer = _read(kind, rest)
        if layer is None:
            return
        yield layer
        if layer.offset_octets or (layer.is_more and kind not in (4, 44)):
            return
        kind, rest = next_of(layer)


def whole(packets: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The packets with fragments put together, each in the place of its first; for reading, so lengths are right and checksums are not."""
    made: dict[object, bytes] = {}
    for number, packet in enumerate(packets):
        if packet[0] >> 4 == 4 and int.from_bytes(packet[6:8], "big") & 0x3FFF:
            key: object = packet[4:6]
            at = (int.from_bytes(packet[6:8], "big") & 0x1FFF) * 8
            body = packet[20:]
            made[key] = made.get(key, packet[:6] + bytes(2) + packet[8:20]) if at else packet[:6] + bytes(2) + packet[8:20] + body
            made[key] = made[key][: 20 + at] + body
            made[key] = made[key][:2] + len(made[key]).to_bytes(2, "big") + made[key][4:]
        elif packet[0] >> 4 == 6 and packet[6] == 44:
            key = packet[44:48]
            at = int.from_bytes(packet[42:44], "big") & 0xFFF8
            head = packet[:48] if not at else made[key][:48]
            made[key] = (head + made.get(key, packet)[48 : 48 + at]) + packet[48:]
            made[key] = made[key][:4] + (len(made[key]) - 40).to_bytes(2, "big") + made[key][6:42] + bytes(2) + made[key][44:]
        else:
            made[number] = packet
    return tuple(made.values())


def _version(packet: bytes) -> int:
    return {4: 4, 6: 41}.get(packet[0] >> 4, UNSEEN) if packet else UNSEEN


def _read(kind: int, octets: bytes) -> Layer | None:
    def number(at: int, count: int) -> int:
        return int.from_bytes(octets[at : at + count], "big")

    if kind == 4 and len(octets) >= 20:
        size, word = (octets[0] & 15) * 4, number(6, 2)
        rest = octets[size : number(2, 2)] if number(2, 2) <= len(octets) else octets[size:]
        return Layer(4, number(4, 2), 0, octets[12:16], octets[16:20], bool(word & 0x4000), (word & 0x1FFF) * 8, bool(word & 0x2000),
                     octets[:size], rest)  # fmt: skip
    if kind == 41 and len(octets) >= 40:
        return Layer(41, 0, 0, octets[8:24], octets[24:40], head=octets[:40], rest=octets[40 : 40 + number(4, 2)])
    if kind in (0, 43, 60) and len(octets) >= 8:
        size = 8 * (octets[1] + 1)
        return Layer(kind, head=octets[:size], rest=octets[size:])
    if kind == 44 and len(octets) >= 8:
        return Layer(44, number(4, 4), offset_octets=number(2, 2) & 0xFFF8, is_more=bool(octets[3] & 1), head=octets[:8], rest=octets[8:])
    if kind == ESP and len(octets) >= 8:
        return Layer(ESP, number(4, 4), number(0, 4), head=octets[:8], rest=octets[8:])
    if kind == AH and len(octets) >= 12:
        size = (octets[1] + 2) * 4
        return Layer(AH, number(8, 4), number(4, 4), head=octets[:size], rest=octets[size:])
    if kind == IPCOMP and len(octets) >= 4:
        return Layer(IPCOMP, 0, number(2, 2), head=octets[:4], rest=octets[4:])
    if kind == UDP and len(octets) >= 8 and 4500 in (number(0, 2), number(2, 2)) and octets[8:12] != bytes(4) and len(octets) > 24:
        return Layer(UDP, head=octets[:8], rest=octets[8:])
    return None


def next_of(layer: Layer) -> tuple[int, bytes]:
    """What is behind a header: its protocol and its octets; (UNSEEN, b"") where that cannot be seen."""
    if layer.kind == 4:
        return layer.head[9], layer.rest
    if layer.kind == 41:
        return layer.head[6], layer.rest
    if layer.kind in (0, 43, 60, 44, AH):
        return layer.head[0], layer.rest
    if layer.kind == UDP:
        return ESP, layer.rest
    if layer.kind == IPCOMP:
        clear = inflated(layer.rest)
        return (layer.head[0], clear) if clear is not None else (UNSEEN, b"")
    trailer = _trailer(layer.rest)
    return trailer if trailer is not None else (UNSEEN, b"")


def _trailer(payload: bytes) -> tuple[int, bytes] | None:
    """What NULL-encrypted ESP carries: its padding tells where it ends."""
    for icv in _ICV_OCTETS:
        clear = payload[: len(payload) - icv]
        if len(clear) < 2 or clear[-2] + 2 > len(clear) or clear[-1] not in (1, 4, 6, 17, 41, 50, 51, 58, 60, 108):
            continue
        padding = clear[len(clear) - 2 - clear[-2] : -2]
        if padding == bytes(range(1, len(padding) + 1)) and len(padding) < 16:
            return clear[-1], clear[: len(clear) - 2 - len(padding)]
    return None


def inflated(octets: bytes) -> bytes | None:
    try:
        return zlib.decompress(octets, -15)
    except zlib.error:
        return None


def timeless(packet: bytes) -> bytes:
    """An IPv4 packet with what a timestamp option says of the time, and the header's checksum, zero; any other packet as it is."""
    size = (packet[0] & 15) * 4 if packet and packet[0] >> 4 == 4 else 20
    at = 20
    while at < size and packet[at]:
        octets = packet[at + 1] if packet[at] != 1 and at + 1 < size else 1
        if packet[at] == 68 and octets > 4:
            packet = packet[: at + 4] + bytes(octets - 4) + packet[at + octets :]
            packet = packet[:10] + bytes(2) + packet[12:]
        at += max(octets, 1)
    return packet


def expanded(packet: bytes) -> tuple[object, ...] | None:
    """For a packet with IPComp in it: its headers without lengths, checksums and ICVs, and the clear payload; None for others."""
    layers = list(headers(packet))
    if not any(layer.kind == IPCOMP for layer in layers):
        return None
    found: list[object] = []
    for layer in layers:
        head = layer.head
        if layer.kind == 4:
            head = head[:2] + bytes(2) + head[4:10] + bytes(2) + head[12:]
        elif layer.kind == 41:
            head = head[:4] + bytes(2) + head[6:]
        elif layer.kind == AH:
            head = head[:12]
        elif layer.kind == UDP:
            head = head[:4]
        found.append((layer.kind, head, layer.is_more))
    last = layers[-1]
    found.append(next_of(last)[1] if last.kind == IPCOMP else last.rest)
    return tuple(found)
