"""Properties through the doors, on random steps: packets in are outcomes; the SPD answers as the list does; history as the oracle does."""

import random
from dataclasses import dataclass, field

import pytest

from koura.address import Prefix
from koura.reasons import BYPASSED, DELIVERED, FORWARDED
from koura.saindex import Direction
from koura.spd.language import parse
from koura.spd.policy import Action, Policy
from koura.spd.selector import Flow, Selector
from koura.traffic.outcome import Bypass, Deliver, Discard, Event, Forward, Held, Origin, Outcome, Punt, Released
from koura.wire import ipv4, ipv6, udp
from tests.oracles.history import allows
from tests.oracles.spd import ListSpd
from tests.unit.stack.kit import GCM, SHA, Host
from tests.unit.traffic.kit import A6, A, B, datagram

SEEDS = range(6)
ADDRESSES = [bytes((10, 0, 0, n)) for n in range(1, 5)]
ADDRESSES6 = [A6[:-1] + bytes((n,)) for n in range(1, 5)]


@dataclass
class Sum:
    """How many packets went in, and what was said of each: outcomes now, and of those held, later."""

    packets: int = 0
    told: dict[str, int] = field(default_factory=dict)
    released: int = 0

    def add(self, outcome: Outcome) -> None:
        self.told[name(outcome)] = self.told.get(name(outcome), 0) + 1

    def later(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Released):
                self.released += 1
                self.add(event.outcome)


def name(outcome: Outcome) -> str:
    """The Reason that must have been counted for it."""
    if isinstance(outcome, Discard | Held | Punt):
        return outcome.reason.name
    return {Forward: FORWARDED.name, Deliver: DELIVERED.name, Bypass: BYPASSED.name}[type(outcome)]


def random_packet(dice: random.Random) -> bytes:
    pool = ADDRESSES if dice.random() < 0.6 else ADDRESSES6
    src, dst = dice.choice(pool), dice.choice(pool)
    body = udp.write_checked(src, dst, dice.choice((1, 2, 53)), dice.choice((1, 2, 53)), dice.randbytes(dice.choice((0, 8, 700))))
    if len(src) == 16:
        return ipv6.write(ipv6.Header(src, dst, 17), body)
    if dice.random() < 0.2:
        is_last = dice.random() < 0.5
        return ipv4.write(ipv4.Header(src, dst, 17, identification=7, is_mf=not is_last, offset_octets=8 * is_last), bytes(8))
    return ipv4.write(ipv4.Header(src, dst, 17, is_df=dice.random() < 0.5), body)


def random_step(dice: random.Random, host: Host, total: Sum, sealed: list[bytes]) -> None:
    what = dice.randrange(12)
    src, dst = (f"10.0.0.{dice.randrange(1, 5)}" for _ in "sd")
    if what == 0:
        host.setkey(f"spdupdate {src} {dst} udp -P {dice.choice(('in', 'out'))} {dice.choice(('discard', 'none'))};")
    elif what == 1:
        level = dice.choice(("use", "require"))
        host.setkey(f"spdupdate {src} {dst} any -P out ipsec esp/transport//{level} {dice.choice(('', 'ah/transport//use'))};")
    elif what == 2:
        spi = dice.randrange(0x1000, 0x1004)
        if not host.stack.sadb.has_spi(bytes((10, 0, 0, int(dst[-1]))), 50, spi):  # type: ignore[arg-type]
            host.setkey(f"add {src} {dst} esp {spi} -r 1 {dice.choice(('', '-ph 3'))} {GCM};")
    elif what == 3:
        host.setkey(dice.choice(("flush;", "spdflush;", f"deleteall {src} {dst} esp;")))
    elif what == 4:
        host.later(dice.choice((0, 1, 31)))
    else:
        total.packets += 1
        if sealed and dice.random() < 0.4:
            octets = bytearray(dice.choice(sealed))
            octets[-1] ^= dice.random() < 0.2
            outcome = host.receive(bytes(octets))
        elif dice.random() < 0.3:
            outcome = host.receive(random_packet(dice))
        else:
            outcome = host.send(random_packet(dice), Origin(is_forwarded=dice.random() < 0.3))
        total.add(outcome)
        if isinstance(outcome, Forward):
            sealed += outcome.packets
            del sealed[:-20]
    total.later(host.take(Released))


@pytest.mark.parametrize("seed", SEEDS)
def test_packets_in_are_outcomes_and_the_counters_say_the_same(seed: int) -> None:
    dice = random.Random(seed)
    host, total, sealed = Host(), Sum(), list[bytes]()
    for _ in range(400):
        random_step(dice, host, total, sealed)
        assert sum(total.told.values()) == total.packets + total.released, f"seed {seed}"
        assert dict(host.stack.counters.endings()) == {key: total.told[key] for key in host.stack.counters.endings()}, f"seed {seed}"
    assert len(total.told) > 6, "too few kinds of ends to mean anything"
    host.later(3600)
    total.later(host.take(Released))
    assert dict(host.stack.counters.endings()) == {key: total.told[key] for key in host.stack.counters.endings()}


def random_selector(dice: random.Random, way: Direction) -> Selector:
    pool, width = (ADDRESSES, 32) if dice.random() < 0.6 else (ADDRESSES6, 128)
    src, dst = (Prefix(dice.choice(pool), dice.choice((0, 8, width - 1, width))) for _ in "sd")
    protocol = dice.choice((255, 17, 6))
    return Selector(way, src, dst, protocol, *(dice.choice((0, 0, 1, 53)) if protocol == 17 else 0 for _ in "sd"))


@pytest.mark.covers("R21", "R27", "M9")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_action_of_a_packet_is_that_of_the_first_policy_in_the_list(seed: int) -> None:
    dice = random.Random(seed)
    host, oracle, actions = Host(), ListSpd(), dict[int, Action]()
    for _ in range(150):
        selector = random_selector(dice, Direction.OUTBOUND)
        if host.stack.spd.find(selector) is None:
            action, priority = dice.choice((Action.DISCARD, Action.NONE)), dice.randrange(-1, 2)
            entry = host.stack.spd.add(Policy(Direction.OUTBOUND, action, selector, priority=priority), host.at)
            oracle.add(priority, entry.id, selector)
            actions[entry.id] = action
        else:
            host.stack.spd.remove(selector)
            oracle.remove(selector)
        for _ in range(4):
            packet = random_packet(dice)
            if packet[0] >> 4 == 4 and ipv4.read(packet)[0].is_fragment:
                continue
            source = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
            target = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
            body = packet[20:] if packet[0] >> 4 == 4 else packet[40:]
            found = oracle.match(Flow(source, target, 17, int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")))
            is_gone = found is not None and actions[found] is Action.DISCARD
            assert isinstance(host.send(packet), Discard) == is_gone, f"seed {seed}"


LAYERS = ("esp/transport//{}", "ah/transport//{}", "esp/tunnel/192.0.2.1-192.0.2.2/{}", "ah/tunnel/192.0.2.1-192.0.2.2/{}")


@pytest.mark.covers("R54", "M26", "S11")
@pytest.mark.parametrize("seed", range(3))
def test_a_packet_passes_inbound_exactly_where_its_history_is_one_the_policy_allows(seed: int) -> None:
    """Every combination of up to two layers sent, against random policies of up to three requests; the oracle writes all histories down."""
    dice = random.Random(seed)
    keys = f"add 192.0.2.1 192.0.2.2 esp 0x1000 {GCM}; add 192.0.2.1 192.0.2.2 ah 0x2000 {SHA};"
    sender, host = Host(keys), Host(keys)
    agreed = 0
    for _ in range(250):
        sent = " ".join(dice.choice(LAYERS).format("require") for _ in range(dice.randrange(1, 3)))
        asked = [(dice.choice(LAYERS), dice.choice(("use", "require"))) for _ in range(dice.randrange(1, 4))]
        wanted = " ".join(layer.format(level) for layer, level in asked)
        sender.setkey(f"spdupdate 192.0.2.1 192.0.2.2 any -P out ipsec {sent};")
        host.setkey("spdflush;")
        packet = sender.forwarded(datagram(A, B))
        seen = host.receive(packet)
        assert isinstance(seen, Deliver)
        host.setkey(f"spdadd 192.0.2.1 192.0.2.2 any -P in ipsec {wanted};")
        policy = parse(f"in ipsec {wanted}")
        is_fine = allows(policy, tuple(level == "require" for _, level in asked), seen.history, A)
        outcome = host.receive(packet)
        assert isinstance(outcome, Deliver) == is_fine, f"seed {seed}: sent {sent}, asked {wanted}"
        agreed += is_fine
    assert agreed > 20
