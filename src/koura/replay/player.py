"""Captured frames through one direction of a stack, one by one: what is to be written, and what became of each.

    frame -> IP packet, without the link's padding        not IP, cut short by the capture: left out
          -> the clock goes on to the frame's time        what waited too long ends (Released)
          -> Stack.inbound or Stack.outbound              one outcome
          -> Played                                       packets to write, at the frame's time

The clock never goes back: a frame that is older than the one before it is played at that one's time, and written with its own.
Fragments are put together by the stack: all but the last to come are Held, the whole stands in the last one's place.
"""

from dataclasses import dataclass, field

from koura.errors import Malformed
from koura.moment import Moment
from koura.reasons import BYPASSED, DELIVERED, FORWARDED, Ending
from koura.replay.summary import Left, Summary
from koura.stack import Stack
from koura.traffic.outcome import Bypass, Deliver, Discard, Event, Forward, Held, Outcome, Punt, Released
from koura.wire import capture
from koura.wire.capture import Record
from koura.wire.summary import summarise

_END_OF_TIME_NS = (1 << 63) - 1  # What fits into the words that SAs keep times in.


@dataclass(frozen=True, slots=True)
class Played:
    """What became of one frame. `number` counts from 1; packet: as it was in the frame, b'' if there was none; written: what goes out."""

    number: int
    at_ns: int
    packet: bytes
    outcome: Outcome | None = None
    left: Left | None = None
    written: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Player:
    """Plays frames; `summary` has the counts so far."""

    stack: Stack
    is_outbound: bool
    at: Moment
    summary: Summary = field(default_factory=Summary)

    def play(self, record: Record) -> Played:
        """One frame. Never raises but for a Bug."""
        summary = self.summary
        summary.frames += 1
        self._advance(moment_of(record))
        found = capture.network(record.linktype, record.octets)
        if found is None:
            return self._left_out(record, Left.NOT_IP if record.linktype in capture.LINKTYPES else Left.LINK)
        packet = _without_padding(found)
        if packet is None:
            is_cut = record.original_octets > len(record.octets)
            if is_cut:
                return self._left_out(record, Left.CUT)
            packet = found
        door = self.stack.outbound if self.is_outbound else self.stack.inbound
        results = door([packet], self.at)
        outcome = results.outcomes[0]
        written = _packets(outcome)
        summary.ended(reason_of(outcome), len(written))
        self._released(results.events)
        return Played(summary.frames, record.at_ns, packet, outcome, written=written)

    def finish(self) -> None:
        """The capture is over: let so much time pass that nothing waits any more."""
        settings = self.stack.settings
        wait_s = max(settings.limits.fragment_timeout_s, settings.key.larval_lifetime_s) + 1
        self._advance(Moment(min(self.at.after_s(wait_s).ns, _END_OF_TIME_NS)))

    def _left_out(self, record: Record, why: Left) -> Played:
        self.summary.left_out(why)
        return Played(self.summary.frames, record.at_ns, b"", left=why)

    def _advance(self, at: Moment) -> None:
        self.at = max(self.at, at)
        deadline = self.stack.next_deadline()
        if deadline is not None and deadline <= self.at:
            self._released(self.stack.advance(self.at))

    def _released(self, events: tuple[Event, ...]) -> None:
        for event in events:
            if isinstance(event, Released):
                self.summary.released(reason_of(event.outcome), is_outbound=event.is_outbound)


def moment_of(record: Record) -> Moment:
    """When a frame was captured, as far as a stack can tell time."""
    return Moment(min(max(record.at_ns, 0), _END_OF_TIME_NS))


def reason_of(outcome: Outcome) -> Ending:
    """The name under which an outcome is counted."""
    match outcome:
        case Forward():
            return FORWARDED
        case Bypass():
            return BYPASSED
        case Deliver():
            return DELIVERED
        case Punt(_, reason) | Held(reason) | Discard(reason):
            return reason


def _packets(outcome: Outcome) -> tuple[bytes, ...]:
    """What of an outcome is written."""
    match outcome:
        case Forward(packets) | Bypass(packets):
            return packets
        case Deliver(packet):
            return (packet,)
        case Punt() | Held() | Discard():
            return ()


def _without_padding(packet: bytes) -> bytes | None:
    """The packet by its own length; None: its headers are broken, or it is not all there."""
    try:
        return packet[: summarise(packet).octets]
    except Malformed:
        return None
