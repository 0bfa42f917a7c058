"""The checks notice: a stack that is broken on purpose does not pass. Without these, a thousand green seeds would mean nothing."""

import pytest

from koura.pfkey.sa_requests import SaRequests
from koura.reasons import FORWARDED, HELD_FRAGMENT
from koura.sadb import sequence
from koura.sadb.association import Association
from koura.sadb.replay import Window
from koura.sim.checks import Broken
from koura.sim.run import run
from koura.stack.keymanagement import KeyManagement
from koura.stats.counters import Counters
from koura.traffic.inbound import Inbound
from koura.traffic.outbound import Outbound
from koura.traffic.outcome import Bypass, Deliver, Held, Outcome

SEEDS = range(40)


def first_failure(seeds: range = SEEDS) -> str:
    """What the first seed that fails says."""
    for seed in seeds:
        try:
            run(seed)
        except Broken as broken:
            return str(broken)
    return "nothing was noticed"


@pytest.mark.covers("S43")
def test_a_window_that_takes_replays_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Window, "check", lambda *_: None)
    assert "times" in first_failure() or "accepted" in first_failure()


def test_a_policy_that_protects_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outbound, "_protect", lambda _self, packet, *_: Bypass((packet,)))
    assert "readable" in first_failure()


def test_an_iv_that_is_sent_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "next_iv", lambda _sa: 7)
    assert "IV" in first_failure()


def test_a_sequence_number_that_is_sent_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sequence.next_sequence

    def stuck(sa: Association) -> int:
        return min(real(sa), 3)

    monkeypatch.setattr(sequence, "next_sequence", stuck)
    assert "left twice" in first_failure()


def test_a_packet_that_vanishes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Inbound.receive
    count = 0

    def forgetful(self: Inbound, packet: bytes, *rest: object) -> Outcome:
        nonlocal count
        outcome = real(self, packet, *rest)  # type: ignore[arg-type]
        count += 1
        return Held(HELD_FRAGMENT) if isinstance(outcome, Deliver) and count % 50 == 0 else outcome

    monkeypatch.setattr(Inbound, "receive", forgetful)
    assert "counter" in first_failure()


def test_a_counter_that_does_not_count_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Counters.count
    monkeypatch.setattr(Counters, "count", lambda self, reason: None if reason is FORWARDED else real(self, reason))
    assert "counter ok.forwarded" in first_failure()


def test_an_inbound_check_that_lets_altered_packets_through_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Inbound.receive

    def altering(self: Inbound, packet: bytes, *rest: object) -> Outcome:
        outcome = real(self, packet, *rest)  # type: ignore[arg-type]
        if isinstance(outcome, Deliver) and outcome.history and len(outcome.packet) > 200:
            return Deliver(outcome.packet[:-1] + bytes([outcome.packet[-1] ^ 1]), outcome.history, outcome.fragment_octets)
        return outcome

    monkeypatch.setattr(Inbound, "receive", altering)
    assert first_failure() != "nothing was noticed"


def test_a_rekey_that_loses_what_is_under_way_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SaRequests, "_is_replaced", lambda *_: False)
    assert "nosa" in first_failure()


def test_a_stack_that_follows_nobody_behind_a_nat_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key managers are told all the same: they must not make good for a window's SAs what the stack leaves undone."""
    monkeypatch.setattr(KeyManagement, "_of_peer", lambda *_: [])
    assert "no mapping" in first_failure()
