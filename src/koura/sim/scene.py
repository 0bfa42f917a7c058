"""Scene: the boxes, links and policies that a plan asks for, built and connected.

    HOSTS     a(198.51.100.1) --- r --- b(203.0.113.1)
    GATEWAYS  h(10.1.0.1) --- a --- r --- b --- k(10.2.0.1)
    NAT       a(10.0.0.2) --- n(198.51.100.9) --- b(203.0.113.1)

Each has both families (the NAT: IPv4). Policies are setkey scripts, as an operator would write them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from koura.address import Family, Prefix, parse, show
from koura.errors import Bug
from koura.moment import Moment
from koura.sim.entropy import Seeded
from koura.sim.link import End, Faults, Link
from koura.sim.nat import Nat
from koura.sim.node import Node
from koura.sim.parts import Interface, Route, Seen
from koura.sim.plan import Plan, Shape, StepPlan
from koura.sim.world import World
from koura.stack import Stack

NATT_PORT = 4500
FORBIDDEN_PORT = 7009
A4, B4, A6, B6 = parse("198.51.100.1"), parse("203.0.113.1"), parse("2001:db8:a::1"), parse("2001:db8:b::1")
H4, K4, H6, K6 = parse("10.1.0.1"), parse("10.2.0.1"), parse("2001:db8:1::1"), parse("2001:db8:2::1")
BEHIND4, NAT4 = parse("10.0.0.2"), parse("198.51.100.9")
_EVERYWHERE = (Prefix(bytes(4), 0), Prefix(bytes(16), 0))


@dataclass(slots=True)
class Scene:
    """What was built. a, b: the IPsec ends; near, far: where traffic begins and ends; outside: the links with strangers."""

    world: World
    plan: Plan
    a: Node
    b: Node
    near: Node
    far: Node
    outside: tuple[Link, ...]
    nat: Nat | None = None
    router: Node | None = None
    nodes: tuple[Node, ...] = ()
    ports: dict[str, int] = field(default_factory=dict)  # NAT: the port at which `a` is seen

    # -- addresses -----------------------------------------------------------------------------------------------------

    def ends(self, node: Node, sender: Node) -> tuple[str, str]:
        """Source and destination of the SAs that `sender` sends on, as `node` writes them."""
        here, there = self._outer(node, sender), self._outer(node, self.b if sender is self.a else self.a)
        return here, there

    def _outer(self, node: Node, end: Node) -> str:
        if self.nat is None:
            v4 = self.plan.outer is Family.IPV4
            return show((A4 if v4 else A6) if end is self.a else (B4 if v4 else B6))
        if end is self.b:
            return show(B4)
        return show(BEHIND4 if node is self.a else NAT4)

    def sa_ends(self, node: Node, sender: Node) -> tuple[str, str]:
        """The same for SAs: behind a NAT with ports."""
        here, there = self.ends(node, sender)
        if self.nat is None:
            return here, there
        a_port = NATT_PORT if node is self.a else self.ports.get("a", NATT_PORT)
        mine, theirs = (a_port, NATT_PORT) if sender is self.a else (NATT_PORT, a_port)
        return f"{here}[{mine}]", f"{there}[{theirs}]"

    def inner(self, node: Node) -> tuple[bytes, bytes]:
        """The near and the far end of the traffic, as `node` sees them."""
        if self.plan.shape is Shape.GATEWAYS:
            return (H4, K4) if self.plan.inner is Family.IPV4 else (H6, K6)
        if self.nat is not None:
            is_hidden = node is self.b and not self.plan.steps[0].is_tunnel
            return (NAT4 if is_hidden else BEHIND4), B4
        return (A4, B4) if self.plan.inner is Family.IPV4 else (A6, B6)

    # -- scripts -------------------------------------------------------------------------------------------------------

    def policies(self, node: Node, verb: str = "spdadd") -> str:
        """The policies of one end."""
        near, far = (show(address) for address in self.inner(node))
        if self.plan.shape is Shape.GATEWAYS:
            bits = "24" if self.plan.inner is Family.IPV4 else "64"
            near, far = f"{near}/{bits}", f"{far}/{bits}"
        lines = []
        if self.nat is not None:
            for here, there in ((near, far), (far, near)):
                for direction in ("in", "out"):
                    lines.append(f"{verb} {here}[{NATT_PORT}] {there} udp -P {direction} none;")
                    lines.append(f"{verb} {here} {there}[{NATT_PORT}] udp -P {direction} none;")
        lines += self._exceptions(node, near, far, verb)
        upper = self.plan.selector
        for sender, here, there in ((self.a, near, far), (self.b, far, near)):
            direction = "out" if sender is node else "in"
            requests = " ".join(self._request(step, node, sender) for step in self.plan.steps)
            lines.append(f"{verb} {here} {there} {upper} -P {direction} ipsec {requests};")
        return "\n".join(lines)

    def _exceptions(self, node: Node, near: str, far: str, verb: str) -> list[str]:
        """Policies that stand before the others: discard for one port, none for ICMP."""
        icmp = "icmp" if self.plan.inner is Family.IPV4 else "icmp6"
        lines = []
        for sender, here, there in ((self.a, near, far), (self.b, far, near)):
            direction = "out" if sender is node else "in"
            if self.plan.has_discard:
                lines.append(f"{verb} {here} {there}[{FORBIDDEN_PORT}] udp -P {direction} discard;")
            if self.plan.exempts_icmp:
                lines.append(f"{verb} {here} {there} {icmp} -P {direction} none;")
        return lines

    def _request(self, step: StepPlan, node: Node, sender: Node) -> str:
        src, dst = self.ends(node, sender)
        where = f"{src}-{dst}" if step.has_addresses else ""
        return f"{step.protocol}/{step.mode}/{where}/{step.level}"

    def set_faults(self, faults: Faults) -> None:
        """What the outside links do from now on."""
        for link in self.outside:
            link.faults = faults


def build(plan: Plan, start: Moment, watch: Callable[[Seen], None]) -> Scene:
    """The scene of a plan, policies and sysctls in place; no SAs yet."""
    world = World(Seeded(plan.seed ^ 0x5EED), start)
    scene = {Shape.HOSTS: _hosts, Shape.GATEWAYS: _gateways, Shape.NAT: _natted}[plan.shape](_Maker(world, plan, start, watch))
    for node in (scene.a, scene.b):
        for name, value in plan.sysctls:
            node.stack.tune(name, value)
        refused, _ = node.setkey(scene.policies(node), start)
        if refused:
            raise Bug(f"seed {plan.seed}: {node.name} refused its policies: {refused[0].fault}")
    return scene


@dataclass(slots=True)
class _Maker:
    """What every box and link is made with."""

    world: World
    plan: Plan
    start: Moment
    watch: Callable[[Seen], None]

    def node(self, name: str, *interfaces: Interface, routes: tuple[Route, ...] = (), is_end: bool = False, forwards: bool = True) -> Node:
        dice = Seeded(self.plan.seed * 1000 + sum(name.encode()))
        stack = Stack(dice, has_ledger=self.plan.has_ledger and is_end)
        made = Node(name, interfaces, stack=stack, is_forwarding=forwards, routes=routes, watch=self.watch, at=self.start)
        self.world.add(made)
        return made

    def link(self, name: str, near: str, far: str, is_outside: bool = False) -> Link:
        """near, far: "box interface"."""
        link = Link(name, End(*near.split()), End(*far.split()), is_outside=is_outside)
        self.world.connect(link)
        return link


def _face(name: str, four: bytes, six: bytes, mtu_octets: int = 1500) -> Interface:
    return Interface(name, ((four, 24), (six, 64)), mtu_octets)


def _beside(address: bytes) -> bytes:
    """Another address of the same link."""
    return address[:-1] + b"\xfe"


def _default(interface: str) -> tuple[Route, ...]:
    return tuple(Route(prefix, interface) for prefix in _EVERYWHERE)


def _router(make: _Maker) -> Node:
    mtu = make.plan.mtu_octets
    faces = (_face("west", _beside(A4), _beside(A6), mtu), _face("east", _beside(B4), _beside(B6), mtu))
    routes = tuple(
        Route(Prefix(address, bits), face) for face, pair in (("west", (H4, H6)), ("east", (K4, K6)))
        for address, bits in zip(pair, (24, 64), strict=True)
    )  # fmt: skip
    return make.node("r", *faces, routes=routes)


def _hosts(make: _Maker) -> Scene:
    mtu = make.plan.mtu_octets
    a = make.node("a", _face("out", A4, A6, mtu), routes=_default("out"), is_end=True, forwards=False)
    b = make.node("b", _face("out", B4, B6, mtu), routes=_default("out"), is_end=True, forwards=False)
    r = _router(make)
    links = (make.link("a-r", "a out", "r west", True), make.link("r-b", "r east", "b out", True))
    return Scene(make.world, make.plan, a, b, a, b, links, router=r, nodes=(a, r, b))


def _gateways(make: _Maker) -> Scene:
    mtu = make.plan.mtu_octets
    h = make.node("h", _face("eth0", H4, H6), routes=_default("eth0"), forwards=False)
    k = make.node("k", _face("eth0", K4, K6), routes=_default("eth0"), forwards=False)
    a = make.node("a", _face("in", _beside(H4), _beside(H6)), _face("out", A4, A6, mtu), routes=_default("out"), is_end=True)
    b = make.node("b", _face("in", _beside(K4), _beside(K6)), _face("out", B4, B6, mtu), routes=_default("out"), is_end=True)
    r = _router(make)
    make.link("h-a", "h eth0", "a in")
    make.link("b-k", "b in", "k eth0")
    links = (make.link("a-r", "a out", "r west", True), make.link("r-b", "r east", "b out", True))
    return Scene(make.world, make.plan, a, b, h, k, links, router=r, nodes=(h, a, r, b, k))


def _natted(make: _Maker) -> Scene:
    a = make.node("a", Interface("out", ((BEHIND4, 24),)), routes=_default("out"), is_end=True, forwards=False)
    b = make.node("b", Interface("out", ((B4, 24),)), routes=_default("out"), is_end=True, forwards=False)
    nat = Nat("n", NAT4, watch=make.watch)
    make.world.add(nat)
    make.link("a-n", "a out", "n inside")
    outside = make.link("n-b", "n outside", "b out", True)
    for node in (a, b):
        node.bind(NATT_PORT)
    return Scene(make.world, make.plan, a, b, a, b, (outside,), nat=nat, nodes=(a, b))
