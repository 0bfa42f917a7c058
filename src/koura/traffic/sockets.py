"""Which socket an inbound packet is for, so that the socket's own policy can be asked. R20, R27.

The host says what sockets are bound to (notice SocketBound). The closest fit wins: connected, then bound to the address, then to
the port alone. Of equal ones the first that was bound. ICMP and raw protocols have port 0.
"""

from koura.notices import SocketBound
from koura.spd.selector import Flow

_Place = tuple[int, bytes, int, bytes, int]
_PORTLESS = (1, 58)


class Sockets:
    """The bound sockets of the host."""

    def __init__(self) -> None:
        self._places: dict[_Place, list[int]] = {}
        self._of: dict[int, list[_Place]] = {}

    def bind(self, bound: SocketBound) -> None:
        """Note one more place of a socket."""
        place = (bound.protocol, bound.local, bound.port, bound.remote, bound.remote_port)
        self._places.setdefault(place, []).append(bound.socket)
        self._of.setdefault(bound.socket, []).append(place)

    def gone(self, socket: int) -> None:
        """Forget a socket; one that was never bound is fine."""
        for place in self._of.pop(socket, ()):
            self._places[place].remove(socket)
            if not self._places[place]:
                del self._places[place]

    def find(self, flow: Flow) -> int:
        """The socket that gets an inbound packet with this flow; 0: none that we know of."""
        if not self._places:
            return 0
        is_portless = flow.protocol in _PORTLESS
        port = 0 if is_portless else flow.dport or 0
        remote_port = 0 if is_portless else flow.sport or 0
        for place in (
            (flow.protocol, flow.dst, port, flow.src, remote_port),
            (flow.protocol, b"", port, flow.src, remote_port),
            (flow.protocol, flow.dst, port, b"", 0),
            (flow.protocol, b"", port, b"", 0),
        ):
            if place in self._places:
                return self._places[place][0]
        return 0
