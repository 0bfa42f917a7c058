"""The live key socket: requests, refusals with their reasons, dumps as fast as they are read, events, an engine that goes away."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.client.control import Unreachable
from koura.client.exchange import Exchange, Lost, check_hello, read_ack
from koura.client.keysocket import Busy, KeySocket
from koura.errors import Errno, Malformed, Refused
from koura.pfkey import extensions as x
from koura.pfkey.dialect import DIALECTS, FREEBSD, LINUX, Dialect
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.pfkey.offers import Supported
from koura.pfkey.sockaddr import Sockaddr
from koura.secret import Secret
from tests.unit.client.engine import Engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path) as running:
        yield running


def an_add(spi: int, window: int = 0) -> Message:
    ends = [x.Address(ext, Sockaddr(bytes((192, 0, 2, n))), 255, 32) for n, ext in ((1, Ext.ADDRESS_SRC), (2, Ext.ADDRESS_DST))]
    key = x.Key.of(Ext.KEY_ENCRYPT, Secret(bytes(20)))
    return Message(Type.ADD, SaType.ESP, extensions=(x.Sa(spi, window, 1, 0, 20), key, *ends))


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda d: d.name)
def test_a_request_and_its_reply_in_every_dialect(engine: Engine, tmp_path: Path, dialect: Dialect) -> None:
    with KeySocket.connect(tmp_path, dialect) as keys:
        (reply,) = keys.ask(Message(Type.REGISTER, SaType.ESP))
        assert reply.find(Supported, Ext.SUPPORTED_ENCRYPT) is not None
        assert (reply.pid, reply.seq) == (os.getpid(), 1)
        with pytest.raises(Refused) as refused:
            keys.ask(Message(Type.REGISTER, SaType.ESP))
        assert refused.value.errno is Errno.EEXIST
        assert "registered" in refused.value.why


def test_refusals_come_with_the_engines_reason(engine: Engine, tmp_path: Path) -> None:
    with KeySocket.connect(tmp_path) as keys:
        with pytest.raises(Refused) as refused:
            keys.ask(an_add(5))
        assert (refused.value.errno, refused.value.why) == (Errno.EINVAL, "SPIs 0 to 255 are reserved; this one is 5")
        with pytest.raises(Refused) as refused:  # send() itself would fail
            keys.ask(Message(Type.ADD, SaType.ESP, extensions=(x.Unknown(0x8000 + 999, bytes(4)),)))
        assert refused.value.errno is Errno.EINVAL
        keys.ask(an_add(300))
        with pytest.raises(Refused) as refused:
            keys.ask(an_add(300))
        assert refused.value.errno is Errno.EEXIST


@pytest.mark.covers("R55")
def test_a_dump_is_complete_however_slowly_it_is_read(engine: Engine, tmp_path: Path) -> None:
    with KeySocket.connect(tmp_path) as keys, KeySocket.connect(tmp_path) as other:
        for spi in range(256, 256 + 600):
            keys.ask(an_add(spi))
        dump = keys.dump(Message(Type.DUMP))
        first = next(dump)
        with pytest.raises(Busy):
            keys.ask(Message(Type.FLUSH))
        other.ask(an_add(2000))  # others are served meanwhile
        rest = list(dump)
        spis = [sa.spi for message in (first, *rest) if (sa := message.find(x.Sa, Ext.SA)) is not None]
        assert sorted(spis) == list(range(256, 256 + 600))
        assert rest[-1].seq == 0
        half = keys.dump(Message(Type.DUMP))
        next(half)
        half.close()  # type: ignore[attr-defined]
        keys.ask(Message(Type.FLUSH))
        with pytest.raises(Refused) as refused:
            list(keys.dump(Message(Type.DUMP)))
        assert refused.value.errno is Errno.ENOENT


def test_many_requests_at_once_are_answered_in_their_order(engine: Engine, tmp_path: Path) -> None:
    with KeySocket.connect(tmp_path) as keys:
        asked = [an_add(spi) for spi in (*range(256, 456), 300, 5, 301)] + [Message(Type.FLUSH)]
        answers = list(keys.ask_each(asked))
        refused = [(place, answer.errno) for place, answer in enumerate(answers) if isinstance(answer, Refused)]
        assert refused == [(200, Errno.EEXIST), (201, Errno.EINVAL), (202, Errno.EEXIST)]
        assert [answer[0].type for answer in answers if not isinstance(answer, Refused)] == [Type.ADD] * 200 + [Type.FLUSH]
        assert list(keys.ask_each([])) == []


def test_what_others_do_comes_as_events(engine: Engine, tmp_path: Path) -> None:
    with KeySocket.connect(tmp_path) as keys, KeySocket.connect(tmp_path, LINUX) as other:
        other.pid = 99
        other.ask(Message(Type.FLUSH))
        keys.ask(Message(Type.REGISTER, SaType.ESP))
        kinds = [(event.type, event.pid) for event in keys.events(timeout_s=0.0)]
        assert kinds == [(Type.FLUSH, 99)]
        keys.send(b"\x02\x09\0\0\x02\0\0\0" + bytes(8))
        assert next(keys.events(timeout_s=5.0)).type == Type.FLUSH


def test_an_engine_that_is_not_there_or_goes_away(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no engine runs there"):
        KeySocket.connect(tmp_path)
    with Engine(tmp_path):
        keys = KeySocket.connect(tmp_path)
    with pytest.raises(Unreachable, match="the engine ended"):
        keys.ask(Message(Type.FLUSH))
    keys.close()


def test_an_engine_that_does_not_answer() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, pytest.raises(Unreachable, match="does not answer"):
        KeySocket(ours, timeout_s=0.01)


def test_greetings_and_notes() -> None:
    check_hello(b"\0koura ok")
    with pytest.raises(Refused, match="dialect= one of"):
        check_hello(b"\0koura EINVAL dialect= one of")
    with pytest.raises(Refused, match="no key socket"):
        check_hello(b"\x02\x09")
    loss = read_ack(b"\0\x02\0\0\0\0\0\x07lost")
    assert isinstance(loss, Lost)
    assert loss.count == 7
    exchange = Exchange(Message(Type.FLUSH, seq=3, pid=4), FREEBSD)
    assert not exchange.feed(exchange.octets), "a reply does not come before its acknowledgement"
    exchange.acknowledged(read_ack(b"\0\x01\0\0\0\0\0\0"))  # type: ignore[arg-type]
    assert not exchange.feed(Message(Type.FLUSH, seq=3, pid=5).write(FREEBSD))
    with pytest.raises(Malformed):
        exchange.feed(exchange.octets + b"\0" * 8)
    assert exchange.feed(exchange.octets)
    assert exchange.is_done
