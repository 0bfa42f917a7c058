"""Request: one message that a client sent, checked as far as every message is, and answered from its own octets."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from koura.errors import Errno, Refused
from koura.moment import Moment
from koura.pfkey import extensions as x
from koura.pfkey.dialect import Dialect
from koura.pfkey.message import Message, Window, encode
from koura.pfkey.numbers import HEADER_OCTETS, Ext, SaType
from koura.pfkey.policy import PolicyExtension
from koura.pfkey.rules import Extensions
from koura.pfkey.sockets import KeySocket, Outgoing
from koura.quick import quick
from koura.saindex import Protocol

E = TypeVar("E", bound=x.Extension)

PROTOCOLS: dict[int, Protocol] = {
    SaType.ESP: Protocol.ESP, SaType.AH: Protocol.AH, SaType.IPCOMP: Protocol.IPCOMP, SaType.TCPSIGNATURE: Protocol.TCP,
}  # fmt: skip
_SRC, _DST, _SA = Ext.ADDRESS_SRC, Ext.ADDRESS_DST, Ext.SA
SATYPES = {protocol: satype for satype, protocol in PROTOCOLS.items()}


@quick
@dataclass(frozen=True, slots=True)
class Request:
    """`values` and `windows` by our extension number; `at`: when it came."""

    socket: KeySocket
    octets: bytes
    head: Message
    values: Extensions
    windows: dict[int, Window]
    at: Moment

    def find(self, kind: type[E], ext: int) -> E | None:
        """The extension if it is there."""
        value = self.values.get(ext)
        return value if isinstance(value, kind) else None

    def need(self, kind: type[E], ext: int) -> E:
        """The extension. Raises Refused(EINVAL) if it is not there."""
        value = self.values.get(ext)
        if not isinstance(value, kind):
            raise Refused(Errno.EINVAL, f"{Ext(ext).name} is missing")
        return value

    @property
    def protocol(self) -> Protocol:
        """The protocol of the satype. Raises Refused(EINVAL)."""
        protocol = PROTOCOLS.get(self.head.satype)
        if protocol is None:
            raise Refused(Errno.EINVAL, "this satype has no SAs")
        return protocol

    @property
    def src(self) -> x.Address:
        return self.need(x.Address, _SRC)

    @property
    def dst(self) -> x.Address:
        return self.need(x.Address, _DST)

    @property
    def sa(self) -> x.Sa:
        return self.need(x.Sa, _SA)

    @property
    def policy(self) -> PolicyExtension:
        return self.need(PolicyExtension, Ext.X_POLICY)

    def echo(self, *order: int) -> Outgoing:
        """A reply of the request's own extensions, those of `order` that are there, in that order; errno 0."""
        return self.answer(order, {})

    def answer(self, order: tuple[int, ...], new: Extensions, make: Callable[[Dialect], Extensions] | None = None) -> Outgoing:
        """A reply in the given order: `new` values where there are any, else the request's own octets.

        make: the new values for another dialect, where they differ.
        """
        dialect, head, windows = self.socket.dialect, self.head, self.windows
        reply = Message(head.type, head.satype, head.seq, head.pid, 0, 0, (), head.version)

        def write() -> bytes:
            parts: list[bytes] = []
            for ext in order:
                if ext in new:
                    parts.append(encode(new[ext], dialect, head.satype))
                elif ext in windows:
                    window = windows[ext]
                    parts.append(self.octets[window.start : window.end])
            body = b"".join(parts)
            return reply.head(dialect, HEADER_OCTETS + len(body)) + body

        def elsewhere(other: Dialect) -> Message:
            said = self.values | new | (make(other) if make is not None else {})
            return replace(reply, extensions=tuple(said[ext] for ext in order if ext in new or ext in windows))

        return Outgoing.written_by(head.type, head.satype, dialect, write, elsewhere)
