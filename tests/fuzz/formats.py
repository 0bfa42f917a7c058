"""Targets for wire: every decoder is total, and what it read it writes again."""

from io import BytesIO

from koura.errors import Malformed
from koura.wire import ah, capture, esp, icmp, ipcomp, ipv4, ipv6, natt, summary, tcp, udp
from tests.fuzz.target import Target, stateless
from tests.unit.traffic.kit import A6, B6, A, B, datagram
from tests.vectors.linux import load

OPTIONS4 = bytes.fromhex("94040000 0703040a 44080500 00000001 0100 0000".replace(" ", ""))
CHAIN6 = bytes.fromhex("3c00050200000000 2b00010400000000 2c020004 00000000 0000000000000000 11000000 00000001".replace(" ", ""))


def packets() -> list[bytes]:
    """Packets of both families, plain, with options and extension headers, protected, in fragments, and ICMP about them."""
    plain = datagram(A, B, 40)
    found = [
        plain, datagram(A6, B6, 40), ipv4.write(ipv4.Header(A, B, 17, options=OPTIONS4), plain[20:]),
        ipv6.write(ipv6.Header(A6, B6, 0), CHAIN6 + plain[20:]),
        icmp.error(B, icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED, 1400, plain),
        icmp.error(B6, icmp.TOO_BIG6, 0, 1400, datagram(A6, B6, 40)),
        ipv4.write(ipv4.Header(A, B, 17, is_mf=True), bytes(64)),
        ipv6.write(ipv6.Header(A6, B6, 44), ipv6.Fragment(17, 8, True, 5).write() + bytes(64)),
    ]  # fmt: skip
    wanted = ("esp-gcm-128-128-transport4", "ah-sha256-tunnel6", "comp-transport6", "udpencap-tunnel6", "ah-hbh-mut-transport6")
    for case in load.cases():
        if case.name in wanted:
            found += [packet for _, packet in case.packets()[:3]]
    return found


def bodies() -> list[bytes]:
    """What stands behind the IP headers."""
    return [packet[summary.summarise(packet).offset :] for packet in packets()]


def _ipv4(octets: bytes) -> None:
    try:
        header, payload = ipv4.read(octets)
        ipv4.is_checksum_right(octets)
        written = ipv4.write(header, payload)
        assert ipv4.read(written) == (header, payload)
        assert ipv4.is_checksum_right(written)
        assert ipv4.rewrite(octets[: header.octets], header.protocol, payload) == written
        for option in ipv4.read_options(header.options):
            assert option.offset < len(header.options)
        ipv4.read_options(ipv4.copied_options(header.options))
    except Malformed:
        return


def _ipv6(octets: bytes) -> None:
    try:
        header, payload = ipv6.read(octets)
        assert ipv6.read(ipv6.write(header, payload)) == (header, payload)
        chain = ipv6.read_chain(header.next_header, payload)
        assert b"".join(extension.octets for extension in chain.extensions) == payload[: chain.offset]
        for extension in chain.extensions:
            if extension.kind in (ipv6.HOP_BY_HOP, ipv6.DESTINATION):
                ipv6.read_options(extension.octets)
            elif extension.kind == ipv6.FRAGMENT:
                ipv6.Fragment.read(ipv6.Fragment.read(extension.octets).write())
    except Malformed:
        return


def _summary(octets: bytes) -> None:
    try:
        found = summary.summarise(octets)
        assert found.offset <= found.octets <= len(octets)
        above = summary.upper(octets)
        assert found.offset <= above.offset <= found.octets
        icmp.quoted(octets)
    except Malformed:
        return


def _upper(octets: bytes) -> None:
    natt.demultiplex(octets)
    for read in (udp.read, icmp.read, esp.Header.read, ah.Header.read, ipcomp.Header.read):
        try:
            read(octets)
        except Malformed:
            continue
    try:
        segment = tcp.Header.read(octets)
        tcp.read_options(segment.options)
        header = ah.Header.read(octets)
        assert len(header.write()) == header.octets
    except Malformed:
        return


def _capture(octets: bytes) -> None:
    try:
        for record in capture.read(BytesIO(octets)):
            _frame(record.linktype, record.octets)
    except Malformed:
        return


def _frame(linktype: int, octets: bytes) -> None:
    try:
        capture.network(linktype, octets)
    except Malformed:
        return


def _frames(octets: bytes) -> None:
    for linktype in sorted(capture.LINKTYPES):
        _frame(linktype, octets)


def captures() -> list[bytes]:
    """A small pcap, and a small pcapng with an interface, two kinds of packet block and an unknown block."""
    old = BytesIO()
    writer = capture.Writer(old)
    for number, packet in enumerate(packets()[:3]):
        writer.write(number * 1_000_000_000, packet)
    body = packets()[0]
    padded = body + bytes(-len(body) % 4)

    def block(kind: int, inside: bytes) -> bytes:
        size = (12 + len(inside)).to_bytes(4, "little")
        return kind.to_bytes(4, "little") + size + inside + size

    def words(*values: int) -> bytes:
        return b"".join(value.to_bytes(4, "little") for value in values)

    new = block(0x0A0D0D0A, words(0x1A2B3C4D, 1, 0xFFFFFFFF, 0xFFFFFFFF))
    new += block(1, words(101, 65535) + bytes.fromhex("0900010009000000") + bytes(4))
    new += block(6, words(0, 1, 2, len(body), len(body)) + padded) + block(3, words(len(body)) + padded) + block(0xBAD, bytes(8))
    return [old.getvalue(), new]


def frames() -> list[bytes]:
    """Ethernet with a VLAN, SLL, NULL, DLT_ENC in front of a packet."""
    packet = packets()[0]
    heads = (
        "ffffffffffff0000000000010800", "ffffffffffff000000000001810000010800", "00000001000600000000000100000800", "02000000",
        "020000000000100000040000",
    )  # fmt: skip
    return [bytes.fromhex(head) + packet for head in heads]


TARGETS = [
    stateless("wire-ipv4", _ipv4, packets), stateless("wire-ipv6", _ipv6, packets), stateless("wire-summary", _summary, packets),
    stateless("wire-upper", _upper, bodies), stateless("wire-capture", _capture, captures), stateless("wire-frames", _frames, frames),
]  # fmt: skip

__all__ = ["TARGETS", "Target", "packets"]
