"""Workload: pings, datagrams of all sizes and transfers between the two ends of a scene, and what became of each.

Every packet is known by its tag: the source port of a datagram is 10000 + tag, the identifier of a ping is the tag. So whatever
arrives is compared with what was sent, however it came. Payloads hold a mark, by which a stranger would know them on the wire.
"""

from collections.abc import Callable
from dataclasses import dataclass

from koura.errors import Bug
from koura.sim import ip
from koura.sim.entropy import Seeded
from koura.sim.node import Node
from koura.sim.parts import Datagram, Seen, What
from koura.sim.plan import chance
from koura.sim.scene import FORBIDDEN_PORT, Scene
from koura.sim.transfer import Receiver, Sender, Tcp, transfer
from koura.wire import icmp

PORT = 7000
FIRST_PORT = 10000
TRANSFER_PORT = 8000
MARK_OCTETS = 8
_REPLIES = (icmp.ECHO_REPLY, icmp.ECHO_REPLY6)


@dataclass(slots=True)
class Parcel:
    """One datagram or ping: what was sent, and how often it came (a ping: was answered)."""

    tag: int
    protocol: str
    sender: str
    payload: bytes
    is_calm: bool
    is_forbidden: bool = False
    arrivals: int = 0

    def __str__(self) -> str:
        return f"{self.protocol} #{self.tag} of {len(self.payload)} octets from {self.sender}"


class Workload:
    """Sends, and takes note of what comes. `broken` is told when something arrives that was not sent so."""

    def __init__(self, scene: Scene, seed: int, broken: Callable[[str], None]) -> None:
        self.scene = scene
        self.parcels: dict[int, Parcel] = {}
        self.transfers: list[tuple[Sender, Receiver, bytes]] = []
        self._broken = broken
        self._dice = Seeded(seed ^ 0x10AD)
        self.marks = {covered: self._dice.octets(MARK_OCTETS) for covered in (False, True)}
        self._tcp = (Tcp(scene.near), Tcp(scene.far))
        for node in (scene.near, scene.far):
            for port in (PORT, FORBIDDEN_PORT):
                node.bind(port, self._came)

    # -- sending -------------------------------------------------------------------------------------------------------

    def datagram(self, sender: Node, octets: int, *, is_calm: bool = False) -> None:
        """One UDP datagram to the other end."""
        parcel = self._parcel("udp", sender, octets, is_calm)
        src, dst = self._ends(sender)
        is_df = not is_calm and len(src) == 4 and chance(self._dice, 10)
        parcel.is_forbidden = self.scene.plan.has_discard and not is_calm and chance(self._dice, 15)
        port = FORBIDDEN_PORT if parcel.is_forbidden else PORT
        packet = ip.datagram(src, dst, FIRST_PORT + parcel.tag, port, parcel.payload, is_df=is_df, tos=self._tos())
        self._send(sender, ip.with_options(packet) if chance(self._dice, 10) else packet, parcel.tag)

    def ping(self, sender: Node, octets: int, *, is_calm: bool = False) -> None:
        """One echo to the other end."""
        parcel = self._parcel("icmp", sender, octets, is_calm)
        self._send(sender, ip.echo(*self._ends(sender), parcel.tag, 1, parcel.payload, tos=self._tos()), parcel.tag)

    def transfer(self, octets: int) -> None:
        """A transfer from the near end."""
        data = self._payload("tcp", octets)
        ends = (self.scene.inner(self.scene.a), self.scene.inner(self.scene.b))
        port = TRANSFER_PORT + len(self.transfers)
        self.transfers.append((*transfer(self.scene.world, *self._tcp, ends, port, data), data))

    def size(self) -> int:
        """A size: small, around an MTU, or large."""
        dice = self._dice
        kind = dice.below(10)
        if kind < 4:
            return dice.below(200)
        if kind < 7:
            return 1150 + dice.below(400)
        return 200 + dice.below(1300) if kind < 9 else 1500 + dice.below(8000)

    def _send(self, sender: Node, packet: bytes, tag: int) -> None:
        world = self.scene.world
        world.put(sender, sender.send(packet, world.at, frozenset((tag,))))

    def _ends(self, sender: Node) -> tuple[bytes, bytes]:
        near, far = self.scene.inner(self.scene.a if sender is self.scene.near else self.scene.b)
        return (near, far) if sender is self.scene.near else (far, near)

    def _parcel(self, protocol: str, sender: Node, octets: int, is_calm: bool) -> Parcel:
        tag = len(self.parcels) + 1
        if tag >= 4000:
            raise Bug("a run has at most 4000 packets of its own: their tags are ports")
        self.parcels[tag] = Parcel(tag, protocol, sender.name, self._payload(protocol, octets), is_calm)
        return self.parcels[tag]

    def _payload(self, protocol: str, octets: int) -> bytes:
        """The mark, again and again, between octets that do or do not compress."""
        mark = self.marks[self.scene.plan.covers(protocol)]
        filler = self._dice.octets(56) if chance(self._dice, 50) else bytes(56)
        return ((mark + filler) * (octets // 64 + 1))[:octets]

    def _tos(self) -> int:
        return self._dice.below(4) if chance(self._dice, 30) else 0

    # -- arriving ------------------------------------------------------------------------------------------------------

    def _came(self, datagram: Datagram) -> None:
        parcel = self.parcels.get(datagram.sport - FIRST_PORT)
        if parcel is None:
            self._broken(f"a datagram from port {datagram.sport} was delivered, and nobody sent it")
            return
        self._arrived(parcel, datagram.payload)

    def seen(self, seen: Seen) -> None:
        """Answers to pings, among all that happens."""
        if seen.what is not What.TAKEN or seen.node not in (self.scene.near.name, self.scene.far.name):
            return
        packet = seen.packet
        offset = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
        protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
        if protocol not in (icmp.ICMP, icmp.ICMPV6) or packet[offset] not in _REPLIES:
            return
        message = icmp.read(packet[offset:])
        parcel = self.parcels.get(message.rest >> 16)
        if parcel is not None and parcel.sender == seen.node:
            self._arrived(parcel, message.data)

    def _arrived(self, parcel: Parcel, payload: bytes) -> None:
        plan = self.scene.plan
        if payload != parcel.payload and plan.covers(parcel.protocol) and plan.may_be_altered:
            return
        parcel.arrivals += 1
        if parcel.is_forbidden:
            self._broken(f"{parcel} arrived, and policy discards it")
        if payload != parcel.payload:
            self._broken(f"{parcel} was altered on the way: it has {len(payload)} octets")
        if parcel.arrivals > 1 and plan.is_once and plan.covers(parcel.protocol):
            self._broken(f"{parcel} arrived {parcel.arrivals} times")
