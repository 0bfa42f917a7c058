"""One recorded case against our host: what differs, event by event."""

import re
from collections.abc import Callable

from koura.moment import NS_PER_S, Moment
from koura.notices import KeySocketOpened
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.extensions import Lifetime, Sa
from koura.pfkey.message import Message
from koura.pfkey.numbers import HEADER_OCTETS, Ext, SaType, Type
from koura.sadb.hot import SEQUENCE_LAST
from tests.parity.difference import Difference
from tests.parity.host import Host
from tests.parity.observed import Draws, Observed, draws, messages, recorded, same, spi_draw
from tests.parity.recordings import Asked, Association, Event, Recording, Sent, Ticked, Told

START = Moment.of_s(1_000_000)
SECTIONS = ("ipsec", "ipsec6", "esp", "ah", "ipcomp")
STEP_NS = 10_000_000
# Where a tunable of ours stands otherwise than FreeBSD's by default, or switches an improvement that FreeBSD lacks: as it is there.
FREEBSD_DEFAULTS = {"net.inet.ipsec.check_policy_history": "0", "net.koura.acquire_hold": "0"}
_NOT_OURS = ("net.inet.ip.", "net.inet6.ip6.")
_IKE = {"stack's IKE daemon sends from port 4500": b"\0\0\0\0IKE out", "stack's IKE daemon sends a keepalive": b"\xff"}


class Run:
    """The state of one case."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.host = Host()
        self.at = START
        self.sockets: set[int] = set()
        self.has_differed = self.has_sent = False
        self.alter: Callable[[Observed], Observed] = lambda observed: observed  # for the canary: what we see is not what was
        for name, value in FREEBSD_DEFAULTS.items():
            self.host.stack.tune(name, value)
        for name, value in recording.tunables:
            self._tune(name, value)

    def differences(self) -> list[Difference]:
        """Every event that went otherwise."""
        found = []
        for number, event in enumerate(self.recording.events):
            drawn = draws(event)
            self._let_fall(drawn)
            theirs, ours = recorded(event), self.alter(self._happen(event))
            if not same(theirs, ours):
                found.append(Difference(self.recording, number, event, theirs, ours, self.has_differed))
                self.has_differed = True
        theirs, ours = Observed(sad=tuple(sorted(self.recording.sad, key=_by_spi))), Observed(sad=self._sad())
        if theirs != ours:
            found.append(Difference(self.recording, len(self.recording.events), None, theirs, ours, self.has_differed))
        return found

    def _tune(self, name: str, value: str) -> None:
        if " refused" in value:
            return
        if name.startswith(_NOT_OURS):
            is_on = value != "0"
            if name.endswith("forwarding"):
                self.host.forwards[6 if "inet6" in name else 4] = is_on
            elif name.endswith("sourceroute"):
                self.host.takes_source_routes = is_on
            return
        self.host.stack.tune(name, value)

    def _let_fall(self, drawn: Draws) -> None:
        """Set the dice; after a difference set the sequence numbers too, so that one difference does not make all that follow."""
        dice = self.host.dice
        dice.identifications, dice.fragments, dice.ivs = list(drawn.identifications), list(drawn.fragments), list(drawn.ivs)
        if not self.has_differed:
            return
        done = set()
        for protocol, spi, number in drawn.sequences:
            for sa in self.host.stack.sadb:
                key = (sa.agreement.index.protocol, sa.agreement.spi)
                if key == (protocol, spi) and key not in done:
                    sa.hot.words[SEQUENCE_LAST] = int(sa.hot.words[SEQUENCE_LAST]) >> 32 << 32 | (number - 1) & 0xFFFFFFFF
                    done.add(key)

    # -- events --------------------------------------------------------------------------------------------------------

    def _happen(self, event: Event) -> Observed:
        before = self._counters()
        for messages_ in self.host.key_messages.values():
            messages_.clear()
        self.host.ends.clear()
        self.host.delivered.clear()
        self.at = self.at.after_ns(STEP_NS)
        packets: list[bytes] = []
        errno = 0
        if isinstance(event, Asked):
            errno, packets = self._ask(event)
        elif isinstance(event, Ticked):
            packets = self._tick(event.seconds)
        else:
            packets = self._send(event)
        counters = {} if isinstance(event, Ticked | Asked) else _changed(before, self._counters())
        return Observed(
            tuple(packets), self._told(), tuple(self.host.delivered), tuple(sorted(counters.items())), errno, ends=tuple(self.host.ends)
        )

    def _ask(self, event: Asked) -> tuple[int, list[bytes]]:
        self._open(event.socket, event.octets)
        self.host.dice.spis = list(spi_draw(event))
        answered, sent = self.host.control(event.socket, event.octets, self.at)
        self._pull(event.socket)
        return answered.errno, [one.packet for one in sent]

    def _open(self, socket: int, octets: bytes) -> None:
        if socket not in self.sockets:
            self.sockets.add(socket)
            pid = int.from_bytes(octets[12:16], "little")
            self.host.stack.notice(KeySocketOpened(socket, "freebsd", pid, True), self.at)

    def _pull(self, socket: int) -> None:
        while self.host.stack.has_dump(socket):
            self.host.key_messages.setdefault(socket, []).extend(self.host.stack.pull(socket, 1 << 20, self.at))

    def _tick(self, seconds: float) -> list[bytes]:
        packets = []
        end = self.at.after_s(seconds)
        while self.at < end:
            self.at = min(end, Moment((self.at.ns // NS_PER_S + 1) * NS_PER_S))
            packets += [sent.packet for sent in self.host.advance(self.at)]
        return packets

    def _send(self, event: Sent) -> list[bytes]:
        if not self.has_sent and "bypass 1" in self.recording.case:
            self.host.bypass_ike(self.at)
        self.has_sent = True
        setting = re.fullmatch(r"dfbit set to (\d)", event.what)
        if setting:
            self.host.stack.tune("net.inet.ipsec.dfbit", setting[1])
        if event.is_by_host:
            port = re.search(r"peer port (\d+)", self.recording.case)
            return list(self.host.speak(4, int(port[1]) if port else 4500, _IKE[event.what], self.at))
        return [out for packet in event.packets for out in self.host.arrive(packet, self.at)]

    # -- observing -----------------------------------------------------------------------------------------------------

    def _told(self) -> tuple[object, ...]:
        told = [Told(socket, octets) for socket, got in self.host.key_messages.items() for octets in got]
        return messages(tuple(told))

    def _counters(self) -> dict[str, int]:
        found = {f"ip.{name}": count for name, count in self.host.ip.items()}
        for section in SECTIONS:
            read = self.host.stack.report.read(section)
            found |= {f"{section}.{name}": count for name, count in read.items() if not name.startswith("hist.") and count}
        return found

    def _sad(self) -> tuple[Association, ...]:
        request = Message(Type.DUMP, SaType.UNSPEC, 1, 1).write(FREEBSD)
        self._open(9, bytes(HEADER_OCTETS))
        self.host.key_messages[9] = []
        self.host.control(9, request, self.at)
        self._pull(9)
        found = []
        for octets in self.host.key_messages[9]:
            message = Message.read(octets, FREEBSD)
            sa, current = message.find(Sa, Ext.SA), message.find(Lifetime, Ext.LIFETIME_CURRENT)
            if sa is not None and current is not None:
                replay = min(255, (sa.window_packets + 7) // 8)
                found.append(
                    Association(sa.spi, replay, sa.state, sa.auth, sa.encrypt, sa.flags, current.packets, current.octets, current.use_s > 0)
                )
        return tuple(sorted(found, key=_by_spi))


def _by_spi(association: Association) -> tuple[int, int]:
    return association.spi, association.auth


def _changed(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}
