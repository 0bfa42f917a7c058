"""The guard's table as policies come and go: which of them are in it, and in which chain."""

from dataclasses import replace

from koura.daemon.config import HostConfig
from koura.daemon.guarding import Guarding
from koura.daemon.journal import Written
from koura.host.loop import Loop
from koura.moment import Moment
from koura.saindex import Direction
from koura.settings import Settings
from tests.unit.stack.kit import Host

OUT = "spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;"


def chains(guarding: Guarding) -> dict[str, list[str]]:
    """The lines about policies' networks."""
    parts = guarding.text().split(" chain ")[1:]
    return {part.split(" {")[0]: [line.strip() for line in part.splitlines() if "10." in line] for part in parts}


def test_each_direction_has_its_chain_and_forwarding_policies_have_none() -> None:
    """Linux's key managers set a third policy, for what is forwarded after it was opened: it is no word about what leaves."""
    (entry,) = Host(OUT).stack.spd.entries()
    guarding = Guarding(Loop(), HostConfig(), Settings(), lambda _priority, _line: None)
    for number, direction in enumerate(Direction):
        policy = replace(entry.policy, direction=direction, selector=replace(entry.policy.selector, direction=direction))
        guarding.put(b"policy/%d" % number, Written(number, policy, (0, number), Moment(0), 0, 0, None))
    found = chains(guarding)
    assert [len(found[name]) for name in ("guard", "leaving")] == [1, 1]
    for number in range(len(Direction)):
        guarding.put(b"policy/%d" % number, None)
    assert not any(chains(guarding).values())
