"""SAs and policies as JSON values: `setkey -D --json`, `-DP --json`. The fields are described in docs/setkey-command.md.

Absent facts are absent keys; numbers are numbers, keys are hexadecimal strings (null under --hide-keys), times are UNIX seconds.
"""

from koura.crypto.algorithm import Kind
from koura.pfkey import extensions as x
from koura.pfkey.message import Message
from koura.pfkey.numbers import ADDRESS_PORT_GIVEN, Ext, SaType
from koura.pfkey.policy import Request as PolicyRequest
from koura.setkey import show
from koura.setkey.names import PROTOCOL_NAMES
from koura.setkey.show import View
from koura.setkey.show_policy import policy_of, said
from koura.spd.policy import Action, Level, Scope
from koura.spd.selector import ANY_PROTOCOL

Json = str | int | bool | None | list["Json"] | dict[str, "Json"]
_DIRECTIONS = {0: "any", 1: "in", 2: "out", 3: "fwd"}
_PROTOCOLS = {50: "esp", 51: "ah", 108: "ipcomp", 6: "tcp"}
_ICMPS = (1, 58)


def sa(message: Message, view: View) -> dict[str, Json]:
    """One SA of a DUMP or GET."""
    found: dict[str, Json] = {"type": show.named(show.SATYPES, message.satype)}
    for name, ext in (("src", Ext.ADDRESS_SRC), ("dst", Ext.ADDRESS_DST)):
        end = message.find(x.Address, ext)
        if end is not None:
            found[name] = show.host(end.sockaddr)
    one, sa2 = message.find(x.Sa, Ext.SA), message.find(x.Sa2, Ext.X_SA2)
    if one is not None:
        wide = message.find(x.SaReplay, Ext.X_SA_REPLAY)
        window = wide.window_packets if wide is not None else one.window_packets
        found |= {"spi": one.spi, "state": show.named(show.STATES, one.state), "flags": one.flags, "window_packets": window}
        found |= _algorithms(message, one, view)
    if sa2 is not None:
        found |= {"mode": show.named(show.MODES, sa2.mode), "reqid": sa2.reqid, "sequence32": sa2.sequence}
    found |= _natt(message) | _lifetimes(message) | _rest(message)
    return found | {"seq": message.seq, "pid": message.pid, "references": message.reserved}


def _algorithms(message: Message, one: x.Sa, view: View) -> dict[str, Json]:
    if message.satype == SaType.IPCOMP:
        return {"compression": show.algorithm(Kind.COMPRESSION, one.encrypt)}
    found: dict[str, Json] = {}
    keys = (
        ("encryption", Kind.CIPHER, one.encrypt, Ext.KEY_ENCRYPT), ("integrity", Kind.INTEGRITY, one.auth, Ext.KEY_AUTH),
    )  # fmt: skip
    for name, kind, number, ext in keys:
        key = message.find(x.Key, ext)
        if number and (key is not None or name == "encryption"):
            found[name] = show.algorithm(kind, number)
        if key is not None:
            found[f"{name}_key"] = None if view.hides_keys else key.secret.reveal()[: key.bits // 8].hex()
    return found


def _natt(message: Message) -> dict[str, Json]:
    kind = message.find(x.NatType, Ext.X_NAT_T_TYPE)
    if kind is None:
        return {}
    inner: dict[str, Json] = {"type": kind.type}
    for name, ext in (("sport", Ext.X_NAT_T_SPORT), ("dport", Ext.X_NAT_T_DPORT)):
        port = message.find(x.NatPort, ext)
        if port is not None:
            inner[name] = port.port
    for name, ext in (("oai", Ext.X_NAT_T_OAI), ("oar", Ext.X_NAT_T_OAR)):
        original = message.find(x.Address, ext)
        if original is not None:
            inner[name] = show.host(original.sockaddr)
    frag = message.find(x.NatFrag, Ext.X_NAT_T_FRAG)
    if frag is not None:
        inner["frag_octets"] = frag.octets
    return {"nat_t": inner}


_LIFETIMES = (
    ("current", Ext.LIFETIME_CURRENT), ("hard", Ext.LIFETIME_HARD), ("soft", Ext.LIFETIME_SOFT),
    ("software_offload", Ext.X_LFT_CUR_SW_OFFL), ("hardware_offload", Ext.X_LFT_CUR_HW_OFFL),
)  # fmt: skip


def _lifetimes(message: Message) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, ext in _LIFETIMES:
        one = message.find(x.Lifetime, ext)
        if one is None:
            continue
        is_count = ext not in (Ext.LIFETIME_HARD, Ext.LIFETIME_SOFT)
        times = ("created", "used") if is_count else ("add_s", "use_s")
        found[name] = {"packets": one.packets, "octets": one.octets, times[0]: one.add_s, times[1]: one.use_s}
    return found


def _rest(message: Message) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, ext in (("identity_src", Ext.IDENTITY_SRC), ("identity_dst", Ext.IDENTITY_DST)):
        one = message.find(x.Ident, ext)
        if one is not None:
            found[name] = {"type": one.kind, "id": one.id, "text": one.text.decode("utf-8", "backslashreplace")}
    interfaces: list[Json] = [one.interface for one in message.extensions if isinstance(one, x.Offload)]
    if interfaces:
        found["hardware_interfaces"] = interfaces
    ours = message.find(x.KouraSa, Ext.X_KOURA_SA)
    if ours is not None:
        found |= {"sequence_start": ours.sequence, "tfc_octets": ours.tfc_octets, "align_octets": ours.align_octets or 4}
    return found


def policy(message: Message, view: View) -> dict[str, Json]:
    """One policy of an SPDDUMP or SPDGET."""
    found: dict[str, Json] = {}
    extension = policy_of(message)
    is_of_a_socket = extension is not None and extension.scope == Scope.SOCKET
    src, dst = message.find(x.Address, Ext.ADDRESS_SRC), message.find(x.Address, Ext.ADDRESS_DST)
    if src is not None and dst is not None and not is_of_a_socket:
        found |= _selector(src, dst)
    if extension is not None:
        found |= {
            "direction": _DIRECTIONS.get(extension.direction, extension.direction),
            "action": Action(extension.type).name.lower() if extension.type <= Action.BYPASS else extension.type,
            "id": extension.id, "priority": extension.priority, "scope": show.named(show.SCOPES, extension.scope or Scope.GLOBAL),
            "requests": [_request(one) for one in extension.requests], "text": said(extension, view).replace("\n\t", " "),
        }  # fmt: skip
    current, hard = message.find(x.Lifetime, Ext.LIFETIME_CURRENT), message.find(x.Lifetime, Ext.LIFETIME_HARD)
    if current is not None:
        found |= {"created": current.add_s, "last_used": current.use_s}
    if hard is not None:
        found |= {"lifetime_s": hard.add_s, "valid_s": hard.use_s}
    return found | {"seq": message.seq, "pid": message.pid, "references": message.reserved}


def _selector(src: x.Address, dst: x.Address) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, port_name, end in (("src", "sport", src), ("dst", "dport", dst)):
        found[name] = f"{show.host(end.sockaddr)}/{end.prefix_bits}"
        if src.protocol not in _ICMPS:
            found[port_name] = end.sockaddr.port or None
    any_protocol = src.protocol == ANY_PROTOCOL
    found["protocol"] = "any" if any_protocol else PROTOCOL_NAMES.get(src.protocol, str(src.protocol))
    if src.protocol in _ICMPS:
        for name, end in (("icmp_type", src), ("icmp_code", dst)):
            is_given = end.sockaddr.port or end.reserved & ADDRESS_PORT_GIVEN
            found[name] = end.sockaddr.port if is_given else None
    return found


def _request(one: PolicyRequest) -> dict[str, Json]:
    found: dict[str, Json] = {
        "protocol": _PROTOCOLS.get(one.protocol, one.protocol), "mode": show.named(show.MODES, one.mode),
        "level": Level(one.level).name.lower() if one.level <= Level.UNIQUE else one.level, "reqid": one.reqid,
    }  # fmt: skip
    if one.has_addresses:
        found |= {"src": show.host(one.src), "dst": show.host(one.dst)}
    return found
