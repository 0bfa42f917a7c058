"""traffic/bundle: which SAs serve the requests of a policy, and which are missing."""

from dataclasses import replace
from itertools import product

import pytest

from koura.reasons import SA_ENDPOINTS, Discarded
from koura.sadb.association import Makings
from koura.sadb.database import Database
from koura.sadb.hot import Arena
from koura.saindex import Direction
from koura.settings import KeySettings, Settings
from koura.spd.policy import Level, Requirement
from koura.spd.selector import Flow
from koura.traffic.bundle import Bundle, choose
from tests.unit.traffic.kit import (
    A6,
    AH,
    ANY,
    AT,
    B6,
    ESP,
    INNER_A,
    INNER_B,
    IPCOMP,
    REGISTRY,
    TRANSPORT,
    TUNNEL,
    A,
    B,
    Dice,
    agreement,
    policy,
    selector,
    transport,
    tunnel,
)  # fmt: skip

SETTINGS = Settings()
EVERYTHING = selector(Direction.OUTBOUND, "0.0.0.0/0", "0.0.0.0/0")


def sadb(*agreements) -> Database:  # type: ignore[no-untyped-def]
    database = Database(Makings(REGISTRY, Arena(), Dice()))
    for row in agreements:
        database.add(row, AT)
    return database


def chosen(database: Database, *requirements: Requirement, settings: Settings = SETTINGS, src: bytes = A, dst: bytes = B) -> Bundle:
    return choose(policy(EVERYTHING, *requirements), Flow(src, dst, 17, 1, 2), database, settings)


def spis(bundle: Bundle) -> list[int]:
    return [step.sa.agreement.spi for step in bundle.steps]


def test_transport_takes_its_addresses_from_the_packet_and_a_tunnel_from_the_request() -> None:
    database = sadb(agreement(ESP, A, B, 0x1001), agreement(ESP, INNER_A, INNER_B, 0x1002))
    assert [(step.sa.agreement.spi, step.outer) for step in chosen(database, transport(ESP)).steps] == [(0x1001, None)]
    found = chosen(database, tunnel(ESP, A, B), src=INNER_A, dst=INNER_B)
    assert [(step.sa.agreement.spi, step.outer) for step in found.steps] == [(0x1001, (A, B))]


def test_a_transport_request_with_other_addresses_wraps() -> None:
    found = chosen(sadb(agreement(ESP, A, B, 0x1001)), transport(ESP, src=A, dst=B), src=INNER_A, dst=INNER_B)
    assert found.steps[0].outer == (A, B)
    found = chosen(sadb(agreement(ESP, A6, B6, 0x1001)), tunnel(ESP, A6, B6), src=INNER_A, dst=INNER_B)
    assert found.steps[0].outer == (A6, B6)


def test_behind_a_tunnel_the_next_request_sees_the_outer_addresses() -> None:
    database = sadb(agreement(ESP, A, B, 0x1001), agreement(AH, A, B, 0x2001), agreement(IPCOMP, INNER_A, INNER_B, 0x3001))
    found = chosen(database, transport(IPCOMP), tunnel(ESP, A, B), transport(AH), src=INNER_A, dst=INNER_B)
    assert [(step.sa.agreement.spi, step.outer) for step in found.steps] == [(0x3001, None), (0x1001, (A, B)), (0x2001, None)]


@pytest.mark.covers("R28")
@pytest.mark.parametrize(("asked", "spi"), [(0, 0x1007), (7, 0x1007), (9, None)])
@pytest.mark.parametrize("level", [Level.USE, Level.REQUIRE, Level.UNIQUE])
def test_a_reqid_wants_an_sa_of_that_reqid(asked: int, spi: int | None, level: Level) -> None:
    database = sadb(agreement(ESP, A, B, 0x1001), agreement(ESP, A, B, 0x1007, reqid=7))
    found = chosen(database, transport(ESP, level, asked))
    assert spis(found) == ([spi] if spi else [])
    assert (found.wanted is not None) == (spi is None and level is not Level.USE)


@pytest.mark.parametrize(("have", "wanted"), list(product((ANY, TRANSPORT, TUNNEL), (TRANSPORT, TUNNEL))))
def test_the_mode_of_the_sa_is_the_requests_or_any(have, wanted) -> None:  # type: ignore[no-untyped-def]
    request = transport(ESP) if wanted is TRANSPORT else tunnel(ESP, A, B)
    assert bool(chosen(sadb(agreement(ESP, A, B, 0x1001, have)), request).steps) == (have in (ANY, wanted))


@pytest.mark.parametrize(("value", "spi"), [(1, 0x1001), (0, 0x1003)])
def test_preferred_oldsa_picks_the_oldest_or_the_newest(value: int, spi: int) -> None:
    database = sadb(*(agreement(ESP, A, B, number) for number in (0x1001, 0x1002, 0x1003)))
    settings = replace(SETTINGS, key=KeySettings(preferred_oldsa=value))
    assert spis(chosen(database, transport(ESP), settings=settings)) == [spi]


@pytest.mark.covers("R24", "S39")
def test_a_missing_use_is_passed_over_and_a_missing_require_ends_the_search() -> None:
    database = sadb(agreement(AH, A, B, 0x2001))
    found = chosen(database, transport(ESP, Level.USE), transport(AH))
    assert (spis(found), len(found.missing), found.wanted) == ([0x2001], 1, None)
    found = chosen(database, transport(AH), transport(ESP), transport(IPCOMP))
    assert found.wanted is not None
    assert [row.index.protocol for row in found.missing] == [ESP]


@pytest.mark.covers("R22", "R23", "R25")
@pytest.mark.parametrize(("name", "protocol", "mode"), [
    ("esp_trans_deflev", ESP, TRANSPORT), ("esp_net_deflev", ESP, TUNNEL),
    ("ah_trans_deflev", AH, TRANSPORT), ("ah_net_deflev", AH, TUNNEL),
])  # fmt: skip
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("value", [0, 1, 2, 3])
def test_the_default_level_by_protocol_mode_and_selector_family(name: str, protocol, mode, family: int, value: int) -> None:  # type: ignore[no-untyped-def]
    side = replace(SETTINGS.of(family), **{name: value})
    settings = replace(SETTINGS, v4=side) if family == 4 else replace(SETTINGS, v6=side)
    ends = (A, B) if family == 4 else (A6, B6)
    request = transport(protocol, Level.DEFAULT) if mode is TRANSPORT else tunnel(protocol, *ends, Level.DEFAULT)
    text = "0.0.0.0/0" if family == 4 else "::/0"
    rule = policy(selector(Direction.OUTBOUND, text, text), request)
    found = choose(rule, Flow(*ends, 17, 1, 2), sadb(), settings)
    assert (found.wanted is not None) == (value in (0, 2))


def test_ipcomp_by_default_is_use() -> None:
    assert chosen(sadb(), transport(IPCOMP, Level.DEFAULT)).wanted is None


@pytest.mark.reason("sa.endpoints")
@pytest.mark.parametrize(("src", "dst"), [(bytes(4), B), (A, bytes(4)), (A, B6), (bytes(16), B6), (b"", b"")])
def test_a_tunnel_that_leads_nowhere(src: bytes, dst: bytes) -> None:
    with pytest.raises(Discarded) as caught:
        chosen(sadb(), tunnel(ESP, src, dst))
    assert caught.value.reason is SA_ENDPOINTS
