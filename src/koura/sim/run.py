"""One seed is one run: a plan is drawn, its scene built, faults and attacks for ten seconds, then calm; all checks, all the while.

      0 s   policies, SAs (or none: they are asked for)
      1 s   traffic, faults on the outside links, incidents            safety
     10 s   no more faults; what waits may time out
     60 s   calm: a little traffic to bring up what is missing, then traffic that must arrive     liveness
    100 s   in some runs a rekey that deletes at once, under traffic that must arrive
    150 s   the end

Virtual time costs nothing. A run that breaks a check raises Broken with the moment in it; `story` sees everything that happens.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from koura.errors import Refused
from koura.moment import NS_PER_S, Moment
from koura.notices import SendDummy
from koura.saindex import Protocol
from koura.sim.attack import Attacker
from koura.sim.checks import Broken, Checks
from koura.sim.entropy import Seeded
from koura.sim.keys import KeyManager
from koura.sim.link import CALM, MILLISECOND_NS
from koura.sim.node import Node
from koura.sim.parts import Seen
from koura.sim.plan import FAULTS_END_S, Incident, Plan, chance, draw, pick
from koura.sim.scene import NATT_PORT, Scene, build
from koura.sim.workload import Workload
from koura.sim.world import Frame
from koura.wire import natt

START = Moment.of_s(1_800_000_000)
CALM_S, CHECKED_S, REKEYED_S, END_S = 60, 80, 100, 150
KEEPALIVE_S = 15
Watch = Callable[[Seen | Frame], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to. ends: how often each Reason was counted, all nodes together."""

    plan: Plan
    steps: int
    sent: int
    arrived: int
    struck: int
    ends: Counter[str]


class Run:
    """One run, ready to go. `sabotage`: what a test does to the stacks to see whether the checks notice."""

    def __init__(self, seed: int, *, story: Watch | None = None, sabotage: Callable[[Node], None] | None = None) -> None:
        self.plan = draw(seed)
        self._dice = Seeded(seed ^ 0xD1CE)
        self._watch: list[Callable[[Seen], None]] = [story] if story is not None else []
        self.scene: Scene = build(self.plan, START, self._see)
        self.workload = Workload(self.scene, seed, self._broken)
        self.checks = Checks(self.scene, self.workload)
        self._watch += [self.checks.seen, self.workload.seen]
        world = self.scene.world
        if story is not None:
            world.watch_frame.append(story)
        world.watch_frame.append(self.checks.frame)
        world.watch_step.append(self.checks.step)
        self.attacker = Attacker(world, Seeded(seed ^ 0xBAD))
        self.keys = KeyManager(self.scene, Seeded(seed ^ 0x4E75))
        if sabotage is not None:
            for node in (self.scene.a, self.scene.b):
                sabotage(node)

    def go(self) -> Report:
        """Let it happen. Raises Broken, with the moment and the seed in it."""
        world = self.scene.world
        try:
            self._prepare()
            for second in (FAULTS_END_S, CALM_S, CHECKED_S, END_S):
                world.run(self._at(second))
            self.checks.end()
        except Broken as broken:
            raise Broken(f"seed {self.plan.seed}, at {world.at.since_ns(START) / NS_PER_S:.6f} s: {broken}") from broken
        ends: Counter[str] = Counter()
        for node in self.scene.nodes:
            ends.update(node.stack.counters.endings())
        parcels = self.workload.parcels.values()
        arrived = sum(1 for parcel in parcels if parcel.arrivals)
        return Report(self.plan, world.steps, len(parcels), arrived, self.attacker.struck, ends)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _see(self, seen: Seen) -> None:
        for watch in self._watch:
            watch(seen)

    @staticmethod
    def _broken(what: str) -> None:
        raise Broken(what)

    @staticmethod
    def _at(second: float) -> Moment:
        return START.after_s(second)

    def _on(self, second: float, action: Callable[[], None]) -> None:
        self.scene.world.later(round(second * NS_PER_S), action)

    def _prepare(self) -> None:
        plan, work, dice = self.plan, self.workload, self._dice
        if self.scene.nat is not None:
            self._float()
        if plan.is_preinstalled:
            self.keys.install()
        else:
            self.keys.install_compression()
        self._on(1, lambda: self.scene.set_faults(plan.faults))
        self._on(FAULTS_END_S, lambda: self.scene.set_faults(CALM))
        for _ in range(plan.datagrams):
            self._on(1 + dice.below(9000) / 1000, self._one)
        if plan.transfer_octets:
            self._on(1.5, lambda: work.transfer(plan.transfer_octets))
        for incident in plan.incidents:
            self.scene.world.later(incident.at_ns, lambda incident=incident: self._happen(incident))  # type: ignore[misc]
        both = (self.scene.near, self.scene.far)
        for turn in range(4):
            for node in both:
                self._on(CALM_S + 2 * turn, lambda node=node: work.datagram(node, 300))  # type: ignore[misc]
        for turn in range(4):
            for node in both:
                self._on(CHECKED_S + turn / 4, lambda node=node: work.datagram(node, work.size(), is_calm=True))  # type: ignore[misc]
                self._on(CHECKED_S + 2 + turn / 4, lambda node=node: work.ping(node, 56, is_calm=True))  # type: ignore[misc]
        self._on(CHECKED_S + 4, lambda: work.transfer(2000))
        if plan.is_hasty:
            self._on(REKEYED_S, self.keys.rekey)
            for turn in range(40):
                for node in both:
                    self._on(REKEYED_S + turn / 50, lambda node=node: work.datagram(node, 200, is_calm=True))  # type: ignore[misc]

    def _one(self) -> None:
        """One datagram or ping."""
        node = pick(self._dice, (self.scene.near, self.scene.far))
        if chance(self._dice, 25):
            self.workload.ping(node, min(self.workload.size(), 3000))
        else:
            self.workload.datagram(node, self.workload.size())

    def _float(self) -> None:
        """The host behind the NAT says something, so that the other end learns its port; then it keeps the mapping alive."""
        scene = self.scene
        self._ike(natt.MARKER + b"hello")
        scene.world.run(START.after_ns(50 * MILLISECOND_NS))
        scene.ports["a"] = scene.b.datagrams[-1].sport
        for second in range(KEEPALIVE_S, END_S, KEEPALIVE_S):
            self._on(second, lambda: self._ike(natt.KEEPALIVE))

    def _ike(self, payload: bytes) -> None:
        scene = self.scene
        scene.world.put(scene.a, scene.a.send_udp(scene.inner(scene.a)[1], NATT_PORT, NATT_PORT, payload, scene.world.at))

    # -- incidents -----------------------------------------------------------------------------------------------------

    def _happen(self, incident: Incident) -> None:
        scene, world = self.scene, self.scene.world
        match incident.what:
            case "rekey":
                self.keys.rekey()
            case "flush":
                self.keys.flush()
            case "attack":
                self.attacker.strike(5 + self._dice.below(20))
            case "dummy":
                self._dummies()
            case "policy":
                for node in (scene.a, scene.b):
                    refused, sents = node.setkey(scene.policies(node, "spdupdate"), world.at)
                    if refused:
                        raise Broken(f"{node.name} refused an update of its policies: {refused[0].fault}")
                    world.put(node, sents)
            case "mtu":
                self._narrow()
            case "tune":
                for node in (scene.a, scene.b):
                    node.stack.tune("net.key.preferred_oldsa", str(self._dice.below(2)))
            case "switch":
                self._switch()
            case "nat":
                assert scene.nat is not None
                scene.nat.forget()
                self._ike(natt.KEEPALIVE)

    def _switch(self) -> None:
        """One end has one protocol switched off for a moment."""
        node = pick(self._dice, (self.scene.a, self.scene.b))
        name = pick(self._dice, ("net.inet.esp.esp_enable", "net.inet.ah.ah_enable", "net.inet.ipcomp.ipcomp_enable"))
        node.stack.tune(name, "0")
        self.scene.world.later(300 * MILLISECOND_NS, lambda: _switch_on(node, name))

    def _narrow(self) -> None:
        """The far outside link takes less from now on."""
        scene = self.scene
        router = scene.router
        assert router is not None
        mtu_octets = pick(self._dice, (1280, 1300, 1420))
        for node, interface in ((router, "east"), (scene.b, "out")):
            if node.interfaces[interface].mtu_octets > mtu_octets:
                node.set_mtu(interface, mtu_octets, scene.world.at)

    def _dummies(self) -> None:
        for node in (self.scene.a, self.scene.b):
            for sa in node.stack.sadb:
                index = sa.agreement.index
                if index.protocol is not Protocol.ESP or index.src not in node.addresses or not sa.is_usable:
                    continue
                try:
                    sents = node.notice(SendDummy(index.dst, sa.agreement.spi, self._dice.below(300)), self.scene.world.at)
                except Refused as refused:
                    raise Broken(f"{node.name} refused a dummy packet: {refused.why}") from refused
                self.scene.world.put(node, sents)


def _switch_on(node: Node, name: str) -> None:
    node.stack.tune(name, "1")


def run(seed: int) -> Report:
    """One seed, from its plan to its report. Raises Broken."""
    return Run(seed).go()

