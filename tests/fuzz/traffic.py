"""Targets for packets: inbound and outbound with live SAs of every kind, and what stands inside a packet that authenticated.

    inbound    octets from the network
    opened     octets as ESP's payload, trailer included, sealed rightly: what a peer that has the key may do
    expanded   the same for IPComp
    outbound   octets that a host or gateway is about to send
"""

from koura.crypto.algorithm import Kind
from koura.crypto.algorithms import ALGORITHMS
from koura.crypto.registry import default
from koura.moment import Moment
from koura.notices import LocalAddresses, PathMtu
from koura.sadb.association import Association
from koura.saindex import Protocol
from koura.stack import Stack
from koura.traffic import outcome
from koura.traffic.outcome import Origin
from koura.wire import esp, ipcomp, ipv4, ipv6
from tests.fuzz.formats import packets
from tests.fuzz.target import Run, Target
from tests.unit.stack.kit import GCM, SHA, Host

_ENDS = (("192.0.2.1", "192.0.2.2"), ("2001:db8::a", "2001:db8::b"))
_OUTCOMES = (outcome.Forward, outcome.Deliver, outcome.Bypass, outcome.Punt, outcome.Held, outcome.Discard)


def script() -> str:
    """An SA of every algorithm, mode and family, IPComp and AH, ESP in UDP, old formats; and policies that use some of them."""
    lines = []
    spi = 0x1000
    for a, b in _ENDS:
        for row in ALGORITHMS:
            if row.kind not in (Kind.AEAD, Kind.CIPHER) or not default().has(row):
                continue
            octets = max(row.key_bits[0] // 8 + row.salt_octets, 1)
            mac = SHA if row.kind is Kind.CIPHER else ""
            spi += 1
            mode = ("tunnel", "transport", "any")[spi % 3]
            lines.append(f"add {a} {b} esp {spi} -m {mode} -r 4 -E {row.name} 0x{bytes(range(octets)).hex()} {mac};")
        lines += [
            f"add {a} {b} ah {spi + 100} -r 4 {SHA};", f"add {a} {b} ipcomp 2 -C deflate;", f"add {a} {b} esp-udp {spi + 101} {GCM};",
            f"add {a} {b} esp-old {spi + 102} -E aes-cbc 0x{bytes(16).hex()};", f"add {a} {b} esp {spi + 103} -esn -r 4 {GCM};",
        ]  # fmt: skip
        bundle = "ipcomp/transport//use esp/transport//use ah/transport//use"
        lines += [f"spdadd {a} {b} any -P out ipsec {bundle};", f"spdadd {a} {b} tcp -P in ipsec {bundle};"]
        lines += [f"spdadd 10.0.0.0/8 0.0.0.0/0 any -P out ipsec esp/tunnel/{a}-{b}/use;"] if a == "192.0.2.1" else []
    return "".join(lines)


class Doors:
    """One stack, used for all inputs of a run; time goes by, a second each."""

    def __init__(self) -> None:
        host = Host(script())
        self.stack: Stack = host.stack
        self.at: Moment = host.at

    def check(self, outcomes: tuple[object, ...]) -> None:
        """One outcome a packet; then a second goes by."""
        assert len(outcomes) == 1
        assert isinstance(outcomes[0], _OUTCOMES)
        self.at = self.at.after_s(1)
        self.stack.advance(self.at)
        deadline = self.stack.next_deadline()
        assert deadline is None or deadline > self.at, "a deadline that advance does not settle"

    def receive(self, octets: bytes) -> None:
        self.check(self.stack.inbound([octets], self.at).outcomes)

    def send(self, octets: bytes, origin: Origin) -> None:
        self.check(self.stack.outbound([octets], self.at, origin).outcomes)


def _inbound() -> Run:
    return Doors().receive


def _outbound() -> Run:
    doors = Doors()
    doors.stack.notice(LocalAddresses(frozenset((b"\xc0\0\2\1", b"\x20\1\x0d\xb8" + bytes(11) + b"\x0a"))), doors.at)
    origins = (Origin(), Origin(is_forwarded=True), Origin(socket=3), Origin(True, 0, 600))

    def run(octets: bytes) -> None:
        first = octets[0] if octets else 0
        doors.stack.notice(PathMtu(b"", (0, 68, 576, 1280, 1500)[first % 5]), doors.at)
        doors.stack.tune("net.inet.ipsec.dfbit", str(first % 3))
        doors.send(octets[1:], origins[first % 4])

    return run


def _around(sa: Association, protocol: int, body: bytes) -> bytes:
    src, dst = sa.agreement.index.src, sa.agreement.index.dst
    if len(dst) == 4:
        return ipv4.write(ipv4.Header(src, dst, protocol), body[:60_000])
    return ipv6.write(ipv6.Header(src, dst, protocol), body[:60_000])


def _opened() -> Run:
    """The first octet chooses the SA; the rest is what stands before the ICV."""
    doors = Doors()
    sas = [sa for sa in doors.stack.sadb if sa.session is not None and not sa.agreement.has_esn and sa.agreement.encapsulation is None]
    sent = [0] * len(sas)

    def run(octets: bytes) -> None:
        number = (octets[0] if octets else 0) % len(sas)
        sa = sas[number]
        assert sa.session is not None
        sent[number] += 1
        head = esp.Header(sa.agreement.spi, sent[number]).write()
        if sa.agreement.is_old:
            head = head[:4]
        clear = octets[1:] + bytes(-len(octets[1:]) % sa.session.align_octets)
        iv = sent[number].to_bytes(sa.session.iv_octets, "big") if sa.session.iv_octets else b""
        doors.receive(_around(sa, Protocol.ESP, head + iv + sa.session.seal(iv, clear, head)))

    return run


def _expanded() -> Run:
    doors = Doors()
    sas = [sa for sa in doors.stack.sadb if sa.compressor is not None]

    def run(octets: bytes) -> None:
        sa = sas[(octets[0] if octets else 0) % len(sas)]
        assert sa.compressor is not None
        header = ipcomp.Header(octets[1] if len(octets) > 1 else 0, 0, sa.agreement.spi)
        doors.receive(_around(sa, Protocol.IPCOMP, header.write() + sa.compressor.compress(octets[2:])))

    return run


def _chosen(front: bytes, back: bytes = b"") -> list[bytes]:
    """Each packet behind several first octets."""
    return [bytes((number,)) + front + packet + back for number in range(0, 40, 3) for packet in packets()]


TARGETS = [
    Target("inbound", _inbound, packets),
    Target("opened", _opened, lambda: _chosen(b"", b"\1\2\2\4") + _chosen(b"", b"\0\x29")),
    Target("expanded", _expanded, lambda: _chosen(b"\x04") + _chosen(b"\x11")),
    Target("outbound", _outbound, lambda: _chosen(b"")),
]  # fmt: skip
