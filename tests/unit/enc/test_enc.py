"""enc(4): masks, counters, the DLT_ENC header, and the packet filter's hook."""

import struct
from dataclasses import replace

import pytest

from koura.crypto.algorithm import Kind
from koura.crypto.algorithms import by_name
from koura.enc import tap
from koura.enc.filter import AFTER, BEFORE, FILTERED, Filter, Predicate
from koura.enc.tap import Tap
from koura.sadb.agreement import Agreement
from koura.saindex import Direction, Mode, Protocol, SaIndex
from koura.settings import EncSettings

IN, OUT = Direction.INBOUND, Direction.OUTBOUND
PACKET4, PACKET6 = b"\x45" + bytes(27), b"\x60" + bytes(47)
ESP = Agreement(SaIndex(b"\x0a\0\0\1", b"\x0a\0\0\2", Protocol.ESP, Mode.TUNNEL, 0), 0x1001)


@pytest.mark.covers("R10")
@pytest.mark.parametrize("mask", range(8))
@pytest.mark.parametrize("direction", [IN, OUT])
def test_a_stage_is_shown_if_its_bit_is_set_for_the_direction_and_somebody_listens(mask: int, direction: Direction) -> None:
    settings = EncSettings(in_bpf_mask=mask, out_bpf_mask=0) if direction is IN else EncSettings(in_bpf_mask=0, out_bpf_mask=mask)
    listened = Tap()
    assert not any(listened.wants(stage, direction, settings) for stage in (BEFORE, AFTER, FILTERED))
    listened.is_open = True
    assert sum(stage for stage in (BEFORE, AFTER, FILTERED) if listened.wants(stage, direction, settings)) == mask
    other = OUT if direction is IN else IN
    assert not any(listened.wants(stage, other, settings) for stage in (BEFORE, AFTER, FILTERED))


@pytest.mark.covers("R10")
def test_the_defaults_show_inbound_once_and_outbound_twice() -> None:
    listened = Tap()
    listened.is_open = True
    shown = [(stage, way) for way in (IN, OUT) for stage in (BEFORE, AFTER, FILTERED) if listened.wants(stage, way, EncSettings())]
    assert shown == [(BEFORE, IN), (BEFORE, OUT), (AFTER, OUT)]


def test_the_interface_counts_at_the_first_stage_only() -> None:
    counted = Tap()
    for stage in (BEFORE, AFTER, FILTERED):
        counted.count(stage, IN, len(PACKET4))
        counted.count(stage, OUT, len(PACKET6))
    counted.count(BEFORE, OUT, len(PACKET4))
    assert (counted.in_packets, counted.in_octets, counted.out_packets, counted.out_octets) == (1, 28, 2, 76)


def test_the_header_has_host_order_family_and_flags_and_network_order_spi() -> None:
    assert tap.header(PACKET4, 0x1001, 0x0C00) == struct.pack("=I", 2) + bytes.fromhex("00001001") + struct.pack("=I", 0x0C00)
    assert tap.header(PACKET6, 1, 0)[:4] == struct.pack("=I", 28)
    assert tap.header(PACKET6, 1, 0, family6=24)[:4] == struct.pack("=I", 24)
    assert len(tap.header(PACKET6, 0xFFFFFFFF, 0x2800)) == 12


def test_the_flags_say_what_the_sa_does() -> None:
    aes, gcm, sha = by_name(Kind.CIPHER, "aes-cbc"), by_name(Kind.AEAD, "aes-gcm-16"), by_name(Kind.INTEGRITY, "hmac-sha2-256")
    assert tap.flags(replace(ESP, encryption=aes)) == 0x0400
    assert tap.flags(replace(ESP, encryption=aes, integrity=sha)) == 0x0C00
    assert tap.flags(replace(ESP, encryption=gcm)) == 0x0C00
    assert tap.flags(replace(ESP, index=replace(ESP.index, protocol=Protocol.AH), integrity=sha)) == 0x2800
    assert tap.flags(replace(ESP, index=replace(ESP.index, protocol=Protocol.IPCOMP))) == 0


@pytest.mark.covers("R10", "R11")
def test_the_filter_asks_its_rule_and_counts() -> None:
    hook = Filter()
    assert hook.pass_or_block(BEFORE, IN, PACKET4)
    assert (hook.passed, hook.blocked) == (0, 0), "without a rule nothing is asked"
    hook.rule = Predicate(lambda packet: packet[0] >> 4 == 6, stages=AFTER, directions=(OUT,))
    asked = [hook.pass_or_block(stage, way, packet) for stage in (BEFORE, AFTER) for way in (IN, OUT) for packet in (PACKET4, PACKET6)]
    assert asked == [True, True, True, True, True, True, False, True]
    assert (hook.passed, hook.blocked) == (7, 1)
