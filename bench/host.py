"""A stack fed by setkey scripts, for benchmarks."""

from collections.abc import Iterable

from koura.moment import Moment
from koura.notices import KeySocketOpened
from koura.pfkey.dialect import FREEBSD
from koura.setkey.parse import parse
from koura.setkey.run import messages
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.outcome import Deliver, Forward

AT = Moment.of_s(1_800_000_000)
_SOCKET = 1


def stack() -> Stack:
    made = Stack(Seeded(1))
    made.notice(KeySocketOpened(_SOCKET, "freebsd", 0, True), AT)
    return made


def compiled(script: str) -> list[bytes]:
    """The PF_KEY messages of a script."""
    return [message.write(FREEBSD) for _, said in messages(parse(script)) for message in said]


def feed(to: Stack, octets: Iterable[bytes]) -> None:
    """Send them all; each must be taken."""
    for one in octets:
        answer = to.control(_SOCKET, one, AT)
        assert answer.refused is None, answer.refused


def sealed(by: Stack, packets: list[bytes]) -> list[bytes]:
    """One protected packet for each."""
    found = []
    for outcome in by.outbound(packets, AT).outcomes:
        assert isinstance(outcome, Forward), outcome
        found += outcome.packets
    assert len(found) == len(packets)
    return found


def opened(by: Stack, packets: list[bytes]) -> list[bytes]:
    """The inner packet of each."""
    found = []
    for outcome in by.inbound(packets, AT).outcomes:
        assert isinstance(outcome, Deliver), outcome
        found.append(outcome.packet)
    return found
