"""What a sender left for hardware to do, done: checksums closed, super packets cut. virtio_net.h; the twin of koura.fast's segment.pxi.

A machine's own packets, and those of a veth, come as they would go to an adapter: the checksum field holds the sum of the pseudo header
only, and a train of TCP or UDP may be one packet. The header in front of it (PACKET_VNET_HDR) says so; offsets in it count from the
frame's first octet. Protection needs each packet as it would be on the wire.
"""

import struct

from koura.wire import checksum

VNET = struct.Struct("=BBHHHH")
NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4, GSO_ECN = 0, 1, 3, 4, 5, 0x80
LARGEST_PACKET = 65535
_TCP, _UDP = 6, 17
_SUM_AT = {_TCP: 16, _UDP: 6}
_CWR, _FIN_PSH = 0x7F, 0xF6


def finish(front: bytes, frame: bytes, at: int) -> list[bytes] | None:
    """The packets of a frame whose payload begins at `at`; None where the header in front does not fit it."""
    flags, gso, _, size, start, offset = VNET.unpack(front)
    packet = frame[at:]
    if not flags & NEEDS_CSUM:
        return [packet] if gso == GSO_NONE else None
    start -= at
    if start < 0 or start + offset + 2 > len(packet):
        return None
    if gso == GSO_NONE:
        return [_closed(packet, start, offset, len(packet))]
    return _cut(packet, gso & ~GSO_ECN, size, start, offset)


def _closed(packet: bytes, start: int, offset: int, before: int) -> bytes:
    """With its checksum closed. before: octets of the packet whose pseudo header the field knows."""
    place = start + offset
    folded = int.from_bytes(packet[place : place + 2], "big") + (0xFFFF - (before - start) % 0xFFFF) + (len(packet) - start)
    body = packet[start:place] + bytes(2) + packet[place + 2 :]
    right = checksum.internet((folded % 0xFFFF).to_bytes(2, "big") + body)
    if right == 0 and offset == _SUM_AT[_UDP]:  # 0 would say that there is none
        right = 0xFFFF
    return packet[:place] + right.to_bytes(2, "big") + packet[place + 2 :]


def _cut(packet: bytes, gso: int, size: int, start: int, offset: int) -> list[bytes] | None:
    """The segments of a super packet."""
    protocol = _UDP if gso == GSO_UDP_L4 else _TCP
    version = packet[0] >> 4
    if gso not in (GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4) or size == 0 or offset != _SUM_AT[protocol] or len(packet) - start > LARGEST_PACKET:
        return None
    if (gso, version) not in ((GSO_TCPV4, 4), (GSO_TCPV6, 6), (GSO_UDP_L4, 4), (GSO_UDP_L4, 6)):
        return None
    is_fragment = version == 4 and int.from_bytes(packet[6:8], "big") & 0x3FFF
    if version == 4 and (is_fragment or (packet[0] & 0xF) * 4 != start or start < 20 or packet[9] != protocol):
        return None
    if version == 6 and (start < 40 or (start == 40 and packet[6] != protocol)):
        return None
    header = start + (8 if protocol == _UDP else (packet[start + 12] >> 4) * 4 if len(packet) > start + 12 else 0)
    if header < start + (8 if protocol == _UDP else 20) or header >= len(packet) or header + size > LARGEST_PACKET:
        return None
    return [_segment(packet, (header, start, offset), at, size) for at in range(0, len(packet) - header, size)]


def _segment(packet: bytes, places: tuple[int, int, int], at: int, size: int) -> bytes:
    """The segment whose payload begins `at` octets behind the headers. Lengths, IDs, numbers, flags and checksums become its own."""
    header, start, offset = places
    payload = packet[header + at : header + at + size]
    is_last = header + at + size >= len(packet)
    head = bytearray(packet[:header])
    octets = header + len(payload)
    if head[0] >> 4 == 4:
        head[2:4] = octets.to_bytes(2, "big")
        head[4:6] = ((int.from_bytes(head[4:6], "big") + at // size) & 0xFFFF).to_bytes(2, "big")
        head[10:12] = bytes(2)
        head[10:12] = checksum.internet(bytes(head[:start])).to_bytes(2, "big")
    else:
        head[4:6] = (octets - 40).to_bytes(2, "big")
    if offset == _SUM_AT[_UDP]:
        head[start + 4 : start + 6] = (octets - start).to_bytes(2, "big")
    else:
        number = int.from_bytes(head[start + 4 : start + 8], "big") + at
        head[start + 4 : start + 8] = (number & 0xFFFF_FFFF).to_bytes(4, "big")
        if at:
            head[start + 13] &= _CWR
        if not is_last:
            head[start + 13] &= _FIN_PSH
    return _closed(bytes(head) + payload, start, offset, len(packet))
