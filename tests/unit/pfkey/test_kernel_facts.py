"""What FreeBSD's key.c does where no recording of ours shows it: who hears of what, and requests that are refused or do nothing.

Messages are written here octet by octet, by struct alone.
"""

import struct

import pytest

from koura.pfkey.dialect import FREEBSD, LINUX
from koura.pfkey.numbers import Type
from tests.unit.pfkey.harness import World

ESP = 3
ENTRUST, BYPASS = 3, 4


def _message(kind: int, satype: int = 0, *extensions: bytes, seq: int = 7, errno: int = 0) -> bytes:
    body = b"".join(extensions)
    return struct.pack("<BBBBHHII", 2, kind, errno, satype, (16 + len(body)) // 8, 0, seq, 4711) + body


def _address(kind: int, last: int, bits: int = 32) -> bytes:
    return struct.pack("<HHBBH", 3, kind, 255, bits, 0) + bytes((16, 2, 0, 0, 10, 0, 0, last)) + bytes(8)


ENDS = (_address(5, 1), _address(6, 2))
PROPOSAL = struct.pack("<HHBBH", 1, 13, 32, 0, 0)


def _policy(kind: int = 2, direction: int = 2, *requests: bytes) -> bytes:
    body = b"".join(requests)
    return struct.pack("<HHHBBII", 2 + len(body) // 8, 18, kind, direction, 0, 0, 0) + body


def _request(level: int, reqid: int = 0) -> bytes:
    return struct.pack("<HHBBH", 8, 50, 1, level, reqid)


def _sa2(mode: int, reqid: int = 0) -> bytes:
    return struct.pack("<HHBBHII", 2, 19, mode, 0, 0, 0, reqid)


def _sa(spi: int) -> bytes:
    return struct.pack("<HH", 2, 1) + struct.pack(">I", spi) + struct.pack("<BBBBI", 4, 1, 0, 11, 0)


KEY = struct.pack("<HHHH", 1, 9, 0, 0)


@pytest.fixture
def world() -> World:
    made = World()
    for socket in (1, 2, 3):
        made.open(socket)
    return made


def _errno(world: World, socket: int, octets: bytes) -> int:
    """Of the reply to the sender, the only one."""
    world.take(socket)
    assert world.send(socket, octets) == 0
    (reply,) = world.take(socket)
    return reply[2]


def test_everybody_is_told_who_listens_in(world: World) -> None:
    toggle = _message(Type.X_PROMISC, 1)
    assert world.send(1, toggle) == 0
    wrapped = struct.pack("<BBBBHHII", 2, Type.X_PROMISC, 0, 0, 4, 0, 0, 0) + toggle
    assert world.take(1) == [wrapped, toggle]  # the copy of who listens in comes first
    assert world.take(2) == world.take(3) == [toggle]
    assert world.send(1, _message(Type.X_PROMISC, 0)) == 0
    assert [octets[3] for octets in world.take(1)] == [0]
    assert len(world.take(2)) == 1


def test_dumps_and_refusals_of_others_are_overheard(world: World) -> None:
    assert world.send(2, _message(Type.ADD, ESP, _sa(0x1001), *ENDS, KEY)) == 0
    world.send(1, _message(Type.X_PROMISC, 1))
    world.take(1)
    world.take(2)
    assert world.send(2, _message(Type.DUMP)) == 0
    (entry,) = world.take(2)
    assert world.take(1) == [struct.pack("<BBBBHHII", 2, Type.X_PROMISC, 0, 0, (16 + len(entry)) // 8, 0, 0, 0) + entry]
    refused = _message(Type.GET, ESP, _sa(0x9999), *ENDS)
    assert world.send(2, refused) == 0
    (answer,) = world.take(2)
    assert answer[2] == 3
    assert [octets[16:] for octets in world.take(1)] == [answer]


def test_a_dump_is_overheard_in_the_listeners_own_dialect(world: World) -> None:
    world.open(4, LINUX)
    world.send(4, _message(Type.X_PROMISC, 1))
    world.send(2, _message(Type.ADD, ESP, _sa(0x1001), *ENDS, KEY))
    world.take(4)
    world.take(2)
    world.send(2, _message(Type.DUMP))
    (copy,) = world.take(4)
    (entry,) = world.take(2)
    assert (copy[17], entry[1]) == (Type.DUMP, Type.DUMP)
    assert bytes((16, 2)) + bytes((0, 0, 10, 0, 0, 1)) in entry
    assert struct.pack("<H", 2) + bytes((0, 0, 10, 0, 0, 1)) in copy


def test_an_acquire_that_a_client_wants_goes_to_who_registered(world: World) -> None:
    world.send(2, _message(Type.REGISTER, ESP))
    world.take(2)
    assert world.send(1, _message(Type.ACQUIRE, ESP, *ENDS, PROPOSAL)) == 0
    assert world.take(1) == world.take(3) == []
    (acquire,) = world.take(2)
    assert struct.unpack_from("<II", acquire, 8) == (1, 0)  # numbered like those for packets; of no process
    assert world.send(1, _message(Type.ACQUIRE, ESP, *ENDS, PROPOSAL)) == 0  # not again so soon
    assert world.take(2) == world.take(1) == []
    assert world.send(1, _message(Type.ACQUIRE, ESP, *ENDS, PROPOSAL, _sa2(2))) == 0  # another relation
    assert [octets[8] for octets in world.take(2)] == [2]


@pytest.mark.parametrize(
    ("stands", "asked", "errno"),
    [((0, 0), (1, 0), 17), ((1, 5), (1, 0), 17), ((1, 5), (1, 5), 17), ((1, 5), (1, 6), 0), ((1, 0), (2, 0), 0)],
)  # fmt: skip
def test_an_acquire_is_refused_where_an_sa_would_do(world: World, stands: tuple[int, int], asked: tuple[int, int], errno: int) -> None:
    world.send(3, _message(Type.ADD, ESP, _sa(0x1001), _sa2(*stands), *ENDS, KEY))
    world.take(1)
    world.send(1, _message(Type.ACQUIRE, ESP, *ENDS, PROPOSAL, _sa2(*asked)))
    assert [octets[2] for octets in world.take(1)] == ([errno] if errno else [])


@pytest.mark.parametrize("dialect", [FREEBSD, LINUX], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(("seq", "errno", "hears"), [(5, 111, [5]), (5, 0, []), (0, 111, [])])
def test_who_gives_an_acquire_up_says_which_and_why(dialect: object, seq: int, errno: int, hears: list[int]) -> None:
    world = World()
    world.open(1, FREEBSD if dialect is FREEBSD else LINUX)
    assert world.send(1, _message(Type.ACQUIRE, ESP, seq=seq, errno=errno)) == 0
    assert world.take(1) == []
    assert world.failed == hears


def test_spdflush_has_no_extensions(world: World) -> None:
    assert _errno(world, 1, _message(Type.X_SPDADD, 0, *ENDS, _policy(0))) == 0
    assert _errno(world, 1, _message(Type.X_SPDFLUSH, 0, _sa(0))) == 22
    assert len(world.spd) == 1
    assert _errno(world, 1, _message(Type.X_SPDFLUSH)) == 0
    assert len(world.spd) == 0


@pytest.mark.parametrize("kind", [ENTRUST, BYPASS, 5])
def test_a_policy_is_not_removed_as_what_it_cannot_be(world: World, kind: int) -> None:
    assert _errno(world, 1, _message(Type.X_SPDADD, 0, *ENDS, _policy(1))) == 0
    assert _errno(world, 1, _message(Type.X_SPDDELETE, 0, *ENDS, _policy(kind))) == 22
    assert len(world.spd) == 1
    assert _errno(world, 1, _message(Type.X_SPDDELETE, 0, *ENDS, _policy(0))) == 0  # of another type than it has: only the direction counts


def test_each_unique_request_shows_the_number_it_got(world: World) -> None:
    requests = (_request(3), _request(2, 9), _request(3, 0x7FFF), _request(3, 77))
    assert world.send(1, _message(Type.X_SPDADD, 0, *ENDS, _policy(2, 2, *requests))) == 0
    (answer,) = world.take(1)
    got = [struct.unpack_from("<H", answer, 16 + 16 + 8 * place + 6)[0] for place in range(4)]
    assert got[0] > 0x3FFF < got[2]
    assert got[0] != got[2]
    assert (got[1], got[3]) == (9, 77)


def test_a_dump_of_one_scope_says_no_satype(world: World) -> None:
    world.send(1, _message(Type.X_SPDADD, 0, *ENDS, _policy(1)))
    world.take(1)
    world.send(1, _message(Type.X_SPDDUMP, 1))
    (entry,) = world.take(1)
    assert entry[3] == 0
