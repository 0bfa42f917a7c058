"""A rekey under load, through the doors: an SA that a key manager deletes receives for a moment what is under way to it, and only that."""

import pytest

from koura.errors import Errno, Refused
from koura.notices import KeySocketOpened, SendDummy
from koura.pfkey.dialect import LINUX
from koura.pfkey.numbers import SaType, Type
from koura.reasons import ESP_ICV, ESP_NO_SA, ESP_REPLAY, SA_NONE_OUT
from koura.setkey.parse import parse
from koura.setkey.run import messages
from tests.unit.stack.kit import GCM, START, Host, discards
from tests.unit.traffic.kit import A, B, datagram

OUT = "spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require;"
ENDS = "192.0.2.1 192.0.2.2 esp"
OLD, NEW = f"add {ENDS} 0x1000 -r 8 {GCM};", f"add {ENDS} 0x1001 -r 8 {GCM};"
DELETE = f"delete {ENDS} 0x1000;"


def manage(host: Host, text: str) -> Refused | None:
    """A command by the socket of the key manager, who is registered; why it was refused."""
    refused = None
    for _, said in messages(parse(text, "test")):
        for message in said:
            refused = host.ask(message) or refused
    return refused


class Wire:
    """What a sender under the old SA has put on the wire, packet by packet."""

    def __init__(self) -> None:
        self.sender = Host(OUT + OLD)

    def packet(self, octets: int = 100) -> bytes:
        return self.sender.forwarded(datagram(A, B, octets))


def receiver(wire: Wire, more: str = NEW) -> Host:
    """It has had a packet under the old SA, and then its key manager's new one."""
    host = Host(OLD)
    host.delivered(wire.packet())
    host.setkey(more)
    return host


def opened(host: Host) -> int:
    return host.stack.sadb.grace.opened_packets


def test_what_is_under_way_to_a_deleted_sa_is_taken_for_its_grace() -> None:
    wire = Wire()
    host = receiver(wire)
    assert manage(host, DELETE) is None
    packet = datagram(A, B, 100)
    assert host.delivered(wire.packet()) == packet
    host.later(0.999)
    assert host.delivered(wire.packet()) == packet
    assert opened(host) == 2
    host.later(0.001)
    discards(host, host.receive(wire.packet()), ESP_NO_SA)
    assert opened(host) == 2
    assert host.stack.next_deadline() is None
    assert host.stack.sadb.windows_octets == Host(NEW).stack.sadb.windows_octets, "nothing of its memory is left"


@pytest.mark.reason("esp.replay", "esp.icv")
def test_in_grace_the_window_still_refuses_what_came_before_and_a_forgery_is_one() -> None:
    wire = Wire()
    host = Host(OLD)
    first, second = wire.packet(), wire.packet()
    host.delivered(first)
    host.setkey(NEW)
    manage(host, DELETE)
    discards(host, host.receive(first), ESP_REPLAY)
    host.delivered(second)
    discards(host, host.receive(second), ESP_REPLAY, 2)
    third = wire.packet()
    discards(host, host.receive(third[:-1] + bytes((third[-1] ^ 1,))), ESP_ICV)
    assert opened(host) == 1


def test_to_pf_key_it_is_gone_at_once() -> None:
    wire = Wire()
    host = receiver(wire)
    assert manage(host, DELETE) is None
    (told,) = host.hear(Type.DELETE)
    assert told.satype == SaType.ESP
    for command in ("get", "delete"):
        refused = manage(host, f"{command} {ENDS} 0x1000;")
        assert refused is not None and refused.errno is Errno.ESRCH
    assert [sa.agreement.spi for sa in host.stack.sadb] == [0x1001]
    host.later(5)
    assert not host.hear(Type.EXPIRE), "nobody is told of an SA's end who deleted it"


def test_a_second_delete_ends_the_grace() -> None:
    wire = Wire()
    host = receiver(wire)
    manage(host, DELETE)
    host.delivered(wire.packet())
    assert manage(host, DELETE) is not None
    discards(host, host.receive(wire.packet()), ESP_NO_SA)


@pytest.mark.parametrize("how", ["flush;", "flush esp;", f"deleteall {ENDS};", f"add {ENDS} 0x1000 -r 8 {GCM};"])
def test_flush_deleteall_and_an_add_of_its_spi_end_it_too(how: str) -> None:
    wire = Wire()
    host = receiver(wire)
    manage(host, DELETE)
    host.setkey(how)
    assert len(host.stack.sadb.grace) == 0
    if how.startswith("add"):
        host.delivered(Host(OUT + OLD).forwarded(datagram(A, B)))  # by the new one, whose window has seen nothing
        assert opened(host) == 0
    else:
        discards(host, host.receive(wire.packet()), ESP_NO_SA)


def test_the_tunable_at_zero_ends_it_for_all_and_begins_none() -> None:
    wire = Wire()
    host = receiver(wire)
    manage(host, DELETE)
    host.tune("net.koura.delete_grace_ms", 0)
    discards(host, host.receive(wire.packet()), ESP_NO_SA)
    other = receiver(wire)
    other.tune("net.koura.delete_grace_ms", 0)
    manage(other, DELETE)
    discards(other, other.receive(wire.packet()), ESP_NO_SA)


def test_the_tunable_says_how_long() -> None:
    wire = Wire()
    host = receiver(wire)
    host.tune("net.koura.delete_grace_ms", 50)
    manage(host, DELETE)
    host.later(0.049)
    host.delivered(wire.packet())
    host.later(0.001)
    discards(host, host.receive(wire.packet()), ESP_NO_SA)


def test_who_is_no_key_manager_has_it_deleted_at_once() -> None:
    """An operator with setkey, whose key is stolen."""
    wire = Wire()
    host = receiver(wire)
    host.setkey(DELETE)
    discards(host, host.receive(wire.packet()), ESP_NO_SA)


def test_without_a_newer_one_a_deletion_is_an_end_and_no_rekey() -> None:
    wire = Wire()
    host = receiver(wire, more="")
    manage(host, DELETE)
    discards(host, host.receive(wire.packet()), ESP_NO_SA)


def test_one_that_received_nothing_yet_has_a_grace_and_one_that_sends_has_none() -> None:
    host = Host(OLD + NEW)
    wire = Wire()
    manage(host, DELETE)
    host.delivered(wire.packet())
    wire.sender.setkey(NEW)
    manage(wire.sender, DELETE)
    assert len(wire.sender.stack.sadb.grace) == 0


def test_a_larval_sa_that_takes_its_place_is_a_newer_one() -> None:
    wire = Wire()
    host = receiver(wire, more="")
    assert manage(host, f"getspi {ENDS} 0x1001;") is None
    manage(host, DELETE)
    host.delivered(wire.packet())


def test_nothing_is_sent_under_it() -> None:
    """Where every address is ours one SA both sends and receives: after its deletion it does not send."""
    wire = Wire()
    host = receiver(wire, more="")
    host.setkey(OUT)
    host.tune("net.koura.acquire_hold", 0)
    manage(host, f"getspi {ENDS} 0x1001;")
    manage(host, DELETE)
    host.delivered(wire.packet())
    discards(host, host.send(datagram(A, B)), SA_NONE_OUT)
    with pytest.raises(Refused):
        host.notice(SendDummy(B, 0x1000, 10))


def test_a_hard_limit_ends_it_in_grace_and_nobody_is_told() -> None:
    wire = Wire()
    host = Host(f"add {ENDS} 0x1000 -bh 400 {GCM};")
    host.delivered(wire.packet())
    host.setkey(NEW)
    host.hear()
    manage(host, DELETE)
    for _ in range(3):
        host.delivered(wire.packet())
    discards(host, host.receive(wire.packet()), ESP_NO_SA)
    host.later(2)
    assert not host.hear(Type.EXPIRE)
    assert opened(host) == 3


def test_a_hard_limit_of_time_ends_it_in_grace() -> None:
    wire = Wire()
    host = Host(f"add {ENDS} 0x1000 -lh 10 {GCM};")
    host.delivered(wire.packet())
    host.setkey(NEW)
    host.tune("net.koura.delete_grace_ms", 60_000)
    host.later(9)
    host.hear()
    manage(host, DELETE)
    host.delivered(wire.packet())
    host.later(1)
    assert host.at == START.after_s(10)
    discards(host, host.receive(wire.packet()), ESP_NO_SA)
    assert not host.hear(Type.EXPIRE)


@pytest.mark.covers("R28")
def test_the_newest_of_a_linux_key_managers_sas_sends_whatever_the_tunable_says() -> None:
    host = Host(OUT)
    host.notice(KeySocketOpened(9, "linux", 0, True))

    def ask(text: str) -> None:
        for _, said in messages(parse(text, "test")):
            for message in said:
                assert host.stack.control(9, message.write(LINUX), host.at).refused is None

    for spi in (0x1000, 0x1001):
        ask(f"add {ENDS} {spi:#x} {GCM};")
        assert host.forwarded(datagram(A, B))[20:24] == spi.to_bytes(4, "big")
    ask(f"delete {ENDS} 0x1001;")
    assert host.forwarded(datagram(A, B))[20:24] == (0x1000).to_bytes(4, "big")
