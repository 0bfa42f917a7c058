"""An oracle for ESN: what a receiver takes, told the true 64-bit number of every packet. RFC 4303 §3.4.3, A2.

The words of the recorded events name the number the sender had. A receiver takes a number that is in or above its window, less than
2^32 above its bottom, and new; a window of 0 checks for neither 0 nor repetition, and reaches half the numbers back. Before the first
epoch there is nothing.
"""

import re

from koura.pfkey.extensions import Sa, SaReplay
from koura.pfkey.numbers import Ext, Type
from tests.parity.difference import Difference
from tests.parity.facts import end_of, requests
from tests.parity.recordings import Sent

_ESN = 0x400


def explains(difference: Difference) -> bool:
    """Whether our verdict on this packet is the oracle's, in a case with an inbound ESN SA."""
    window = _window(difference)
    number = _number(difference.event)
    if window is None or number is None:
        return False
    top, seen = 0, set[int]()
    for event in difference.recording.events[: difference.number]:
        before = _number(event)
        if before is not None and _takes(before, top, seen, window):
            top, seen = max(top, before), seen | {before}
    return _takes(number, top, seen, window) == end_of(difference).startswith("delivered ")


def _takes(number: int, top: int, seen: set[int], window: int) -> bool:
    bottom = top - (window or 1 << 31) + 1
    in_reach = number < 1 << 32 if bottom < 0 else bottom <= number < bottom + (1 << 32)
    return in_reach and (not window or (number >= 1 and number not in seen))


def _number(event: object) -> int | None:
    found = re.fullmatch(r"seq (0x[0-9a-f]+)", event.what) if isinstance(event, Sent) else None
    return int(found[1], 16) if found else None


def _window(difference: Difference) -> int | None:
    """The window of the first SA with ESN: the peer's."""
    for message in requests(difference, Type.ADD):
        sa, replay = message.find(Sa, Ext.SA), message.find(SaReplay, Ext.X_SA_REPLAY)
        if sa is not None and sa.flags & _ESN:
            return replay.window_packets if replay is not None else sa.window_packets
    return None
