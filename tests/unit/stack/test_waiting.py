"""Packets that wait, through the doors: for an SA (ACQUIRE), for the keys of a larval one, for the ledger. S31; RFC 4301 §5.1."""

import pytest

from koura.notices import Granted
from koura.pfkey import extensions as x
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.pfkey.sockaddr import Sockaddr
from koura.reasons import (
    ESP_NO_SA,
    FORWARDED,
    HELD_ACQUIRE,
    HELD_GRANT,
    HELD_LARVAL,
    SA_ACQUIRE_LIMIT,
    SA_ACQUIRE_TIMEOUT,
    SA_LARVAL_LIMIT,
    SA_LARVAL_TIMEOUT,
    SA_NONE_OUT,
    SA_UNGRANTED,
)
from koura.sadb.association import State
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.outcome import Deliver, Discard, Forward, Held, Wanted
from tests.unit.stack.kit import GCM, Host, discards, released
from tests.unit.traffic.kit import INNER_A, INNER_B, A, B, datagram

REQUIRE = "spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require;"
SA = f"add 192.0.2.1 192.0.2.2 esp 0x1000 {GCM};"


@pytest.mark.covers("S31", "R14", "R19")
@pytest.mark.reason("held.acquire", "ok.forwarded")
def test_the_first_packets_wait_for_their_sa_and_leave_in_order() -> None:
    host = Host(REQUIRE)
    packets = [datagram(A, B, octets) for octets in (64, 65, 66)]
    assert host.send_all(packets) == (Held(HELD_ACQUIRE),) * 3
    (acquire,) = host.hear(Type.ACQUIRE)
    assert acquire.satype == SaType.ESP
    host.setkey(SA)
    outcomes = released(host)
    assert [type(outcome) for outcome in outcomes] == [Forward] * 3
    assert [len(outcome.packets[0]) for outcome in outcomes] == sorted(len(outcome.packets[0]) for outcome in outcomes)  # type: ignore[union-attr]
    assert [outcome.packets[0][24:28] for outcome in outcomes] == [n.to_bytes(4, "big") for n in (1, 2, 3)]  # type: ignore[union-attr]
    assert (host.count(HELD_ACQUIRE), host.count(FORWARDED)) == (3, 3)


@pytest.mark.covers("S31")
@pytest.mark.reason("sa.acquire.limit", "sa.acquire.timeout")
def test_the_queue_is_bounded_and_ends_after_the_larval_lifetime() -> None:
    host = Host(REQUIRE)
    host.tune("net.koura.limits.hold_packets", 2)
    outcomes = host.send_all([datagram(A, B)] * 3)
    assert outcomes[:2] == (Held(HELD_ACQUIRE),) * 2
    discards(host, outcomes[2], SA_ACQUIRE_LIMIT)
    host.later(29)
    assert released(host) == []
    host.later(1)
    assert released(host) == [Discard(SA_ACQUIRE_TIMEOUT)] * 2
    assert host.count(SA_ACQUIRE_TIMEOUT) == 2
    assert host.stack.next_deadline() is None


@pytest.mark.covers("R14")
@pytest.mark.reason("sa.none.out")
def test_without_holding_the_packet_ends_and_acquires_are_held_back() -> None:
    """blockacq_count packets pass in silence between two ACQUIREs; after blockacq_lifetime the next packet asks anew."""
    host = Host(REQUIRE)
    host.tune("net.koura.acquire_hold", 0)
    discards(host, host.send(datagram(A, B)), SA_NONE_OUT)
    (first,) = host.hear(Type.ACQUIRE)
    host.send_all([datagram(A, B)] * 10)
    assert not host.hear()
    host.send(datagram(A, B))
    (again,) = host.hear(Type.ACQUIRE)
    assert again.seq == first.seq
    host.later(20)
    host.send(datagram(A, B))
    (anew,) = host.hear(Type.ACQUIRE)
    assert anew.seq != first.seq


@pytest.mark.covers("R14")
def test_while_packets_wait_nobody_is_asked_more_than_once_a_second() -> None:
    """A key manager is at work on it; a thousand packets are no reason to ask it ninety times."""
    host = Host(REQUIRE)
    host.send_all([datagram(A, B)] * 1000)
    (first,) = host.hear(Type.ACQUIRE)
    host.later(0.999)
    host.send_all([datagram(A, B)] * 20)
    assert not host.hear()
    host.later(0.001)
    host.send_all([datagram(A, B)] * 20)
    (again,) = host.hear(Type.ACQUIRE)
    assert again.seq == first.seq


def test_each_policy_has_a_queue_of_its_own() -> None:
    host = Host(REQUIRE + "spdadd 192.0.2.1 10.0.2.1 any -P out ipsec esp/transport//require;")
    host.tune("net.koura.limits.hold_packets", 1)
    assert host.send_all([datagram(A, B), datagram(A, INNER_B)]) == (Held(HELD_ACQUIRE),) * 2


@pytest.mark.covers("S31")
def test_what_waited_while_policy_changed_obeys_the_new_policy() -> None:
    host = Host(REQUIRE)
    host.send(datagram(A, B))
    host.setkey("spdflush; spdadd 192.0.2.1 192.0.2.2 any -P out discard;" + SA)
    (outcome,) = released(host)
    assert isinstance(outcome, Discard)


# -- larval ----------------------------------------------------------------------------------------------------------------


def getspi(spi: int) -> Message:
    ends = tuple(x.Address(ext, Sockaddr(address, 0), 255, 32) for ext, address in ((Ext.ADDRESS_SRC, A), (Ext.ADDRESS_DST, B)))
    return Message(Type.GETSPI, SaType.ESP, 7, extensions=(*ends, x.SpiRange(spi, spi)))


@pytest.mark.covers("R13", "R43", "S21")
@pytest.mark.reason("held.larval", "esp.nosa")
def test_a_packet_for_a_larval_spi_waits_for_its_keys() -> None:
    sender, host = Host(REQUIRE + SA), Host()
    sealed = sender.forwarded(datagram(A, B))
    discards(host, host.receive(sealed), ESP_NO_SA)
    assert host.ask(getspi(0x1000)) is None
    assert host.receive(sealed) == Held(HELD_LARVAL)
    assert host.count(HELD_LARVAL) == 1
    host.setkey(SA.replace("add", "update"))
    (outcome,) = released(host)
    assert isinstance(outcome, Deliver)
    assert outcome.packet == datagram(A, B)


@pytest.mark.reason("sa.larval.limit", "sa.larval.timeout")
def test_larval_queues_are_bounded_and_brief() -> None:
    sender, host = Host(REQUIRE + SA), Host()
    host.tune("net.koura.limits.larval_packets", 1)
    host.ask(getspi(0x1000))
    assert host.receive(sender.forwarded(datagram(A, B))) == Held(HELD_LARVAL)
    discards(host, host.receive(sender.forwarded(datagram(A, B))), SA_LARVAL_LIMIT)
    host.later(1)
    assert released(host) == [Discard(SA_LARVAL_TIMEOUT)]
    assert host.count(SA_LARVAL_TIMEOUT) == 1
    assert len(host.stack.sadb) == 1
    host.later(29)
    assert len(host.stack.sadb) == 0, "larval SAs go after larval_lifetime, in silence"
    assert not host.hear(Type.EXPIRE)


@pytest.mark.covers("R13")
def test_a_larval_sa_sends_nothing() -> None:
    host = Host(REQUIRE)
    host.ask(getspi(0x1000))
    (sa,) = host.stack.sadb
    assert sa.state is State.LARVAL
    assert host.send(datagram(A, B)) == Held(HELD_ACQUIRE)


# -- the ledger ------------------------------------------------------------------------------------------------------------


def ledger_host(script: str) -> Host:
    return Host(script, Stack(Seeded(7), has_ledger=True))


@pytest.mark.covers("S22")
@pytest.mark.reason("held.grant")
def test_with_a_ledger_nothing_is_sealed_before_numbers_are_granted() -> None:
    host = ledger_host(REQUIRE + SA)
    (sa,) = host.stack.sadb
    assert host.send(datagram(A, B)) == Held(HELD_GRANT)
    assert host.count(HELD_GRANT) == 1
    assert Wanted(sa.slot, sa.epoch) in host.events
    host.notice(Granted(sa.slot, sa.epoch, 0, 100))
    assert released(host) == [Held(HELD_GRANT)], "an IV alone is not enough"
    host.notice(Granted(sa.slot, sa.epoch, 1, 0))
    (outcome,) = released(host)
    assert isinstance(outcome, Forward)
    assert host.send(datagram(A, B)) == Held(HELD_GRANT), "one number was granted, and one is spent"
    host.notice(Granted(sa.slot, sa.epoch + 1, 100, 100))
    assert released(host) == [], "another SA's grant"
    host.notice(Granted(sa.slot, sa.epoch, 1000, 1000))
    (outcome,) = released(host)
    assert isinstance(outcome, Forward)


@pytest.mark.covers("S22")
@pytest.mark.reason("sa.ungranted")
def test_waiting_for_the_ledger_has_its_limits_too() -> None:
    host = ledger_host(REQUIRE + SA)
    host.tune("net.koura.limits.hold_packets", 1)
    outcomes = host.send_all([datagram(A, B)] * 2)
    assert outcomes[0] == Held(HELD_GRANT)
    discards(host, outcomes[1], SA_UNGRANTED)
    host.later(30)
    assert released(host) == [Discard(SA_UNGRANTED)]
    assert host.count(SA_UNGRANTED) == 2


@pytest.mark.covers("S22")
def test_a_sequence_number_is_not_lost_to_a_missing_iv() -> None:
    """A refused packet must not leave a hole, nor a number that was used without an IV."""
    host = ledger_host(REQUIRE + SA)
    (sa,) = host.stack.sadb
    host.notice(Granted(sa.slot, sa.epoch, 10, 0))
    assert host.send(datagram(A, B)) == Held(HELD_GRANT)
    host.notice(Granted(sa.slot, sa.epoch, 10, 10))
    (outcome,) = released(host)
    assert isinstance(outcome, Forward)
    assert outcome.packets[0][24:28] == (1).to_bytes(4, "big")


def test_an_inner_packet_of_a_tunnel_waits_as_it_came() -> None:
    host = Host("spdadd 10.0.1.1 10.0.2.1 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;")
    assert host.send(datagram(INNER_A, INNER_B)) == Held(HELD_ACQUIRE)
    host.setkey(SA)
    (outcome,) = released(host)
    assert isinstance(outcome, Forward)
    assert outcome.packets[0][12:20] == A + B
