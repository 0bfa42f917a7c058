"""Peers behind a NAT: followed when their mapping changes, told apart where they share an address, kept awake. RFC 3947, 3948; M12, S26."""

import pytest

from koura.notices import KeySocketOpened, LocalAddresses, PeerMoved
from koura.pfkey.dialect import LINUX
from koura.pfkey.extensions import NatPort
from koura.pfkey.message import Message
from koura.pfkey.numbers import SaType, Type
from koura.reasons import ESP_ICV, ESP_REPLAY, NATT_AMBIGUOUS, NATT_CONFLICT
from koura.setkey.parse import parse
from koura.setkey.run import messages
from koura.traffic.latches import SILENT_S
from koura.traffic.outcome import Deliver, Emit, ToKeySocket
from koura.wire import icmp, ipv4, udp
from tests.unit.stack.kit import Host, discards
from tests.unit.traffic.kit import INNER_A, INNER_B, A, B, datagram

NAT, OTHER = b"\xc6\x33\x64\x07", b"\xc6\x33\x64\x08"  # the NAT's address, and the one it has later
TUNNEL = "spdadd 10.0.1.0/24 10.0.2.0/24 any -P {} ipsec esp/tunnel/{}-192.0.2.2/require;"
BACK = "spdadd 10.0.2.0/24 10.0.1.0/24 any -P {} ipsec esp/tunnel/192.0.2.2-{}/require;"


def gcm(number: int) -> str:
    return f"-E aes-gcm-16 0x{number:040x}"


def natted(packet: bytes, sport: int, src: bytes = NAT) -> bytes:
    """The packet as the NAT sends it on."""
    header, payload = ipv4.read(packet)
    return ipv4.write(ipv4.Header(src, header.dst, header.protocol), sport.to_bytes(2, "big") + payload[2:])


def to(sealed: bytes) -> tuple[bytes, int]:
    """Where a packet in UDP goes."""
    header, payload = ipv4.read(sealed)
    return header.dst, udp.read(payload)[0].dport


def pair(client: int, far: str, mode: str, more: str = "") -> str:
    """An SA each way between a client, as one side sees it, and the server."""
    return "".join(
        f"add {src} {dst} esp-udp {spi:#x} -m {mode} {more} -r 64 {gcm(spi)};"
        for src, dst, spi in ((far, "192.0.2.2[4500]", 0x1000 * client + 1), ("192.0.2.2[4500]", far, 0x1000 * client + 2))
    )


def client(number: int, mode: str) -> Host:
    """It knows itself as 192.0.2.1."""
    transport = "spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require;"
    return Host((TUNNEL.format("out", "192.0.2.1") if mode == "tunnel" else transport) + pair(number, "192.0.2.1[4500]", mode))


def gateway(*clients: int, more: str = "") -> Host:
    """A server that has tunnels with clients, all of which it expects at the NAT's port 40000."""
    sas = "".join(pair(number, "198.51.100.7[40000]", "tunnel", more) for number in clients)
    host = Host(TUNNEL.format("in", "198.51.100.7") + BACK.format("out", "198.51.100.7") + sas)
    host.tune("net.koura.natt_roaming", 1)
    return host


@pytest.mark.covers("S26")
@pytest.mark.parametrize("seen", [(NAT, 40001), (OTHER, 40000), (OTHER, 40001)])
def test_both_directions_follow_a_peer_in_a_tunnel_and_policies_need_no_change(seen: tuple[bytes, int]) -> None:
    host, one = gateway(1), client(1, "tunnel")
    assert to(host.forwarded(datagram(INNER_B, INNER_A))) == (NAT, 40000)
    for address, port in (seen, (NAT, 40000)):
        assert host.delivered(natted(one.forwarded(datagram(INNER_A, INNER_B)), port, address)) == datagram(INNER_A, INNER_B)
        assert to(host.forwarded(datagram(INNER_B, INNER_A))) == (address, port)
        assert host.delivered(natted(one.forwarded(datagram(INNER_A, INNER_B)), port, address)) == datagram(INNER_A, INNER_B)


@pytest.mark.covers("S26")
@pytest.mark.reason("esp.icv", "esp.replay")
def test_what_is_forged_replayed_or_late_moves_nobody() -> None:
    host, one = gateway(1), client(1, "tunnel")
    late, first = (one.forwarded(datagram(INNER_A, INNER_B)) for _ in range(2))
    host.delivered(natted(first, 40001))
    discards(host, host.receive(natted(first, 40002)), ESP_REPLAY)
    forged = one.forwarded(datagram(INNER_A, INNER_B))
    discards(host, host.receive(natted(forged[:-1] + bytes((forged[-1] ^ 1,)), 40003)), ESP_ICV)
    assert isinstance(host.receive(natted(late, 40000)), Deliver), "it was under way when the mapping changed"
    assert to(host.forwarded(datagram(INNER_B, INNER_A))) == (NAT, 40001)


def test_without_a_window_nobody_is_followed_and_without_roaming_key_managers_are_told_of_another_address() -> None:
    host, one = gateway(1), client(1, "tunnel")
    host.stack.notice(KeySocketOpened(3, "linux", 0, True), host.at)
    host.stack.control(3, Message(Type.REGISTER, SaType.ESP, 1).write(LINUX), host.at)
    host.tune("net.koura.natt_roaming", 0)
    told = []
    for _ in range(2):
        results = host.stack.inbound([natted(one.forwarded(datagram(INNER_A, INNER_B)), 40000, OTHER)], host.at)
        told += [Message.read(event.octets, LINUX).type for event in results.events if getattr(event, "socket", 0) == 3]
    assert told == [Type.X_NAT_T_NEW_MAPPING], "once a second"
    assert to(host.forwarded(datagram(INNER_B, INNER_A))) == (NAT, 40000)
    open_to_replays = gateway(1, more="")
    open_to_replays.setkey("flush;" + pair(1, "198.51.100.7[40000]", "tunnel").replace("-r 64", "-r 0"))
    assert isinstance(open_to_replays.receive(natted(client(1, "tunnel").forwarded(datagram(INNER_A, INNER_B)), 40001)), Deliver)
    assert to(open_to_replays.forwarded(datagram(INNER_B, INNER_A))) == (NAT, 40000)


@pytest.mark.covers("S26")
def test_of_two_peers_that_were_expected_in_one_place_each_takes_its_own_sas_along() -> None:
    """A reqid tells which SAs belong together; the place of one peer may become another's."""
    host = Host("".join(pair(number, "198.51.100.7[40000]", "tunnel", f"-u {number}") for number in (1, 2)))
    for number in (1, 2):
        net = f"10.0.{number}.0/24"
        host.setkey(
            f"spdadd {net} 10.0.9.0/24 any -P in ipsec esp/tunnel/198.51.100.7-192.0.2.2/unique:{number};"
            f"spdadd 10.0.9.0/24 {net} any -P out ipsec esp/tunnel/192.0.2.2-198.51.100.7/unique:{number};"
        )
    host.tune("net.koura.natt_roaming", 1)
    inner = {number: (bytes((10, 0, number, 1)), bytes((10, 0, 9, 1))) for number in (1, 2)}
    clients = {}
    for number in (1, 2):
        policy = f"spdadd 10.0.{number}.0/24 10.0.9.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;"
        clients[number] = Host(policy + pair(number, "192.0.2.1[4500]", "tunnel"))
    for ports in ({1: 41000, 2: 42000}, {1: 42000, 2: 40000}, {1: 40000, 2: 42000}):
        for number, port in ports.items():
            there, here = inner[number]
            host.delivered(natted(clients[number].forwarded(datagram(there, here)), port))
        for number, port in ports.items():
            assert to(host.forwarded(datagram(*reversed(inner[number])))) == (NAT, port)


# -- transport mode peers with one address -----------------------------------------------------------------------------


def server_of(*clients: int) -> str:
    return (
        "spdadd 192.0.2.2 198.51.100.7 any -P out ipsec esp/transport//require;"
        "spdadd 198.51.100.7 192.0.2.2 any -P in ipsec esp/transport//require;"
        + "".join(pair(number, f"198.51.100.7[{40000 + number}]", "transport") for number in clients)
    )


def server() -> Host:
    return Host(server_of(1, 2))


def echo(src: bytes, dst: bytes, kind: int, number: int) -> bytes:
    return icmp.packet(src, dst, icmp.Message(kind, 0, number << 16 | 1, b"abcdefgh"))


def spoke(sealed: bytes) -> int:
    """Which client's SA a packet of the server's is in."""
    _, payload = ipv4.read(sealed)
    spi = int.from_bytes(udp.read(payload)[1][:4], "big")
    assert udp.read(payload)[0].dport == 40000 + (spi >> 12)
    return spi >> 12


@pytest.mark.covers("M12")
@pytest.mark.reason("natt.ambiguous")
def test_each_flow_goes_back_to_the_client_that_spoke_in_it() -> None:
    host, clients = server(), {number: client(number, "transport") for number in (1, 2)}
    discards(host, host.send(datagram(B, NAT, 20, 7, 1111)), NATT_AMBIGUOUS)
    for number in (1, 2):
        one = clients[number]
        host.delivered(natted(one.forwarded(datagram(A, B, 20, 1110 + number, 7)), 40000 + number))
        host.delivered(natted(one.forwarded(echo(A, B, 8, 70 + number)), 40000 + number))
    for number in (1, 2, 1):
        assert spoke(host.forwarded(datagram(B, NAT, 20, 7, 1110 + number))) == number
        assert spoke(host.forwarded(echo(B, NAT, 0, 70 + number))) == number
    assert spoke(host.forwarded(icmp.error(B, 3, 3, 0, datagram(NAT, B, 20, 1112, 7)))) == 2
    discards(host, host.send(echo(B, NAT, 8, 71)), NATT_AMBIGUOUS, 2)
    host.setkey("delete 192.0.2.2 198.51.100.7 esp 0x2002; delete 198.51.100.7 192.0.2.2 esp 0x2001;")
    assert spoke(host.forwarded(datagram(B, NAT, 20, 7, 1112))) == 1, "one client is left, and no question"


@pytest.mark.covers("M12")
@pytest.mark.reason("natt.conflict")
def test_the_same_flow_of_another_client_ends_while_the_first_one_speaks() -> None:
    host, clients = server(), {number: client(number, "transport") for number in (1, 2)}

    def comes(number: int) -> bytes:
        return natted(clients[number].forwarded(datagram(A, B, 20, 1111, 7)), 40000 + number)

    host.delivered(comes(1))
    host.later(SILENT_S - 1)
    discards(host, host.receive(comes(2)), NATT_CONFLICT)
    host.delivered(comes(1))
    assert spoke(host.forwarded(datagram(B, NAT, 20, 7, 1111))) == 1
    host.later(SILENT_S)
    host.delivered(comes(2))
    assert spoke(host.forwarded(datagram(B, NAT, 20, 7, 1111))) == 2
    other = f"add 192.0.2.2[4500] 198.51.100.7[40003] esp-udp 0x3002 -m transport {gcm(3)};"
    host.setkey(f"delete 192.0.2.2 198.51.100.7 esp 0x2002; {other}")
    host.delivered(comes(1))
    assert spoke(host.forwarded(datagram(B, NAT, 20, 7, 1111))) == 1, "who has no SA any more has no flow"


@pytest.mark.covers("M12")
def test_without_a_window_a_key_manager_hears_of_the_new_port_and_what_it_says_moves_the_sas() -> None:
    """A packet proves nothing where it may be a replay."""
    host, one = Host(server_of(1).replace("-r 64", "-r 0")), client(1, "transport")
    host.tune("net.koura.natt_roaming", 1)
    host.stack.notice(KeySocketOpened(3, "linux", 0, True), host.at)
    host.stack.control(3, Message(Type.REGISTER, SaType.ESP, 1).write(LINUX), host.at)
    results = host.stack.inbound([natted(one.forwarded(datagram(A, B, 20, 1111, 7)), 41000)], host.at)
    heard = [Message.read(event.octets, LINUX) for event in results.events if isinstance(event, ToKeySocket) and event.socket == 3]
    assert [message.type for message in heard] == [Type.X_NAT_T_NEW_MAPPING]
    ports = [part.port for part in heard[0].extensions if isinstance(part, NatPort)]
    assert ports == [40001, 41000]
    assert to(host.forwarded(datagram(B, NAT, 20, 7, 1111))) == (NAT, 40001)
    host.notice(PeerMoved(NAT, ports[0], NAT, ports[1]))
    assert to(host.forwarded(datagram(B, NAT, 20, 7, 1111))) == (NAT, 41000)
    host.delivered(natted(one.forwarded(datagram(A, B, 20, 1111, 7)), 41000))
    there = pair(1, "198.51.100.7[42000]", "transport").replace("-r 64", "-r 0").replace("add ", "update ")
    for _, said in messages(parse(there, "a key manager")):
        assert [host.stack.control(3, message.write(LINUX), host.at).refused for message in said] == [None]
    assert to(host.forwarded(datagram(B, NAT, 20, 7, 1111))) == (NAT, 42000)


# -- keepalives ----------------------------------------------------------------------------------------------------------


@pytest.mark.covers("S41")
def test_keepalives_go_to_each_peer_that_nothing_was_sent_to() -> None:
    host = client(1, "tunnel")
    host.setkey(f"add 192.0.2.1 192.0.2.9 esp 0x9000 {gcm(9)};")
    host.later(100)
    assert not host.take(Emit)
    host.notice(LocalAddresses(frozenset((A,))))
    host.tune("net.koura.natt_keepalive_s", 20)
    host.later(19)
    assert not host.take(Emit)
    host.later(2)
    (said,) = host.take(Emit)
    assert isinstance(said, Emit) and said.why == "keepalive"
    header, payload = ipv4.read(said.packet)
    ports, octet = udp.read(payload)
    assert (header.src, header.dst, ports.sport, ports.dport, octet) == (A, B, 4500, 4500, b"\xff")
    for _ in range(10):
        host.later(15)
        host.forwarded(datagram(INNER_A, INNER_B))
    assert not host.take(Emit), "not while there is traffic"
    host.later(45)
    assert len(host.take(Emit)) == 2
    assert host.stack.counters["natt.keepalive.out"] == 3
    host.tune("net.koura.natt_keepalive_s", 0)
    host.later(100)
    assert not host.take(Emit)


@pytest.mark.covers("S26")
def test_a_peer_that_moved_and_was_rekeyed_is_still_one_peer() -> None:
    """Its new SAs were made with the port that it has by now, its old ones with another: what nobody spoke in has but one way to go."""
    host = server()
    host.setkey("delete 192.0.2.2 198.51.100.7 esp 0x2002; delete 198.51.100.7 192.0.2.2 esp 0x2001;")
    host.tune("net.koura.natt_roaming", 1)
    old, new = client(1, "transport"), client(3, "transport")
    host.delivered(natted(old.forwarded(datagram(A, B, 20, 1111, 7)), 40003))
    host.setkey(pair(3, "198.51.100.7[40003]", "transport"))
    host.tune("net.key.preferred_oldsa", 0)
    for port in (1111, 2222):
        assert to(host.forwarded(datagram(B, NAT, 20, 7, port))) == (NAT, 40003)
    host.delivered(natted(old.forwarded(datagram(A, B, 20, 1111, 7)), 40003))
    host.delivered(natted(new.forwarded(datagram(A, B, 20, 1111, 7)), 40003))
    assert to(host.forwarded(datagram(B, NAT, 20, 7, 1111))) == (NAT, 40003)


@pytest.mark.covers("M12")
def test_a_policy_that_names_one_peers_sas_asks_nobody_whose_a_flow_is() -> None:
    """Two peers with one address, each with a request id, and a policy for each: they say where a packet goes."""
    sas = "".join(pair(number, f"198.51.100.7[{40000 + number}]", "transport", f"-u {number}") for number in (1, 2))
    policies = "".join(
        f"spdadd 192.0.2.2[{number}] 198.51.100.7 udp -P out ipsec esp/transport//unique:{number};" for number in (1, 2)
    )
    host = Host(policies + sas)
    for number in (1, 2):
        assert spoke(host.forwarded(datagram(B, NAT, 20, number, 7))) == number
