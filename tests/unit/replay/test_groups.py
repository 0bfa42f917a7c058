"""SAs whose destination is a group or a broadcast address: sealed and opened in transport mode as any other; Scapy opens what we seal."""

import pytest

from koura.address import parse as packed
from koura.moment import Moment
from koura.reasons import ESP_REPLAY, SA_NONE_OUT
from koura.replay.load import load
from koura.setkey.parse import parse
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.outcome import Deliver, Discard, Forward
from koura.wire import ipv4, ipv6, udp
from tests.oracles import scapy_ipsec

SEED = 20261125
AT = Moment.of_s(1_800_000_000)
GCM = "-E aes-gcm-16 0x0f1e2d3c4b5a69788796a5b4c3d2e1f0a1b2c3d4"
HMAC = "-A hmac-sha2-256 0x" + "a5" * 32
ENDS = [
    ("192.0.2.1", "239.1.2.3"), ("192.0.2.1", "224.0.0.5"), ("192.0.2.1", "192.0.2.255"), ("192.0.2.1", "255.255.255.255"),
    ("2001:db8::1", "ff05::1:3"), ("fe80::1", "ff02::5"),
]  # fmt: skip


def _stack(script: str) -> Stack:
    stack, refused = load(parse(script, "groups"), Seeded(SEED), AT)
    assert not refused, f"seed {SEED}"
    return stack


def _packet(src: str, dst: str, octets: int = 100) -> bytes:
    payload = udp.write_checked(packed(src), packed(dst), 5000, 5001, bytes(octets))
    if ":" in src:
        return ipv6.write(ipv6.Header(packed(src), packed(dst), 17, hop_limit=1), payload)
    return ipv4.write(ipv4.Header(packed(src), packed(dst), 17, identification=7, ttl=1), payload)


def _sealed(stack: Stack, packet: bytes) -> bytes:
    (outcome,) = stack.outbound([packet], AT).outcomes
    assert isinstance(outcome, Forward), outcome
    return outcome.packets[0]


@pytest.mark.parametrize(("src", "dst"), ENDS, ids=[dst for _, dst in ENDS])
@pytest.mark.parametrize("protocol", ["esp", "ah", "ah of esp"])
def test_what_is_sent_to_a_group_is_opened_by_its_members(src: str, dst: str, protocol: str) -> None:
    adds = {"esp": f"add {src} {dst} esp 0x1001 -m transport -r 8 {GCM};", "ah": f"add {src} {dst} ah 0x1002 -m transport -r 8 {HMAC};"}
    kinds = protocol.split(" of ")[::-1]
    script = "\n".join(adds[kind] for kind in kinds)
    requests = " ".join(f"{kind}/transport//require" for kind in kinds)
    sender = _stack(f"{script}\nspdadd {src} {dst} any -P out ipsec {requests};")
    member = _stack(f"{script}\nspdadd {src} {dst} any -P in ipsec {requests};")
    packet = _packet(src, dst)
    sealed = _sealed(sender, packet)
    assert scapy_ipsec.Scapy([sa.agreement for sa in sender.sadb]).open(sealed) == packet
    (outcome,) = member.inbound([sealed], AT).outcomes
    assert isinstance(outcome, Deliver)
    assert outcome.packet == packet
    assert member.inbound([sealed], AT).outcomes[0].__class__ is Discard


def test_an_sa_without_a_window_or_a_source_serves_every_sender_of_the_group() -> None:
    """Each sender counts for itself, so that one window cannot serve two (RFC 4303 §2.2)."""
    senders = ["192.0.2.1", "192.0.2.2"]
    policy = "spdadd 0.0.0.0/0 239.1.2.3 any -P out ipsec esp/transport//require;"
    sealed = [_sealed(_stack(f"add {src} 239.1.2.3 esp 0x1001 -m transport {GCM};{policy}"), _packet(src, "239.1.2.3")) for src in senders]
    member = _stack(f"add 0.0.0.0 239.1.2.3 esp 0x1001 -m transport {GCM};{policy}")
    outcomes = member.inbound(sealed, AT).outcomes
    assert [outcome.packet for outcome in outcomes if isinstance(outcome, Deliver)] == [_packet(src, "239.1.2.3") for src in senders]
    assert member.outbound([_packet("192.0.2.3", "239.1.2.3")], AT).outcomes == (Discard(SA_NONE_OUT),)
    strict = _stack(f"add 0.0.0.0 239.1.2.3 esp 0x1001 -m transport -r 8 {GCM};")
    assert strict.inbound(sealed, AT).outcomes[1] == Discard(ESP_REPLAY)
