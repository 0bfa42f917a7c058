"""A PF_KEY client in the keeper, over a real pair of sockets and a keeper that the test plays."""

import errno
import fcntl
import socket
import struct
from collections.abc import Iterator

import pytest

from koura.daemon.clients import ACK, LOSS, Calls, Client, Opened
from koura.daemon.peer import QUEUE_OCTETS
from koura.host.loop import Loop

SIOCOUTQ = 0x5411
REQUEST = struct.pack("<BBBBHHII", 2, 10, 0, 0, 2, 0, 5, 77)


class Keeper:
    """Plays the keeper: notes what it is told."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.requests: list[bytes] = []
        self.pulls: list[int] = []
        self.gone = 0
        self.reopened = 0
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs.settimeout(10)
        calls = Calls(self._request, self._reopened, lambda _, room: self.pulls.append(room), self._gone)
        self.client = Client(self.loop, ours, 1, Opened("freebsd", 77, 0, True), calls)
        self.client.begin()

    def _request(self, client: Client) -> None:
        assert client.talk.request is not None
        self.requests.append(client.talk.request)

    def _reopened(self, _: Client) -> None:
        self.reopened += 1

    def _gone(self, _: object) -> None:
        self.gone += 1

    def turn(self) -> None:
        """Do what is ready, wait for nothing."""
        self.loop.soon(lambda: None)
        self.loop.turn()

    def send(self, octets: bytes) -> None:
        self.theirs.send(octets)
        self.turn()

    def unanswered(self) -> int:
        """SIOCOUTQ of the client's socket."""
        return int(struct.unpack("i", fcntl.ioctl(self.theirs, SIOCOUTQ, bytes(4)))[0])

    def read_all(self) -> list[bytes]:
        found = []
        self.theirs.setblocking(False)
        while True:
            try:
                found.append(self.theirs.recv(1 << 20))
            except BlockingIOError:
                self.turn()
                try:
                    found.append(self.theirs.recv(1 << 20))
                except BlockingIOError:
                    return found


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    made = Keeper()
    yield made
    made.client.end()
    made.theirs.close()
    made.loop.close()


def test_a_request_is_consumed_only_when_its_replies_are_queued(keeper: Keeper) -> None:
    keeper.send(REQUEST)
    assert keeper.requests == [REQUEST]
    assert keeper.unanswered() > 0
    keeper.client.answered(0, False, "")
    keeper.client.deliver(b"\2 reply")
    assert keeper.unanswered() > 0
    keeper.client.settle()
    assert keeper.unanswered() == 0
    assert keeper.theirs.recv(100) == b"\2 reply"


def test_a_message_without_octets_is_a_bad_request_and_not_the_end(keeper: Keeper) -> None:
    keeper.send(b"")
    assert (keeper.requests, keeper.gone) == ([b""], 0)
    keeper.client.answered(errno.EMSGSIZE, False, "")
    keeper.client.settle()
    assert keeper.theirs.recv(100)[2] == errno.EMSGSIZE
    keeper.send(REQUEST)
    assert keeper.requests == [b"", REQUEST]
    keeper.client.answered(0, False, "")
    keeper.client.settle()
    keeper.theirs.close()
    keeper.turn()
    assert keeper.gone == 1


def test_one_request_at_a_time_in_their_order(keeper: Keeper) -> None:
    for n in range(3):
        keeper.theirs.send(REQUEST + bytes((n,)))
    keeper.turn()
    for n in range(3):
        assert len(keeper.requests) == n + 1
        keeper.client.answered(0, False, "")
        keeper.client.settle()
    assert [request[16] for request in keeper.requests] == [0, 1, 2]


def test_hello_chooses_dialect_and_acks(keeper: Keeper) -> None:
    keeper.send(b"\0koura dialect=linux acks=1")
    assert keeper.theirs.recv(100) == b"\0koura ok"
    assert (keeper.client.opened.dialect, keeper.reopened, keeper.requests) == ("linux", 1, [])
    keeper.send(REQUEST)
    keeper.client.answered(90, False, "too short")
    keeper.client.settle()
    assert keeper.theirs.recv(100) == struct.pack(">BBHI", 0, ACK, 0, 90) + b"too short"


@pytest.mark.parametrize("words", ["dialect=plan9", "acks=2", "colour=red", "\xff"])
def test_a_bad_hello_is_refused_in_words(keeper: Keeper, words: str) -> None:
    keeper.send(b"\0koura " + words.encode("latin-1"))
    assert keeper.theirs.recv(300).startswith(b"\0koura EINVAL ")
    assert keeper.requests == [] and keeper.reopened == 0


def test_hello_is_the_first_message_or_none(keeper: Keeper) -> None:
    keeper.send(REQUEST)
    keeper.client.answered(0, False, "")
    keeper.client.settle()
    keeper.send(b"\0koura acks=1")
    assert keeper.requests[-1] == b"\0koura acks=1", "now it is a message of version 0, which the server refuses"


def test_without_acks_the_errno_of_send_comes_as_a_header(keeper: Keeper) -> None:
    keeper.send(REQUEST[:7])
    keeper.client.answered(22, False, "")
    keeper.client.settle()
    assert struct.unpack("<BBBBHHII", keeper.theirs.recv(100)) == (2, 10, 22, 0, 2, 0, 0, 0)


def test_who_does_not_read_loses_broadcasts_and_is_told_how_many(keeper: Keeper) -> None:
    big = bytes(60_000)
    count = 0
    while keeper.client.has_room:
        keeper.client.deliver(big)
        count += 1
    for _ in range(5):
        keeper.client.deliver(big)
    assert (keeper.client.lost, keeper.client.queued_octets < QUEUE_OCTETS + len(big)) == (5, True)
    keeper.send(REQUEST)
    assert keeper.requests == [], "its requests wait, too"
    found = keeper.read_all()
    assert len(found) == count + 1
    assert struct.unpack("<BBBBHHII", found[-1]) == (2, 0, 55, 0, 2, 0, 5, 0), "ENOBUFS, five of them"
    assert keeper.requests == [REQUEST]
    assert (keeper.client.lost, keeper.client.lost_total) == (0, 5)


def test_a_loss_is_told_as_ours_to_who_has_acks(keeper: Keeper) -> None:
    keeper.send(b"\0koura acks=1")
    while keeper.client.has_room:
        keeper.client.deliver(bytes(60_000))
    keeper.client.deliver(b"one more")
    assert struct.unpack(">BBHI", keeper.read_all()[-1][:8]) == (0, LOSS, 0, 1)


def test_a_dump_is_pulled_as_fast_as_it_is_read(keeper: Keeper) -> None:
    keeper.send(REQUEST)
    keeper.client.answered(0, True, "")
    keeper.client.settle()
    assert len(keeper.pulls) == 1
    keeper.client.pulled((bytes(30_000),) * 40, left=1)
    assert len(keeper.pulls) == 1, "much of it waits still"
    assert len(keeper.read_all()) == 40
    assert len(keeper.pulls) == 2
    keeper.client.pulled((b"last",), left=0)
    assert keeper.read_all() == [b"last"] and len(keeper.pulls) == 2


def test_requests_are_served_while_a_dump_is_under_way(keeper: Keeper) -> None:
    keeper.send(REQUEST)
    keeper.client.answered(0, True, "")
    keeper.client.settle()
    keeper.send(REQUEST + b"next")
    assert len(keeper.requests) == 2


def test_a_dump_ends_with_an_error_when_its_engine_ends(keeper: Keeper) -> None:
    keeper.send(REQUEST)
    keeper.client.answered(0, True, "")
    keeper.client.settle()
    keeper.client.pulled((b"some",), left=1)
    keeper.client.engine_ended()
    assert keeper.theirs.recv(100) == b"some"
    assert struct.unpack("<BBBBHHII", keeper.theirs.recv(100)) == (2, 10, errno.EINTR, 0, 2, 0, 5, 77)
    keeper.client.pull()
    assert len(keeper.pulls) == 2, "the one that was on its way when the engine ended; no more"


def test_an_engine_that_ends_over_a_request_leaves_it_where_it_is(keeper: Keeper) -> None:
    keeper.send(REQUEST)
    keeper.client.engine_ended()
    assert keeper.client.talk.request == REQUEST and keeper.unanswered() > 0


@pytest.mark.parametrize("is_full", [False, True])
def test_who_goes_is_let_go(keeper: Keeper, is_full: bool) -> None:
    while is_full and keeper.client.has_room:
        keeper.client.deliver(bytes(60_000))
    keeper.theirs.close()
    keeper.turn()
    assert keeper.gone == 1 and not keeper.client.is_open
