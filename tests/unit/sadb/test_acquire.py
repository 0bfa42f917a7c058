"""Which ACQUIREs are sent, and what settles one. pfkey.md §7; T90."""

from dataclasses import replace

import pytest

from koura.sadb.acquire import Acquires
from koura.saindex import Mode, SaIndex
from koura.settings import KeySettings
from tests.unit.traffic.kit import AH, ANY, AT, ESP, TRANSPORT, A, B

WISH = SaIndex(A, B, ESP, TRANSPORT, 7)
KEY = KeySettings()


def asked() -> Acquires:
    acquires = Acquires()
    assert acquires.ask(WISH, AT, KEY, 10) == 1
    return acquires


@pytest.mark.covers("R19")
@pytest.mark.parametrize("index", [WISH, replace(WISH, mode=ANY)], ids=("the relation", "any mode"))
def test_an_sa_that_serves_settles_it(index: SaIndex) -> None:
    acquires = asked()
    acquires.settled(1, index)
    assert acquires.ask(WISH, AT, KEY, 10) == 2


@pytest.mark.parametrize(
    "index",
    [
        replace(WISH, src=B, dst=A), replace(WISH, protocol=AH), replace(WISH, reqid=9), replace(WISH, mode=Mode.TUNNEL),
    ],
    ids=("GETSPI's other direction", "protocol", "reqid", "mode"),
)  # fmt: skip
def test_another_sa_under_its_number_does_not(index: SaIndex) -> None:
    acquires = asked()
    acquires.settled(1, index)
    assert acquires.ask(WISH, AT, KEY, 10) is None, "keys are being negotiated: nobody is asked again"


def test_another_number_settles_nothing() -> None:
    acquires = asked()
    acquires.settled(2, WISH)
    assert acquires.ask(WISH, AT, KEY, 10) is None
