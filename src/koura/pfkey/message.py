"""Messages: the 16-octet base header and its extensions, for any dialect. RFC 2367 §2.

     0        1     2      3       4      6         8     12
     | version| type| errno| satype| len  | reserved| seq | pid |    len counts 64-bit words, header included; seq and pid
                                                                    are host order
     0      2
     | len  | type | ...                                             an extension, len in words, padded to whole words

`Message.read` is total: a Message, or Malformed. What `read` does not know it keeps (`Unknown`), and `write` puts it back.
`cut` makes the windows without reading what is in them: a server answers with a request's own octets.
"""

import builtins
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from koura.errors import Malformed
from koura.pfkey import extensions as x
from koura.pfkey.dialect import Dialect
from koura.pfkey.numbers import HEADER_OCTETS, PF_KEY_V2, Ext, Type
from koura.pfkey.offers import Proposal, Supported
from koura.pfkey.ours import KouraPolicy
from koura.pfkey.policy import PolicyExtension
from koura.quick import quick

_HEADER = struct.Struct("<4BHHII")
_EXTENSION = struct.Struct("<HH")
_PADDING = tuple(bytes(-octets % 8) for octets in range(8))  # to whole words, by the octets over
E = TypeVar("E", bound=x.Extension)

Read = Callable[[int, bytes, Dialect, int], x.Extension]
_ADDRESSES = (
    Ext.ADDRESS_SRC, Ext.ADDRESS_DST, Ext.ADDRESS_PROXY, Ext.X_NAT_T_OAI, Ext.X_NAT_T_OAR, Ext.X_NEW_ADDRESS_SRC, Ext.X_NEW_ADDRESS_DST,
    Ext.X_SRC_MASK, Ext.X_DST_MASK, Ext.X_SRC_FLOW, Ext.X_DST_FLOW, Ext.X_GROUP_DST,
)  # fmt: skip
_LIFETIMES = (
    Ext.LIFETIME_CURRENT, Ext.LIFETIME_HARD, Ext.LIFETIME_SOFT, Ext.X_LFT_CUR_SW_OFFL, Ext.X_LFT_CUR_HW_OFFL, Ext.X_LIFETIME_LASTUSE,
)  # fmt: skip

# What comes again and again in a load, such as our own address, is one value: it is frozen. Keys are kept nowhere.
_MANY = 1024
_read_address = lru_cache(_MANY)(x.Address.read)
_read_lifetime = lru_cache(_MANY)(x.Lifetime.read)
_read_sa2 = lru_cache(_MANY)(x.Sa2.read)

READERS: dict[int, Read] = {
    **dict.fromkeys(_ADDRESSES, _read_address),
    **dict.fromkeys(_LIFETIMES, _read_lifetime),
    Ext.SA: x.Sa.read, Ext.X_GROUP_SA: x.Sa.read,
    Ext.KEY_AUTH: x.Key.read, Ext.KEY_ENCRYPT: x.Key.read,
    Ext.IDENTITY_SRC: x.Ident.read, Ext.IDENTITY_DST: x.Ident.read,
    Ext.SENSITIVITY: x.Sensitivity.read, Ext.PROPOSAL: Proposal.read,
    Ext.SUPPORTED_AUTH: Supported.read, Ext.SUPPORTED_ENCRYPT: Supported.read, Ext.SPIRANGE: x.SpiRange.read,
    Ext.X_POLICY: PolicyExtension.read, Ext.X_SA2: _read_sa2,
    Ext.X_NAT_T_TYPE: x.NatType.read, Ext.X_NAT_T_SPORT: x.NatPort.read, Ext.X_NAT_T_DPORT: x.NatPort.read,
    Ext.X_UDPENCAP: x.NatPort.read, Ext.X_NAT_T_FRAG: x.NatFrag.read, Ext.X_SA_REPLAY: x.SaReplay.read,
    Ext.X_IF_HW_OFFL: x.Offload.read, Ext.X_KOURA_SA: x.KouraSa.read, Ext.X_KOURA_POLICY: KouraPolicy.read,
}  # fmt: skip


@quick
@dataclass(frozen=True, slots=True)
class Window:
    """Where one extension lies: our number of its type, the offset of its header, the end of its padding."""

    ext: int
    start: int
    end: int


@quick
@dataclass(frozen=True, slots=True)
class Message:
    """A message as a value. type, satype and extension types are our numbers; errno is the dialect's, for it comes and goes as it is."""

    type: int
    satype: int = 0
    seq: int = 0
    pid: int = 0
    errno: int = 0
    reserved: int = 0
    extensions: tuple[x.Extension, ...] = ()
    version: int = PF_KEY_V2

    @classmethod
    def read(cls, octets: bytes, dialect: Dialect) -> "Message":
        """One whole message. Raises Malformed."""
        head = header(octets, dialect)
        windows = cut(octets, dialect)
        return replace(head, extensions=tuple(extension(octets, window, dialect, head.satype) for window in windows))

    def write(self, dialect: Dialect) -> bytes:
        """The message's octets. Extensions that the dialect has no number for are left out."""
        parts = [encode(one, dialect, self.satype) for one in self.extensions]
        octets = HEADER_OCTETS + sum(map(len, parts))
        return self.head(dialect, octets) + b"".join(parts)

    def head(self, dialect: Dialect, octets: int) -> bytes:
        """The base header of a message that is `octets` long in all."""
        kind, satype = dialect.types.theirs(self.type), dialect.satypes.theirs(self.satype)
        words = octets // 8
        if words > 0xFFFF:
            raise Malformed("sadb_msg", f"{octets} octets do not fit its length field")
        return _HEADER.pack(self.version, kind, self.errno, satype, words, self.reserved & 0xFFFF, self.seq, self.pid)

    def find(self, kind: builtins.type[E], ext: int) -> E | None:
        """The first extension of this type number, if it is a `kind`."""
        for one in self.extensions:
            if one.ext == ext and isinstance(one, kind):
                return one
        return None


def header(octets: bytes, dialect: Dialect) -> Message:
    """The base header as a Message without extensions. Raises Malformed if it is short or its length is not that of the octets."""
    if len(octets) < HEADER_OCTETS:
        raise Malformed("sadb_msg", f"{len(octets)} octets, at least {HEADER_OCTETS} needed")
    version, kind, errno, satype, words, reserved, seq, pid = _HEADER.unpack_from(octets)
    if 8 * words != len(octets):
        raise Malformed("sadb_msg", f"says {8 * words} octets, has {len(octets)}")
    return Message(dialect.types.ours(kind), dialect.satypes.ours(satype), seq, pid, errno, reserved, (), version)


def cut(octets: bytes, dialect: Dialect) -> list[Window]:
    """The windows of the extensions, in order, exactly filling the message. Raises Malformed: zero, short or overlong, type 0, twice."""
    windows = []
    seen = set()
    ours = dialect.extensions.ours
    at, end = HEADER_OCTETS, len(octets)
    while at < end:
        if end - at < 4:
            raise Malformed("sadb_ext", f"{end - at} octets left")
        words, kind = _EXTENSION.unpack_from(octets, at)
        behind = at + 8 * words
        if words == 0 or behind > end:
            raise Malformed("sadb_ext", f"length {8 * words} at offset {at} of {end}")
        if kind == 0:
            raise Malformed("sadb_ext", "type 0 is reserved")
        if kind in seen:
            raise Malformed("sadb_ext", f"type {kind} comes twice")
        seen.add(kind)
        windows.append(Window(ours(kind), at, behind))
        at = behind
    return windows


def extension(octets: bytes, window: Window, dialect: Dialect, satype: int) -> x.Extension:
    """The value in one window. Raises Malformed."""
    read = READERS.get(window.ext, x.Unknown.read)
    return read(window.ext, octets[window.start + 4 : window.end], dialect, satype)


def encode(one: x.Extension, dialect: Dialect, satype: int) -> bytes:
    """One extension with its header, padded to whole words; b'' if the dialect has no number for it."""
    kind = dialect.extensions.theirs(one.ext)
    if kind == 0:
        return b""
    body = one.body(dialect, satype)
    octets = 4 + len(body)
    return _EXTENSION.pack((octets + 7) >> 3, kind) + body + _PADDING[octets & 7]


def is_known(kind: int, dialect: Dialect) -> bool:
    """Whether the dialect has this message type at all (ours by number)."""
    return dialect.types.has_theirs(kind) or kind == Type.RESERVED
