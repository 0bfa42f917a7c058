"""`--script`: from random databases, the script of SAD and SPD, parsed and loaded again, gives the same databases."""

import random
from dataclasses import replace

import pytest

from koura.crypto.algorithm import Algorithm, Kind
from koura.crypto.algorithms import ALGORITHMS
from koura.pfkey import extensions as x
from koura.pfkey.dialect import FREEBSD, LINUX
from koura.pfkey.message import Message
from koura.pfkey.numbers import ADDRESS_PORT_GIVEN, Ext, SaType, Type
from koura.pfkey.policy import PolicyExtension, Request
from koura.pfkey.sockaddr import Sockaddr
from koura.sadb.agreement import Agreement
from koura.sadb.association import State
from koura.saindex import Protocol
from koura.secret import Secret
from koura.setkey import show_script
from koura.setkey.parse import parse
from koura.setkey.run import Answered, messages, run
from tests.unit.pfkey.harness import World

BSD, LNX = 1, 2
CIPHERS = [row for row in ALGORITHMS if row.kind in (Kind.CIPHER, Kind.AEAD)]
MACS = [row for row in ALGORITHMS if row.kind is Kind.INTEGRITY and row.name != "tcp-md5"]
V4 = [bytes((192, 0, 2, n)) for n in range(1, 5)]
V6 = [bytes.fromhex("20010db8") + bytes(11) + bytes((n,)) for n in range(1, 5)]


def world() -> World:
    made = World()
    made.open(BSD, FREEBSD, pid=7)
    made.open(LNX, LINUX, pid=8)
    return made


def key(dice: random.Random, row: Algorithm) -> Secret:
    return Secret(dice.randbytes((dice.choice(row.key_bits) if row.key_bits else 0) // 8 + row.salt_octets))


def maybe(dice: random.Random, value: int, odds: float = 0.3) -> int:
    return value if dice.random() < odds else 0


def addresses(dice: random.Random) -> tuple[x.Extension, ...]:
    src, dst = dice.sample(dice.choice((V4, V6)), 2)
    bits = 8 * len(src)
    return x.Address(Ext.ADDRESS_SRC, Sockaddr(src), 255, bits), x.Address(Ext.ADDRESS_DST, Sockaddr(dst), 255, bits)


def limits(dice: random.Random) -> list[x.Extension]:
    hard = [maybe(dice, dice.randrange(10, 1 << 31)) for _ in range(4)]
    soft = [one // 2 for one in hard]
    found: list[x.Extension] = [x.Lifetime(Ext.LIFETIME_HARD, *hard)] if any(hard) else []
    return found + ([x.Lifetime(Ext.LIFETIME_SOFT, *soft)] if any(hard) and dice.random() < 0.5 else [])


def extras(dice: random.Random, satype: SaType, ends: tuple[x.Extension, ...]) -> list[x.Extension]:
    found: list[x.Extension] = [x.Sa2(dice.randrange(3), 0, maybe(dice, dice.choice((7, 16385, 70000, 0xFFFFFFFF))))]
    if dice.random() < 0.3:
        found.append(x.SaReplay(dice.choice((1, 20, 63, 64, 4096, 5001))))
    if dice.random() < 0.3:
        kind = dice.choice((1, 2, 3, 77))
        texts = [dice.choice((b"", b"a.example", b'with "quotes"', b"\xff\x01")) for _ in range(2)]
        found += [x.Ident(ext, kind, maybe(dice, 99), text) for ext, text in zip((Ext.IDENTITY_SRC, Ext.IDENTITY_DST), texts, strict=True)]
    if dice.random() < 0.2:
        found.append(x.Sensitivity(5, 1, 2, dice.randbytes(8), dice.randbytes(16)))
    if dice.random() < 0.2:
        found.append(x.Offload("ixl0"))
    if satype == SaType.ESP and dice.random() < 0.3:
        found += [x.NatType(2), x.NatPort(Ext.X_NAT_T_SPORT, 4500), x.NatPort(Ext.X_NAT_T_DPORT, dice.randrange(1, 65536))]
        family = V4 if len(ends[0].sockaddr.address) == 4 else V6  # type: ignore[attr-defined]
        found += [x.Address(ext, Sockaddr(dice.choice(family)), 255, 8 * len(family[0]))
                  for ext in (Ext.X_NAT_T_OAI, Ext.X_NAT_T_OAR) if dice.random() < 0.5]  # fmt: skip
        found += [x.NatFrag(1300)] if dice.random() < 0.3 else []
    if satype == SaType.AH and dice.random() < 0.3:
        found.append(x.KouraSa(0, 0, 8))
    if satype == SaType.ESP and found[0].mode != 1 and dice.random() < 0.3:  # type: ignore[attr-defined]
        found.append(x.KouraSa(dice.randrange(1 << 31), dice.randrange(2000), 0))
    return found


def an_sa(dice: random.Random) -> Message:
    satype = dice.choice((SaType.ESP, SaType.ESP, SaType.AH, SaType.IPCOMP, SaType.TCPSIGNATURE))
    ends = addresses(dice)
    spi = dice.randrange(256, 1 << 16)
    flags = dice.choice((0, 0x40, 0x40, 0x140, 0x200, 0x300, 0x10, 0x1, 0x41, 0x440, 0x400))
    said: list[x.Extension] = []
    auth, encrypt = 0, 0
    if satype == SaType.IPCOMP:
        encrypt, flags = 2, dice.choice((0, 0x40, 0x80, 0xC0))
        spi = dice.choice((2, spi, 70000 if flags & 0x80 else spi))
    elif satype == SaType.TCPSIGNATURE:
        auth, flags = 252, 0x40
        said.append(x.Key.of(Ext.KEY_AUTH, Secret(dice.randbytes(dice.randrange(1, 80)))))
    else:
        mac = dice.choice(MACS)
        if satype == SaType.ESP:
            row = dice.choice(CIPHERS)
            encrypt = row.number
            said.append(x.Key.of(Ext.KEY_ENCRYPT, key(dice, row)))
        if satype == SaType.AH or (row.kind is Kind.CIPHER and dice.random() < 0.7):
            auth = mac.number
            secret = key(dice, mac)
            said += [x.Key.of(Ext.KEY_AUTH, secret)] if len(secret) or mac.name != "null" else []
    said += extras(dice, satype, ends)
    one = x.Sa(spi, 8 * dice.choice((0, 4, 32)), 1, auth, encrypt, flags)
    return Message(Type.ADD, satype, 3, 7, extensions=(one, *said, *limits(dice), *ends))


def larval(dice: random.Random) -> Message:
    mode = x.Sa2(dice.randrange(3), 0, maybe(dice, 7))
    return Message(Type.GETSPI, dice.choice((SaType.ESP, SaType.AH)), 4, 7, extensions=(mode, *addresses(dice)))


def a_request(dice: random.Random, is_linux: bool) -> Request:
    mode = dice.choice((1, 2))
    src, dst = dice.sample(dice.choice((V4, V6)), 2)
    ends = (Sockaddr(src, maybe(dice, 4500)), Sockaddr(dst, maybe(dice, 1025))) if mode == 2 or dice.random() < 0.2 else ()
    level = dice.randrange(4)
    reqid = maybe(dice, dice.choice((5, 16383, 70000 if is_linux else 9)))
    return Request(dice.choice((50, 51, 108)), mode, level, reqid, *ends)


def a_policy(dice: random.Random) -> tuple[int, Message]:
    is_linux = dice.random() < 0.3
    family = dice.choice((V4, V6))
    protocol = dice.choice((255 if not is_linux else 0, 6, 17, 1, 58, 4, 47, 200))
    ends = []
    for ext in (Ext.ADDRESS_SRC, Ext.ADDRESS_DST):
        port = maybe(dice, dice.randrange(1, 255))
        reserved = ADDRESS_PORT_GIVEN if not port and protocol in (1, 58) and (ext == Ext.ADDRESS_SRC) and dice.random() < 0.3 else 0
        if protocol in (1, 58) and ext == Ext.ADDRESS_DST and not (ends[0].sockaddr.port or ends[0].reserved):
            port = 0  # a code without a type is nothing that a script can say, nor anything that makes sense
        ends.append(x.Address(ext, Sockaddr(dice.choice(family), port), protocol, dice.randrange(8 * len(family[0]) + 1), reserved))
    kind = dice.randrange(3)
    requests = tuple(a_request(dice, is_linux) for _ in range(dice.randrange(1, 5))) if kind == 2 else ()
    direction = dice.choice((1, 2, 3) if is_linux else (1, 2))
    priority = dice.choice((0, 0, 5, 0x7FFFFFFF, 0x80000000, 0xC0000005, 0xFFFFFFFF))
    hard = [x.Lifetime(Ext.LIFETIME_HARD, 0, 0, maybe(dice, 600), maybe(dice, 60))] if dice.random() < 0.2 else []
    said = (PolicyExtension(kind, direction, 0, priority, 0, requests), *hard, *ends)
    return (LNX if is_linux else BSD), Message(Type.X_SPDADD, 0, 5, 7, extensions=said)


def script_of(made: World) -> str:
    sas = made.ask(BSD, Message(Type.DUMP, 0, 1, 7))
    spd = made.ask(BSD, Message(Type.X_SPDDUMP, 0, 2, 7))
    return show_script.sas([m for m in sas if not m.errno]) + show_script.spd([m for m in spd if not m.errno])


def load(made: World, text: str) -> None:
    def ask(octets: bytes) -> Answered:
        made.take(BSD)
        errno = made.send(BSD, octets)
        replies = made.take(BSD)
        return Answered(errno or replies[0][2])

    refused = run(parse(text), ask)
    assert not refused, f"{refused[0].fault}"


def contents(made: World) -> tuple[object, ...]:
    """Both databases, without what time and the stack choose: pids, seqs, SPIs of TCP-MD5 keys, ids."""
    sas: list[tuple[Agreement, State]] = []
    for sa in made.sad:
        agreement = replace(sa.agreement, seq=0, pid=0)
        if agreement.index.protocol is Protocol.TCP:
            agreement = replace(agreement, spi=0)
        sas.append((agreement, sa.state))
    policies = [entry.policy for entry in made.spd.entries(7)]
    order = [message.extensions[0] for message in made.ask(BSD, Message(Type.DUMP, SaType.ESP, 1, 7))]
    return sorted(sas, key=repr), policies, order


@pytest.mark.parametrize("seed", range(8))
def test_the_script_of_a_random_database_makes_it_again(seed: int) -> None:
    dice = random.Random(seed)
    first, second = world(), world()
    done = 0
    for _ in range(60):
        socket, message = dice.choice(((BSD, an_sa(dice)), (BSD, an_sa(dice)), (BSD, larval(dice)), a_policy(dice), a_policy(dice)))
        first.take(socket)
        errno = first.send(socket, message.write(FREEBSD if socket == BSD else LINUX))
        done += not errno and not first.take(socket)[0][2]
    assert done > 35, f"seed {seed}: too few of the random messages are taken: {done}"
    text = script_of(first)
    load(second, text)
    assert contents(second) == contents(first), f"seed {seed}\n{text}"
    assert script_of(second) == text


def test_every_command_of_a_script_is_one_line_and_compiles_alone() -> None:
    dice = random.Random(99)
    made = world()
    for _ in range(40):
        made.send(BSD, an_sa(dice).write(FREEBSD))
    for line in script_of(made).splitlines():
        assert len(messages(parse(line))) == 1
