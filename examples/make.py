"""Makes the captures beside it, always the same: python examples/make.py

esp.pcap    a tunnel as a switch sees it: both directions, a datagram in fragments, a packet sent twice, one forged, ARP, a keepalive
cut.pcap    the same, cut off in the middle
plain.pcap  packets that a gateway is about to send
"""

from pathlib import Path

from koura.address import parse as packed
from koura.moment import Moment
from koura.replay.load import load
from koura.setkey.parse import parse
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.fragments import split
from koura.traffic.outcome import Forward
from koura.wire import capture, checksum, ipv4, tcp, udp

HERE = Path(__file__).parent
START = Moment.of_s(1_795_510_800)  # 2026-11-24, 09:00 UTC
A, B = packed("10.1.0.7"), packed("10.2.0.9")
GATEWAYS = packed("192.0.2.1"), packed("192.0.2.2")
MACS = bytes.fromhex("0200000000a1"), bytes.fromhex("0200000000b2")
POLICIES = """
spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;
spdadd 10.2.0.0/16 10.1.0.0/16 any -P out ipsec esp/tunnel/192.0.2.2-192.0.2.1/require;
"""


def echo(src: bytes, dst: bytes, number: int, *, is_reply: bool) -> bytes:
    """An ICMP echo of 56 octets."""
    body = bytes((0 if is_reply else 8, 0, 0, 0)) + number.to_bytes(4, "big") + bytes(range(56))
    body = body[:2] + checksum.internet(body).to_bytes(2, "big") + body[4:]
    return ipv4.write(ipv4.Header(src, dst, 1, identification=number), body)


def datagram(src: bytes, dst: bytes, octets: int, dport: int = 5060) -> bytes:
    """UDP."""
    return ipv4.write(ipv4.Header(src, dst, 17, identification=dport), udp.write_checked(src, dst, 5060, dport, bytes(octets)))


def syn(src: bytes, dst: bytes, dport: int) -> bytes:
    """The first packet of a TCP connection."""
    body = (40000).to_bytes(2, "big") + dport.to_bytes(2, "big") + bytes(8) + bytes((0x50, 2, 0xFF, 0xFF)) + bytes(4)
    at = tcp.CHECKSUM_AT
    body = body[:at] + checksum.upper(src, dst, 6, body).to_bytes(2, "big") + body[at + 2 :]
    return ipv4.write(ipv4.Header(src, dst, 6, identification=dport), body)


def sealed(stack: Stack, packet: bytes) -> bytes:
    """One packet through the tunnel."""
    (outcome,) = stack.outbound([packet], START).outcomes
    assert isinstance(outcome, Forward)
    return outcome.packets[0]


def frame(packet: bytes) -> bytes:
    """Ethernet, from one gateway to the other."""
    from_, to = MACS if packet[12:16] == GATEWAYS[0] else MACS[::-1]
    return to + from_ + b"\x08\x00" + packet


def esp() -> list[bytes]:
    """The frames of esp.pcap."""
    stack, refused = load(parse((HERE / "peer.conf").read_text() + POLICIES), Seeded(1), START)
    assert not refused
    frames = [b"\xff" * 6 + MACS[0] + b"\x08\x06" + bytes(28)]
    for number in (1, 2):
        frames.append(frame(sealed(stack, echo(A, B, number, is_reply=False))))
        frames.append(frame(sealed(stack, echo(B, A, number, is_reply=True))))
    frames += [frame(piece) for piece in split(sealed(stack, datagram(A, B, 3000)), 1500, 0)]
    keepalive = udp.write(udp.Header(4500, 4500), b"\xff")
    frames.append(frame(ipv4.write(ipv4.Header(*GATEWAYS, 17), keepalive)))
    frames.append(frames[2])
    forged = frame(sealed(stack, datagram(A, B, 20)))
    frames.append(forged[:-1] + bytes((forged[-1] ^ 1,)))
    return frames


def plain() -> list[bytes]:
    """The packets of plain.pcap."""
    web, world = packed("10.2.0.80"), packed("198.51.100.1")
    return [echo(A, B, 1, is_reply=False), syn(A, web, 80), syn(A, web, 443), datagram(A, B, 160), echo(A, world, 1, is_reply=False)]


def write(name: str, linktype: int, frames: list[bytes]) -> None:
    with (HERE / name).open("wb") as file:
        writer = capture.Writer(file, linktype)
        for number, octets in enumerate(frames):
            writer.write(START.ns + number * 20_000_000, octets)


if __name__ == "__main__":
    write("esp.pcap", capture.ETHERNET, esp())
    (HERE / "cut.pcap").write_bytes((HERE / "esp.pcap").read_bytes()[:800])
    write("plain.pcap", capture.RAW, plain())
