"""What the SPD refuses, and with which errno."""

from dataclasses import replace

import pytest

from koura.address import Prefix, parse
from koura.errors import Errno, Refused
from koura.saindex import Direction, Mode, Protocol
from koura.spd.policy import Action, Level, Policy, Requirement, Scope
from koura.spd.selector import Selector
from koura.spd.validity import check_entry

OUT = Direction.OUTBOUND
HOST = Prefix(parse("10.0.0.1"), 32)
HOST6 = Prefix(parse("2001:db8::1"), 128)
SELECTOR = Selector(OUT, HOST, HOST)
ESP = Requirement(Protocol.ESP, Mode.TRANSPORT, Level.REQUIRE)
TUNNEL = Requirement(Protocol.ESP, Mode.TUNNEL, Level.REQUIRE, 0, HOST.address, HOST.address)
GOOD = Policy(OUT, Action.IPSEC, SELECTOR, (ESP,))


def request(**change: object) -> Policy:
    return replace(GOOD, requirements=(replace(TUNNEL, **change),))  # type: ignore[arg-type]


def selected(**change: object) -> Policy:
    return replace(GOOD, selector=replace(SELECTOR, **change))  # type: ignore[arg-type]


def test_what_is_good_passes() -> None:
    for good in (
        GOOD,
        request(),
        replace(GOOD, requirements=(ESP,) * 4),
        Policy(OUT, Action.NONE, SELECTOR),
        Policy(OUT, Action.DISCARD, SELECTOR),
        selected(protocol=58, icmp_type=0, icmp_code=255),
        selected(protocol=6, sport=65535),
        selected(src=HOST6, dst=HOST6),
        request(src=HOST6.address, dst=HOST6.address),
        replace(GOOD, requirements=(replace(ESP, src=HOST.address, dst=HOST.address),)),
    ):
        check_entry(good)


@pytest.mark.covers("M4", "S14")
@pytest.mark.parametrize(
    ("bad", "errno"),
    [
        (replace(GOOD, action=Action.ENTRUST, requirements=()), Errno.EINVAL),
        (replace(GOOD, action=Action.BYPASS, requirements=()), Errno.EINVAL),
        (replace(GOOD, action=Action.NONE), Errno.EINVAL),
        (replace(GOOD, requirements=()), Errno.EINVAL),
        (replace(GOOD, requirements=(ESP,) * 5), Errno.EINVAL),
        (replace(GOOD, scope=Scope.SOCKET), Errno.EINVAL),
        (replace(GOOD, scope=Scope.INTERFACE), Errno.EINVAL),
        (replace(GOOD, interface="ipsec0"), Errno.EINVAL),
        (replace(GOOD, selector=None), Errno.EINVAL),
        (replace(GOOD, direction=Direction.INBOUND), Errno.EINVAL),
        (replace(GOOD, direction=Direction.ANY, selector=replace(SELECTOR, direction=Direction.ANY)), Errno.EINVAL),
        (replace(GOOD, lifetime_s=-1), Errno.EINVAL),
        (selected(dst=HOST6), Errno.EINVAL),
        (selected(protocol=256), Errno.EINVAL),
        (selected(protocol=17, dport=65536), Errno.EINVAL),
        (selected(protocol=17, icmp_type=1), Errno.EINVAL),
        (selected(icmp_code=1), Errno.EINVAL),
        (selected(protocol=1, sport=8), Errno.EINVAL),
        (selected(protocol=1, icmp_type=256), Errno.EINVAL),
        (request(protocol=Protocol.TCP), Errno.EPROTONOSUPPORT),
        (request(mode=Mode.ANY), Errno.EINVAL),
        (request(mode=Mode.TCP_MD5), Errno.EINVAL),
        (request(src=b""), Errno.EINVAL),
        (request(src=b"", dst=b""), Errno.EINVAL),
        (request(dst=HOST6.address), Errno.EINVAL),
        (request(src=parse("224.0.0.1")), Errno.EINVAL),
        (request(reqid=1 << 32), Errno.EINVAL),
    ],
)
def test_what_is_bad_is_refused(bad: Policy, errno: Errno) -> None:
    with pytest.raises(Refused) as refused:
        check_entry(bad)
    assert refused.value.errno is errno
