"""Request: one message that a client sent, checked as far as every message is, and answered from its own octets."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from koura.errors import Errno, Refused
from koura.moment import Moment
from koura.pfkey import extensions as x
from koura.pfkey.dialect import Dialect
from koura.pfkey.message import Message, Window, encode
from koura.pfkey.numbers import Ext, SaType
from koura.pfkey.policy import PolicyExtension
from koura.pfkey.rules import Extensions
from koura.pfkey.sockets import KeySocket, Outgoing
from koura.quick import quick
from koura.saindex import Protocol

E = TypeVar("E", bound=x.Extension)

PROTOCOLS = {
    SaType.ESP: Protocol.ESP, SaType.AH: Protocol.AH, SaType.IPCOMP: Protocol.IPCOMP, SaType.TCPSIGNATURE: Protocol.TCP,
}  # fmt: skip
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
        protocol = PROTOCOLS.get(SaType(self.head.satype)) if self.head.satype in PROTOCOLS else None
        if protocol is None:
            raise Refused(Errno.EINVAL, "this satype has no SAs")
        return protocol

    @property
    def src(self) -> x.Address:
        return self.need(x.Address, Ext.ADDRESS_SRC)

    @property
    def dst(self) -> x.Address:
        return self.need(x.Address, Ext.ADDRESS_DST)

    @property
    def sa(self) -> x.Sa:
        return self.need(x.Sa, Ext.SA)

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
        dialect = self.socket.dialect
        parts: list[bytes] = []
        values: list[x.Extension] = []
        for ext in order:
            value = new.get(ext)
            if value is not None:
                parts.append(encode(value, dialect, self.head.satype))
                values.append(value)
            elif ext in self.windows:
                window = self.windows[ext]
                parts.append(self.octets[window.start : window.end])
                values.append(self.values[ext])
        head = Message(self.head.type, self.head.satype, self.head.seq, self.head.pid, 0, 0, tuple(values), self.head.version)
        octets = 16 + sum(map(len, parts))

        def elsewhere(other: Dialect) -> Message:
            theirs = make(other) if make is not None else {}
            return replace(head, extensions=tuple(theirs.get(value.ext, value) for value in values))

        return Outgoing.written(head, dialect, head.head(dialect, octets) + b"".join(parts), elsewhere)


