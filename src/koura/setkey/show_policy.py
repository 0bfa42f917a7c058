"""Policies as `setkey -DP` prints them. setkey.md §6."""

from koura.errors import Refused
from koura.pfkey import extensions as x
from koura.pfkey import policy as policies
from koura.pfkey.dialect import LINUX
from koura.pfkey.message import Message
from koura.pfkey.numbers import ADDRESS_PORT_GIVEN, Ext
from koura.pfkey.ours import KouraPolicy, merged
from koura.pfkey.policy import PolicyExtension
from koura.setkey import show
from koura.setkey.names import PROTOCOL_NAMES
from koura.setkey.show import View
from koura.spd import language
from koura.spd.policy import Scope
from koura.spd.selector import ANY_PROTOCOL

ICMP, ICMP6 = 1, 58
_ICMPS = (ICMP, ICMP6)


def whole(message: Message, view: View) -> str:
    """The lines of one policy, each with its new line."""
    policy = policy_of(message)
    first = _selector(message)
    if first is None:
        return "upper layer protocol mismatched.\n"
    if policy is None:
        return f"{first}no X_POLICY extension.\n"
    text = f"{first}\n\t{said(policy, view)}\n" + _lifetimes(message, view)
    scope = show.named(show.SCOPES, policy.scope or Scope.GLOBAL)
    text += f"\tspid={policy.id} seq={message.seq} pid={message.pid} scope={scope} "
    if policy.scope == Scope.INTERFACE and policy.priority:
        text += f"ifname={view.interface(policy.priority)}"
    return text + f"\n\trefcnt={message.reserved}\n"


def policy_of(message: Message) -> PolicyExtension | None:
    """A message's policy, with what our own extension adds."""
    policy = message.find(PolicyExtension, Ext.X_POLICY)
    return merged(policy, message.find(KouraPolicy, Ext.X_KOURA_POLICY)) if policy is not None else None


def said(policy: PolicyExtension, view: View) -> str:
    """Direction, action, and each request in a line of its own."""
    try:
        value = policies.agree(policy, LINUX)  # which has the direction forward
    except Refused as error:
        return f"Policy:[{error.why}]"
    return language.show(value, "\n\t", with_ports=view.has_ports)


def _selector(message: Message) -> str | None:
    """The first line, without its end. None: source and destination name different protocols."""
    src, dst = message.find(x.Address, Ext.ADDRESS_SRC), message.find(x.Address, Ext.ADDRESS_DST)
    if src is None or dst is None or _is_of_a_socket(message):
        return "(no selector, probably per-socket policy) "
    if src.protocol != dst.protocol:
        return None
    return f"{end(src, dst)} {end(dst, src)} {upper(src, dst)}"


def _is_of_a_socket(message: Message) -> bool:
    policy = message.find(PolicyExtension, Ext.X_POLICY)
    return policy is not None and policy.scope == Scope.SOCKET


def end(one: x.Address, other: x.Address) -> str:
    """Address, prefix length unless it is the whole address, and port; ICMPv6 has none, nor has ICMP with a type."""
    if not one.sockaddr.address:
        return "unknown-af"
    prefix = "" if one.prefix_bits == 8 * len(one.sockaddr.address) else f"/{one.prefix_bits}"
    if one.protocol == ICMP6 or (one.protocol == ICMP and _has_icmp(one, other)):
        return show.host(one.sockaddr) + prefix
    return f"{show.host(one.sockaddr)}{prefix}[{one.sockaddr.port or 'any'}]"


def upper(src: x.Address, dst: x.Address) -> str:
    """The upper protocol; for ICMP with type and code, of which 0 also stands for any, as FreeBSD has it."""
    if src.protocol == ANY_PROTOCOL:
        return "any"
    name = PROTOCOL_NAMES.get(src.protocol, str(src.protocol))
    if src.protocol in _ICMPS and _has_icmp(src, dst):
        return f"{name} {src.sockaddr.port},{dst.sockaddr.port}"
    return name


def _has_icmp(one: x.Address, other: x.Address) -> bool:
    return any(side.sockaddr.port or side.reserved & ADDRESS_PORT_GIVEN for side in (one, other))


def _lifetimes(message: Message, view: View) -> str:
    current, hard = message.find(x.Lifetime, Ext.LIFETIME_CURRENT), message.find(x.Lifetime, Ext.LIFETIME_HARD)
    text = ""
    if current is not None:
        text = f"\tcreated: {view.time(current.add_s)}  lastused: {view.time(current.use_s)}\n"
    if hard is not None:
        text += f"\tlifetime: {hard.add_s}(s) validtime: {hard.use_s}(s)\n"
    return text
