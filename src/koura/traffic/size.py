"""Whether a packet fits once it is protected, what may be cut so that it does, and what its sender is told. RFC 4301 §8; M23, S29.

    inner packet                        may it be cut after sealing?
    tunnel, IPv4 inside                 unless DF goes outside: dfbit 1, or 2 with DF inside
    tunnel, IPv6 above 1280 octets      unless it is in transit (RFC 2473 §7.1), or dfbit 1 on an IPv4 outside
    transport, IPv4                     unless DF
    transport, IPv6 above 1280 octets   unless it is in transit; at a bump in the wire: if it came in fragments
    any IPv6 of at most 1280 octets     always, without DF outside: no sender makes it smaller (RFC 8200 §5, RFC 4213 §3.2)

An IPv4 packet without DF that goes into a tunnel is cut before sealing where it may not be cut after, or if pre_frag says so. What came
in fragments leaves in fragments no larger, and each of them must fit. What cannot be cut at all is refused, and the sender learns the
size that would have fitted: in transit by ICMP (under the policy for such a packet), locally by TooBig (EMSGSIZE); at a bump in the
wire, whoever moves packets sends that ICMP (TooBig).
Nothing is refused or cut where no MTU is known.
"""

from collections.abc import Callable
from dataclasses import replace

from koura.address import Family, family
from koura.moment import Moment
from koura.reasons import PMTU_FORWARDED, PMTU_LOCAL, PMTU_OUTER, Discarded
from koura.sadb.association import Association
from koura.settings import Settings
from koura.traffic import icmp, pmtu
from koura.traffic.bundle import Step
from koura.traffic.fragments import split
from koura.traffic.mss import clamp
from koura.traffic.outcome import Origin, TooBig
from koura.traffic.plane import Plane
from koura.wire import ipv4
from koura.xform import place, tunnel

_Steps = tuple[Step, ...]
_SMALLEST4 = 68  # every IPv4 link takes so much: RFC 791 §3.2


class Sizes:
    """The size rules of one stack. `emit`: sends a packet of the stack's own making."""

    def __init__(self, plane: Plane, emit: Callable[[bytes, str, Moment], None]) -> None:
        self._plane = plane
        self._emit = emit

    def fit(self, packet: bytes, steps: _Steps, origin: Origin, at: Moment) -> tuple[bytes, ...]:
        """The packets to seal one by one: the packet itself, or what it is cut into first. Raises Discarded(PMTU_*)."""
        plane = self._plane
        settings = plane.settings
        pieces = self._pieces(packet, steps, origin.fragment_octets)
        mtu = plane.paths.mtu(_destination(packet, steps), steps[-1].sa, at)
        if mtu is None:
            return pieces
        room = pmtu.room(steps, len(packet) - len(place.for_output(packet).payload), mtu, settings)
        if settings.mss_clamp:
            pieces = tuple(clamp(piece, room) for piece in pieces)
        largest = max(len(piece) for piece in pieces)
        if largest <= room:
            return pieces
        may_cut_outside = _may_cut_outside(packet, largest, steps, origin, settings) or self._is_cut_already(steps, origin)
        if packet[0] >> 4 == 4 and not _has_df(packet) and steps[0].outer is not None and room >= _SMALLEST4:
            return self._pieces(packet, steps, room) if settings.pre_frag or not may_cut_outside else pieces
        if may_cut_outside:
            return pieces
        raise self._refuse(packet, origin, room, steps, at)

    def _is_cut_already(self, steps: _Steps, origin: Origin) -> bool:
        """At a bump in the wire: the host has cut what goes whole into its SA in transport mode; so it is cut again behind it."""
        return self._plane.bridged is not None and origin.fragment_octets > 0 and all(step.outer is None for step in steps)

    def cut(self, packet: bytes, sa: Association, at: Moment) -> tuple[bytes, ...]:
        """A protected packet, of which `fit` said that it may be cut if it is too large, in pieces that the link takes (IPv6: the path)."""
        plane = self._plane
        dst = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
        mtu = plane.paths.mtu(dst, sa, at)
        if mtu is None or len(packet) <= mtu:
            return (packet,)
        if packet[0] >> 4 == 4:
            header, payload = ipv4.read(packet)
            if header.is_df:  # Routers cut it; the ID of a packet with DF is none (RFC 6864 §4.1).
                packet = ipv4.write(replace(header, is_df=False, identification=tunnel.identification(plane.entropy)), payload)
            return split(packet, plane.paths.link(dst) or mtu, 0)
        return split(packet, max(mtu, pmtu.IPV6_MIN_MTU), plane.entropy.below(1 << 32))

    def _pieces(self, packet: bytes, steps: _Steps, octets: int) -> tuple[bytes, ...]:
        """The packet in pieces of at most `octets`, if its first SA is a tunnel: transport mode takes whole packets (RFC 4303 §3.3.4)."""
        if not octets or steps[0].outer is None:
            return (packet,)
        return split(packet, octets, self._plane.entropy.below(1 << 32))

    def _refuse(self, packet: bytes, origin: Origin, room: int, steps: _Steps, at: Moment) -> Discarded:
        """Tell the sender, and say why the packet ends."""
        told = max(room, _SMALLEST4) if packet[0] >> 4 == 4 else max(room, pmtu.IPV6_MIN_MTU)
        if not origin.is_forwarded:
            self._plane.events.append(TooBig(packet, told, origin.interface))
            is_outer = packet[0] >> 4 == 4 and not _has_df(packet)
            return Discarded(PMTU_OUTER if is_outer else PMTU_LOCAL, steps[-1].sa)
        if self._plane.bridged is not None:
            self._plane.events.append(TooBig(packet, told))
            return Discarded(PMTU_FORWARDED, steps[-1].sa)
        sender = packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]
        source = self._plane.own_address(sender, *(step.sa.agreement.index.src for step in steps))
        message = icmp.too_big(packet, told, source) if source else None
        if message is not None:
            self._emit(message, "packet too big", at)
        return Discarded(PMTU_FORWARDED, steps[-1].sa)


def _destination(packet: bytes, steps: _Steps) -> bytes:
    """Where the protected packet goes."""
    wraps = [step.outer[1] for step in steps if step.outer is not None]
    return wraps[-1] if wraps else (packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])


def _has_df(packet: bytes) -> bool:
    return ipv4.read(packet)[0].is_df


def _may_cut_outside(packet: bytes, octets: int, steps: _Steps, origin: Origin, settings: Settings) -> bool:
    """The table above. octets: of the packet, or of the largest fragment it is sealed in."""
    is_tunnel = any(step.outer is not None for step in steps)
    if packet[0] >> 4 == 6:
        if octets <= pmtu.IPV6_MIN_MTU:
            return True
        if origin.is_forwarded:
            return False
        is_v4_outside = family(steps[-1].sa.agreement.index.dst) is Family.IPV4
        return not (is_tunnel and is_v4_outside and settings.dfbit == 1)
    if not is_tunnel:
        return not _has_df(packet)
    return settings.dfbit == 0 or (settings.dfbit != 1 and not _has_df(packet))
