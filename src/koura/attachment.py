"""Attachments: where packets come from and go to, in bursts of whole IP packets. Rank 5: values and a protocol; `host` has the real ones.

    protected side      TUN, or an interface behind us                 what the host or its network sends, and gets
    unprotected side    raw IP sockets, ESP in UDP, an interface       what is on the wire

`receive` never waits and gives what is there, at most one burst; `send` never waits either: what the kernel does not take is lost
there and counted, as on any link. Headroom and tailroom are the fast path's business (host.pump).
"""

from dataclasses import dataclass, field
from typing import Protocol

BURST = 64


@dataclass(slots=True)
class Losses:
    """Packets that an attachment could not send or read, by the error's name; and how many it moved."""

    received: int = 0
    sent: int = 0
    lost: dict[str, int] = field(default_factory=dict)

    def lose(self, name: str, count: int = 1) -> None:
        self.lost[name] = self.lost.get(name, 0) + count


class Attachment(Protocol):
    """One end of packets. `name` is what a person calls it."""

    name: str
    losses: Losses

    def fileno(self) -> int:
        """The descriptor to wait on."""
        ...

    def receive(self) -> list[bytes]:
        """At most a burst of whole IP packets; [] when there is none."""
        ...

    def send(self, packets: list[bytes]) -> None:
        """Send whole IP packets; what cannot be sent is counted in `losses`."""
        ...

    def close(self) -> None: ...
