"""Lifetimes through the doors: octets, packets, seconds since add and since use; soft, hard, and what key management hears. S17-S20."""

from dataclasses import replace

import pytest

from koura.pfkey import extensions as x
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, Type
from koura.reasons import ESP_SEQ_CYCLED, HELD_ACQUIRE
from koura.sadb.association import Association, State
from koura.setkey.parse import parse
from koura.setkey.run import messages
from koura.traffic.outcome import Deliver, Held
from tests.unit.stack.kit import GCM, Host, discards
from tests.unit.traffic.kit import A, B, datagram

REQUIRE = "spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require;"


def host_with(limits: str) -> Host:
    return Host(REQUIRE + f"add 192.0.2.1 192.0.2.2 esp 0x1000 {limits} {GCM};")


def only(host: Host) -> Association:
    (sa,) = host.stack.sadb
    return sa


def is_hard(message: Message) -> bool:
    kinds = {extension.ext for extension in message.extensions if isinstance(extension, x.Lifetime)}
    assert Ext.LIFETIME_CURRENT in kinds
    assert (Ext.LIFETIME_HARD in kinds) != (Ext.LIFETIME_SOFT in kinds)
    return Ext.LIFETIME_HARD in kinds


@pytest.mark.covers("S17", "S20", "R19")
@pytest.mark.parametrize(("limits", "soft_at"), [("-ph 10", 8), ("-ph 10 -ps 3", 3)])
def test_packets_soft_at_eighty_percent_unless_given_then_hard(limits: str, soft_at: int) -> None:
    host = host_with(limits)
    for _ in range(soft_at - 1):
        host.forwarded(datagram(A, B))
        host.later(0)
    assert not host.hear()
    host.forwarded(datagram(A, B))
    host.later(0)
    (expire,) = host.hear(Type.EXPIRE)
    assert not is_hard(expire)
    assert only(host).state is State.DYING
    for _ in range(10 - soft_at):
        host.forwarded(datagram(A, B))
    host.later(0)
    (expire,) = host.hear(Type.EXPIRE)
    assert is_hard(expire)
    assert len(host.stack.sadb) == 0
    assert host.send(datagram(A, B)) == Held(HELD_ACQUIRE)


@pytest.mark.covers("S17", "S20")
def test_a_burst_beyond_the_hard_limit_is_told_of_once() -> None:
    host = host_with("-ph 3")
    host.send_all([datagram(A, B)] * 5)
    host.later(0)
    assert [is_hard(message) for message in host.hear(Type.EXPIRE)] == [True]


@pytest.mark.covers("S20")
def test_octets_count_whole_protected_packets() -> None:
    size = len(host_with("").forwarded(datagram(A, B)))
    host = host_with(f"-bh {10 * size}")
    for _ in range(7):
        host.forwarded(datagram(A, B))
    host.later(0)
    assert not host.hear()
    host.forwarded(datagram(A, B))
    host.later(0)
    assert [is_hard(message) for message in host.hear()] == [False]
    host.send_all([datagram(A, B)] * 2)
    host.later(0)
    assert [is_hard(message) for message in host.hear()] == [True]


@pytest.mark.covers("S20")
def test_seconds_since_add_need_no_packet() -> None:
    host = host_with("-lh 100")
    host.later(79)
    assert not host.hear()
    host.later(1)
    assert [is_hard(message) for message in host.hear(Type.EXPIRE)] == [False]
    host.later(19)
    assert not host.hear()
    host.later(1)
    assert [is_hard(message) for message in host.hear(Type.EXPIRE)] == [True]
    assert len(host.stack.sadb) == 0
    assert host.stack.next_deadline() is None


@pytest.mark.covers("S20")
def test_seconds_since_use_begin_with_the_first_packet() -> None:
    host = host_with("-uh 100")
    host.later(1000)
    assert not host.hear()
    host.forwarded(datagram(A, B))
    host.later(50)
    host.forwarded(datagram(A, B))
    host.later(29)
    assert not host.hear()
    host.later(1)
    assert [is_hard(message) for message in host.hear(Type.EXPIRE)] == [False]
    host.later(20)
    assert [is_hard(message) for message in host.hear(Type.EXPIRE)] == [True]


@pytest.mark.covers("S17")
def test_inbound_packets_count_as_well() -> None:
    sender, host = host_with(""), host_with("-ph 2")
    for _ in range(2):
        assert isinstance(host.receive(sender.forwarded(datagram(A, B))), Deliver)
    host.later(0)
    assert [is_hard(message) for message in host.hear(Type.EXPIRE)] == [True]


@pytest.mark.covers("S18", "S2")
@pytest.mark.reason("esp.seqcycled")
def test_numbers_expire_softly_at_eighty_percent_and_end_the_sa_at_the_last() -> None:
    eighty = (1 << 32) * 80 // 100
    host = host_with(f"-f nocyclic-seq -seq {eighty - 100}")
    host.forwarded(datagram(A, B))
    host.later(0)
    assert not host.hear()
    host = host_with(f"-f nocyclic-seq -seq {eighty}")
    host.forwarded(datagram(A, B))
    host.later(0)
    assert [is_hard(message) for message in host.hear(Type.EXPIRE)] == [False]
    host = host_with(f"-f nocyclic-seq -seq {(1 << 32) - 2}")
    host.forwarded(datagram(A, B))
    discards(host, host.send(datagram(A, B)), ESP_SEQ_CYCLED)
    assert host.stack.report.read("esp")["wrap"] == 1


@pytest.mark.covers("R14", "S20")
def test_update_gives_a_dying_sa_a_new_life() -> None:
    host = host_with("-ph 10")
    host.send_all([datagram(A, B)] * 8)
    host.later(0)
    assert only(host).state is State.DYING
    host.hear()
    script = parse(f"update 192.0.2.1 192.0.2.2 esp 0x1000 -ph 100 {GCM};")
    ((_, (message,)),) = messages(script)
    assert host.ask(replace(message, extensions=tuple(e for e in message.extensions if not isinstance(e, x.Key)))) is None
    host.hear()
    assert only(host).state is State.MATURE
    host.send_all([datagram(A, B)] * 3)
    host.later(0)
    assert not host.hear()
