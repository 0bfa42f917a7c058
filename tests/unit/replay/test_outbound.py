"""`koura replay --out` for the SAs and policies of the Linux captures: what we seal opens in Scapy, in tshark, and in `--in`."""

from dataclasses import dataclass
from functools import lru_cache

import pytest

from koura.replay.load import load
from koura.replay.player import Player, moment_of
from koura.setkey.parse import parse
from koura.sim.entropy import Seeded
from koura.wire import capture
from koura.wire.capture import Record
from koura.wire.summary import summarise
from tests.oracles import scapy_ipsec, tshark
from tests.vectors.linux import convert
from tests.vectors.linux.load import HERE, Case, cases

SEED = 20261124
FEW = 4  # packets of each capture in the quick run; they are the first ones, so that sequence numbers can be counted


@dataclass(frozen=True, slots=True)
class Sealed:
    """A packet as it was about to leave, and what came out: one packet, for no MTU is known."""

    plain: bytes
    sealed: bytes

    @property
    def is_clear(self) -> bool:
        return self.plain == self.sealed


def seal(case: Case) -> tuple[Sealed, ...]:
    """Every plain packet of a capture, sent by whichever of the two hosts has it to send."""
    return _seal(case.name)


@lru_cache(maxsize=256)
def _seal(name: str) -> tuple[Sealed, ...]:
    case = next(case for case in cases() if case.name == name)
    records = _read(case)
    stack, refused = load(parse(convert.outbound_script(case.entry), case.name), Seeded(SEED), moment_of(records[0]))
    assert not refused, f"seed {SEED}"
    player = Player(stack, True, moment_of(records[0]))
    found = []
    for record in records:
        (packet,) = player.play(record).written
        found.append(Sealed(record.octets, packet))
    return tuple(found)


def _read(case: Case) -> list[Record]:
    with (HERE / "plain" / f"{case.name}.pcap").open("rb") as file:
        return list(capture.read(file))


BY_SCAPY = [case for case in cases() if all(scapy_ipsec.knows(agreement) for agreement in case.agreements())]
BY_TSHARK = [case for case in cases() if any(map(tshark.knows, case.agreements()))]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_what_is_sealed_opens_again(case: Case) -> None:
    """The round trip through `--in`, with another stack of the same script."""
    records = _read(case)
    stack, _ = load(parse(convert.script(case.entry), case.name), Seeded(SEED), moment_of(records[0]))
    player = Player(stack, False, moment_of(records[0]))
    for one, record in zip(seal(case), records, strict=True):
        played = player.play(Record(record.at_ns, capture.RAW, one.sealed, len(one.sealed)))
        # What is never delivered, however it came: dummies (59) in transport mode, IKE and keepalives in clear.
        assert played.written in ((one.plain,), ()), played
        assert played.written or summarise(one.plain).protocol == 59 or one.is_clear


def test_each_capture_has_something_to_seal() -> None:
    assert not [case.name for case in cases() if all(one.is_clear for one in seal(case))]


@pytest.mark.parametrize("count", [FEW, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", BY_SCAPY, ids=lambda case: case.name)
def test_scapy_opens_it(case: Case, count: int | None) -> None:
    receiver = scapy_ipsec.Scapy(case.agreements())
    shown = [one for one in seal(case)[:count] if not scapy_ipsec.misreads(one.sealed)]
    assert shown
    for one in shown:
        assert receiver.open(one.sealed) == one.plain


def test_scapy_knows_most_of_them() -> None:
    """What it does not know is Camellia, XCBC, RIPEMD, the old SHA-256-96, and GCM with short ICVs."""
    strange = {"camellia", "xcbc", "rmd160", "sha256-96", "gcm-128-64", "gcm-256-64", "gcm-128-96", "gcm-256-96"}
    names = {case.name for case in cases()} - {case.name for case in BY_SCAPY}
    assert len(BY_SCAPY) >= 130
    assert not [name for name in names if not any(word in name for word in strange)]


@pytest.mark.skipif(tshark.PROGRAM is None, reason="tshark is not installed")
def test_tshark_opens_it() -> None:
    """Every ICV is good in its eyes, and what it decrypts holds the packet that was sealed."""
    shown = [(case, one) for case in BY_TSHARK for one in seal(case) if not one.is_clear]
    agreements = [agreement for case in BY_TSHARK for agreement in case.agreements() if tshark.knows(agreement)]
    seen = tshark.look([one.sealed for _, one in shown], agreements)
    for (case, one), found in zip(shown, seen, strict=True):
        has_icv = any(
            agreement.integrity is not None or (agreement.encryption is not None and agreement.encryption.icv_octets)
            for agreement in case.agreements()
            if tshark.knows(agreement)
        )
        assert not found.bad, case.name
        assert found.good or not has_icv or case.name.startswith("raw-proto"), case.name  # No SCTP in protocol 132: it is malformed.
        assert one.plain[summarise(one.plain).offset :] in found.clear[-1], case.name


@pytest.mark.skipif(tshark.PROGRAM is None, reason="tshark is not installed")
def test_tshark_would_see_a_forgery() -> None:
    """The oracle can say no: one bit is changed."""
    case = next(case for case in BY_TSHARK if case.name == "esp-gcm-256-128-transport6")
    sealed = seal(case)[0].sealed
    forged = sealed[:-1] + bytes([sealed[-1] ^ 1])
    good, bad = tshark.look([sealed, forged], case.agreements())
    assert (good.good, good.bad, bad.good, bad.bad) == (1, 0, 0, 1)
