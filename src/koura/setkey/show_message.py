"""PF_KEY messages decoded, element by element: what `setkey -x` and `-v` print. setkey.md §8.

Numbers are those on the wire, in the FreeBSD dialect. FreeBSD stops at an extension it cannot print; here every one is printed,
those without a form of their own as octets. What is malformed is said in place, and the rest is shown.
"""

import struct
from collections.abc import Callable

from koura import address
from koura.errors import Malformed
from koura.pfkey import extensions as x
from koura.pfkey import message as messages
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.numbers import HEADER_OCTETS, Ext, Type
from koura.pfkey.offers import Proposal, Supported
from koura.pfkey.ours import KouraPolicy
from koura.pfkey.policy import PolicyExtension
from koura.pfkey.sockaddr import Sockaddr
from koura.setkey.show import View, hexdump
from koura.spd.policy import Action, Scope

_BASE = struct.Struct("<4BHHII")
_PRINTABLE = range(0x20, 0x7F)


def decoded(octets: bytes, view: View) -> str:
    """A message's lines, each with its new line."""
    if len(octets) < HEADER_OCTETS:
        return f"sadb_msg: {len(octets)} octets, too short\n"
    version, kind, errno, satype, words, reserved, seq, pid = _BASE.unpack_from(octets)
    text = f"sadb_msg{{ version={version} type={kind}({_type_name(kind)}) errno={errno} satype={satype}\n"
    text += f"  len={words} reserved={reserved} seq={seq} pid={pid}\n"
    if kind == Type.X_PROMISC and len(octets) > HEADER_OCTETS:
        return text + decoded(octets[HEADER_OCTETS:], view)
    at = HEADER_OCTETS
    while at < len(octets):
        if len(octets) - at < 4:
            return f"{text}sadb_ext: {len(octets) - at} octets left\n"
        words, number = struct.unpack_from("<HH", octets, at)
        text += f"sadb_ext{{ len={words} type={number}({_extension_name(number)}) }}\n"
        if words == 0 or at + 8 * words > len(octets):
            return f"{text}sadb_ext: length {8 * words} of {len(octets) - at} octets\n"
        text += _extension(number, octets[at : at + 8 * words], FREEBSD.satypes.ours(satype), view)
        at += 8 * words
    return text


def _type_name(number: int) -> str:
    return Type(number).name if number in Type._value2member_map_ else "UNKNOWN"


def _extension_name(number: int) -> str:
    """The names of KAME's own without their X_."""
    return Ext(number).name.removeprefix("X_") if number in Ext._value2member_map_ else "UNKNOWN"


def _extension(number: int, octets: bytes, satype: int, view: View) -> str:
    window = messages.Window(FREEBSD.extensions.ours(number), 0, len(octets))
    try:
        value = messages.extension(octets, window, FREEBSD, satype)
    except Malformed as error:
        return f"{error}\n"
    for kind, show in _FORMS:
        if isinstance(value, kind):
            return show(value, octets, view)
    return f"sadb_x_unknown{{{hexdump(octets[4:], view.hides_keys)} }}\n"


def _sa(_value: object, octets: bytes, _view: View) -> str:
    spi = int.from_bytes(octets[4:8], "big")
    replay, state, auth, encrypt, flags = struct.unpack_from("<4BI", octets, 8)
    return f"sadb_sa{{ spi={spi} replay={replay} state={state}\n  auth={auth} encrypt={encrypt} flags=0x{flags:08x} }}\n"


def _lifetime(value: x.Lifetime, _octets: bytes, _view: View) -> str:
    return f"sadb_lifetime{{ alloc={value.packets}, bytes={value.octets}\n  addtime={value.add_s}, usetime={value.use_s} }}\n"


def _address(value: x.Address, octets: bytes, _view: View) -> str:
    text = f"sadb_address{{ proto={value.protocol} prefixlen={value.prefix_bits} reserved=0x{octets[6]:02x}{octets[7]:02x} }}\n"
    return text + _sockaddr(value.sockaddr)


def _sockaddr(sockaddr: Sockaddr) -> str:
    octets = len(sockaddr.write(FREEBSD))
    text = "unknown"
    if sockaddr.address:
        text = address.show(sockaddr.address)
        if len(sockaddr.address) == 16 and address.is_link_local(sockaddr.address):
            text += f"%{sockaddr.zone}"
    return f"sockaddr{{ len={octets} family={sockaddr.family or FREEBSD.family(sockaddr.address)} addr={text} }}\n"


def _key(value: x.Key, octets: bytes, view: View) -> str:
    reserved = int.from_bytes(octets[6:8], "little")
    return f"sadb_key{{ bits={value.bits} reserved={reserved}\n  key={view.key(value.secret, value.bits // 8)} }}\n"


def _identity(value: x.Ident, octets: bytes, _view: View) -> str:
    name = "src" if value.ext == Ext.IDENTITY_SRC else "dst"
    text = f"sadb_ident_{name}{{ type={value.kind} id={value.id}"
    if len(octets) > 16:
        text += '\n  str="' + "".join(chr(one) if one in _PRINTABLE else f"\\{one:03o}" for one in octets[16:].split(b"\0")[0]) + '"'
    return text + " }\n"


def _sensitivity(value: x.Sensitivity, _octets: bytes, view: View) -> str:
    return (
        f"sadb_sens{{ dpd={value.dpd} sens_level={value.sens_level} integ_level={value.integ_level}\n"
        f"  sens={hexdump(value.sens_bitmap)} integ={hexdump(value.integ_bitmap)} }}\n"
    )


def _proposal(value: Proposal, _octets: bytes, _view: View) -> str:
    text = f"sadb_prop{{ replay={value.replay}\n"
    for one in value.combinations:
        soft, hard = one.soft, one.hard
        text += (
            f"sadb_comb{{ auth={FREEBSD.auth_theirs(one.auth)} encrypt={FREEBSD.encrypt_theirs(one.encrypt)} "
            f"flags=0x{one.flags:04x} reserved=0x00000000\n"
            f"  auth_minbits={one.auth_minbits} auth_maxbits={one.auth_maxbits} "
            f"encrypt_minbits={one.encrypt_minbits} encrypt_maxbits={one.encrypt_maxbits}\n"
            f"  soft_alloc={soft.packets} hard_alloc={hard.packets} soft_bytes={soft.octets} hard_bytes={hard.octets}\n"
            f"  soft_alloc={soft.add_s} hard_alloc={hard.add_s} soft_bytes={soft.use_s} hard_bytes={hard.use_s} }}\n"
        )
    return text + "}\n"


def _supported(value: Supported, _octets: bytes, _view: View) -> str:
    rows = "".join(f"  {{ id={a.number} ivlen={a.iv_octets} min={a.min_bits} max={a.max_bits} }}\n" for a in value.algorithms)
    return f"sadb_sup{{\n{rows}}}\n"


def _range(value: x.SpiRange, _octets: bytes, _view: View) -> str:
    return f"sadb_spirange{{ min=0x{value.min:08x} max=0x{value.max:08x} }}\n"


def _policy(value: PolicyExtension, _octets: bytes, _view: View) -> str:
    word = "ifindex" if value.scope == Scope.INTERFACE else "priority"
    text = f"sadb_x_policy{{ type={value.type} dir={value.direction} id={value.id:x} scope={value.scope} {word}={value.priority} }}\n"
    for one in value.requests if value.type == Action.IPSEC else ():
        addresses = [one.src, one.dst] if one.has_addresses else []
        octets = 8 + sum(len(end.write(FREEBSD)) for end in addresses)
        octets = (octets + 7) // 8 * 8
        text += f" {{ len={octets} proto={one.protocol} mode={one.mode} level={one.level} reqid={one.reqid}\n"
        text += "".join(_sockaddr(end) for end in addresses) + " }\n"
    return text


def _sa2(value: x.Sa2, octets: bytes, _view: View) -> str:
    reserved1, reserved2 = octets[5], int.from_bytes(octets[6:8], "little")
    text = f"sadb_x_sa2{{ mode={value.mode} reqid={value.reqid}\n"
    return text + f"  reserved1={reserved1} reserved2={reserved2} sequence={value.sequence} }}\n"


def _nat_type(value: x.NatType, _octets: bytes, _view: View) -> str:
    return f"sadb_x_nat_t_type{{ type={value.type} }}\n"


def _nat_port(value: x.NatPort, _octets: bytes, _view: View) -> str:
    return f"sadb_x_nat_t_port{{ port={value.port} }}\n"


def _nat_frag(value: x.NatFrag, _octets: bytes, _view: View) -> str:
    return f"sadb_x_nat_t_frag{{ fraglen={value.octets} }}\n"


def _replay(value: x.SaReplay, _octets: bytes, _view: View) -> str:
    return f"sadb_x_sa_replay{{ replay={value.window_packets} }}\n"


def _offload(value: x.Offload, _octets: bytes, _view: View) -> str:
    return f"sadb_x_if_hw_offl{{ if={value.interface} flags=0x{value.flags:08x} }}\n"


def _ours(value: x.KouraSa, _octets: bytes, _view: View) -> str:
    return f"sadb_x_koura_sa{{ sequence={value.sequence} tfc={value.tfc_octets} align={value.align_octets} }}\n"


def _our_policy(value: KouraPolicy, _octets: bytes, _view: View) -> str:
    return f"sadb_x_koura_policy{{ flags=0x{value.flags:08x} reqids={','.join(map(str, value.reqids))} }}\n"


# Each form takes the kind that stands before it; mypy cannot say so in a tuple.
_Form = Callable[..., str]
_FORMS: tuple[tuple[type, _Form], ...] = (
    (x.Sa, _sa), (x.Lifetime, _lifetime), (x.Address, _address), (x.Key, _key), (x.Ident, _identity), (x.Sensitivity, _sensitivity),
    (Proposal, _proposal), (Supported, _supported), (x.SpiRange, _range), (PolicyExtension, _policy), (x.Sa2, _sa2),
    (x.NatType, _nat_type), (x.NatPort, _nat_port), (x.NatFrag, _nat_frag), (x.SaReplay, _replay), (x.Offload, _offload),
    (x.KouraSa, _ours), (KouraPolicy, _our_policy),
)  # fmt: skip
