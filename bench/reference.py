"""The reference path beside scapy: the same packets under the same SAs, octets in and octets out, one core, one run.

Each side opens what the other sealed before anything is timed, so that both do the same work.
"""

import warnings
from dataclasses import dataclass
from typing import Any

from bench.host import AT, compiled, feed, opened, sealed, stack
from bench.machine import us_side_by_side
from bench.table import Table
from koura.address import parse
from koura.stack import Stack
from koura.wire import ipv4, udp

SIZES = (64, 512, 1400)
INNER, OUTER = ("10.0.1.1", "10.0.2.1"), ("192.0.2.1", "192.0.2.2")
SPI = 0x1000


@dataclass(frozen=True, slots=True)
class Case:
    """An SA as setkey and as scapy name it. Keys: octets 0, 1, 2, ..."""

    name: str
    encryption: tuple[str, str, int] | None = None  # ours, scapy's, octets of key and salt
    integrity: tuple[str, str, int] | None = None


CASES = (
    Case("ESP aes-gcm-16", ("aes-gcm-16", "AES-GCM", 20)),
    Case("ESP chacha20-poly1305", ("chacha20-poly1305", "CHACHA20-POLY1305", 36)),
    Case("ESP aes-ccm-16", ("aes-ccm-16", "AES-CCM", 19)),
    Case("ESP aes-cbc hmac-sha2-256", ("aes-cbc", "AES-CBC", 16), ("hmac-sha2-256", "SHA2-256-128", 32)),
    Case("ESP aes-ctr hmac-sha1", ("aes-ctr", "AES-CTR", 20), ("hmac-sha1", "HMAC-SHA1-96", 20)),
    Case("ESP null hmac-sha2-512", ("null", "NULL", 0), ("hmac-sha2-512", "SHA2-512-256", 64)),
    Case("AH hmac-sha2-256", None, ("hmac-sha2-256", "SHA2-256-128", 32)),
)


def key(octets: int) -> bytes:
    return bytes(range(octets))


def script(case: Case) -> str:
    """One tunnel, its policies in both directions, no replay window: every packet is opened many times."""
    protocol = "esp" if case.encryption is not None else "ah"
    text = f"add {OUTER[0]} {OUTER[1]} {protocol} {SPI:#x} -m tunnel"
    if case.encryption is not None:
        name, _, octets = case.encryption
        text += f" -E {name} " + (f"0x{key(octets).hex()}" if octets else '""')
    if case.integrity is not None:
        name, _, octets = case.integrity
        text += f" -A {name} 0x{key(octets).hex()}"
    policy = f"{INNER[0]} {INNER[1]} any -P {{}} ipsec {protocol}/tunnel/{OUTER[0]}-{OUTER[1]}/require;"
    return f"{text}; spdadd {policy.format('out')} spdadd {policy.format('in')}"


def scapy_sa(case: Case) -> Any:
    """The same SA in scapy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from scapy.layers.inet import IP
        from scapy.layers.ipsec import AH, ESP, SecurityAssociation
    given: dict[str, Any] = {}
    if case.encryption is not None:
        given |= {"crypt_algo": case.encryption[1], "crypt_key": key(case.encryption[2])}
    if case.integrity is not None:
        given |= {"auth_algo": case.integrity[1], "auth_key": key(case.integrity[2])}
    outer = IP(src=OUTER[0], dst=OUTER[1])
    return SecurityAssociation(ESP if case.encryption is not None else AH, spi=SPI, tunnel_header=outer, **given)


def packet(octets: int) -> bytes:
    """A UDP packet of so many octets, IP header included."""
    src, dst = map(parse, INNER)
    return ipv4.write(ipv4.Header(src, dst, udp.PROTOCOL), udp.write_checked(src, dst, 1, 2, bytes(octets - 28)))


@dataclass(frozen=True, slots=True)
class Measured:
    """Microseconds per packet."""

    out: float
    out_scapy: float
    into: float
    into_scapy: float

    @property
    def out_ratio(self) -> float:
        return self.out_scapy / self.out

    @property
    def into_ratio(self) -> float:
        return self.into_scapy / self.into


def measure(case: Case, octets: int, seconds: float) -> Measured:
    """All four, `seconds` each."""
    from scapy.layers.inet import IP

    ours, theirs = stack(), scapy_sa(case)
    feed(ours, compiled(script(case)))
    clear = packet(octets)
    protected = _checked(ours, theirs, clear)
    burst = [clear] * 32

    def send() -> int:
        return len(ours.outbound(burst, AT).outcomes)

    def receive() -> int:
        return len(ours.inbound([protected] * 32, AT).outcomes)

    def send_scapy() -> int:
        return int(bool(bytes(theirs.encrypt(IP(clear)))))

    def receive_scapy() -> int:
        return int(bool(bytes(theirs.decrypt(IP(protected)))))

    return Measured(*us_side_by_side(send, send_scapy, seconds), *us_side_by_side(receive, receive_scapy, seconds))


def _checked(ours: Stack, theirs: Any, clear: bytes) -> bytes:
    """A protected packet of ours; that each opens the other's has been seen."""
    from scapy.layers.inet import IP

    (mine,) = sealed(ours, [clear])
    assert bytes(theirs.decrypt(IP(mine))) == clear, "scapy does not open our packet"
    assert opened(ours, [bytes(theirs.encrypt(IP(clear)))]) == [clear], "we do not open scapy's packet"
    return mine


def run(seconds: float) -> Table:
    """The table. `seconds` for each number."""
    rows = []
    for case in CASES:
        for octets in SIZES:
            found = measure(case, octets, seconds)
            rows.append((
                case.name, str(octets), _per_second(found.out), _per_second(found.out_scapy), f"{found.out_ratio:.0f}x",
                _per_second(found.into), _per_second(found.into_scapy), f"{found.into_ratio:.1f}x",
            ))  # fmt: skip
    return Table(
        "reference", "The reference path, beside scapy",
        "Packets per second, one core. Ours: a whole IPv4 packet, policy lookup, SA, tunnel header, seal, accounting; and back, with the "
        "inbound policy check. scapy seals and opens the same packets under the same SA and looks up nothing. `octets`: of the inner "
        "packet.",
        ("SA", "octets", "out", "scapy out", "ratio", "in", "scapy in", "ratio"), tuple(rows),
    )  # fmt: skip


def _per_second(us: float) -> str:
    return f"{1e6 / us:,.0f}"
