"""Nat: a box that gives the hosts behind it one address, port by port. RFC 3022, RFC 4787 (endpoint-independent mapping).

    inside 10.0.0.2:4500   <->   outside 203.0.113.1:20001        for UDP over IPv4; everything else ends here

A mapping ends when nothing has come from inside for a while; `forget` ends them all, as a reboot does: the same host is then seen
at another port. Fragments are put together first: only the first one has ports.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from koura.errors import Malformed
from koura.moment import NS_PER_S, Moment
from koura.reasons import Discarded
from koura.settings import Limits
from koura.sim import ip
from koura.sim.parts import NO_TAGS, Seen, Sent, Tags, What
from koura.traffic.fragments import Reassembly, split
from koura.wire import ipv4, udp
from koura.wire.checksum import update

FIRST_PORT = 20001
_LIMITS = Limits()
_Inside = tuple[bytes, int]


@dataclass(slots=True)
class _Mapping:
    inside: _Inside
    port: int
    deadline_ns: int


class Nat:
    """Two interfaces, `inside` and `outside`; `address` is the outside one."""

    def __init__(
        self, name: str, address: bytes, *, mtu_octets: int = 1500, timeout_s: int = 60, watch: Callable[[Seen], None] | None = None
    ) -> None:
        self.name = name
        self.address = address
        self.timeout_s = timeout_s
        self._mtu_octets = mtu_octets
        self._watch = watch
        self._by_inside: dict[_Inside, _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}
        self._next_port = FIRST_PORT
        self._fragments = Reassembly()

    def forget(self) -> None:
        """Every mapping ends; who sends again gets another port."""
        self._by_inside.clear()
        self._by_port.clear()

    def ports(self) -> dict[_Inside, int]:
        """The mappings: who is inside, and at which port he is seen."""
        return {inside: mapping.port for inside, mapping in self._by_inside.items()}

    def receive(self, packet: bytes, at: Moment, tags: Tags = NO_TAGS) -> tuple[Sent, ...]:
        """A packet from either side: those to the outside address come from outside."""
        try:
            header, payload = ipv4.read(packet)
            if not ipv4.is_checksum_right(packet):
                return self._drop(packet, at, tags, "IP checksum")
            if header.is_fragment:
                whole = self._fragments.add(packet, at, _LIMITS)
                if whole is None:
                    return ()
                packet = whole.packet
                header, payload = ipv4.read(packet)
            return self._translate(packet, header, payload, at, tags)
        except (Malformed, Discarded):
            return self._drop(packet, at, tags, "not understood")

    def advance(self, at: Moment) -> tuple[Sent, ...]:
        """End what is too old."""
        for mapping in [m for m in self._by_port.values() if m.deadline_ns <= at.ns]:
            del self._by_port[mapping.port]
            self._by_inside.pop(mapping.inside, None)
        self._fragments.due(at)
        return ()

    def next_deadline(self) -> Moment | None:
        """When to call `advance`."""
        ends = [mapping.deadline_ns for mapping in self._by_port.values()]
        waiting = self._fragments.next_deadline()
        if waiting is not None:
            ends.append(waiting.ns)
        return Moment(min(ends)) if ends else None

    # -- inside --------------------------------------------------------------------------------------------------------

    def _translate(self, packet: bytes, header: ipv4.Header, payload: bytes, at: Moment, tags: Tags) -> tuple[Sent, ...]:
        if header.protocol != udp.PROTOCOL:
            return self._drop(packet, at, tags, "not UDP")
        ports, data = udp.read(payload)
        onward = ip.hop(packet)
        if onward is None:
            return self._drop(packet, at, tags, "hops used up")
        came = header
        header = replace(header, ttl=header.ttl - 1)
        if header.dst == self.address:
            mapping = self._by_port.get(ports.dport)
            if mapping is None:
                return self._drop(packet, at, tags, "no mapping")
            new = replace(header, dst=mapping.inside[0])
            return self._send("inside", new, _renumbered(ports, ports.sport, mapping.inside[1], came, new), data, tags)
        mapping = self._mapping((header.src, ports.sport), at)
        new = replace(header, src=self.address)
        return self._send("outside", new, _renumbered(ports, mapping.port, ports.dport, came, new), data, tags)

    def _mapping(self, inside: _Inside, at: Moment) -> _Mapping:
        mapping = self._by_inside.get(inside)
        if mapping is None:
            mapping = _Mapping(inside, self._next_port, 0)
            self._next_port += 1
            self._by_inside[inside] = self._by_port[mapping.port] = mapping
        mapping.deadline_ns = at.ns + self.timeout_s * NS_PER_S
        return mapping

    def _send(self, interface: str, header: ipv4.Header, ports: udp.Header, data: bytes, tags: Tags) -> tuple[Sent, ...]:
        packet = ipv4.write(header, udp.write(ports, data))
        return tuple(Sent(interface, piece, tags) for piece in split(packet, self._mtu_octets, header.identification))

    def _drop(self, packet: bytes, at: Moment, tags: Tags, why: str) -> tuple[Sent, ...]:
        if self._watch is not None:
            self._watch(Seen(at, self.name, What.DROPPED, packet, tags, note=why))
        return ()


def _renumbered(ports: udp.Header, sport: int, dport: int, came: ipv4.Header, new: ipv4.Header) -> udp.Header:
    """The UDP header with new ports; its checksum follows by the difference, so that what was wrong stays wrong."""
    if not ports.checksum:
        return udp.Header(sport, dport)
    before = came.src + came.dst + ports.sport.to_bytes(2, "big") + ports.dport.to_bytes(2, "big")
    after = new.src + new.dst + sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    return udp.Header(sport, dport, update(ports.checksum, before, after) or 0xFFFF)
