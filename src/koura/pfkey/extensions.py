"""The extensions of RFC 2367 §2.3 and KAME's, as values: read from the octets after the 4-octet extension header, written back.

A reader gets exactly the extension's own octets (`message` cut the window) and must account for all of them; whatever does not fit is
Malformed. What an extension *means*, and whether it may stand in a message, is decided in `rules`. Numbers are ours (`numbers`);
integers are host order, which on every machine these clients run on is little-endian; SPI, ports and addresses are network order.
"""

import struct
from dataclasses import dataclass, field
from typing import Protocol

from koura.errors import Malformed
from koura.pfkey.dialect import Dialect
from koura.pfkey.numbers import Ext, SaType
from koura.pfkey.sockaddr import Sockaddr
from koura.quick import quick
from koura.secret import Secret

_IPCOMP = int(SaType.IPCOMP)
_SA = struct.Struct(">I4B")  # the SPI; replay, state, auth, encrypt
_FLAGS = struct.Struct("<I")
_LIFETIME = struct.Struct("<IQQQ")
_ADDRESS = struct.Struct("<BBH")
_U16U16 = struct.Struct("<HH")
_PORT = struct.Struct(">H")
_IDENT = struct.Struct("<HHQ")
_SENS = struct.Struct("<IBBBBI")
_SPIRANGE = struct.Struct("<III")
_SA2 = struct.Struct("<BBHII")
_KOURA = struct.Struct("<IQB7x")


class Extension(Protocol):
    """What every extension can do. `ext` is our number of its type."""

    @property
    def ext(self) -> int: ...

    def body(self, dialect: Dialect, satype: int) -> bytes:
        """The octets after the extension header, not yet padded to whole words."""
        ...


def _exactly(body: bytes, octets: int, where: str) -> None:
    if len(body) != octets:
        raise Malformed(where, f"{len(body) + 4} octets, not {octets + 4}")


@quick
@dataclass(frozen=True, slots=True)
class Sa:
    """sadb_sa. auth, encrypt, flags in our numbers; window_packets as this field alone gives it (at most 255 of their units)."""

    spi: int
    window_packets: int = 0
    state: int = 0
    auth: int = 0
    encrypt: int = 0
    flags: int = 0
    ext: int = Ext.SA

    @classmethod
    def read(cls, ext: int, body: bytes, dialect: Dialect, satype: int) -> "Sa":
        _exactly(body, 12, "sadb_sa")
        spi, replay, state, auth, encrypt = _SA.unpack_from(body)
        if satype != _IPCOMP:
            encrypt = dialect.encrypt_ours(encrypt)
        window = 8 * replay if dialect.replay_octets else replay
        flags = dialect.flags_ours(_FLAGS.unpack_from(body, 8)[0])
        return cls(spi, window, state, dialect.auth_ours(auth), encrypt, flags, ext)

    def body(self, dialect: Dialect, satype: int) -> bytes:
        replay = (self.window_packets + 7) // 8 if dialect.replay_octets else self.window_packets
        encrypt = self.encrypt & 0xFF if satype == SaType.IPCOMP else dialect.encrypt_theirs(self.encrypt)
        fixed = _SA.pack(self.spi, min(255, replay), self.state, dialect.auth_theirs(self.auth), encrypt)
        return fixed + _FLAGS.pack(dialect.flags_theirs(self.flags))


@quick
@dataclass(frozen=True, slots=True)
class Lifetime:
    """sadb_lifetime: current, hard or soft. packets are RFC 2367's allocations."""

    ext: int
    packets: int = 0
    octets: int = 0
    add_s: int = 0
    use_s: int = 0

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "Lifetime":
        _exactly(body, 28, "sadb_lifetime")
        packets, octets, add_s, use_s = _LIFETIME.unpack(body)
        return cls(ext, packets, octets, add_s, use_s)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return _LIFETIME.pack(self.packets & 0xFFFFFFFF, self.octets, self.add_s, self.use_s)


@quick
@dataclass(frozen=True, slots=True)
class Address:
    """sadb_address: a socket address, the upper protocol, how many leading bits count."""

    ext: int
    sockaddr: Sockaddr
    protocol: int = 255
    prefix_bits: int = 0
    reserved: int = 0

    @classmethod
    def read(cls, ext: int, body: bytes, dialect: Dialect, _satype: int) -> "Address":
        if len(body) < 6:
            raise Malformed("sadb_address", "too short for a socket address")
        protocol, prefix_bits, reserved = _ADDRESS.unpack_from(body)
        return cls(ext, Sockaddr.read(body[4:], dialect, "sadb_address"), protocol, prefix_bits, reserved)

    def body(self, dialect: Dialect, _satype: int) -> bytes:
        return _ADDRESS.pack(self.protocol, self.prefix_bits, self.reserved) + self.sockaddr.write(dialect)


@quick
@dataclass(frozen=True, slots=True)
class Key:
    """sadb_key: `secret` holds ceil(bits / 8) octets, or all there are where the extension's size is not that of its bits."""

    ext: int
    bits: int
    secret: Secret

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "Key":
        if len(body) < 4:
            raise Malformed("sadb_key", "too short")
        bits, _ = _U16U16.unpack_from(body)
        octets = (bits + 7) // 8
        is_tight = 0 <= len(body) - 4 - octets < 8
        return cls(ext, bits, Secret(body[4 : 4 + octets] if is_tight else body[4:]))

    @classmethod
    def of(cls, ext: int, secret: Secret) -> "Key":
        """A key extension around whole octets."""
        return cls(ext, secret.bits, secret)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return _U16U16.pack(self.bits, 0) + self.secret.reveal()


@quick
@dataclass(frozen=True, slots=True)
class Ident:
    """sadb_ident. The string is held without its NUL padding; kind ADDR (4) carries a sockaddr there, kept as octets."""

    ext: int
    kind: int
    id: int = 0
    text: bytes = b""

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "Ident":
        if len(body) < 12:
            raise Malformed("sadb_ident", "too short")
        kind, _, number = _IDENT.unpack_from(body)
        text = body[12:]
        return cls(ext, kind, number, text if kind == 4 else text.rstrip(b"\0"))

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        text = self.text if self.kind == 4 or not self.text else self.text + b"\0"
        return _IDENT.pack(self.kind, 0, self.id) + text


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """sadb_sens: domain, levels, and two bitmaps of 64-bit words."""

    dpd: int
    sens_level: int
    integ_level: int
    sens_bitmap: bytes = b""
    integ_bitmap: bytes = b""
    ext: int = Ext.SENSITIVITY

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "Sensitivity":
        if len(body) < 12:
            raise Malformed("sadb_sens", "too short")
        dpd, sens_level, sens_words, integ_level, integ_words, _ = _SENS.unpack_from(body)
        _exactly(body, 12 + 8 * (sens_words + integ_words), "sadb_sens")
        split = 12 + 8 * sens_words
        return cls(dpd, sens_level, integ_level, body[12:split], body[split:], ext)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        fixed = _SENS.pack(self.dpd, self.sens_level, len(self.sens_bitmap) // 8, self.integ_level, len(self.integ_bitmap) // 8, 0)
        return fixed + self.sens_bitmap + self.integ_bitmap


@dataclass(frozen=True, slots=True)
class SpiRange:
    """sadb_spirange: both ends included, host order."""

    min: int
    max: int
    ext: int = Ext.SPIRANGE

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "SpiRange":
        _exactly(body, 12, "sadb_spirange")
        low, high, _ = _SPIRANGE.unpack(body)
        return cls(low, high, ext)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return _SPIRANGE.pack(self.min, self.max, 0)


@quick
@dataclass(frozen=True, slots=True)
class Sa2:
    """sadb_x_sa2: what KAME's SAs have beyond sadb_sa. sequence: the low half of the counter."""

    mode: int = 0
    sequence: int = 0
    reqid: int = 0
    ext: int = Ext.X_SA2

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "Sa2":
        _exactly(body, 12, "sadb_x_sa2")
        mode, _, _, sequence, reqid = _SA2.unpack(body)
        return cls(mode, sequence, reqid, ext)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return _SA2.pack(self.mode, 0, 0, self.sequence & 0xFFFFFFFF, self.reqid)


@quick
@dataclass(frozen=True, slots=True)
class NatType:
    """sadb_x_nat_t_type. 2: ESP in UDP (RFC 3948)."""

    type: int
    ext: int = Ext.X_NAT_T_TYPE

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "NatType":
        _exactly(body, 4, "sadb_x_nat_t_type")
        return cls(body[0], ext)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return bytes((self.type, 0, 0, 0))


@quick
@dataclass(frozen=True, slots=True)
class NatPort:
    """sadb_x_nat_t_port: on the wire in network order."""

    ext: int
    port: int

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "NatPort":
        _exactly(body, 4, "sadb_x_nat_t_port")
        return cls(ext, _PORT.unpack_from(body)[0])

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return _PORT.pack(self.port) + b"\0\0"


@dataclass(frozen=True, slots=True)
class NatFrag:
    """sadb_x_nat_t_frag: fragment to this size before encapsulation."""

    octets: int
    ext: int = Ext.X_NAT_T_FRAG

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "NatFrag":
        _exactly(body, 4, "sadb_x_nat_t_frag")
        return cls(_U16U16.unpack(body)[0], ext)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return _U16U16.pack(self.octets, 0)


@dataclass(frozen=True, slots=True)
class SaReplay:
    """sadb_x_sa_replay: the window in packets; overrides sadb_sa_replay."""

    window_packets: int
    ext: int = Ext.X_SA_REPLAY

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "SaReplay":
        _exactly(body, 4, "sadb_x_sa_replay")
        return cls(_FLAGS.unpack(body)[0], ext)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return _FLAGS.pack(self.window_packets)


@dataclass(frozen=True, slots=True)
class Offload:
    """sadb_x_if_hw_offl: an interface that should do the work; the name without its NULs."""

    interface: str
    flags: int = 0
    ext: int = Ext.X_IF_HW_OFFL

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "Offload":
        _exactly(body, 36, "sadb_x_if_hw_offl")
        name = body[4:].split(b"\0", 1)[0]
        if not name.isascii():
            raise Malformed("sadb_x_if_hw_offl", "interface name is not ASCII")
        return cls(name.decode("ascii"), _FLAGS.unpack_from(body)[0], ext)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return _FLAGS.pack(self.flags) + self.interface.encode("ascii").ljust(32, b"\0")[:32]


@dataclass(frozen=True, slots=True)
class KouraSa:
    """Ours, type 200, 24 octets: the 64-bit sequence state, TFC octets, alignment of AH's ICV on IPv4 (0: as usual, 4, 8).

    4: tfc_octets u32; 8: sequence u64; 16: align_octets u8; 17: zero[7].
    """

    sequence: int = 0
    tfc_octets: int = 0
    align_octets: int = 0
    ext: int = Ext.X_KOURA_SA

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "KouraSa":
        _exactly(body, 20, "sadb_x_koura_sa")
        tfc, sequence, align = _KOURA.unpack(body)
        return cls(sequence, tfc, align, ext)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return _KOURA.pack(self.tfc_octets, self.sequence, self.align_octets)


@quick
@dataclass(frozen=True, slots=True)
class Unknown:
    """An extension that we carry without understanding it: the octets after its header, padding and all."""

    ext: int
    octets: bytes = field(repr=False)

    @classmethod
    def read(cls, ext: int, body: bytes, _dialect: Dialect, _satype: int) -> "Unknown":
        return cls(ext, body)

    def body(self, _dialect: Dialect, _satype: int) -> bytes:
        return self.octets
