"""A host that is a Stack and a key manager's socket: scripts go in by PF_KEY, packets by the doors, and the sums are checked each time."""

from dataclasses import dataclass, field

from koura.errors import Refused
from koura.moment import Moment
from koura.notices import KeySocketOpened, Notice
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.pfkey.numbers import SaType, Type
from koura.reasons import Ending
from koura.setkey.parse import parse
from koura.setkey.run import Answered, run
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.outcome import LOCAL, Deliver, Discard, Event, Forward, Held, Origin, Outcome, Punt, Released, ToKeySocket

SOCKET, SETKEY = 1, 2  # the key manager's, which is registered, and the one that scripts come by
START = Moment.of_s(1_800_000_000)
KEY20, KEY32 = "0x" + bytes(range(20)).hex(), "0x" + bytes(range(32)).hex()
GCM = f"-E aes-gcm-16 {KEY20}"
SHA = f"-A hmac-sha2-256 {KEY32}"


@dataclass
class Host:
    """One stack. `events` gathers everything but what went to the key socket, which is in `heard`."""

    script: str = ""
    stack: Stack = field(default_factory=lambda: Stack(Seeded(4301)))
    at: Moment = START
    events: list[Event] = field(default_factory=list)
    heard: list[Message] = field(default_factory=list)
    packets_in: int = 0

    def __post_init__(self) -> None:
        for socket in (SOCKET, SETKEY):
            self.stack.notice(KeySocketOpened(socket, "freebsd", 0, True), self.at)
        for satype in (SaType.ESP, SaType.AH, SaType.IPCOMP):
            self.ask(Message(Type.REGISTER, satype, 1))
        self.heard.clear()
        self.setkey(self.script)

    # -- doors ---------------------------------------------------------------------------------------------------------

    def setkey(self, text: str) -> None:
        """Run a script; every command must be taken."""
        refused = run(parse(text), self._send)
        assert not refused, [refusal.fault for refusal in refused]

    def ask(self, message: Message) -> Refused | None:
        answer = self.stack.control(SOCKET, message.write(FREEBSD), self.at)
        self._take(answer.events)
        return answer.refused

    def _send(self, octets: bytes) -> Answered:
        answer = self.stack.control(SETKEY, octets, self.at)
        self._take(answer.events, keeps=False)
        refused = answer.refused
        return Answered() if refused is None else Answered(refused.errno.bsd, refused.why)

    def send(self, packet: bytes, origin: Origin = LOCAL) -> Outcome:
        return self.send_all([packet], origin)[0]

    def send_all(self, packets: list[bytes], origin: Origin = LOCAL) -> tuple[Outcome, ...]:
        results = self.stack.outbound(packets, self.at, origin)
        return self._account(results.outcomes, results.events, len(packets))

    def receive(self, packet: bytes) -> Outcome:
        results = self.stack.inbound([packet], self.at)
        return self._account(results.outcomes, results.events, 1)[0]

    def notice(self, notice: Notice) -> None:
        self._take(self.stack.notice(notice, self.at))

    def tune(self, name: str, value: int) -> None:
        self.stack.tune(name, str(value))

    def later(self, seconds: float) -> None:
        """Let time go by, calling `advance` at every deadline on the way."""
        end = self.at.after_s(seconds)
        while (due := self.stack.next_deadline()) is not None and due <= end:
            self.at = max(due, self.at)
            self._take(self.stack.advance(self.at))
            again = self.stack.next_deadline()
            assert again is None or again > due, "a deadline that advance does not settle"
        self.at = end
        self._take(self.stack.advance(self.at))

    # -- what came out -------------------------------------------------------------------------------------------------

    def forwarded(self, packet: bytes, origin: Origin = LOCAL) -> bytes:
        """The one packet that this one became."""
        (sealed,) = self.all_forwarded(packet, origin)
        return sealed

    def all_forwarded(self, packet: bytes, origin: Origin = LOCAL) -> tuple[bytes, ...]:
        outcome = self.send(packet, origin)
        assert isinstance(outcome, Forward), outcome
        return outcome.packets

    def delivered(self, packet: bytes) -> bytes:
        outcome = self.receive(packet)
        assert isinstance(outcome, Deliver), outcome
        return outcome.packet

    def take(self, kind: type[Event]) -> list[Event]:
        """The events of one kind so far, which are then forgotten."""
        found = [event for event in self.events if isinstance(event, kind)]
        self.events = [event for event in self.events if not isinstance(event, kind)]
        return found

    def hear(self, *kinds: Type) -> list[Message]:
        """What key management was told so far; then forgotten."""
        found = [message for message in self.heard if not kinds or message.type in kinds]
        self.heard.clear()
        return found

    def count(self, reason: Ending) -> int:
        return self.stack.counters.of(reason)

    def _take(self, events: tuple[Event, ...], keeps: bool = True) -> None:
        for event in events:
            if isinstance(event, ToKeySocket) and event.socket == SETKEY:
                continue
            if isinstance(event, ToKeySocket):
                message = Message.read(event.octets, FREEBSD)
                if keeps or message.type in (Type.ACQUIRE, Type.EXPIRE):
                    self.heard.append(message)
            else:
                self.events.append(event)

    def _account(self, outcomes: tuple[Outcome, ...], events: tuple[Event, ...], packets: int) -> tuple[Outcome, ...]:
        """Packets in are outcomes, and every discard is counted under its reason."""
        assert len(outcomes) == packets
        self.packets_in += packets
        self._take(events)
        for outcome in outcomes:
            if isinstance(outcome, Discard | Held | Punt):
                assert self.count(outcome.reason) > 0
        return outcomes


def discards(host: Host, outcome: Outcome, reason: Ending, count: int = 1) -> None:
    """The packet ended for this reason, which has been counted `count` times."""
    assert outcome == Discard(reason), outcome
    assert host.count(reason) == count


def released(host: Host) -> list[Outcome]:
    """What became of packets that were held, since this was asked last."""
    return [event.outcome for event in host.take(Released) if isinstance(event, Released)]
