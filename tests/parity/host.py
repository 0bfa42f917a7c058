"""The recorded host: a simulator node with the IP layer that FreeBSD 13.0 has around its netipsec.

What the cases show of it, and `koura.sim.node` does not do: IPv4 options on input and in replies, TOS and DF of replies, how much
an ICMP error quotes, TCP resets, parameter problems, no ICMP error about a packet that came decrypted, netstat's `ip:` counters.
The dice fall as they fell there (`Dice.told`), so that packets can be compared octet by octet.
"""

from dataclasses import replace

from koura.address import Prefix, parse
from koura.entropy import Pooled
from koura.errors import Malformed
from koura.moment import Moment
from koura.notices import SocketPolicy
from koura.saindex import Direction, Protocol
from koura.sim import ip
from koura.sim.entropy import Seeded
from koura.sim.node import Node
from koura.sim.parts import NO_TAGS, Interface, Route, Tags
from koura.spd.policy import Action, Policy
from koura.stack import Stack
from koura.traffic.icmp import may_answer
from koura.traffic.outcome import LOCAL, Applied, Bypass, Deliver, Discard, Forward, Held, Origin, Outcome, Punt
from koura.wire import checksum, icmp, ipv4, ipv6, tcp, udp
from koura.wire.summary import Summary, summarise
from tests.parity import options
from tests.parity.options import BadOption, answered, processed

IKE_SOCKET, IKE_PORT = 7, 4500
PEER = {4: parse("198.51.100.1"), 6: parse("2001:db8:f::1")}
OWN = tuple((parse(text), bits) for text, bits in (("198.51.100.2", 24), ("2001:db8:f::2", 64), ("10.0.2.1", 24), ("2001:db8:2::1", 64)))
_BEHIND_PEER = (("0.0.0.0", 0), ("2001:db8:1::", 64))
_QUOTE6_OCTETS = 1232
_FRAGMENT4 = 0x3FFF


class Dice(Pooled):
    """Entropy that falls as it is told to: IPv4 identifications, IPv6 fragment identifications, IVs, SPIs.

    A pool that is always spent: a fast path, which reads the pool itself, leaves to the reference what would need dice.
    """

    def __init__(self) -> None:
        super().__init__(Seeded(1))
        self.identifications: list[int] = []
        self.fragments: list[int] = []
        self.ivs: list[bytes] = []
        self.spis: list[int] = []
        self._count = 0

    def octets(self, count: int) -> bytes:
        """An IV; 8 octets are the start of a counter, 0 in FreeBSD."""
        if count == 8:
            return bytes(8)
        return self.ivs.pop(0) if self.ivs and len(self.ivs[0]) == count else bytes(count)

    def below(self, limit: int) -> int:
        if limit == 1 << 16:
            told = self.identifications
        elif limit == 1 << 32:
            told = self.fragments
        else:
            told = self.spis
        self._count += 1
        return (told.pop(0) if told else self._count) % limit


class Host(Node):
    """One recorded host. `delivered`: what its port-4500 socket got; `ip`: its IPv4 counters; `ends`: what its stack said."""

    def __init__(self) -> None:
        self.dice = Dice()
        routes = [Route(Prefix(parse(address), bits), "em0") for address, bits in _BEHIND_PEER]
        super().__init__("B", [Interface("em0", OWN)], stack=Stack(self.dice), routes=routes)
        self.forwards = {4: False, 6: False}
        self.takes_source_routes = False
        self.ip: dict[str, int] = {}
        self.ends: list[str] = []
        self.delivered: list[bytes] = []
        self._is_decrypted = False
        self.bind(IKE_PORT, socket=IKE_SOCKET)

    def bypass_ike(self, at: Moment) -> None:
        """The key daemon's socket policies: bypass, both ways."""
        for direction in (Direction.INBOUND, Direction.OUTBOUND):
            self.stack.notice(SocketPolicy(IKE_SOCKET, Policy(direction, Action.BYPASS), True), at)

    def arrive(self, packet: bytes, at: Moment) -> tuple[bytes, ...]:
        """A packet from the peer; what leaves for it."""
        self._is_decrypted = False
        if packet[0] >> 4 == 4:
            try:
                packet = processed(packet, self.addresses, self.takes_source_routes)
            except options.Unroutable:
                self._count("cantforward")
                return ()
            except BadOption as bad:
                self._count("badoptions")
                self._error4(packet, bad.kind, bad.code, bad.pointer << 24, at)
                return tuple(sent.packet for sent in self._leave())
        elif self._refuses_options(packet, at):
            return tuple(sent.packet for sent in self._leave())
        return tuple(sent.packet for sent in self.receive(packet, at))

    def _refuses_options(self, packet: bytes, at: Moment) -> bool:
        """Whether an IPv6 option says that who does not know it must not take the packet; the sender is told. RFC 8200 §4.2."""
        try:
            found = options.unknown(packet)
        except Malformed:
            return False
        if found is None:
            return False
        if found.tells:
            self._error6(packet, 4, 2, found.pointer, at)
        return True

    def speak(self, version: int, dport: int, payload: bytes, at: Moment) -> tuple[bytes, ...]:
        """The key daemon sends from its port."""
        packet = ip.datagram(OWN[0][0] if version == 4 else OWN[1][0], PEER[version], IKE_PORT, dport, payload)
        return tuple(sent.packet for sent in self.send(packet, at, socket=IKE_SOCKET))

    def _count(self, name: str, amount: int = 1) -> None:
        self.ip[name] = self.ip.get(name, 0) + amount

    # -- in ------------------------------------------------------------------------------------------------------------

    def receive(self, packet: bytes, at: Moment, tags: Tags = NO_TAGS) -> tuple:  # type: ignore[type-arg]
        is_fragment = packet[0] >> 4 == 4 and bool(int.from_bytes(packet[6:8], "big") & _FRAGMENT4)
        results = self.stack.inbound([packet], at)
        outcome = results.outcomes[0]
        if packet[0] >> 4 == 4 and (is_fragment or _fragment_octets(outcome)):
            self._count("fragments")
            if not isinstance(outcome, Held):
                self._count("reassembled")
        elif isinstance(outcome, Held) and outcome.reason.name == "held.fragment" and packet[0] >> 4 == 4:
            self._count("fragments")
        is_refused = isinstance(outcome, Discard) and outcome.reason.name.startswith("policy.in")
        if is_refused and packet[0] >> 4 == 4 and summarise(packet).dst not in self.addresses:
            self._count("cantforward")
        self._accept(outcome, tags, at)
        self._take(results.events, tags, at)
        return self._leave()

    def _accept(self, outcome: Outcome, tags: Tags, at: Moment) -> None:
        self._note(outcome)
        if isinstance(outcome, Deliver):
            self._is_decrypted = any(applied.protocol is Protocol.ESP for applied in outcome.history)
        super()._accept(outcome, tags, at)

    def _note(self, outcome: Outcome) -> None:
        if isinstance(outcome, Discard | Held | Punt):
            self.ends.append(outcome.reason.name)
        elif isinstance(outcome, Deliver):
            self.ends.append("delivered " + "-".join(_named(applied) for applied in outcome.history))
        elif isinstance(outcome, Forward | Bypass):
            self.ends.append("forwarded" if isinstance(outcome, Forward) else "bypassed")

    def _deliver(self, packet: bytes, summary: Summary, tags: Tags, at: Moment) -> None:
        body = packet[summary.offset : summary.octets]
        if summary.version == 6 and self._refuses_options(packet, at):
            return
        if summary.protocol == 6:
            self._reset(summary, body, at)
        elif summary.protocol == udp.PROTOCOL:
            self._datagram(packet, summary, body, at)
        elif ip.is_echo(summary):
            self._echo(packet, summary, body, at)
        elif summary.version == 6 and summary.protocol not in (icmp.ICMPV6, ipv6.NO_NEXT):
            self._error6(packet, 4, 1, _next_header_at(packet), at)

    def _echo(self, packet: bytes, summary: Summary, body: bytes, at: Moment) -> None:
        """RFC 792, RFC 4443 §4.2; the IPv4 header is the request's turned round, with some of its options."""
        wrong = checksum.internet(body) if summary.version == 4 else checksum.upper(summary.src, summary.dst, icmp.ICMPV6, body)
        if wrong:
            return
        message = icmp.read(body)
        if summary.version == 6:
            self._send(icmp.packet(summary.dst, summary.src, replace(message, kind=icmp.ECHO_REPLY6)), LOCAL, NO_TAGS, at)
            return
        asked, _ = ipv4.read(packet)
        made = icmp.write(summary.dst, summary.src, replace(message, kind=icmp.ECHO_REPLY))
        back, dst = options.reversed_route(asked) if self.takes_source_routes else (b"", asked.src)
        header = ipv4.Header(asked.dst, dst, icmp.ICMP, 64, asked.tos, is_df=asked.is_df, options=back or answered(asked.options))
        self._send(ipv4.write(header, made), LOCAL, NO_TAGS, at)

    def _datagram(self, packet: bytes, summary: Summary, body: bytes, at: Moment) -> None:
        header, payload = udp.read(body)
        if header.checksum and checksum.upper(summary.src, summary.dst, udp.PROTOCOL, body[: udp.OCTETS + len(payload)]):
            return
        if header.dport == IKE_PORT:
            self.delivered.append(payload)
        elif summary.version == 4:
            self._error4(packet, icmp.UNREACHABLE, icmp.PORT_UNREACHABLE, 0, at)
        else:
            self._error6(packet, icmp.UNREACHABLE6, icmp.PORT_UNREACHABLE6, 0, at)

    def _reset(self, summary: Summary, segment: bytes, at: Moment) -> None:
        """Nobody listens. RFC 9293 §3.10.7.1."""
        header = tcp.Header.read(segment)
        if checksum.upper(summary.src, summary.dst, 6, segment) or header.flags & tcp.RST:
            return
        octets = len(segment) - header.octets + bool(header.flags & tcp.SYN) + bool(header.flags & tcp.FIN)
        number = (int.from_bytes(segment[4:8], "big") + octets) & 0xFFFFFFFF
        ports = header.dport.to_bytes(2, "big") + header.sport.to_bytes(2, "big")
        bare = ports + bytes(4) + number.to_bytes(4, "big") + bytes((0x50, tcp.RST | tcp.ACK)) + bytes(6)
        right = checksum.upper(summary.dst, summary.src, 6, bare)
        made = bare[:16] + right.to_bytes(2, "big") + bare[18:]
        if summary.version == 4:
            self._send(ipv4.write(ipv4.Header(summary.dst, summary.src, 6, is_df=True), made), LOCAL, NO_TAGS, at)
        else:
            self._send(ipv6.write(ipv6.Header(summary.dst, summary.src, 6), made), LOCAL, NO_TAGS, at)

    def _forward(self, packet: bytes, summary: Summary, fragment_octets: int, tags: Tags, at: Moment) -> None:
        if not self.forwards[summary.version] or self._route(summary.dst) is None:
            if summary.version == 4:
                self._count("cantforward")
            return
        onward = ip.hop(packet)
        if onward is None and summary.version == 4:
            self._error4(packet, icmp.TIME_EXCEEDED, 0, 0, at)
        elif onward is None:
            self._error6(packet, icmp.TIME_EXCEEDED6, 0, 0, at)
        else:
            self._send(onward, Origin(is_forwarded=True, fragment_octets=fragment_octets), tags, at)

    # -- errors --------------------------------------------------------------------------------------------------------

    def _error4(self, packet: bytes, kind: int, code: int, rest: int, at: Moment) -> None:
        """About a packet that was not decrypted; quotes the header and 548 octets at the most."""
        if self._is_decrypted or not may_answer(packet, summarise(packet)):
            return
        header, payload = ipv4.read(packet)
        quoted = packet[: header.octets] + payload[:548]
        source = header.dst if header.dst in self.addresses else OWN[0][0]
        self._send(icmp.packet(source, header.src, icmp.Message(kind, code, rest, quoted)), LOCAL, NO_TAGS, at)

    def _error6(self, packet: bytes, kind: int, code: int, rest: int, at: Moment) -> None:
        summary = summarise(packet)
        if self._is_decrypted or not may_answer(packet, summary):
            return
        source = summary.dst if summary.dst in self.addresses else OWN[1][0]
        made = icmp.packet(source, summary.src, icmp.Message(kind, code, rest, packet[:_QUOTE6_OCTETS]))
        self._send(made, LOCAL, NO_TAGS, at)

    # -- out -----------------------------------------------------------------------------------------------------------

    def _send(self, packet: bytes, origin: Origin, tags: Tags, at: Moment) -> None:
        if packet[0] >> 4 == 4 and not origin.is_forwarded:
            header, payload = ipv4.read(packet)
            if not header.is_df:
                packet = ipv4.write(replace(header, identification=self.dice.below(1 << 16)), payload)
        if self._route(summarise(packet).dst) is None:
            return
        results = self.stack.outbound([packet], at, origin)
        outcome = results.outcomes[0]
        self._note(outcome)
        if isinstance(outcome, Bypass) and origin.is_forwarded and packet[0] >> 4 == 4:
            self._count("forward")
        if isinstance(outcome, Discard) and outcome.reason.name == "pmtu.outer":
            self._count("cantfrag")
        before = len(self._out)
        self._go(outcome, origin, tags, at)
        pieces = self._out[before:]
        if len(pieces) > 1 and pieces[0].packet[0] >> 4 == 4:
            self._count("fragmented")
            self._count("ofragments", len(pieces))
        self._take(results.events, tags, at)

    def _next_identification(self) -> int:
        return self.dice.below(1 << 32)


def _fragment_octets(outcome: Outcome) -> int:
    return outcome.fragment_octets if isinstance(outcome, Deliver) else 0


def _named(applied: Applied) -> str:
    return f"{applied.protocol.name.lower()}/{'tunnel' if applied.was_tunnel else 'transport'}"


def _next_header_at(packet: bytes) -> int:
    """Where the number of what is not known stands."""
    header, payload = ipv6.read(packet)
    chain = ipv6.read_chain(header.next_header, payload)
    return ipv6.FIXED_OCTETS + chain.extensions[-1].offset if chain.extensions else 6
