"""A reply is written when somebody gets it; a socket that only asks gets none, and all else is the same."""

from koura.pfkey.dialect import FREEBSD, LINUX
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, Type
from koura.setkey.compile import compile
from koura.setkey.parse import parse
from tests.unit.pfkey.harness import World

SA = "add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -r 32 -E aes-gcm-16 0x00112233445566778899aabbccddeeff00112233;"


def _request() -> bytes:
    script = parse(SA)
    (message,) = compile(script.statements[0], script.source)
    return message.write(FREEBSD)


def _world(is_deaf: bool) -> World:
    world = World()
    for socket, dialect in ((1, FREEBSD), (2, FREEBSD), (3, LINUX)):
        world.open(socket, dialect)
    if is_deaf:
        world.server.opened(1, is_deaf=True)
    assert world.send(1, _request()) == 0
    return world


def test_a_deaf_socket_gets_nothing_and_the_others_get_the_same() -> None:
    hearing, deaf = _world(False), _world(True)
    assert len(hearing.inbox[1]) == 1 and deaf.inbox[1] == []
    assert hearing.inbox[1] == hearing.inbox[2] == deaf.inbox[2]
    assert deaf.inbox[3] == hearing.inbox[3]
    assert Message.read(deaf.inbox[3][0], LINUX).type == Type.ADD
    assert len(deaf.sad) == len(hearing.sad) == 1


def test_a_deaf_sockets_requests_are_refused_like_others() -> None:
    world = _world(True)
    answer = world.server.receive(1, _request(), world.at)
    assert answer.refused is not None and "already" in answer.refused.why
    assert answer.deliveries == ()


def test_a_reply_has_the_requests_own_octets() -> None:
    (reply,) = _world(False).inbox[1]
    asked, told = Message.read(_request(), FREEBSD), Message.read(reply, FREEBSD)
    for ext in (Ext.SA, Ext.ADDRESS_SRC, Ext.ADDRESS_DST):
        assert [one for one in told.extensions if one.ext == ext] == [one for one in asked.extensions if one.ext == ext]
    assert not any(one.ext == Ext.KEY_ENCRYPT for one in told.extensions)
