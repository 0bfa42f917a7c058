"""An outer header's ID is never 0: dice that show nothing but zeros, on both paths."""

import pytest

from koura.saindex import Direction, Protocol
from koura.traffic.outcome import Forward
from koura.wire import ipv4
from tests.parity.kit import SHAPES, Pair, Shape, agreement, needs_fast, packets, policy

pytestmark = needs_fast


class Zeros:
    def octets(self, count: int) -> bytes:
        return bytes(count)

    def below(self, limit: int) -> int:
        return 0


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.is_tunnel and shape.outer == 4], ids=str)
def test_an_outer_header_without_df_has_an_id(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.parity.kit.Seeded", lambda _seed: Zeros())
    pair = Pair(1, [agreement(("aes-gcm-16", None), shape)], [policy(shape, Direction.OUTBOUND, Protocol.ESP)])
    pair.fast.tune("net.inet.ipsec.dfbit", "0")
    pair.reference.tune("net.inet.ipsec.dfbit", "0")
    for _ in range(2):
        found = pair.outbound(packets(shape, 1, 20)).outcomes
        headers = [ipv4.read(packet)[0] for outcome in found if isinstance(outcome, Forward) for packet in outcome.packets]
        assert len(headers) == 20
        assert {header.identification for header in headers} == {0xFFFF}
    assert pair.watched.sealed
