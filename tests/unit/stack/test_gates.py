"""Switches, enc(4) and counters through the doors: esp_enable and its kin, masks and filter, filtertunnel, netstat's rows."""

from itertools import product

import pytest

from koura.enc.filter import Predicate
from koura.reasons import (
    AH_DISABLED_IN,
    AH_DISABLED_OUT,
    ENC_FILTER_IN,
    ENC_FILTER_OUT,
    ESP_DISABLED_IN,
    ESP_DISABLED_OUT,
    ESP_ICV,
    IPCOMP_DISABLED_IN,
    IPCOMP_DISABLED_OUT,
)
from koura.saindex import Direction
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.outcome import Bypass, Deliver, Forward, Tapped
from koura.wire.summary import summarise
from tests.unit.stack.kit import GCM, SHA, Host, discards
from tests.unit.traffic.kit import INNER_A, INNER_B, A, B, datagram

KINDS = {"esp": f"esp 0x1000 {GCM}", "ah": f"ah 0x1000 {SHA}", "ipcomp": "ipcomp 0x1000 -C deflate"}
DISABLED = {
    "esp": (ESP_DISABLED_OUT, ESP_DISABLED_IN), "ah": (AH_DISABLED_OUT, AH_DISABLED_IN),
    "ipcomp": (IPCOMP_DISABLED_OUT, IPCOMP_DISABLED_IN),
}  # fmt: skip


def transport(kind: str) -> str:
    return f"spdadd 192.0.2.1 192.0.2.2 any -P out ipsec {kind}/transport//require; add 192.0.2.1 192.0.2.2 {KINDS[kind]};"


TUNNEL = ("spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;"
          f"add 192.0.2.1 192.0.2.2 esp 0x1000 -m tunnel {GCM};")  # fmt: skip


@pytest.mark.covers("R9", "R18", "R30", "R31", "R32", "R33")
@pytest.mark.reason("esp.disabled.out", "esp.disabled.in", "ah.disabled.out", "ah.disabled.in", "ipcomp.disabled.out", "ipcomp.disabled.in")
@pytest.mark.parametrize("kind", KINDS)
def test_a_protocol_that_is_switched_off_drops_and_counts(kind: str) -> None:
    host = Host(transport(kind))
    assert host.stack.read(f"net.inet.{kind}.{kind}_enable") == "1"
    sealed = host.forwarded(datagram(A, B, 300))
    host.tune(f"net.inet.{kind}.{kind}_enable", 0)
    discards(host, host.send(datagram(A, B, 300)), DISABLED[kind][0])
    discards(host, host.receive(sealed), DISABLED[kind][1])
    assert host.stack.report.read(kind)["pdrops"] == 2
    host.tune(f"net.inet.{kind}.{kind}_enable", 1)
    assert host.delivered(sealed) == datagram(A, B, 300)


# -- enc(4) ----------------------------------------------------------------------------------------------------------------


def tapped(host: Host, mask: int, way: str) -> list[tuple[int, int]]:
    """(stage, protocol) of what enc0 shows of one packet through the tunnel and back."""
    host.stack.tap.is_open = True
    host.tune("net.enc.in.ipsec_bpf_mask", mask if way == "in" else 0)
    host.tune("net.enc.out.ipsec_bpf_mask", mask if way == "out" else 0)
    host.delivered(host.forwarded(datagram(INNER_A, INNER_B)))
    shown = []
    for event in host.take(Tapped):
        assert isinstance(event, Tapped)
        assert (event.spi, event.flags, event.is_outbound) == (0x1000, 0x0C00, way == "out")
        shown.append((event.stage, summarise(event.packet).protocol))
    return shown


@pytest.mark.covers("R10")
@pytest.mark.parametrize("mask", range(8))
@pytest.mark.parametrize("way", ["in", "out"])
def test_enc_shows_the_stages_of_its_masks(mask: int, way: str) -> None:
    """Outbound: the inner packet, then the same in its outer header before sealing. Inbound: opened, then stripped."""
    host = Host(TUNNEL)
    host.tune(f"net.enc.{way}.ipsec_filter_mask", 2)
    first, second = (17, 4) if way == "out" else (4, 17)
    everything = [(1, first), (2, second), (4, second)]
    assert tapped(host, mask, way) == [(stage, protocol) for stage, protocol in everything if stage & mask]


@pytest.mark.covers("R10", "R11")
@pytest.mark.reason("enc.filter.in", "enc.filter.out")
@pytest.mark.parametrize(("way", "stage", "mask"), list(product(["in", "out"], [1, 2], [0, 1, 2, 3])))
def test_the_filter_is_asked_at_the_stages_of_its_mask(way: str, stage: int, mask: int) -> None:
    direction = Direction.INBOUND if way == "in" else Direction.OUTBOUND
    host = Host(TUNNEL, Stack(Seeded(1), rule=Predicate(lambda packet: False, stages=stage, directions=(direction,))))
    host.tune(f"net.enc.{way}.ipsec_filter_mask", mask)
    outcome = host.send(datagram(INNER_A, INNER_B))
    if way == "in":
        assert isinstance(outcome, Forward)
        outcome = host.receive(outcome.packets[0])
    if mask & stage:
        discards(host, outcome, ENC_FILTER_IN if way == "in" else ENC_FILTER_OUT)
        assert host.stack.report.read("ipsec")["in_polvio" if way == "in" else "out_polvio"] == 1
    else:
        assert isinstance(outcome, Deliver | Forward)


@pytest.mark.covers("R11", "M1")
def test_filtertunnel_lets_the_hosts_filter_see_inner_packets() -> None:
    host = Host(TUNNEL)
    for value, skips in ((0, True), (1, False)):
        host.tune("net.inet.ipsec.filtertunnel", value)
        outcome = host.receive(host.forwarded(datagram(INNER_A, INNER_B)))
        assert isinstance(outcome, Deliver)
        assert outcome.skips_filter == skips
    host.tune("IPSEC_FILTERGIF", 0)
    assert host.stack.read("net.inet6.ipsec6.filtertunnel") == "0"
    clear = host.receive(datagram(B, A))
    assert isinstance(clear, Deliver)
    assert not clear.skips_filter


# -- counters --------------------------------------------------------------------------------------------------------------


@pytest.mark.covers("M38", "S45")
@pytest.mark.parametrize("kind", KINDS)
def test_netstats_rows_move_as_the_table_says(kind: str) -> None:
    host = Host(transport(kind))
    for _ in range(3):
        host.delivered(host.forwarded(datagram(A, B, 300)))
    section = host.stack.report.read(kind)
    assert (section["input"], section["output"]) == (3, 3)
    assert section["obytes"] == 3 * 308
    name = {"esp": "aes-gcm-16", "ah": "hmac-sha2-256", "ipcomp": "deflate"}[kind]
    assert section[f"hist.{name}"] == 6
    assert not any(section[field] for field in ("hdrops", "notdb", "pdrops", "toobig", "wrap", "crypto"))
    text = host.stack.report.show(kind, hides_zeros=True)
    assert text.splitlines()[0] == f"{kind}:"
    assert "\t3 packets in" in text
    host.tune(f"net.inet.{kind}.stats", 0)
    assert not any(host.stack.report.read(kind).values())
    host.delivered(host.forwarded(datagram(A, B, 300)))
    assert host.stack.report.read(kind)["input"] == 1


@pytest.mark.covers("M38", "R57", "S25")
def test_ipcomp_counts_what_it_left_alone() -> None:
    host = Host(transport("ipcomp"))
    assert isinstance(host.send(datagram(A, B, 10)), Forward)
    noise = datagram(A, B, 200)[:28] + Seeded(1).octets(200)
    assert host.forwarded(noise) == noise
    section = host.stack.report.read("ipcomp")
    assert (section["threshold"], section["uncompr"], section["output"]) == (1, 1, 1)


@pytest.mark.covers("M38")
@pytest.mark.reason("esp.icv")
def test_a_failure_counts_for_the_stack_and_on_its_sa() -> None:
    host = Host(transport("esp"))
    sealed = host.forwarded(datagram(A, B))
    discards(host, host.receive(sealed[:-1] + bytes([sealed[-1] ^ 1])), ESP_ICV)
    assert host.stack.report.read("esp")["badauth"] == 1
    (sa,) = host.stack.sadb
    assert sa.failures == {"esp.icv": 1}


@pytest.mark.covers("R16", "R18")
def test_a_tunable_takes_effect_with_the_next_packet_and_moves_the_generation() -> None:
    host = Host()
    before = host.stack.spd.generation
    assert isinstance(host.send(datagram(A, B)), Bypass)
    host.tune("net.inet.ipsec.def_policy", 0)
    assert host.stack.spd.generation == before + 1
    assert not isinstance(host.send(datagram(A, B)), Bypass)


@pytest.mark.covers("M7")
def test_two_stacks_share_nothing() -> None:
    one, other = Host(TUNNEL), Host()
    one.tune("net.inet.ipsec.def_policy", 0)
    assert isinstance(other.send(datagram(A, B)), Bypass)
    assert (len(one.stack.sadb), len(other.stack.sadb), other.stack.read("net.inet.ipsec.def_policy")) == (1, 0, "1")
