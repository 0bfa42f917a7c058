"""Keys: a key manager for both ends of a scene, as two IKE daemons would behave that always agree.

It listens on a PF_KEY socket of each end. ACQUIRE and a soft EXPIRE make it bring new SAs, after the time that a few messages take;
the old ones are deleted later, the sender's first; in a hasty plan the receiver's at once, as IKE daemons do. Everything it does is
setkey text through PF_KEY, everything it knows came in messages.

    receiver: getspi (if the plan says so)     sender: add     receiver: update, or add     later: delete, delete

IPComp SAs carry no keys and are never renewed.

An SA without a window follows no peer behind a NAT: a replayed packet would take its traffic anywhere (RFC 7296 §2.23). Where a plan has
such SAs, X_NAT_T_NEW_MAPPING makes the key manager ask its peer, in messages that cannot be replayed, and the SAs go where those came
from. Elsewhere it does not listen: the stack has to follow by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from koura.entropy import Entropy
from koura.errors import Bug
from koura.moment import NS_PER_S
from koura.notices import PeerMoved
from koura.pfkey import extensions as x
from koura.pfkey.dialect import FREEBSD, LINUX
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.setkey.parse import parse
from koura.setkey.run import messages
from koura.sim.link import MILLISECOND_NS
from koura.sim.node import Node
from koura.sim.plan import StepPlan
from koura.sim.scene import BEHIND4, NAT4, NATT_PORT, Scene
from koura.sim.world import Box

GRACE_NS = 300 * MILLISECOND_NS  # shorter than what is left of a lifetime at its soft limit: nothing is sent on an SA to its last moment
DRAIN_NS = 2 * NS_PER_S
ASKED_NS = 50 * MILLISECOND_NS  # a question and its answer between key managers
GRANT_BLOCK = 50
_SATYPES = {"esp": SaType.ESP, "ah": SaType.AH, "ipcomp": SaType.IPCOMP}


@dataclass(frozen=True, slots=True)
class Pair:
    """One SA, known to both ends: which step, who sends, its SPI."""

    step: int
    sender: str
    spi: int


class KeyManager:
    """One for both ends. `log`: what it did, for a story."""

    def __init__(self, scene: Scene, dice: Entropy) -> None:
        self._scene, self._dice = scene, dice
        self._sockets = {node.name: node.open_key_socket(scene.world.at) for node in (scene.a, scene.b)}
        self._live: list[Pair] = []
        self._under_way: set[tuple[int, str]] = set()
        self._granting: set[str] = set()
        self._age = 0
        self.log: list[tuple[int, str]] = []
        for node in (scene.a, scene.b):
            for satype in (SaType.ESP, SaType.AH, SaType.IPCOMP):
                self._ask(node, Message(Type.REGISTER, satype, pid=1))
        needs_word = scene.nat is not None and not all(step.window_packets for step in scene.plan.steps)
        self._mappings = self._listen() if needs_word else None
        scene.world.watch_step.append(self._look)

    # -- what is asked of it -------------------------------------------------------------------------------------------

    def install(self) -> None:
        """All SAs, at once: those that are there from the start."""
        for number, step in enumerate(self._scene.plan.steps):
            for sender in (self._scene.a, self._scene.b):
                self._add_both(number, step, sender, self._new_spi(step), step.first_options)

    def install_compression(self) -> None:
        """The IPComp SAs, which nobody negotiates here."""
        for number, step in enumerate(self._scene.plan.steps):
            if step.protocol == "ipcomp":
                for sender in (self._scene.a, self._scene.b):
                    self._add_both(number, step, sender, self._new_spi(step), "")

    def rekey(self) -> None:
        """New SAs for everything."""
        for number, step in enumerate(self._scene.plan.steps):
            for sender in (self._scene.a, self._scene.b):
                if step.protocol != "ipcomp":
                    self._negotiate(number, sender, 0)

    def flush(self) -> None:
        """Both ends lose all SAs, and forget what they were negotiating."""
        self._age += 1
        self._under_way.clear()
        for node in (self._scene.a, self._scene.b):
            self._run(node, "flush;")
        self._live.clear()
        self.install_compression()

    # -- listening -----------------------------------------------------------------------------------------------------

    def _listen(self) -> int:
        """A socket of b's for what FreeBSD's dialect has no message for: that a peer's packets come from another port."""
        node, world = self._scene.b, self._scene.world
        socket = node.open_key_socket(world.at, "linux")
        answered, _ = node.control(socket, Message(Type.REGISTER, SaType.ESP, pid=1).write(LINUX), world.at)
        if answered.errno:
            raise Bug(f"{node.name} refused to register: errno {answered.errno}, {answered.why}")
        return socket

    def _look(self, box: Box) -> None:
        """Read what came for us, and let the ledger answer."""
        if not isinstance(box, Node) or box.name not in self._sockets:
            return
        queue = box.key_messages[self._sockets[box.name]]
        if queue:
            came, queue[:] = tuple(queue), ()
            for octets in came:
                self._heard(box, Message.read(octets, FREEBSD))
        if box is self._scene.b and self._mappings is not None:
            self._hear_mappings(box.key_messages[self._mappings])
        if box.wanted and box.name not in self._granting:
            self._granting.add(box.name)
            self._scene.world.later(3 * MILLISECOND_NS, lambda: self._grant(box))

    def _hear_mappings(self, queue: list[bytes]) -> None:
        came, queue[:] = tuple(queue), ()
        if any(Message.read(octets, LINUX).type == Type.X_NAT_T_NEW_MAPPING for octets in came):
            self._scene.world.later(ASKED_NS, self._find_peer)

    def _grant(self, node: Node) -> None:
        self._granting.discard(node.name)
        self._scene.world.put(node, node.grant(GRANT_BLOCK, self._scene.world.at))

    def _heard(self, node: Node, message: Message) -> None:
        if message.type == Type.ACQUIRE and message.pid == 0:
            step = self._step_of(message)
            self._say(f"{node.name} asks for an SA: {self._scene.plan.steps[step].protocol}")
            self._negotiate(step, node, message.seq)
        elif message.type == Type.EXPIRE:
            self._expired(node, message)

    def _expired(self, node: Node, message: Message) -> None:
        sa = message.find(x.Sa, Ext.SA)
        assert sa is not None
        pair = next((pair for pair in self._live if pair.spi == sa.spi), None)
        if pair is None:
            return
        is_soft = message.find(x.Lifetime, Ext.LIFETIME_SOFT) is not None
        self._say(f"{node.name}: SPI {sa.spi:#x} expires {'soon' if is_soft else 'now'}")
        if self._scene.plan.steps[pair.step].protocol != "ipcomp":
            self._negotiate(pair.step, self._node(pair.sender), 0)

    def _step_of(self, message: Message) -> int:
        sa2 = message.find(x.Sa2, Ext.X_SA2)
        assert sa2 is not None
        for number, step in enumerate(self._scene.plan.steps):
            mode = 2 if step.is_tunnel else 1
            if (_SATYPES[step.protocol], mode, step.reqid) == (message.satype, sa2.mode, sa2.reqid):
                return number
        raise Bug(f"an ACQUIRE that no request explains: {message}")

    # -- negotiating ---------------------------------------------------------------------------------------------------

    def _negotiate(self, number: int, sender: Node, seq: int) -> None:
        step = self._scene.plan.steps[number]
        if (number, sender.name) in self._under_way or step.protocol == "ipcomp":
            return
        self._under_way.add((number, sender.name))
        dice = self._dice
        spi = self._new_spi(step)
        receiver = self._other(sender)
        options = self._terms(step, "")
        waits = [(20 + dice.below(60)) * MILLISECOND_NS for _ in range(3)]
        verb = "add"
        if self._scene.plan.uses_larval:
            verb = "update"
            self._later(waits[0], lambda: self._sa(receiver, f"getspi {self._words(receiver, sender, step)} {spi:#x} {_mode(step)}"))
        first, second = waits[0] + waits[1], waits[0] + waits[1] + waits[2]
        to_sender, to_receiver = (second, first) if verb == "add" else (first, second)

        def at_receiver() -> None:
            self._sa(receiver, f"{verb} {self._words(receiver, sender, step)} {spi:#x} {_mode(step)} {options}")

        def at_sender() -> None:
            self._sa(sender, f"add {self._words(sender, sender, step)} {spi:#x} {_mode(step)} {options}", seq)

        self._later(to_receiver, at_receiver)
        self._later(to_sender, at_sender)
        self._later(second, lambda: self._agreed(Pair(number, sender.name, spi)))

    def _later(self, after_ns: int, action: Callable[[], None]) -> None:
        """Part of a negotiation: it does not happen if a flush comes first."""
        age = self._age
        self._scene.world.later(after_ns, lambda: action() if age == self._age else None)

    def _agreed(self, pair: Pair) -> None:
        """The new SA works: the ones before it end after a while, at the sender first."""
        self._under_way.discard((pair.step, pair.sender))
        self._say(f"new SA {pair.spi:#x} of {pair.sender}, step {pair.step + 1}")
        old = [one for one in self._live if (one.step, one.sender) == (pair.step, pair.sender)]
        self._live = [one for one in self._live if one not in old] + [pair]
        sender = self._node(pair.sender)
        step = self._scene.plan.steps[pair.step]
        drain_ns = 0 if self._scene.plan.is_hasty else DRAIN_NS
        for one in old:
            for wait_ns, node in ((GRACE_NS, sender), (drain_ns, self._other(sender))):
                text = f"delete {self._words(node, sender, step)} {one.spi:#x};"
                self._scene.world.later(wait_ns, lambda node=node, text=text: self._run(node, text, may_miss=True))  # type: ignore[misc]

    def _add_both(self, number: int, step: StepPlan, sender: Node, spi: int, more: str) -> None:
        options = self._terms(step, more)
        for node in (self._other(sender), sender):
            self._sa(node, f"add {self._words(node, sender, step)} {spi:#x} {_mode(step)} {options}")
        self._live.append(Pair(number, sender.name, spi))

    def _terms(self, step: StepPlan, more: str) -> str:
        """Options and algorithms, with new keys."""
        said = [step.options, more]
        for option, name, octets in step.algorithms:
            key = f" 0x{self._dice.octets(octets).hex()}" if octets else ""
            said.append(f"{option} {name}{key}")
        return " ".join(word for word in said if word)

    def _words(self, node: Node, sender: Node, step: StepPlan) -> str:
        """The beginning of a command. The messages that negotiated it showed where the peer is."""
        self._find_peer()
        return " ".join((*self._scene.sa_ends(node, sender), step.protocol))

    def _find_peer(self) -> None:
        """A NAT shows a key manager's own packets at the port where it shows everything by now."""
        scene = self._scene
        if scene.nat is not None:
            old = scene.ports["a"]
            scene.ports["a"] = scene.nat.ports().get((BEHIND4, NATT_PORT), old)
            if scene.ports["a"] != old:
                self._say(f"b: its peer is at port {scene.ports['a']} instead of {old}")
                self._moved(old, scene.ports["a"])

    def _moved(self, old_port: int, port: int) -> None:
        """Our own packets came from elsewhere than the SAs say: those that are there follow. RFC 3947 §5.2."""
        node, world = self._scene.b, self._scene.world
        world.put(node, node.notice(PeerMoved(NAT4, old_port, NAT4, port), world.at))

    def _new_spi(self, step: StepPlan) -> int:
        return 256 + self._dice.below(0xF000 if step.protocol == "ipcomp" else 0x0FFFFF00)

    # -- speaking ------------------------------------------------------------------------------------------------------

    def _sa(self, node: Node, command: str, seq: int = 0) -> None:
        self._run(node, command + ";", seq)

    def _run(self, node: Node, text: str, seq: int = 0, *, may_miss: bool = False) -> None:
        """A command of setkey's, on our own socket. may_miss: what it is about may have gone meanwhile."""
        for _, said in messages(parse(text, node.name)):
            for message in said:
                self._ask(node, replace(message, seq=seq, pid=1), may_miss=may_miss)

    def _ask(self, node: Node, message: Message, *, may_miss: bool = False) -> None:
        world = self._scene.world
        answered, sents = node.control(self._sockets[node.name], message.write(FREEBSD), world.at)
        if answered.errno and not may_miss:
            raise Bug(f"{node.name} refused a key manager: errno {answered.errno}, {answered.why}: {message}")
        world.put(node, sents)

    def _node(self, name: str) -> Node:
        return self._scene.a if name == self._scene.a.name else self._scene.b

    def _other(self, node: Node) -> Node:
        return self._scene.b if node is self._scene.a else self._scene.a

    def _say(self, line: str) -> None:
        self.log.append((self._scene.world.at.ns, line))


def _mode(step: StepPlan) -> str:
    return f"-m {step.sa_mode}" + (f" -u {step.reqid}" if step.reqid else "")
