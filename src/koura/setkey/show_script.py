"""`setkey -D --script`, `-DP --script`: commands that make the same databases again, also what -D cannot print.

Order: a dump lists SAs newest first, so the commands stand the other way round; policies stand in SPD order. What the stack has to
choose again, or what time adds, is not in them: counters, ages, the SPI of a TCP-MD5 key, ids of policies. Policies of interfaces
and sockets belong to those; they appear as comments. docs/setkey.md has the words that only this output needs (-rp, -flags,
-identity, -ext, -lifetime, -validtime, unique#N).
"""

from koura.crypto.algorithm import Kind
from koura.errors import Refused
from koura.pfkey import extensions as x
from koura.pfkey import policy as policies
from koura.pfkey.dialect import LINUX
from koura.pfkey.message import Message
from koura.pfkey.numbers import ADDRESS_PORT_GIVEN, FREEBSD_FLAGS, Ext, SaState, SaType
from koura.sadb.agreement import SaFlags
from koura.saindex import Mode
from koura.secret import Secret
from koura.setkey import show
from koura.setkey.names import PROTOCOL_NAMES
from koura.setkey.show_policy import policy_of
from koura.spd import language
from koura.spd.policy import Scope
from koura.spd.selector import ANY_PROTOCOL

_PADDING = {SaFlags.NONE: "", SaFlags.PRAND: " -f random-pad", SaFlags.PZERO: " -f zero-pad"}
_PROTOCOL_WORDS = {SaType.ESP: "esp", SaType.AH: "ah", SaType.IPCOMP: "ipcomp", SaType.TCPSIGNATURE: "tcp"}
_ICMPS = (1, 58)
_TCP_SPI = 0x1000


def sas(messages: list[Message]) -> str:
    """The commands for the SAs of a whole dump."""
    return "".join(sa(message) for message in reversed(messages))


def spd(messages: list[Message]) -> str:
    """The commands for the policies of a whole dump."""
    return "".join(policy(message) for message in messages)


# -- SAs ----------------------------------------------------------------------------------------------------------------
def sa(message: Message) -> str:
    """One SA: `add`, or `getspi` for a larval one. A dead one gives nothing."""
    src, dst = message.find(x.Address, Ext.ADDRESS_SRC), message.find(x.Address, Ext.ADDRESS_DST)
    one, sa2 = message.find(x.Sa, Ext.SA), message.find(x.Sa2, Ext.X_SA2)
    protocol = _PROTOCOL_WORDS.get(SaType(message.satype)) if message.satype in _PROTOCOL_WORDS else None
    if protocol is None or src is None or dst is None or one is None or sa2 is None or one.state == SaState.DEAD:
        return ""
    ends = [show.host(src.sockaddr), show.host(dst.sockaddr)]
    relation = (f" -m {show.MODES[sa2.mode]}" if sa2.mode in (Mode.TRANSPORT, Mode.TUNNEL) else "") + _number(" -u", sa2.reqid)
    if one.state == SaState.LARVAL:
        return f"getspi -n {ends[0]} {ends[1]} {protocol} {one.spi:#x}{relation};\n"
    spi = _TCP_SPI if protocol == "tcp" else one.spi
    natt = _natt(message, ends)
    protocol, flags = _flags(protocol, one.flags, in_udp=natt != "")
    if natt is None:
        ports = [message.find(x.NatPort, ext) for ext in (Ext.X_NAT_T_SPORT, Ext.X_NAT_T_DPORT)]
        ends = [f"{end}[{port.port if port is not None else 0}]" for end, port in zip(ends, ports, strict=True)]
        natt = _number(" -natt_mtu", _frag(message))
    return (
        f"add -n {ends[0]} {ends[1]} {protocol} {spi:#x}{relation}{_window(message, one)}{flags}{_limits(message)}{natt}"
        f"{_rest(message)}{_algorithms(message, one)};\n"
    )


def _number(option: str, number: int) -> str:
    return f"{option} {number}" if number else ""


def _frag(message: Message) -> int:
    frag = message.find(x.NatFrag, Ext.X_NAT_T_FRAG)
    return frag.octets if frag is not None else 0


def _flags(protocol: str, flags: int, in_udp: bool) -> tuple[str, str]:
    """The protocol's word and the options that make these flags; all at once where no words do."""
    odd = flags & ~FREEBSD_FLAGS
    note = f" # without the flags {odd:#x}, which only Linux's clients can set\n   " if odd else ""
    flags &= FREEBSD_FLAGS
    is_old, padding = bool(flags & SaFlags.OLD), flags & (SaFlags.PRAND | SaFlags.PZERO)
    has_esn, is_raw = bool(flags & SaFlags.ESN), bool(flags & SaFlags.RAWCPI)
    rest = flags & ~(SaFlags.OLD | SaFlags.CYCSEQ | SaFlags.PRAND | SaFlags.PZERO | SaFlags.ESN | SaFlags.RAWCPI)
    fits = (
        not rest and SaFlags(padding) in _PADDING
        and not (is_old and (has_esn or in_udp or protocol not in ("esp", "ah")))
        and not (has_esn and protocol not in ("esp", "ah"))
        and not (is_raw and protocol != "ipcomp")
    )  # fmt: skip
    if not fits:
        return protocol, f"{note} -flags {flags:#x}"
    words = "" if flags & SaFlags.CYCSEQ else " -f nocyclic-seq"
    words += _PADDING[SaFlags(padding)] + (" -esn" if has_esn else "") + (" -R" if is_raw else "")
    return (f"{protocol}-old" if is_old else protocol), note + words


def _window(message: Message, one: x.Sa) -> str:
    wide = message.find(x.SaReplay, Ext.X_SA_REPLAY)
    window = wide.window_packets if wide is not None else one.window_packets
    if not window:
        return ""
    return f" -rp {window}" if window % 8 else f" -r {window // 8}"


def _limits(message: Message) -> str:
    text = ""
    for letter, ext in (("h", Ext.LIFETIME_HARD), ("s", Ext.LIFETIME_SOFT)):
        one = message.find(x.Lifetime, ext)
        if one is not None:
            text += _number(f" -l{letter}", one.add_s) + _number(f" -u{letter}", one.use_s)
            text += _number(f" -b{letter}", one.octets) + _number(f" -p{letter}", one.packets)
    return text


def _natt(message: Message, ends: list[str]) -> str | None:
    """-natt with original addresses; '' where the SA is not in UDP; None where ports behind the SA's addresses say it all."""
    if message.find(x.NatType, Ext.X_NAT_T_TYPE) is None:
        return ""
    originals = [message.find(x.Address, ext) for ext in (Ext.X_NAT_T_OAI, Ext.X_NAT_T_OAR)]
    if originals == [None, None]:
        return None
    text = " -natt"
    for original, end, port_ext in zip(originals, ends, (Ext.X_NAT_T_SPORT, Ext.X_NAT_T_DPORT), strict=True):
        port = message.find(x.NatPort, port_ext)
        text += f" {show.host(original.sockaddr) if original is not None else end}[{port.port if port is not None else 0}]"
    return text + _number(" -natt_mtu", _frag(message))


def _rest(message: Message) -> str:
    text = "".join(f" -hwif {one.interface}" for one in message.extensions if isinstance(one, x.Offload))
    ours = message.find(x.KouraSa, Ext.X_KOURA_SA)
    if ours is not None:
        text += _number(" -seq", ours.sequence) + _number(" -tfc", ours.tfc_octets)
        text += " -align 8" if ours.align_octets == 8 else ""
    pair = [message.find(x.Ident, ext) for ext in (Ext.IDENTITY_SRC, Ext.IDENTITY_DST)]
    given = [one for one in pair if one is not None]
    if len(given) == 2:
        text += f" -identity {given[0].kind}"
        text += "".join((f" {one.id}:" if one.id else "") + f" {_octets(one.text)}" for one in given)
    secret = message.find(x.Sensitivity, Ext.SENSITIVITY)
    if secret is not None:
        body = secret.body(LINUX, message.satype)
        text += f" -ext {int(Ext.SENSITIVITY)} 0x{body.hex()}"
    return text


def _octets(octets: bytes) -> str:
    """A word for octets: a quoted string where it is plain text."""
    is_plain = all(0x20 <= one < 0x7F and one != 0x22 for one in octets)
    return f'"{octets.decode("ascii")}"' if is_plain else f"0x{octets.hex()}"


def _algorithms(message: Message, one: x.Sa) -> str:
    encryption, integrity = message.find(x.Key, Ext.KEY_ENCRYPT), message.find(x.Key, Ext.KEY_AUTH)
    if message.satype == SaType.IPCOMP:
        return f" -C {show.algorithm(Kind.COMPRESSION, one.encrypt)}"
    text = ""
    if message.satype == SaType.ESP:
        name = show.algorithm(Kind.CIPHER, one.encrypt)
        text = f" -E {name} {_key(encryption)}"
        if integrity is None and show.algorithm(Kind.INTEGRITY, one.auth) != "null":
            return text  # An AEAD shows what it implies; there is no key to it.
    if one.auth:
        text += f" -A {show.algorithm(Kind.INTEGRITY, one.auth)}" + (f" {_key(integrity)}" if integrity is not None else "")
    return text


def _key(key: x.Key | None) -> str:
    secret = key.secret if key is not None else Secret()
    octets = secret.reveal()[: key.bits // 8] if key is not None else b""
    return f"0x{octets.hex()}" if octets else '""'


# -- policies -----------------------------------------------------------------------------------------------------------
def policy(message: Message) -> str:
    """One policy: `spdadd`, or a comment for one that its interface or socket owns."""
    extension = policy_of(message)
    src, dst = message.find(x.Address, Ext.ADDRESS_SRC), message.find(x.Address, Ext.ADDRESS_DST)
    if extension is None or src is None or dst is None:
        return ""
    if extension.scope not in (0, Scope.GLOBAL):
        owner = show.named(show.SCOPES, extension.scope)
        return f"# policy {extension.id} belongs to its {owner} and comes with it\n"
    try:
        value = policies.agree(extension, LINUX)
    except Refused as error:
        return f"# policy {extension.id}: {error.why}\n"
    hard = message.find(x.Lifetime, Ext.LIFETIME_HARD) or x.Lifetime(0)
    limits = _number(" -lifetime", hard.add_s) + _number(" -validtime", hard.use_s)
    text = language.show(value, with_priority=value.priority != 0, with_ports=True)
    return f"spdadd -n {_end(src)} {_end(dst)} {_upper(src, dst)}{limits} -P {text};\n"


def _end(end: x.Address) -> str:
    port = f"[{end.sockaddr.port}]" if end.sockaddr.port and end.protocol not in _ICMPS else ""
    return f"{show.host(end.sockaddr)}/{end.prefix_bits}{port}"


def _upper(src: x.Address, dst: x.Address) -> str:
    """The protocol; type and code of ICMP, of which a 0 is written only where 0 is meant (S9)."""
    if src.protocol == ANY_PROTOCOL:
        return "any"
    text = PROTOCOL_NAMES.get(src.protocol, str(src.protocol))
    if src.protocol not in _ICMPS:
        return text
    kinds = [end.sockaddr.port if end.sockaddr.port or end.reserved & ADDRESS_PORT_GIVEN else None for end in (src, dst)]
    if kinds[0] is None:
        return text
    return f"{text} {kinds[0]}" if kinds[1] is None else f"{text} {kinds[0]},{kinds[1]}"
