"""The commands about policies: spdadd, spdupdate, spddelete. setkey(8), setkey.md §3, §4.

    spdadd [-46n] SRC[/N][[PORT]] DST[/N][[PORT]] PROTOCOL [TYPE[,CODE]] [-lifetime S] [-validtime S] -P POLICY [-hwif IF] ;
"""

import re
from dataclasses import replace

from koura.saindex import Direction
from koura.setkey.associations import take_interface
from koura.setkey.cursor import Cursor, Wrong, quoted
from koura.setkey.names import PROTOCOLS
from koura.setkey.statements import Endpoint, PolicyAdd, PolicyDelete, Range, Statement
from koura.spd import language
from koura.spd.policy import Action, Policy
from koura.spd.selector import ANY_PROTOCOL

_ICMPS = (1, 58)
_GRE = 47
_U64 = (1 << 64) - 1
_KEPT = re.compile(r"unique\s*#")


def add(cursor: Cursor, warnings: list[Wrong]) -> Statement:
    """spdadd, spdupdate."""
    is_update = cursor.words[0] == "spdupdate"
    if cursor.peek() == "tagged":
        raise cursor.wrong(cursor.at, "tagged policies need a firewall's tags, which there are none of", "give the selector's addresses")
    hosts = cursor.take_hosts()
    selector = _range(cursor)
    limits = _lifetimes(cursor)
    policy = _policy(cursor, selector.protocol)
    if limits:
        policy = replace(policy, lifetime_s=limits.get("-lifetime", 0), valid_s=limits.get("-validtime", 0))
    interface = ""
    if cursor.peek() == "-hwif":
        cursor.at += 1
        interface = take_interface(cursor)
    cursor.end()
    return PolicyAdd(selector, policy, interface, hosts, is_update, cursor.span(), _keeps_reqids(cursor))


def delete(cursor: Cursor, warnings: list[Wrong]) -> Statement:
    """spddelete: the policy needs its direction only; a whole one is accepted."""
    hosts = cursor.take_hosts()
    selector = _range(cursor)
    policy = _policy(cursor, selector.protocol, is_whole=False)
    if cursor.peek() == "-hwif":
        cursor.at += 1
        take_interface(cursor)
    cursor.end()
    return PolicyDelete(selector, Direction(policy.direction), hosts, cursor.span())


def _lifetimes(cursor: Cursor) -> dict[str, int]:
    """How long a policy lives, and how long it may lie idle, in seconds (M10)."""
    found: dict[str, int] = {}
    while (name := cursor.peek()) in ("-lifetime", "-validtime"):
        if name in found:
            raise cursor.wrong(cursor.at, f"{name} is given twice")
        cursor.at += 1
        found[name] = cursor.take_number("the seconds", _U64)
    return found


def _keeps_reqids(cursor: Cursor) -> bool:
    """`unique#N`, as dumps show ids that the stack chose: N is meant, though it is beyond the manual range."""
    at = cursor.words.index("-P") + 1
    return _KEPT.search(cursor.words[at]) is not None


def _range(cursor: Cursor) -> Range:
    src = cursor.take_address("the source range", has_prefix=True)
    dst = cursor.take_address("the destination range", has_prefix=True)
    protocol = _upper(cursor)
    if protocol not in _ICMPS:
        return Range(src, dst, protocol)
    kind, code = _icmp(cursor, src, dst)
    return Range(src, dst, protocol, kind, code)


def _upper(cursor: Cursor) -> int:
    word = cursor.take("the upper protocol")
    if word == "any":
        return ANY_PROTOCOL
    if word.isascii() and word.isdigit():
        if len(word) > 3 or int(word) > 255:
            raise cursor.last("invalid upper layer protocol", "a protocol number is 0 to 255")
        return int(word)
    if word not in PROTOCOLS:
        raise cursor.last(f"invalid upper layer protocol {quoted(word)}", "a name such as tcp, udp, icmp or icmp6, a number, or any")
    return PROTOCOLS[word]


def _icmp(cursor: Cursor, src: Endpoint, dst: Endpoint) -> tuple[int | None, int | None]:
    """TYPE[,CODE] behind icmp or icmp6; nothing means any. S9: a 0 that is written means 0."""
    if src.port or dst.port:
        raise cursor.last("ICMP has no ports", "write the type behind the protocol: icmp6 128,0")
    if not cursor.peek().isdigit():
        return None, None
    kind = cursor.take_number("the ICMP type", 255)
    if cursor.peek() != ",":
        return kind, None
    cursor.at += 1
    return kind, cursor.take_number("the ICMP code", 255)


def _policy(cursor: Cursor, protocol: int, is_whole: bool = True) -> Policy:
    word = cursor.take("-P and a policy")
    if word == "-ctx":
        raise cursor.last("security contexts (-ctx) are not supported", "they belong to SELinux's labelled IPsec")
    if word != "-P":
        hint = "a type belongs to icmp and icmp6 only" if word.isdigit() else "-P in|out discard|none|ipsec ..."
        if protocol == _GRE:
            hint = "GRE keys are no selectors here: `gre` alone covers every key"
        raise cursor.last(f"-P is expected, not {quoted(word)}", hint)
    if cursor.at >= len(cursor.words) or not cursor.words[cursor.at].strip():
        raise cursor.missing("the policy", "such as: out ipsec esp/transport//require")
    text = cursor.words[cursor.at]
    cursor.at += 1
    try:
        policy = language.parse(text)
    except language.PolicySyntax as fault:
        start = cursor.command.start_of(cursor.at - 1)
        raise Wrong(start + fault.start, start + fault.end, fault.why, fault.hint) from None
    if is_whole and policy.action in (Action.ENTRUST, Action.BYPASS):
        raise cursor.last(f"{policy.action.name.lower()} is for sockets only", "in the SPD: discard, none or ipsec")
    if is_whole and policy.action is Action.IPSEC and not policy.requirements:
        raise cursor.last("ipsec needs at least one request", "such as esp/transport//require")
    return policy
