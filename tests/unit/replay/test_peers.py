"""Every algorithm in both modes and families, ESN and ESP in UDP too: Scapy and tshark open what we seal, and we what Scapy seals."""

from functools import lru_cache
from itertools import product

import pytest

from koura.address import parse as packed
from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.algorithms import ALGORITHMS
from koura.moment import Moment
from koura.replay.load import load
from koura.sadb.agreement import Agreement
from koura.saindex import Mode
from koura.setkey.parse import parse
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.outcome import Deliver, Forward
from koura.wire import ipv4, ipv6, udp
from tests.oracles import scapy_ipsec, tshark

SEED = 20261124
AT = Moment.of_s(1_800_000_000)
ENDS = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
INSIDE = {4: ("10.1.0.1", "10.2.0.1"), 6: ("2001:db8:1::1", "2001:db8:2::1")}
SIZES = (13, 14, 0, 1400)  # octets of UDP payload: the first two end just before and at a block of ESP
FIRST_SPI = 0x1000
HMAC = "-A hmac-sha2-256 0x" + "a5" * 32


def _key(row: Algorithm, bits: int) -> str:
    octets = bits // 8 + row.salt_octets
    return "0x" + bytes((7 * i + 1) & 0xFF for i in range(octets)).hex() if octets else '""'


def _sizes(row: Algorithm) -> tuple[int, ...]:
    return row.key_bits if len(row.key_bits) < 4 else (row.key_bits[0], 128, row.key_bits[-1])


def _esp() -> list[str]:
    """What follows `esp SPI` for each encryption and key size, then for each integrity algorithm."""
    found = []
    for row in ALGORITHMS:
        if row.kind is Kind.AEAD:
            found += [f"-E {row.name} {_key(row, bits)}{esn}" for bits in _sizes(row) for esn in ("", " -esn -seq 8589934592")]
        elif row.kind is Kind.CIPHER:
            found += [f"-E {row.name} {_key(row, bits)} {HMAC}" for bits in (_sizes(row) if row.name != "null" else (0,))]
        elif row.kind is Kind.INTEGRITY and row.icv_octets and row.name != "tcp-md5":
            key = _key(row, _sizes(row)[-1])
            found += [f"-E aes-cbc 0x{'5c' * 16} -A {row.name} {key}{esn}" for esn in ("", " -esn -seq 4294967290")]
    return found


def _ah() -> list[str]:
    rows = [row for row in ALGORITHMS if row.kind is Kind.INTEGRITY and row.icv_octets and row.name != "tcp-md5"]
    return [f"-A {row.name} {_key(row, _sizes(row)[-1])}{esn}" for row in rows for esn in ("", " -esn -seq 4294967290")]


def _script() -> str:
    """An SA and a policy for each; the policy's port is the SA's request id."""
    lines = []
    terms = [("esp", words, "") for words in _esp()] + [("ah", words, "") for words in _ah()]
    terms += [("esp", f"-E aes-gcm-16 0x{'3b' * 20}", "[4500]"), ("esp", f"-E aes-cbc 0x{'3b' * 16} {HMAC}", "[31000]")]
    for number, ((protocol, words, port), mode, version) in enumerate(product(terms, ("transport", "tunnel"), (4, 6)), 1):
        src, dst = ENDS[version]
        first, last = INSIDE[version] if mode == "tunnel" else ENDS[version]
        ends = f"{src}-{dst}" if mode == "tunnel" else ""
        lines.append(f"add {src}{port} {dst}{port} {protocol} {FIRST_SPI + number:#x} -m {mode} -u {number} {words};")
        lines.append(f"spdadd {first} {last}[{number}] udp -P out ipsec {protocol}/{mode}/{ends}/unique:{number};")
    return "\n".join(lines)


def _stack() -> Stack:
    stack, refused = load(parse(_script()), Seeded(SEED), AT)
    assert not refused, refused[0].fault
    return stack


def _plain(agreement: Agreement, octets: int) -> bytes:
    version = 4 if len(agreement.index.dst) == 4 else 6
    src, dst = (INSIDE if agreement.index.mode == Mode.TUNNEL else ENDS)[version]
    body = udp.write_checked(packed(src), packed(dst), 7, agreement.index.reqid, bytes(i & 0xFF for i in range(octets)))
    if version == 4:
        return ipv4.write(ipv4.Header(packed(src), packed(dst), 17, identification=octets), body)
    return ipv6.write(ipv6.Header(packed(src), packed(dst), 17), body)


@lru_cache(maxsize=1)
def sealed() -> tuple[tuple[Agreement, tuple[tuple[bytes, bytes], ...]], ...]:
    """For each SA its packets, plain and sealed."""
    stack = _stack()
    found = []
    for agreement in [sa.agreement for sa in stack.sadb]:
        pairs = []
        for octets in SIZES:
            plain = _plain(agreement, octets)
            (outcome,) = stack.outbound([plain], AT).outcomes
            assert isinstance(outcome, Forward), (agreement.index, outcome)
            pairs.append((plain, *outcome.packets))
        found.append((agreement, tuple(pairs)))
    return tuple(found)


def _name(agreement: Agreement) -> str:
    rows = [row.name for row in (agreement.encryption, agreement.integrity) if row is not None]
    return f"{agreement.index.protocol.name} {'+'.join(rows)} mode {agreement.index.mode} {'esn' if agreement.has_esn else ''}"


@pytest.mark.covers("R4", "R5", "R7", "M12", "M14", "M16", "M17", "M18", "S34")
@pytest.mark.parametrize("count", [1, pytest.param(len(SIZES), marks=pytest.mark.slow)])
def test_scapy_opens_what_we_seal(count: int) -> None:
    opened = 0
    for agreement, pairs in sealed():
        if not scapy_ipsec.knows(agreement):
            continue
        receiver = scapy_ipsec.Scapy([agreement])
        for plain, packet in pairs[:count]:
            assert receiver.open(packet) == plain, _name(agreement)
            opened += 1
    assert opened > 200 * count


@pytest.mark.skipif(tshark.PROGRAM is None, reason="tshark is not installed")
def test_tshark_opens_what_we_seal() -> None:
    shown = [(agreement, plain, packet) for agreement, pairs in sealed() if tshark.knows(agreement) for plain, packet in pairs]
    seen = tshark.look([packet for _, _, packet in shown], [agreement for agreement, _ in sealed() if tshark.knows(agreement)])
    for (agreement, plain, _), found in zip(shown, seen, strict=True):
        assert (found.good, found.bad) == (1, 0), _name(agreement)
        assert plain[20 if plain[0] >> 4 == 4 else 40 :] in found.clear[-1], _name(agreement)
    assert len(shown) > 80 * len(SIZES)


@pytest.mark.parametrize("sizes", [SIZES[:1], pytest.param(SIZES, marks=pytest.mark.slow)])
def test_we_open_what_scapy_seals(sizes: tuple[int, ...]) -> None:
    stack = _stack()
    opened = 0
    for agreement in [sa.agreement for sa in stack.sadb]:
        if not scapy_ipsec.knows(agreement):
            continue
        for sequence, octets in enumerate(sizes, agreement.sequence + 1):
            plain = _plain(agreement, octets)
            (outcome,) = stack.inbound([scapy_ipsec.seal(agreement, plain, sequence)], AT).outcomes
            assert isinstance(outcome, Deliver), (_name(agreement), outcome)
            assert outcome.packet == plain, _name(agreement)
            opened += 1
    assert opened > 200 * len(sizes)


def test_every_algorithm_has_a_witness() -> None:
    """What neither Scapy nor tshark knows: Camellia, XCBC, and the keyed hashes of the old AH. Linux's captures have the first two."""
    unseen = {
        row.name
        for agreement, _ in sealed()
        for row in (agreement.encryption, agreement.integrity)
        if row is not None and not (scapy_ipsec.knows(agreement) or tshark.knows(agreement))
    } - {row.name for agreement, _ in sealed() if scapy_ipsec.knows(agreement) or tshark.knows(agreement) for row in _rows(agreement)}
    assert unseen == {"camellia-cbc", "camellia-ctr", "aes-xcbc-mac", "keyed-md5", "keyed-sha1"}


def _rows(agreement: Agreement) -> list[Algorithm]:
    return [row for row in (agreement.encryption, agreement.integrity) if row is not None]
