"""traffic/hold and traffic/sockets: bounded queues, and the closest socket."""

from koura.moment import Moment
from koura.notices import SocketBound
from koura.spd.selector import Flow
from koura.traffic.hold import Holds, Waiting
from koura.traffic.outcome import LOCAL
from koura.traffic.sockets import Sockets


def waiting(packet: bytes, group: str = "g", deadline_ns: int = 10) -> Waiting:
    return Waiting(packet, LOCAL, group, deadline_ns)


def test_what_waits_leaves_in_order_and_frees_its_place() -> None:
    holds: Holds[str] = Holds(str.upper)
    assert holds.add("a", waiting(b"1"), 2)
    assert holds.add("b", waiting(b"2"), 2)
    assert not holds.add("a", waiting(b"3"), 2)
    assert holds.add("a", waiting(b"4", group="other"), 2)
    assert holds.take(["C"], lambda _: True) == ()
    assert holds.take(["A"], lambda _: False) == ()
    assert [row.packet for row in holds.take(["A"], lambda _: True)] == [b"1", b"4"]
    assert holds.take(["A"], lambda _: True) == ()
    assert len(holds) == 1
    assert holds.add("a", waiting(b"5"), 2)


def test_time_is_up_for_each_packet_on_its_own() -> None:
    holds: Holds[str] = Holds(str.upper)
    holds.add("a", waiting(b"late", deadline_ns=20), 9)
    holds.add("a", waiting(b"early", deadline_ns=10), 9)
    assert holds.next_deadline() == Moment(10)
    assert [row.packet for row in holds.due(Moment(10))] == [b"early"]
    assert [row.packet for row in holds.due(Moment(20))] == [b"late"]
    assert holds.next_deadline() is None


def test_the_closest_socket_gets_the_packet() -> None:
    sockets = Sockets()
    me, peer = b"\x0a\0\0\1", b"\x0a\0\0\2"
    flow = Flow(peer, me, 17, 9999, 500)
    assert sockets.find(flow) == 0
    sockets.bind(SocketBound(1, 17, b"", 500))
    assert sockets.find(flow) == 1
    sockets.bind(SocketBound(2, 17, me, 500))
    assert sockets.find(flow) == 2
    sockets.bind(SocketBound(3, 17, me, 500, peer, 9999))
    assert sockets.find(flow) == 3
    assert sockets.find(Flow(peer, me, 6, 9999, 500)) == 0
    sockets.gone(3)
    sockets.gone(3)
    assert sockets.find(flow) == 2
    sockets.bind(SocketBound(4, 1, b"", 0))
    assert sockets.find(Flow(peer, me, 1, 8, 0)) == 4
