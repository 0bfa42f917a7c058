"""Node: a host or a gateway with a stack in it, as a pure computation: packets that arrive, packets that leave.

    receive(packet, at)    from a link     -> stack.inbound -> this host (deliver) or another (hop, stack.outbound) -> Sent
    send(packet, at)       of this host    -> stack.outbound -> route, cut to the link -> Sent
    advance(at)            time went by    -> stack.advance, timers of this host -> Sent

It is an IP host as RFC 1122 and RFC 1812 describe one, small: interfaces with addresses, a table of routes, echo, ICMP errors,
UDP ports, path MTUs. Every packet that a stack gives back is sent as it is; what the stack let pass in clear is cut to the link
here. Links are point to point: a route names an interface, and there is no ARP.

`tags` travel beside a packet, never in it: a checker's note of what a packet carries. `watch` sees everything that happens, for
checks and stories; nothing here depends on it.

    >>> from koura.sim.node import Node
    >>> from koura.sim.parts import Interface
    >>> from koura.sim.ip import echo
    >>> from koura.address import parse
    >>> from koura.moment import Moment
    >>> host = Node("b", [Interface("eth0", ((parse("10.0.0.2"), 24),))])
    >>> [sent] = host.receive(echo(parse("10.0.0.1"), parse("10.0.0.2"), 7, 1), Moment.of_s(0))
    >>> sent.interface, sent.packet[20]
    ('eth0', 0)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from koura.address import Prefix
from koura.errors import Malformed
from koura.moment import Moment
from koura.notices import Granted, KeySocketOpened, LocalAddresses, Notice, PathMtu, SocketBound
from koura.reasons import FRAG_TIMEOUT, HELD_FRAGMENT
from koura.sadb.hot import SEQUENCE_LAST
from koura.setkey.parse import parse as parse_script
from koura.setkey.run import Answered, Refusal, run
from koura.sim import ip
from koura.sim.entropy import Seeded
from koura.sim.parts import NO_TAGS, Datagram, Interface, Route, Seen, Sent, Tags, What
from koura.stack import Stack
from koura.traffic.fragments import split
from koura.traffic.outcome import (
    FORWARDED,
    LOCAL,
    Bypass,
    Deliver,
    Discard,
    Emit,
    Event,
    Forward,
    Held,
    Origin,
    Outcome,
    Punt,
    Released,
    Tapped,
    ToKeySocket,
    TooBig,
    Wanted,
)
from koura.wire import checksum, icmp, ipv4, udp
from koura.wire.summary import Summary, summarise

EPOCH = Moment(0)
Replier = Callable[[Datagram], bytes | None]
Handler = Callable[[bytes, Summary, Moment], Iterable[bytes]]


class Node:
    """One host or gateway. Its stack may be replaced or tuned before the first packet; `stack` is public for that."""

    def __init__(
        self, name: str, interfaces: Sequence[Interface], *, stack: Stack | None = None, is_forwarding: bool = False,
        routes: Iterable[Route] = (), watch: Callable[[Seen], None] | None = None, at: Moment = EPOCH,
    ) -> None:  # fmt: skip
        self.name = name
        self.interfaces = {interface.name: interface for interface in interfaces}
        self.stack = stack if stack is not None else Stack(Seeded(0))
        self.is_forwarding = is_forwarding
        self.answers_closed_ports = True
        self.watch = watch if watch is not None else _ignore
        self.datagrams: list[Datagram] = []
        self.errors: list[bytes] = []
        self.key_messages: dict[int, list[bytes]] = {}
        self.taps: list[Tapped] = []
        self.wanted: list[Wanted] = []
        self.handlers: dict[int, Handler] = {}
        self.path_mtu: dict[bytes, int] = {}
        self._ports: dict[int, Replier | None] = {}
        self._routes = [Route(Prefix(a, bits), i.name) for i in interfaces for a, bits in i.addresses] + list(routes)
        self._identification = 0
        self._out: list[Sent] = []
        self._next_key_socket = 1
        self._held = {True: (0, NO_TAGS), False: (0, NO_TAGS)}
        self._tell_stack(at)

    # -- configuration -------------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> frozenset[bytes]:
        """All addresses of this host."""
        return frozenset(address for interface in self.interfaces.values() for address, _ in interface.addresses)

    def add_route(self, prefix: Prefix, interface: str) -> None:
        """One more destination."""
        self._routes.append(Route(prefix, interface))

    def set_mtu(self, interface: str, mtu_octets: int, at: Moment) -> None:
        """The link behind an interface takes other sizes from now on."""
        self.interfaces[interface] = replace(self.interfaces[interface], mtu_octets=mtu_octets)
        self._tell_stack(at)

    def bind(self, port: int, replier: Replier | None = None, *, socket: int = 0, at: Moment = EPOCH) -> None:
        """Open a UDP port: datagrams are recorded, and answered if there is a replier. socket: the number whose policies count."""
        self._ports[port] = replier
        if socket:
            self._take(self.stack.notice(SocketBound(socket, udp.PROTOCOL, b"", port), at), NO_TAGS, at)

    def open_key_socket(self, at: Moment, dialect: str = "freebsd", *, is_privileged: bool = True) -> int:
        """A PF_KEY socket, as a key manager opens it; its messages gather in key_messages."""
        number = self._next_key_socket
        self._next_key_socket += 1
        self.key_messages[number] = []
        self._take(self.stack.notice(KeySocketOpened(number, dialect, 1000 + number, is_privileged), at), NO_TAGS, at)
        return number

    def control(self, socket: int, octets: bytes, at: Moment) -> tuple[Answered, tuple[Sent, ...]]:
        """A PF_KEY message of a client: its errno, and what left because of it."""
        answer = self.stack.control(socket, octets, at)
        self._take(answer.events, NO_TAGS, at)
        return Answered(answer.errno, answer.refused.why if answer.refused is not None else ""), self._leave()

    def setkey(self, text: str, at: Moment) -> tuple[tuple[Refusal, ...], tuple[Sent, ...]]:
        """Run a setkey script: what was refused, and what left because of it. Raises BadScript."""
        socket = self.open_key_socket(at)
        gone: list[Sent] = []

        def ask(octets: bytes) -> Answered:
            answered, sent = self.control(socket, octets, at)
            gone.extend(sent)
            return answered

        return run(parse_script(text, self.name), ask), tuple(gone)

    def grant(self, block: int, at: Moment) -> tuple[Sent, ...]:
        """The ledger answers every SA that wants numbers: `block` more of each kind."""
        wanted, self.wanted = dict.fromkeys(self.wanted), []
        for one in wanted:
            sa = self.stack.sadb.by_handle(one.slot, one.epoch)
            if sa is not None:
                end = int(sa.hot.words[SEQUENCE_LAST]) + block
                self._take(self.stack.notice(Granted(one.slot, one.epoch, end, block), at), NO_TAGS, at)
        return self._leave()

    def notice(self, notice: Notice, at: Moment) -> tuple[Sent, ...]:
        """Tell the stack what only the host knows; what left because of it. Raises Refused."""
        self._take(self.stack.notice(notice, at), NO_TAGS, at)
        return self._leave()

    # -- packets and time ----------------------------------------------------------------------------------------------

    def receive(self, packet: bytes, at: Moment, tags: Tags = NO_TAGS) -> tuple[Sent, ...]:
        """A packet from a link."""
        self._see(What.ARRIVED, at, packet, tags)
        results = self.stack.inbound([packet], at)
        outcome = results.outcomes[0]
        self._see(What.INBOUND, at, packet, tags, outcome)
        self._note_held(outcome, tags, is_outbound=False)
        self._accept(outcome, tags, at)
        self._take(results.events, tags, at)
        return self._leave()

    def send(self, packet: bytes, at: Moment, tags: Tags = NO_TAGS, socket: int = 0) -> tuple[Sent, ...]:
        """A packet of this host; an IPv4 packet without identification gets the next one."""
        self._send(packet, replace(LOCAL, socket=socket), tags, at)
        return self._leave()

    def send_udp(
        self, dst: bytes, sport: int, dport: int, payload: bytes, at: Moment, tags: Tags = NO_TAGS, src: bytes = b""
    ) -> tuple[Sent, ...]:
        """A datagram of any size; without `src` it leaves from the address of the interface towards `dst`."""
        return self.send(ip.datagram(src or self.source_for(dst), dst, sport, dport, payload), at, tags)

    def advance(self, at: Moment) -> tuple[Sent, ...]:
        """Do what is due."""
        self._take(self.stack.advance(at), NO_TAGS, at)
        return self._leave()

    def next_deadline(self) -> Moment | None:
        """When to call `advance` at the latest."""
        return self.stack.next_deadline()

    def source_for(self, dst: bytes) -> bytes:
        """The address a packet to `dst` leaves from. Raises ValueError where there is none."""
        route = self._route(dst)
        found = self._address_of(route, len(dst)) if route is not None else b""
        if not found:
            raise ValueError(f"{self.name}: no address of its own towards {dst.hex()}")
        return found

    # -- inside: in ----------------------------------------------------------------------------------------------------

    def _accept(self, outcome: Outcome, tags: Tags, at: Moment) -> None:
        match outcome:
            case Deliver(inner, _, fragment_octets):
                summary = summarise(inner)
                inner = inner[: summary.octets]  # What a link padded, or a stranger appended, ends here.
                if summary.dst in self.addresses:
                    self._deliver(inner, summary, tags, at)
                else:
                    self._forward(inner, summary, fragment_octets, tags, at)
            case Punt(whole, _):
                self._deliver(whole, summarise(whole), tags, at)
            case _:
                assert isinstance(outcome, Held | Discard), outcome

    def _deliver(self, packet: bytes, summary: Summary, tags: Tags, at: Moment) -> None:
        if summary.protocol in self.handlers:
            self._see(What.TAKEN, at, packet, tags)
            for answer in self.handlers[summary.protocol](packet, summary, at):
                self._send(answer, LOCAL, tags, at)
        elif summary.protocol == udp.PROTOCOL:
            self._deliver_udp(packet, summary, tags, at)
        elif summary.protocol in (icmp.ICMP, icmp.ICMPV6):
            self._deliver_icmp(packet, summary, tags, at)
        else:
            self._see(What.DROPPED, at, packet, tags, note="no such protocol here")

    def _deliver_icmp(self, packet: bytes, summary: Summary, tags: Tags, at: Moment) -> None:
        body = packet[summary.offset : summary.octets]
        wrong = checksum.internet(body) if summary.version == 4 else checksum.upper(summary.src, summary.dst, icmp.ICMPV6, body)
        if wrong or len(body) < 8:
            self._see(What.DROPPED, at, packet, tags, note="ICMP checksum")
            return
        self._see(What.TAKEN, at, packet, tags)
        if ip.is_echo(summary):
            self._send(ip.reply(packet, summary), LOCAL, tags, at)
        elif icmp.is_error(summary.version, body[0]):
            self.errors.append(packet)
            self._learn_path(body, summary.version, at)

    def _learn_path(self, body: bytes, version: int, at: Moment) -> None:
        """RFC 1191, RFC 8201, for what this host sends in clear; the stack looks after its SAs itself."""
        message = icmp.read(body)
        is_too_big = (message.kind, message.code) == (icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED)
        if version == 6:
            is_too_big = message.kind == icmp.TOO_BIG6
        quoted = message.data
        if is_too_big and len(quoted) >= (20 if version == 4 else 40):
            dst = quoted[16:20] if version == 4 else quoted[24:40]
            self._narrow(dst, message.rest & 0xFFFF if version == 4 else message.rest, at)

    def _narrow(self, dst: bytes, mtu_octets: int, at: Moment) -> None:
        least = 68 if len(dst) == 4 else 1280
        self.path_mtu[dst] = max(min(mtu_octets, self.path_mtu.get(dst, mtu_octets)), least)
        self._see(What.TOLD, at, note=f"{self.path_mtu[dst]}")

    def _deliver_udp(self, packet: bytes, summary: Summary, tags: Tags, at: Moment) -> None:
        segment = packet[summary.offset : summary.octets]
        try:
            header, payload = udp.read(segment)
        except Malformed:
            self._see(What.DROPPED, at, packet, tags, note="UDP header")
            return
        if header.checksum and checksum.upper(summary.src, summary.dst, udp.PROTOCOL, segment[: udp.OCTETS + len(payload)]):
            self._see(What.DROPPED, at, packet, tags, note="UDP checksum")
            return
        if header.dport not in self._ports:
            self._see(What.DROPPED, at, packet, tags, note="no such port")
            if self.answers_closed_ports:
                self._send_error(ip.port_unreachable(packet, summary.dst), tags, at)
            return
        came = Datagram(summary.src, summary.dst, header.sport, header.dport, payload, at, packet, tags)
        self.datagrams.append(came)
        self._see(What.TAKEN, at, packet, tags)
        replier = self._ports[header.dport]
        answer = replier(came) if replier is not None else None
        if answer is not None:
            self._send(ip.datagram(summary.dst, summary.src, header.dport, header.sport, answer), LOCAL, tags, at)

    def _forward(self, packet: bytes, summary: Summary, fragment_octets: int, tags: Tags, at: Moment) -> None:
        if not self.is_forwarding:
            self._see(What.DROPPED, at, packet, tags, note="not for this host")
            return
        if self._route(summary.dst) is None:
            self._see(What.DROPPED, at, packet, tags, note="no route")
            self._send_error(ip.unreachable(packet, self._speaker(summary)), tags, at)
            return
        onward = ip.hop(packet)
        if onward is None:
            self._see(What.DROPPED, at, packet, tags, note="hops used up")
            self._send_error(ip.time_exceeded(packet, self._speaker(summary)), tags, at)
            return
        self._send(onward, replace(FORWARDED, fragment_octets=fragment_octets), tags, at)

    # -- inside: out ---------------------------------------------------------------------------------------------------

    def _send_error(self, packet: bytes | None, tags: Tags, at: Moment) -> None:
        if packet is not None:
            self._send(packet, LOCAL, tags, at)

    def _send(self, packet: bytes, origin: Origin, tags: Tags, at: Moment) -> None:
        if packet[0] >> 4 == 4 and not origin.is_forwarded:
            packet = self._identified(packet)
        results = self.stack.outbound([packet], at, origin)
        outcome = results.outcomes[0]
        self._see(What.OUTBOUND, at, packet, tags, outcome, is_outbound=True)
        self._note_held(outcome, tags, is_outbound=True)
        self._go(outcome, origin, tags, at)
        self._take(results.events, tags, at)

    def _go(self, outcome: Outcome, origin: Origin, tags: Tags, at: Moment) -> None:
        """Onto the link: what is protected as it is, what is clear cut to the path."""
        if isinstance(outcome, Forward | Bypass):
            for packet in outcome.packets:
                self._onto_link(packet, origin, tags, at, has_path=isinstance(outcome, Bypass) and not origin.is_forwarded)

    def _onto_link(self, packet: bytes, origin: Origin, tags: Tags, at: Moment, *, has_path: bool = False) -> None:
        """has_path: what this host knows of the path to its destination counts; the stack sees to that for what it protects."""
        dst = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
        if dst in self.addresses:
            self._see(What.DROPPED, at, packet, tags, note="to itself")
            return
        route = self._route(dst)
        if route is None:
            self._see(What.DROPPED, at, packet, tags, note="no route")
            return
        mtu_octets = self.interfaces[route.interface].mtu_octets
        if has_path:
            mtu_octets = min(mtu_octets, self.path_mtu.get(dst, mtu_octets))
        if len(packet) <= mtu_octets:
            self._put(route.interface, packet, tags, at)
        elif ip.may_fragment(packet) or (packet[0] >> 4 == 6 and not origin.is_forwarded):
            for piece in split(packet, mtu_octets, self._next_identification()):
                self._put(route.interface, piece, tags, at)
        elif origin.is_forwarded:
            self._see(What.DROPPED, at, packet, tags, note="too big for the link")
            self._send_error(ip.too_big(packet, mtu_octets, self._speaker(summarise(packet))), tags, at)
        else:
            self._see(What.DROPPED, at, packet, tags, note="too big for the path")
            self._narrow(dst, mtu_octets, at)

    def _put(self, interface: str, packet: bytes, tags: Tags, at: Moment) -> None:
        self._see(What.SENT, at, packet, tags, note=interface)
        self._out.append(Sent(interface, packet, tags))

    def _take(self, events: Iterable[Event], tags: Tags, at: Moment) -> None:
        for event in events:
            match event:
                case ToKeySocket(socket, octets):
                    self.key_messages.setdefault(socket, []).append(octets)
                case Emit(packet, why):
                    self._see(What.EMITTED, at, packet, tags, note=why)
                    self._onto_link(packet, LOCAL, tags, at)
                case Released():
                    self._released(event, at)
                case Tapped():
                    self.taps.append(event)
                case Wanted():
                    self.wanted.append(event)
                case TooBig(packet, mtu_octets):
                    self._narrow(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40], mtu_octets, at)

    # A held packet is not named when it is released: its tags are those of all that wait in that direction, until none does.

    def _note_held(self, outcome: Outcome, tags: Tags, *, is_outbound: bool) -> None:
        if isinstance(outcome, Held) and outcome.reason is not HELD_FRAGMENT:
            count, known = self._held[is_outbound]
            self._held[is_outbound] = (count + 1, known | tags)

    def _released(self, event: Released, at: Moment) -> None:
        count, tags = self._held[event.is_outbound]
        if isinstance(event.outcome, Discard) and event.outcome.reason is FRAG_TIMEOUT:
            tags = NO_TAGS
        elif not isinstance(event.outcome, Held):
            self._held[event.is_outbound] = (count - 1, tags if count > 1 else NO_TAGS)
        self._see(What.RELEASED, at, b"", tags, event.outcome, is_outbound=event.is_outbound)
        if event.is_outbound:
            self._go(event.outcome, FORWARDED, tags, at)
        else:
            self._accept(event.outcome, tags, at)

    # -- inside: tables ------------------------------------------------------------------------------------------------

    def _tell_stack(self, at: Moment) -> None:
        self.stack.notice(LocalAddresses(self.addresses), at)
        self.stack.notice(PathMtu(b"", min((i.mtu_octets for i in self.interfaces.values()), default=0)), at)

    def _route(self, dst: bytes) -> Route | None:
        fitting = [route for route in self._routes if route.prefix.contains(dst)]
        return max(fitting, key=lambda route: route.prefix.bits, default=None)

    def _address_of(self, route: Route, octets: int) -> bytes:
        return next((a for a, _ in self.interfaces[route.interface].addresses if len(a) == octets), b"")

    def _speaker(self, summary: Summary) -> bytes:
        """The address that ICMP errors come from: that of the interface towards the sender, or any of the family."""
        route = self._route(summary.src)
        found = self._address_of(route, len(summary.src)) if route is not None else b""
        return found or min((a for a in self.addresses if len(a) == len(summary.src)), default=bytes(len(summary.src)))

    def _next_identification(self) -> int:
        self._identification = self._identification + 1 & 0xFFFF or 1
        return self._identification

    def _identified(self, packet: bytes) -> bytes:
        header, payload = ipv4.read(packet)
        if header.identification or header.is_fragment:
            return packet
        return ipv4.write(replace(header, identification=self._next_identification()), payload)

    def _see(
        self, what: What, at: Moment, packet: bytes = b"", tags: Tags = NO_TAGS, outcome: Outcome | None = None, note: str = "",
        is_outbound: bool = False,
    ) -> None:  # fmt: skip
        self.watch(Seen(at, self.name, what, packet, tags, outcome, note, is_outbound))

    def _leave(self) -> tuple[Sent, ...]:
        sent = tuple(self._out)
        self._out.clear()
        return sent


def _ignore(_seen: Seen) -> None:
    """Nobody watches."""
