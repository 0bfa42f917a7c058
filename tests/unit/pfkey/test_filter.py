"""Linux's filter of a DUMP: by family and two prefixes. pfkey.md §2.2."""

import struct

import pytest

from koura.address import parse
from koura.errors import Errno
from koura.pfkey import extensions as x
from koura.pfkey.dialect import FREEBSD, LINUX
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.pfkey.sockaddr import Sockaddr
from koura.secret import Secret
from tests.unit.pfkey.harness import World

PAIRS = [("192.0.2.1", "192.0.2.2"), ("192.0.3.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")]


def world() -> World:
    made = World()
    made.open(1, LINUX)
    for spi, (src, dst) in enumerate(PAIRS, start=0x1000):
        ends = [x.Address(ext, Sockaddr(parse(text)), 0, 0) for ext, text in ((Ext.ADDRESS_SRC, src), (Ext.ADDRESS_DST, dst))]
        key = x.Key.of(Ext.KEY_ENCRYPT, Secret(bytes(20)))
        assert made.ask(1, Message(Type.ADD, SaType.ESP, 1, extensions=(x.Sa(spi, 0, 1, 0, 20), *ends, key)))[0].errno == 0
    return made


def asked(src: str, dst: str, family: int, src_bits: int, dst_bits: int) -> Message:
    octets = struct.pack("<16s16sHBB", parse(src), parse(dst), family, src_bits, dst_bits)
    return Message(Type.DUMP, 0, 9, extensions=(x.Unknown(Ext.X_FILTER, octets),))


@pytest.mark.parametrize(
    ("arguments", "spis"),
    [
        (("192.0.2.0", "0.0.0.0", 2, 24, 0), [0x1000]),
        (("192.0.0.0", "192.0.2.2", 2, 16, 32), [0x1000, 0x1001]),
        (("0.0.0.0", "0.0.0.0", 2, 0, 0), [0x1000, 0x1001]),
        (("::", "2001:db8::", 10, 0, 32), [0x1002]),
    ],
)
def test_only_what_lies_in_both_prefixes_is_shown(arguments: tuple[str, str, int, int, int], spis: list[int]) -> None:
    replies = world().ask(1, asked(*arguments))
    shown = [sa.spi for reply in replies if (sa := reply.find(x.Sa, Ext.SA)) is not None]
    assert sorted(shown) == spis
    assert replies[-1].seq == 0


@pytest.mark.parametrize(
    ("message", "errno"),
    [
        (asked("10.0.0.0", "0.0.0.0", 2, 8, 0), Errno.ENOENT),
        (asked("10.0.0.0", "0.0.0.0", 2, 33, 0), Errno.EINVAL),
        (asked("10.0.0.0", "0.0.0.0", 28, 8, 0), Errno.EINVAL),
        (Message(Type.DUMP, 0, 9, extensions=(x.Unknown(Ext.X_FILTER, bytes(28)),)), Errno.EINVAL),
    ],
)
def test_nothing_and_nonsense(message: Message, errno: Errno) -> None:
    (reply,) = world().ask(1, message)
    assert reply.errno == errno.linux


def test_other_systems_have_no_such_thing() -> None:
    made = world()
    made.open(2, FREEBSD)
    assert len(made.ask(2, asked("10.0.0.0", "0.0.0.0", 2, 8, 0))) == len(PAIRS)
