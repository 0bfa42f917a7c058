"""The simulated world's own parts: links, the NAT, time, transfers, stories. A simulator that is wrong finds nothing."""

from collections import Counter
from pathlib import Path

import pytest

from koura.address import parse
from koura.cli.main import koura_command, run
from koura.moment import Moment
from koura.sim import ip
from koura.sim.entropy import Seeded
from koura.sim.link import End, Faults, Link, flip
from koura.sim.nat import FIRST_PORT, Nat
from koura.sim.node import Node
from koura.sim.parts import Interface
from koura.sim.plan import Shape, draw
from koura.sim.transfer import Tcp, transfer
from koura.sim.world import World
from koura.wire import capture, checksum, ipv4, ipv6, udp
from koura.wire.summary import summarise

AT = Moment.of_s(1_800_000_000)
A, B, OUTSIDE = parse("10.0.0.1"), parse("10.0.0.2"), parse("203.0.113.9")


def link(**faults: int) -> Link:
    return Link("a-b", End("a", "out"), End("b", "out"), faults=Faults(**faults))


def test_a_link_does_what_its_faults_say_and_nothing_else() -> None:
    packet = ip.echo(A, B, 1, 1)
    calm = [link().carry(packet, Seeded(1)) for _ in range(10)]
    assert {(len(arrivals), arrivals[0].packet) for arrivals in calm} == {(1, packet)}
    dice = Seeded(2)
    counts = Counter(len(link(lost=500, doubled=500).carry(packet, dice)) for _ in range(1000))
    assert set(counts) == {0, 1, 2}
    assert all(count > 150 for count in counts.values())
    damaged = [link(damaged=1000).carry(packet, dice)[0] for _ in range(100)]
    changed = [int.from_bytes(one.packet, "big") ^ int.from_bytes(packet, "big") for one in damaged]
    assert all(bits.bit_count() == 1 for bits in changed), "one bit"


@pytest.mark.parametrize(("a", "b"), [(A, B), (parse("2001:db8::1"), parse("2001:db8::2"))], ids=["v4", "v6"])
def test_congestion_is_marked_only_on_who_understands_it(a: bytes, b: bytes) -> None:
    for tos, marked in ((0xB8, 0xB8), (0xB9, 0xBB), (0xBA, 0xBB), (0xBB, 0xBB)):
        [arrival] = link(marked=1000).carry(ip.datagram(a, b, 1, 2, b"x", tos=tos), Seeded(1))
        assert summarise(arrival.packet).tos == marked


def test_options_are_well_formed() -> None:
    four, six = (ip.with_options(ip.datagram(a, b, 1, 2, b"x")) for a, b in ((A, B), (parse("2001:db8::1"), parse("2001:db8::2"))))
    assert [option.kind for option in ipv4.read_options(ipv4.read(four)[0].options)] == [0x94, 0x44]
    header, payload = ipv6.read(six)
    chain = ipv6.read_chain(header.next_header, payload)
    assert [(one.kind, [option.kind for option in ipv6.read_options(one.octets)]) for one in chain.extensions] == [(0, [5, 1]), (60, [1])]
    assert (summarise(four).dport, summarise(six).dport) == (2, 2)


def test_every_flipped_bit_is_seen_by_a_checksum() -> None:
    packet = ip.datagram(A, B, 1, 2, b"payload")
    for bit in range(8 * len(packet)):
        broken = flip(packet, bit)
        segment = broken[20:]
        assert not ipv4.is_checksum_right(broken) or checksum.upper(A, B, 17, segment) != 0


def test_a_nat_gives_a_port_and_takes_it_back() -> None:
    nat = Nat("n", OUTSIDE, timeout_s=60)
    far = parse("203.0.113.1")
    [out] = nat.receive(ip.datagram(A, far, 4500, 4500, b"hello"), AT)
    header, payload = ipv4.read(out.packet)
    ports, _ = udp.read(payload)
    assert (out.interface, header.src, ports.sport, header.ttl) == ("outside", OUTSIDE, FIRST_PORT, 63)
    assert checksum.upper(header.src, header.dst, 17, payload) == 0
    [back] = nat.receive(ip.datagram(far, OUTSIDE, 4500, FIRST_PORT, b"answer"), AT)
    header, payload = ipv4.read(back.packet)
    assert (back.interface, header.dst, udp.read(payload)[0].dport) == ("inside", A, 4500)
    assert checksum.upper(header.src, header.dst, 17, payload) == 0
    nat.forget()
    assert nat.receive(ip.datagram(far, OUTSIDE, 4500, FIRST_PORT, b"answer"), AT) == ()
    [again] = nat.receive(ip.datagram(A, far, 4500, 4500, b"hello"), AT)
    assert udp.read(ipv4.read(again.packet)[1])[0].sport == FIRST_PORT + 1
    assert nat.next_deadline() == AT.after_s(60)
    nat.advance(AT.after_s(60))
    assert nat.ports() == {}


def test_a_nat_does_not_hide_damage() -> None:
    """Its checksum follows by the difference: what was wrong stays wrong."""
    packet = flip(ip.datagram(A, parse("203.0.113.1"), 4500, 4500, b"hello"), 8 * 30)
    [out] = Nat("n", OUTSIDE).receive(packet, AT)
    header, payload = ipv4.read(out.packet)
    assert checksum.upper(header.src, header.dst, 17, payload) != 0


@pytest.mark.parametrize("lost", [0, 200])
def test_a_transfer_arrives_whatever_is_lost(lost: int) -> None:
    world = World(Seeded(3), AT)
    a, b = (Node(name, [Interface("out", ((address, 24),))], at=AT) for name, address in (("a", A), ("b", B)))
    for node in (a, b):
        world.add(node)
    world.connect(link(lost=lost, doubled=lost, late=lost))
    data = Seeded(4).octets(30000)
    sender, receiver = transfer(world, Tcp(a), Tcp(b), ((A, B), (A, B)), 80, data)
    world.run(AT.after_s(300))
    assert (sender.is_done, receiver.is_done, bytes(receiver.data)) == (True, True, data)
    assert (sender.sent_segments > 23) == bool(lost)


def test_swarms_draw_everything() -> None:
    """Over many seeds every feature is there with and without: none is always on."""
    plans = [draw(seed) for seed in range(300)]
    assert {plan.shape for plan in plans} == set(Shape)
    assert {(plan.inner, plan.outer) for plan in plans} == {(4, 4), (4, 6), (6, 4), (6, 6)}
    said = [str(plan) for plan in plans]
    for word in (
        "-esn", "-seq", "-tfc", "-ph", "-lh", "-align 8", "random-pad", "unique:", "/use", "/default", "ledger", "larval", "on demand",
        "aes-gcm-16", "chacha20", "aes-ctr", "aes-cmac", "deflate", "flush", "rekey", "attack", "dummy", "nat at", "mtu at",
        "policy for udp", "discard for one port", "none for ICMP", "switch at", "_deflev=2",
    ):  # fmt: skip
        count = sum(word in text for text in said)
        assert 0 < count < 300, word


def test_the_command_runs_seeds_and_tells_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(koura_command, "koura", ["sim", "--seeds", "2:4"]) == 0
    assert capsys.readouterr().out.endswith("all checks hold in 2 seeds\n")
    assert run(koura_command, "koura", ["sim", "--seed", "3", "-o", str(tmp_path / "seen.pcap")]) == 0
    with (tmp_path / "seen.pcap").open("rb") as file:
        assert len(list(capture.read(file))) > 100
    told = capsys.readouterr().out
    assert told.startswith("seed 3: ")
    assert "all checks hold" in told
    assert run(koura_command, "koura", ["sim", "--seeds", "4:4"]) == 64
    assert capsys.readouterr().err.startswith("koura sim: ")
    assert run(koura_command, "koura", ["sim", "-v"]) == 64
    assert run(koura_command, "koura", ["sim", "--seed", "3", "-o", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("is a directory\n")


def test_a_seed_that_fails_is_told_with_its_number(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from koura.sadb import sequence

    monkeypatch.setattr(sequence, "next_iv", lambda _sa: 7)
    assert run(koura_command, "koura", ["sim", "--seeds", "0:12"]) == 1
    said = capsys.readouterr()
    failed = said.out.split("FAILED")[0].splitlines()[-1].strip()
    assert f"koura sim --seed {failed}" in said.err
    assert run(koura_command, "koura", ["sim", "--seed", failed]) == 1
    said = capsys.readouterr()
    assert f"seed {failed}, at " in said.err
    assert "left twice" in said.err
