"""How a deviation is recognised: one function a rule, named in the `rule` column of tests/vectors/deviations.toml.

A rule gets a difference and gives it back with the part it explains made equal, or None where it explains nothing. What all rows
together leave over fails the test; so a rule says exactly what differs, and a difference of another kind in the same event is seen.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from koura.pfkey.dialect import FREEBSD
from koura.pfkey.extensions import Lifetime, Sa2
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, Type
from koura.pfkey.offers import Proposal
from koura.wire import icmp
from tests.parity import esn, facts, twin
from tests.parity.difference import Difference
from tests.parity.observed import Observed
from tests.parity.recordings import Asked, Sent

Rule = Callable[[Difference], Difference | None]
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    """Enters a rule under its name, with dashes."""
    RULES[function.__name__.replace("_", "-")] = function
    return function


def _of(difference: Difference, theirs: Observed, ours: Observed) -> Difference | None:
    made = replace(difference, theirs=theirs, ours=ours)
    return made if made != difference else None


def _packets_and_counters(difference: Difference) -> Difference | None:
    """All of what packets do is explained; messages to key sockets are not."""
    ours = replace(difference.ours, packets=difference.theirs.packets, counters=difference.theirs.counters)
    return _of(difference, difference.theirs, replace(ours, delivered=difference.theirs.delivered))


def _counters(difference: Difference, theirs: dict[str, int], ours: dict[str, int]) -> Difference | None:
    """Only these counters differ, and by so much: they are taken out. None where a count is another."""
    left, right = dict(difference.theirs.counters), dict(difference.ours.counters)
    for counters, wanted in ((left, theirs), (right, ours)):
        for name, count in wanted.items():
            if counters.get(name, 0) < count:
                return None
            counters[name] -= count
    return _of(difference, replace(difference.theirs, counters=_tuple(left)), replace(difference.ours, counters=_tuple(right)))


def _tuple(counters: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, count) for name, count in counters.items() if count))


def _retold(difference: Difference, bare: Callable[[Any], Any]) -> Difference | None:
    """Messages for key sockets with a part left out on both sides."""
    theirs, ours = (tuple((socket, bare(message)) for socket, message in side.told) for side in (difference.theirs, difference.ours))
    return _of(difference, replace(difference.theirs, told=theirs), replace(difference.ours, told=ours))


# -- PF_KEY ------------------------------------------------------------------------------------------------------------------


@rule
def register(difference: Difference) -> Difference | None:
    """The answer to REGISTER lists other algorithms; the rest of the message is the same."""

    def bare(told: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple((socket, m[:-1]) if m[0] == Type.REGISTER else (socket, m) for socket, m in told)

    theirs, ours = bare(difference.theirs.told), bare(difference.ours.told)
    if theirs != ours:
        return None
    return _of(difference, replace(difference.theirs, told=theirs), replace(difference.ours, told=ours))


@rule
def other_satypes(difference: Difference) -> Difference | None:
    """ACQUIRE and EXPIRE of a satype go to every registered socket there, to those registered for that satype here."""
    registered = facts.registered(difference)
    kept = tuple(
        (socket, m) for socket, m in difference.theirs.told if m[0] not in (Type.ACQUIRE, Type.EXPIRE) or (socket, m[1]) in registered
    )
    return _of(difference, replace(difference.theirs, told=kept), difference.ours)


@rule
def acquire_contents(difference: Difference) -> Difference | None:
    """ACQUIRE: SA2 is always there, and the proposal's combinations and lifetimes are ours; the same messages otherwise."""

    def bare(message: Any) -> Any:
        if message[0] != Type.ACQUIRE:
            return message
        said = tuple(replace(one, combinations=()) if isinstance(one, Proposal) else one for one in message[-1])
        return (*message[:-1], tuple(one for one in said if not (isinstance(one, Sa2) and one.reqid == 0)))

    return _retold(difference, bare)


@rule
def fixed_spi(difference: Difference) -> Difference | None:
    """GETSPI with a range of one free number is refused with EEXIST there."""
    event = difference.event
    if not isinstance(event, Asked) or event.octets[1] != Type.GETSPI or not difference.theirs.told or difference.ours.errno:
        return None
    span = facts.spi_range(event)
    theirs, ours = difference.theirs.told[0][1], difference.ours.told[0][1]
    if span is None or span[0] != span[1] or theirs[2] != 17 or ours[2] != 0:
        return None
    return _of(difference, difference.theirs, replace(difference.ours, told=difference.theirs.told))


@rule
def one_lifetime(difference: Difference) -> Difference | None:
    """ADD with a hard or a soft lifetime alone is refused with EINVAL there."""
    event = difference.event
    if not isinstance(event, Asked) or event.octets[1] not in (Type.ADD, Type.UPDATE):
        return None
    kinds = {one.ext for one in Message.read(event.octets, FREEBSD).extensions if isinstance(one, Lifetime)}
    if len(kinds & {Ext.LIFETIME_HARD, Ext.LIFETIME_SOFT}) != 1 or event.errno != 22 or difference.ours.errno:
        return None
    if any(m[2] for _, m in difference.ours.told):
        return None
    return _of(difference, difference.theirs, replace(difference.ours, told=difference.theirs.told))


@rule
def limits_enforced(difference: Difference) -> Difference | None:
    """An SA ends when its lifetime does: at its packet limit (never there), at its second (one later there); or it exists at all (S20).

    Taken out: an EXPIRE of ours that shows a limit reached, a late one of theirs; packets and counters where one side has the SA still.
    """
    if not facts.has_lifetimes(difference):
        return None
    theirs = tuple((s, m) for s, m in difference.theirs.told if not (m[0] == Type.EXPIRE and facts.is_timed(m)))
    ours = tuple((s, m) for s, m in difference.ours.told if not (m[0] == Type.EXPIRE and facts.is_reached(m, difference)))
    made = replace(difference, theirs=replace(difference.theirs, told=theirs), ours=replace(difference.ours, told=ours))
    without = ("esp.notdb", "ah.notdb", "ipcomp.notdb", "ipsec.out_nosa", "ipsec6.out_nosa")
    if any(made.theirs.count(name) != made.ours.count(name) for name in without):
        made = _packets_and_counters(made) or made
    if difference.has_differed:  # One side lacks the SA sooner, and asks for another sooner.
        bare = [tuple((s, m) for s, m in side.told if m[0] != Type.ACQUIRE) for side in (made.theirs, made.ours)]
        made = replace(made, theirs=replace(made.theirs, told=bare[0]), ours=replace(made.ours, told=bare[1]))
    return _of(difference, made.theirs, made.ours)


# -- counters ----------------------------------------------------------------------------------------------------------------


@rule
def ipcomp_counters(difference: Difference) -> Difference | None:
    """ipcomp: bytes in, threshold and uncompr are counted; they do not move there."""
    moved = {"ipcomp.ibytes", "ipcomp.threshold", "ipcomp.uncompr"}
    if moved & dict(difference.theirs.counters).keys():
        return None
    kept = tuple((name, count) for name, count in difference.ours.counters if name not in moved)
    return _of(difference, difference.theirs, replace(difference.ours, counters=kept))


@rule
def stale_before_icv(difference: Difference) -> Difference | None:
    """A number behind the window ends a packet before its ICV is computed; there after it, so its octets count as input."""
    name = facts.end_of(difference)
    if name not in ("esp.old", "esp.zero", "ah.old", "ah.zero"):
        return None
    protocol = name.split(".")[0]
    octets = difference.theirs.count(f"{protocol}.ibytes")
    if difference.theirs.count(f"{protocol}.badauth"):
        return _counters(difference, {f"{protocol}.ibytes": octets, f"{protocol}.badauth": 1}, {f"{protocol}.replay": 1})
    return _counters(difference, {f"{protocol}.ibytes": octets}, {}) if octets else None


# -- replay ------------------------------------------------------------------------------------------------------------------


@rule
def zero_is_never_sent(difference: Difference) -> Difference | None:
    """Sequence number 0 is refused by a window; there it is accepted once while it is inside."""
    if facts.end_of(difference) not in ("esp.zero", "ah.zero") or not difference.theirs.packets:
        return None
    return _packets_and_counters(difference)


@rule
def esn_windows(difference: Difference) -> Difference | None:
    """ESN: what is accepted is what RFC 4303 A2 says of the true 64-bit number, at window 0 and for the first packet too."""
    if not esn.explains(difference):
        return None
    return _packets_and_counters(difference)


# -- inbound -----------------------------------------------------------------------------------------------------------------


@rule
def nested_in_ipv6(difference: Difference) -> Difference | None:
    """IPsec headers directly inside one another over IPv6 are taken off, and judged, as over IPv4; there the inner one is unknown."""
    event = difference.event
    if not isinstance(event, Sent) or not facts.is_nested6(event):
        return None
    if difference.theirs.delivered or facts.is_answered(difference.theirs, event):
        return None
    expected = twin.accepts(difference)
    is_taken = facts.end_of(difference).startswith("delivered ")
    return _packets_and_counters(difference) if expected in (None, is_taken) else None


@rule
def ah_history_survives(difference: Difference) -> Difference | None:
    """AH under a tunnel satisfies a policy that requires it, whatever is inside; there an inner IPv6 packet loses the trace."""
    if difference.theirs.count("ipsec6.in_polvio") + difference.theirs.count("ipsec.in_polvio") == 0:
        return None
    end = facts.end_of(difference)
    if not end.startswith("delivered ") or "ah/" not in end or "tunnel" not in end:
        return None
    return _packets_and_counters(difference)


@rule
def history_in_order(difference: Difference) -> Difference | None:
    """The strict check: every protection is accounted for, in order, with mode, ends and reqid of the SA's request."""
    if facts.tunable(difference, "net.inet.ipsec.check_policy_history") != "1":
        return None
    end = facts.end_of(difference)
    is_stricter = end in ("policy.in.extra", "policy.in.missing", "policy.in.order", "policy.in.selector")
    is_right = end.startswith("delivered ") and bool(
        difference.theirs.count("ipsec.in_polvio") + difference.theirs.count("ipsec6.in_polvio")
    )
    return _packets_and_counters(difference) if is_stricter or is_right else None


@rule
def closed_port(difference: Difference) -> Difference | None:
    """A datagram that inbound policy refuses gets no answer; there a closed port answers before policy is asked."""
    if facts.end_of(difference) not in ("policy.in.clear", "policy.in.missing", "policy.in.discard", "policy.in.extra"):
        return None
    if not facts.is_udp(difference.event) or difference.ours.packets or len(difference.theirs.packets) > 1:
        return None
    if not difference.theirs.packets:  # It came decrypted, so there was no answer either way.
        section = "ipsec6" if facts.is_ipv6(difference.event) else "ipsec"
        return _counters(difference, {}, {f"{section}.in_polvio": 1})
    return _packets_and_counters(difference) if facts.is_port_unreachable(difference.theirs.packets[0]) else None


@rule
def uncompressed_tunnels(difference: Difference) -> Difference | None:
    """Plain IP in IP from the peer of an IPComp tunnel is what did not compress, with SAs of mode any too."""
    if facts.end_of(difference) != "delivered ipcomp/tunnel" or not facts.is_ip_in_ip(difference.event):
        return None
    return _packets_and_counters(difference)


@rule
def well_known_cpi(difference: Difference) -> Difference | None:
    """CPI 2 means deflate (RFC 3173 §3.3), whatever the CPI of the SA with that peer; there it is an SPI like others."""
    event = difference.event
    if not isinstance(event, Sent) or difference.theirs.count("ipcomp.notdb") != 1 or not facts.has_cpi(event, 2):
        return None
    return _packets_and_counters(difference)


@rule
def tunnels_carry_ip(difference: Difference) -> Difference | None:
    """An SA of mode tunnel takes nothing but tunnel packets; there it serves as one of mode any."""
    if facts.end_of(difference) not in ("esp.inner", "ah.inner", "ipcomp.inner"):
        return None
    return _packets_and_counters(difference)


@rule
def congestion_comes_in(difference: Difference) -> Difference | None:
    """ECN at decapsulation by RFC 6040: what passes differs in nothing but the ECN bits; CE on what cannot carry it ends the packet."""
    if facts.end_of(difference) == "tunnel.ecn":
        return _packets_and_counters(difference)
    theirs, ours = difference.theirs.packets, difference.ours.packets
    if not facts.end_of(difference).startswith("delivered ") or theirs == ours:
        return None
    if [facts.without_ecn(packet) for packet in theirs] != [facts.without_ecn(packet) for packet in ours]:
        return None
    return _of(difference, difference.theirs, replace(difference.ours, packets=theirs))


@rule
def neighbour_discovery(difference: Difference) -> Difference | None:
    """Neighbour discovery passes a policy for any protocol; there it is a violation, and replies wait for the neighbour for ever."""
    if facts.is_neighbour_discovery(difference.event):
        return _counters(difference, {"ipsec6.in_polvio": 1}, {})
    is_stuck = not difference.theirs.packets and bool(difference.theirs.count("esp.output") + difference.theirs.count("ah.output"))
    if not is_stuck or facts.has_encapsulation(difference) or not facts.is_ipv6(difference.event) or not facts.discovers(difference):
        return None
    return _packets_and_counters(difference)


@rule
def larval_hold(difference: Difference) -> Difference | None:
    """A packet for an SA whose keys are on their way waits for them; there it is one without an SA. Its copy is then a replay."""
    if difference.ours.ends[:1] == ("held.larval",):
        name = next((name for name, _ in difference.theirs.counters if name.endswith(".notdb")), "")
        return _counters(difference, {name: 1}, {}) if name else None
    if facts.end_of(difference) in ("esp.replay", "ah.replay") and facts.was_sent_before(difference):
        return _packets_and_counters(difference)
    return None


# -- NAT traversal -----------------------------------------------------------------------------------------------------------


@rule
def encapsulation_first(difference: Difference) -> Difference | None:
    """What comes to an encapsulation port in UDP is ESP or IKE before any policy is asked; there the socket's policy, or the SPD, is."""
    if not facts.is_to_encapsulation(difference.event):
        return None
    refused = difference.theirs.count("ipsec.in_polvio") + difference.theirs.count("ipsec6.in_polvio") == 1
    if len(difference.theirs.packets) == 1:  # No socket asked for ESP in UDP: the port of an SA is enough here.
        return _packets_and_counters(difference) if facts.is_port_unreachable(difference.theirs.packets[0]) else None
    return _packets_and_counters(difference) if refused and not difference.theirs.packets else None


@rule
def keepalives_swallowed(difference: Difference) -> Difference | None:
    """Keepalives, and datagrams too short to be anything, do not reach the socket."""
    if facts.end_of(difference) not in ("natt.keepalive", "natt.short") or len(difference.theirs.delivered) != 1:
        return None
    if len(difference.theirs.delivered[0]) > 3:
        return None
    return _of(difference, difference.theirs, replace(difference.ours, delivered=difference.theirs.delivered))


@rule
def natt_over_ipv6(difference: Difference) -> Difference | None:
    """ESP in UDP works over IPv6; there nothing comes out."""
    if not facts.has_encapsulation(difference) or not facts.is_ipv6(difference.event) or difference.theirs.packets:
        return None
    return _packets_and_counters(difference)


# -- outbound ----------------------------------------------------------------------------------------------------------------


@rule
def chosen_before_sealed(difference: Difference) -> Difference | None:
    """No SA is used for a packet that lacks another one; there the SAs in front of the missing one are, and count."""
    if "sa.none.out" not in difference.ours.ends or difference.theirs.packets or difference.ours.packets:
        return None
    names = [f"{protocol}.{field}" for protocol in ("esp", "ah", "ipcomp") for field in ("output", "obytes")]
    names += ["ipsec.out_bundlesa", "ipsec6.out_bundlesa"]
    extra = {name: difference.theirs.count(name) - difference.ours.count(name) for name in names}
    if any(count < 0 for count in extra.values()):
        return None
    return _counters(difference, {name: count for name, count in extra.items() if count}, {})


@rule
def header_counts(difference: Difference) -> Difference | None:
    """IPComp leaves a packet alone that is not smaller with its header; there the header is forgotten in the comparison."""
    pairs = list(zip(difference.theirs.packets, difference.ours.packets, strict=False))
    if len(difference.theirs.packets) != len(difference.ours.packets) or not any(facts.grew_by_ipcomp(theirs) for theirs, _ in pairs):
        return None
    if any(facts.has_ipcomp(ours) for theirs, ours in pairs if facts.grew_by_ipcomp(theirs)):
        return None
    return _packets_and_counters(difference)


@rule
def cut_before_sealing(difference: Difference) -> Difference | None:
    """A packet without DF that fits no more once protected is sealed in pieces where DF stands outside; there it is lost."""
    ours = difference.ours.packets
    if difference.theirs.packets or len(ours) < 2 or not all(packet[9] in (50, 51) and packet[6] & 0x40 for packet in ours):
        return None
    return _packets_and_counters(difference)


@rule
def senders_are_told(difference: Difference) -> Difference | None:
    """A forwarded packet that may not be cut, and does not fit once protected, gets "too big"; there it is lost, or cut all the same."""
    if "pmtu.forwarded" not in difference.ours.ends or len(difference.ours.packets) > 1:
        return None
    too_big = ((4, icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED), (6, icmp.TOO_BIG6, 0))
    told = all(facts.icmp_kind(packet) in too_big for packet in difference.ours.packets)
    return _packets_and_counters(difference) if told else None


@rule
def ipv6_inside_has_no_df(difference: Difference) -> Difference | None:
    """dfbit 2 copies DF from IPv4; IPv6 inside has none, so it stays clear; there it is set."""
    theirs, ours = difference.theirs.packets, difference.ours.packets
    if len(theirs) != 1 or len(ours) != 1 or theirs[0][0] >> 4 != 4 or not facts.carries_ipv6(ours[0]):
        return None
    if theirs[0][6] & 0x40 and not ours[0][6] & 0x40 and facts.without_df(theirs[0]) == facts.without_df(ours[0]):
        return _packets_and_counters(difference)
    return None


@rule
def errors_go_protected(difference: Difference) -> Difference | None:
    """An ICMP error about a packet that came through an SA goes back through the SA of that flow; there in clear."""
    theirs, ours = difference.theirs.packets, difference.ours.packets
    if len(theirs) != 1 or len(ours) != 1 or facts.icmp_kind(theirs[0]) is None or "forwarded" not in difference.ours.ends:
        return None
    return _packets_and_counters(difference) if facts.is_inside(theirs[0], ours[0]) else None


@rule
def options_data_only(difference: Difference) -> Difference | None:
    """AH over IPv6 options that may change zeroes their data and no more (RFC 4302); there type and length too."""
    return _packets_and_counters(difference) if facts.is_option_icv(difference) else None


# -- the end of a case ---------------------------------------------------------------------------------------------------------


@rule
def uses_that_follow(difference: Difference) -> Difference | None:
    """After packets that one side took and the other did not, SAs have been used so much more or less, and some are gone."""
    if difference.event is not None or not facts.has_differed(difference):
        return None

    def bare(observed: Observed) -> dict[int, object]:
        return {one.spi: replace(one, packets=0, octets=0, is_used=False, state=1) for one in observed.sad}

    theirs, ours = bare(difference.theirs), bare(difference.ours)
    may_vanish = facts.has_lifetimes(difference)
    if theirs != ours and not may_vanish:
        return None
    if any(theirs[spi] != ours[spi] for spi in theirs.keys() & ours.keys()):
        return None
    return _of(difference, difference.theirs, replace(difference.ours, sad=difference.theirs.sad))
