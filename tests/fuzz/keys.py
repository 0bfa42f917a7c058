"""Targets for PF_KEY: messages and policy buffers in every dialect, as a codec and through the stack's door."""

from koura.errors import Malformed, Refused
from koura.moment import Moment
from koura.notices import KeySocketOpened
from koura.pfkey import message, policy
from koura.pfkey.dialect import DIALECTS, Dialect
from koura.settings import Limits, Settings
from koura.sim.entropy import Seeded
from koura.spd.language import parse
from koura.stack import Stack
from koura.traffic.outcome import ToKeySocket
from tests.fuzz.target import Run, Target, stateless
from tests.fuzz.words import policies
from tests.unit.pfkey.mutate import seeds

AT = Moment.of_s(1_800_000_000)


def _codec(dialect: Dialect) -> Run:
    def run(octets: bytes) -> None:
        try:
            found = message.Message.read(octets, dialect)
            again = message.Message.read(found.write(dialect), dialect)
        except Malformed:
            return
        assert again.type == found.type
        assert again.write(dialect) == found.write(dialect)

    return run


def _door(dialect: Dialect) -> Run:
    """One stack, three sockets; at 150 entries it is emptied."""
    stack = Stack(Seeded(2367), Settings(limits=Limits(associations=200, policies=200, windows_octets=1 << 22)))
    for socket, name in enumerate((dialect.name, dialect.name, "linux")):
        stack.notice(KeySocketOpened(socket, name, 100 + socket, is_privileged=socket < 2), AT)

    def run(octets: bytes) -> None:
        if len(stack.sadb) > 150 or len(stack.spd) > 150:
            stack.sadb.flush()
            stack.spd.flush()
        answer = stack.control(0, octets, AT)
        assert 0 <= answer.errno < 256
        for event in answer.events:
            if isinstance(event, ToKeySocket):
                assert len(event.octets) == 8 * int.from_bytes(event.octets[4:6], "little")
        while stack.has_dump(0):
            assert stack.pull(0, 1 << 20, AT)

    return run


def _buffer(dialect: Dialect) -> Run:
    def run(octets: bytes) -> None:
        try:
            found = policy.read(octets, dialect)
            agreed = policy.agree(found, dialect)
        except (Malformed, Refused):
            return
        assert policy.agree(policy.read(policy.write(found, dialect), dialect), dialect) == agreed

    return run


def _buffers(dialect: Dialect) -> list[bytes]:
    """What ipsec_set_policy(3) would make of some strings."""
    return [policy.write(policy.describe(parse(text.decode())), dialect) for text in policies()]


def _target(dialect: Dialect) -> list[Target]:
    recorded = DIALECTS["linux"] if dialect.name == "linux" else DIALECTS["freebsd"]
    return [
        stateless(f"pfkey-codec-{dialect.name}", _codec(dialect), lambda: seeds(recorded)),
        Target(f"pfkey-door-{dialect.name}", lambda: _door(dialect), lambda: seeds(recorded)),
        stateless(f"policy-buffer-{dialect.name}", _buffer(dialect), lambda: _buffers(dialect)),
    ]


TARGETS = [target for dialect in DIALECTS.values() for target in _target(dialect)]
