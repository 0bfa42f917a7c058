"""SAs as `setkey -D` and `get` print them, and as the one-liners of -D -l. setkey.md §5, §7."""

from koura.crypto.algorithm import Kind
from koura.pfkey import extensions as x
from koura.pfkey.message import Message
from koura.pfkey.numbers import NATT_ESPINUDP, Ext, SaState, SaType
from koura.setkey import show
from koura.setkey.show import View

SHORT_HEADER = f"{'time':4s} {'p':3s} s {'spi':8s} {'ltime':7s} src -> dst"
_SHORT_SATYPES = {SaType.AH: "ah", SaType.ESP: "esp"}
_SHORT_STATES = {0: "L", 1: "M", 2: "D", 3: "d"}
_SHORT_PROTOCOLS = {
    1: "icmp", 2: "igmp", 3: "ggp", 4: "ip4", 6: "tcp", 8: "egp", 17: "udp", 22: "idp", 29: "tp", 41: "ip6", 43: "rt6", 44: "frag6",
    46: "rsvp", 47: "gre", 50: "esp", 51: "ah", 58: "icmp6", 59: "none", 60: "dst6",
}  # fmt: skip
_FULL_S = 1000  # a lifetime of so many seconds or more is `big`
_OCTET_PACKETS = 8


def is_dead(message: Message) -> bool:
    """Whether -D leaves this SA out unless -a is given."""
    sa = message.find(x.Sa, Ext.SA)
    return sa is not None and sa.state == SaState.DEAD


def whole(message: Message, view: View) -> str:
    """The lines of one SA, each with its new line. What lacks an extension that every SA has is shown as far as it goes."""
    src, dst = message.find(x.Address, Ext.ADDRESS_SRC), message.find(x.Address, Ext.ADDRESS_DST)
    if src is None:
        return "no ADDRESS_SRC extension.\n"
    first = show.host(src.sockaddr) + _port(message, Ext.X_NAT_T_SPORT)
    if dst is None:
        return f"{first}\nno ADDRESS_DST extension.\n"
    first += f" {show.host(dst.sockaddr)}{_port(message, Ext.X_NAT_T_DPORT)}\n"
    sa, sa2 = message.find(x.Sa, Ext.SA), message.find(x.Sa2, Ext.X_SA2)
    if sa is None:
        return f"{first}no SA extension.\n"
    if sa2 is None:
        return f"{first}no SA2 extension.\n"
    kind = "esp-udp" if message.satype == SaType.ESP and _is_encapsulated(message) else show.named(show.SATYPES, message.satype)
    mode = show.named(show.MODES, sa2.mode)
    text = first + f"\t{kind} mode={mode} spi={sa.spi}(0x{sa.spi:08x}) reqid={sa2.reqid}(0x{sa2.reqid:08x})\n"
    text += _originals(message) + _algorithms(message, sa, view)
    text += f"\tseq=0x{sa2.sequence:08x} replay={window_octets(message, sa)} flags=0x{sa.flags & 0xFFFFFFFF:08x} "
    text += f"state={show.named(show.STATES, sa.state)} \n"
    text += _interfaces(message) + _lifetimes(message, view)
    text += f"\tsadb_seq={message.seq} pid={message.pid} refcnt={message.reserved}\n"
    return text + _offload(message, view)


def _is_encapsulated(message: Message) -> bool:
    return message.find(x.NatType, Ext.X_NAT_T_TYPE) is not None


def _port(message: Message, ext: int) -> str:
    port = message.find(x.NatPort, ext)
    return f"[{port.port}]" if port is not None and _is_encapsulated(message) else ""


def _originals(message: Message) -> str:
    natt = message.find(x.NatType, Ext.X_NAT_T_TYPE)
    if natt is None or natt.type != NATT_ESPINUDP:
        return ""
    found = ""
    for name, ext in (("OAI", Ext.X_NAT_T_OAI), ("OAR", Ext.X_NAT_T_OAR)):
        original = message.find(x.Address, ext)
        if original is not None:
            found += f" {name}={show.host(original.sockaddr)}"
    return f"\tNAT:{found}\n" if found else ""


def _algorithms(message: Message, sa: x.Sa, view: View) -> str:
    """E, C and A; IPComp's line does not end: what follows stands on it."""
    text = ""
    encryption, integrity = message.find(x.Key, Ext.KEY_ENCRYPT), message.find(x.Key, Ext.KEY_AUTH)
    if message.satype == SaType.IPCOMP:
        text = f"\tC: {show.algorithm(Kind.COMPRESSION, sa.encrypt)} "
    elif message.satype == SaType.ESP and encryption is not None:
        key = view.key(encryption.secret, encryption.bits // 8)
        text = f"\tE: {show.algorithm(Kind.CIPHER, sa.encrypt)} {key}\n"
    if integrity is not None:
        key = view.key(integrity.secret, integrity.bits // 8)
        text += f"\tA: {show.algorithm(Kind.INTEGRITY, sa.auth)} {key}\n"
    return text


def window_octets(message: Message, sa: x.Sa) -> int:
    """The replay window as setkey counts it: octets of bitmap, 8 packets each."""
    wide = message.find(x.SaReplay, Ext.X_SA_REPLAY)
    if wide is not None:
        return wide.window_packets // _OCTET_PACKETS
    return (sa.window_packets + _OCTET_PACKETS - 1) // _OCTET_PACKETS


def _interfaces(message: Message) -> str:
    names = [one.interface for one in message.extensions if isinstance(one, x.Offload)]
    return f"\thw offl if: {','.join(names)}\n" if names else ""


def _lifetimes(message: Message, view: View) -> str:
    current = message.find(x.Lifetime, Ext.LIFETIME_CURRENT)
    if current is None:
        return ""
    nothing = x.Lifetime(0)
    hard = message.find(x.Lifetime, Ext.LIFETIME_HARD) or nothing
    soft = message.find(x.Lifetime, Ext.LIFETIME_SOFT) or nothing
    age = max(0, view.now_s - current.add_s) if current.add_s else 0
    return (
        f"\tcreated: {view.time(current.add_s)}\tcurrent: {view.time(view.now_s)}\n"
        f"\tdiff: {age}(s)\thard: {hard.add_s}(s)\tsoft: {soft.add_s}(s)\n"
        f"\tlast: {view.time(current.use_s)}\thard: {hard.use_s}(s)\tsoft: {soft.use_s}(s)\n"
        f"\tcurrent: {current.octets}(bytes)\thard: {hard.octets}(bytes)\tsoft: {soft.octets}(bytes)\n"
        f"\tallocated: {current.packets}\thard: {hard.packets}\tsoft: {soft.packets}\n"
    )


def _offload(message: Message, view: View) -> str:
    text = ""
    for name, ext in (("sw", Ext.X_LFT_CUR_SW_OFFL), ("hw", Ext.X_LFT_CUR_HW_OFFL)):
        used = message.find(x.Lifetime, ext)
        if used is not None:
            text += f"\t{name} offl use: {view.time(used.use_s)}\t{name} offl allocated: {used.packets}"
            text += f"\t{name} offl: {used.octets}(bytes)\n"
    return text


def short(message: Message, view: View) -> str:
    """One SA in one line: -D -l."""
    sa = message.find(x.Sa, Ext.SA)
    time = f"{view.now_s % 3600 // 60:02d}{view.now_s % 60:02d}"
    satype = _SHORT_SATYPES.get(SaType(message.satype), "") if message.satype in _SHORT_SATYPES else f"#{message.satype}"
    if sa is None:
        known = "?" + " ?       "
    else:
        known = f"{_SHORT_STATES.get(sa.state, f'#{sa.state}')} {sa.spi:08x}"
    ends = [message.find(x.Address, ext) for ext in (Ext.ADDRESS_SRC, Ext.ADDRESS_DST)]
    src, dst = (_short_end(end) for end in ends)
    return f"{time} {satype:3s} {known}{_short_age(message, view)} {src} -> {dst}\n"


def _short_age(message: Message, view: View) -> str:
    """Age and hard limit, in seconds."""
    current, hard, soft = (
        message.find(x.Lifetime, ext) for ext in (Ext.LIFETIME_CURRENT, Ext.LIFETIME_HARD, Ext.LIFETIME_SOFT)
    )  # fmt: skip
    if current is None or hard is None or soft is None:
        return " ???/???"
    age = max(0, view.now_s - current.add_s) if current.add_s else 0
    return (" big/" if age >= _FULL_S else f" {age:3d}/") + ("big" if hard.add_s >= _FULL_S else f"{hard.add_s:<3d}")


def _short_end(end: x.Address | None) -> str:
    if end is None:
        return "?"
    port = f"[{end.sockaddr.port}]" if end.sockaddr.port else ""
    protocol = f"{_SHORT_PROTOCOLS.get(end.protocol, f'#{end.protocol}')} " if end.protocol not in (0, 255) else ""
    return f"{protocol}{show.host(end.sockaddr)}{port}"
