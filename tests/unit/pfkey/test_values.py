"""A message that is served as a value does what its octets would do: the same SAs and policies, or the same refusal in the same words."""

import random
from dataclasses import replace

from koura.moment import Moment
from koura.pfkey import values
from koura.pfkey.dialect import FREEBSD, LINUX
from koura.pfkey.extensions import Address, Key, Lifetime, Sa, Sa2, SaReplay
from koura.pfkey.message import Message
from koura.pfkey.policy import PolicyExtension
from koura.pfkey.sockaddr import Sockaddr
from koura.secret import Secret
from koura.setkey import parse
from koura.setkey.run import messages
from koura.settings import Settings
from koura.sim.entropy import Seeded
from koura.stack import Stack

GCM, MAC, CBC = "0x" + "0b" * 20, "0x" + "0c" * 32, "0x" + "0d" * 16
AT = Moment.of_s(1_800_000_000)
ROOM = Settings().limits.message_octets
SCRIPT = f"""
add 10.0.0.1 10.0.0.2 esp 0x1000 -m tunnel -u 70000 -r 8 -E aes-gcm-16 {GCM};
add 10.0.0.1 10.0.0.2 esp 0x1001 -r 32 -lh 100 -ls 50 -bh 5000 -ph 7 -E aes-cbc {CBC} -A hmac-sha2-256 {MAC};
add 10.0.0.1 10.0.0.2 esp 0x1002 -rp 100 -f cyclic-seq -f zero-pad -E null -A hmac-sha2-256 {MAC};
add 10.0.0.1 10.0.0.2 esp 0x1003 -rp 5000 -esn -E aes-gcm-16 {GCM};
add 10.0.0.1[4500] 10.0.0.2[4501] esp-udp 0x1004 -E aes-gcm-16 {GCM};
add 10.0.0.1 10.0.0.2 ah 0x2000 -align 8 -A hmac-sha2-256 {MAC};
add 10.0.0.1 10.0.0.2 ah-old 0x2001 -A hmac-sha1 0x{"11" * 20};
add 10.0.0.1 10.0.0.2 ipcomp 0x3000 -C deflate;
add 10.0.0.1 10.0.0.2 ipcomp 0x30000 -C deflate -R;
add 10.0.0.1 10.0.0.2 tcp 0x4000 -A tcp-md5 "secret";
add fe80::1%2 fe80::2%2 esp 0x5000 -m transport -E aes-gcm-16 {GCM};
add 10.0.0.1%3 10.0.0.2 esp 0x5001 -E aes-gcm-16 {GCM};
add 2001:db8::1 2001:db8::2 esp 0x5002 -m tunnel -tfc 500 -seq 77 -E chacha20-poly1305 0x{"0a" * 36};
spdadd 10.1.0.0/16[80] 10.2.0.0/16 tcp -P out ipsec esp/tunnel/10.0.0.1-10.0.0.2/unique:70000;
spdadd 10.1.0.0/16 10.3.0.0/16 any -lifetime 5 -validtime 9 -P out prio -3 ipsec esp/transport//require ah/transport//use;
spdadd 10.1.0.0/16 10.4.0.0/16 icmp 8,0 -P in discard;
spdadd 2001:db8::/32 ::/0 any -P in ipsec ipcomp/transport//use esp/tunnel/2001:db8::1-2001:db8::2/unique:5;
spdadd 10.1.0.0/16 10.5.0.0/16 any -P fwd ipsec esp/tunnel/10.0.0.1-10.0.0.2/require;
spdadd 10.1.0.0/16 10.6.0.0/16 any -P out none;
"""


class World:
    """A stack, and what became of every message."""

    def __init__(self, by_value: bool) -> None:
        self.by_value = by_value
        self.stack = Stack(Seeded(1))
        self.stack.server.opened(1, is_deaf=True)
        self.ends: list[object] = []

    def do(self, said: Message) -> None:
        if self.by_value:
            refused = self.stack.server.take(1, said, AT)
        else:
            refused = self.stack.server.receive(1, said.write(FREEBSD), AT).refused
        self.ends.append((refused.errno, refused.why) if refused is not None else None)

    def made(self) -> object:
        entries = self.stack.spd.entries()
        # A Secret's octets, a comparison of agreements looks at; flags that it leaves out are asked for by name.
        sas = [(sa.agreement, sa.agreement.is_negotiated, sa.agreement.yields_to_newer, sa.order, sa.relation) for sa in self.stack.sadb]
        return self.ends, sas, [(entry.id, entry.policy, entry.order) for entry in entries], self.stack.spd.counts


def _script() -> list[Message]:
    return [message for _, said in messages(parse.parse(SCRIPT)) for message in said]


def _same(said: list[Message], hint: str = "") -> World:
    one, other = World(by_value=True), World(by_value=False)
    for message in said:
        one.do(message)
        other.do(message)
        assert one.made() == other.made(), (hint, message)
    return one


def test_a_script_makes_the_same_either_way() -> None:
    said = _script()
    world = _same(said + said)
    assert world.ends[: len(said)].count(None) >= len(said) - 1, world.ends
    assert None not in world.ends[len(said) :], "they are all there already"
    assert sum(values.is_plain(message, FREEBSD, ROOM) for message in said) >= len(said) // 2


def _odd(dice: random.Random, one: object) -> object:
    """An extension that says something else, most of it wrong."""
    match one:
        case Sa():
            field = dice.choice(("spi", "window_packets", "auth", "encrypt", "flags"))
            return replace(one, **{field: dice.choice((0, 1, 7, 8, 20, 64, 200, 250, 251, 255, 2040))})
        case Sa2():
            return replace(one, mode=dice.randrange(6), reqid=dice.choice((0, 5, 0xFFFF_FFFF)))
        case SaReplay():
            return replace(one, window_packets=dice.choice((0, 1, 1 << 20, (1 << 32) - 1)))
        case Key():
            octets = dice.choice((0, 1, 16, 20, 36, 600))
            return dice.choice((Key.of(one.ext, Secret(bytes(octets))), replace(one, bits=max(0, one.bits + dice.choice((-8, -1, 1, 8))))))
        case Lifetime():
            return replace(one, packets=dice.choice((0, 9, 1 << 32)), add_s=dice.choice((0, 9)), octets=dice.choice((0, 9)))
        case Address():
            sockaddr = dice.choice((
                Sockaddr(bytes(4)), Sockaddr(bytes(16)), Sockaddr(bytes((10, 9, 9, 9)), 500), Sockaddr(bytes(16), 0, 3),
                Sockaddr(b"", foreign=bytes((16, 9)) + bytes(14), family=9), replace(one.sockaddr, zone=4),
            ))  # fmt: skip
            return replace(one, sockaddr=sockaddr, prefix_bits=dice.choice((0, 8, 32, 128, 200)), protocol=dice.choice((6, 255)))
        case PolicyExtension() if one.requests:
            first = one.requests[0]
            changed = dice.choice((
                replace(first, reqid=dice.choice((0, 9, 70000))), replace(first, src=Sockaddr(b"")), replace(first, mode=dice.randrange(5)),
                replace(first, protocol=dice.choice((6, 17, 50))), replace(first, level=dice.randrange(6)), replace(first, src=first.dst),
            ))  # fmt: skip
            return replace(one, requests=(changed,) * dice.choice((0, 1, 2, 9)), type=dice.randrange(6), direction=dice.randrange(5))
    return one


def test_so_do_messages_that_no_script_says() -> None:
    said = _script()
    plain = 0
    for seed in range(400):
        dice = random.Random(seed)
        odd = []
        for _ in range(4):
            message = dice.choice(said)
            extensions = list(message.extensions)
            at = dice.randrange(len(extensions))
            extensions[at] = _odd(dice, extensions[at])  # type: ignore[call-overload]
            if dice.random() < 0.1:
                del extensions[dice.randrange(len(extensions))]
            elif dice.random() < 0.05:
                extensions.append(extensions[0])
            odd.append(replace(message, satype=dice.choice((message.satype,) * 8 + (0, 2, 3, 5)), extensions=tuple(extensions)))
        _same(odd, f"seed {seed}")
        plain += sum(values.is_plain(message, FREEBSD, ROOM) for message in odd)
    assert plain > 400


def test_who_is_not_alone_is_served_by_octets_and_heard() -> None:
    said = _script()[0]
    stack = Stack(Seeded(1))
    stack.server.opened(1, is_deaf=True)
    stack.server.opened(2, LINUX)
    assert stack.server.take(1, said, AT) is None
    assert stack.server.statistics.in_total == 1


def test_a_limit_of_octets_counts_either_way() -> None:
    said = _script()[0]
    assert values.is_plain(said, FREEBSD, ROOM)
    assert not values.is_plain(said, FREEBSD, 100)
    assert not values.is_plain(said, LINUX, ROOM)
