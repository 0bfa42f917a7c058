"""libipsec's connection: pfkey_open and what reads and checks messages. setkey.md §9.2.

A message is octets, as in C; `pfkey_align` gives its extensions by number. Failures are IpsecError, those of the connection OSError.
"""

import os
import socket
from dataclasses import dataclass

from koura.client import control, place
from koura.client.exchange import MESSAGE_OCTETS, check_hello
from koura.crypto import algorithms
from koura.crypto.algorithm import Kind
from koura.errors import Malformed, Refused
from koura.ipsec.errors import (
    EIPSEC_DO_GET_SUPP_LIST,
    EIPSEC_FAMILY_MISMATCH,
    EIPSEC_INVAL_ALGS,
    EIPSEC_INVAL_EXTTYPE,
    EIPSEC_INVAL_KEYLEN,
    EIPSEC_INVAL_PREFIXLEN,
    EIPSEC_INVAL_SADBMSG,
    EIPSEC_INVAL_SATYPE,
    EIPSEC_INVAL_VERSION,
    EIPSEC_PROTO_MISMATCH,
    EIPSEC_SYSTEM_ERROR,
    IpsecError,
    succeed,
)
from koura.ipsec.text import Speaker, speaking
from koura.pfkey import extensions as x
from koura.pfkey.dialect import FREEBSD, Dialect
from koura.pfkey.extensions import Extension
from koura.pfkey.message import Message
from koura.pfkey.numbers import HEADER_OCTETS, PF_KEY_V2, Ext, SaType, Type
from koura.pfkey.offers import Supportable, Supported

Directory = str | os.PathLike[str] | None


@dataclass(slots=True)
class PfkeySocket:
    """What pfkey_open gives; it stands for the descriptor in every other call. `supported`: what REGISTER told."""

    end: socket.socket
    dialect: Dialect
    supported: dict[int, tuple[Supportable, ...]]

    def fileno(self) -> int:
        return self.end.fileno()

    def __enter__(self) -> "PfkeySocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.end.close()


def pfkey_open(directory: Directory = None, dialect: Speaker = FREEBSD) -> PfkeySocket:
    """A PF_KEY connection to the engine of a directory. Raises IpsecError(EIPSEC_SYSTEM_ERROR)."""
    chosen = speaking(dialect)
    try:
        end = control.connect(place.directory(directory) / place.PFKEY)
        end.send(f"\0koura dialect={chosen.name}".encode())
        check_hello(end.recv(MESSAGE_OCTETS))
    except control.Unreachable as error:
        raise IpsecError(EIPSEC_SYSTEM_ERROR, str(error)) from error
    except Refused as error:
        end.close()
        raise IpsecError(EIPSEC_SYSTEM_ERROR, error.why) from error
    succeed()
    return PfkeySocket(end, chosen, {})


def pfkey_close(so: PfkeySocket) -> None:
    """The end of it: registrations go, too."""
    so.end.close()
    succeed()


def pfkey_send(so: PfkeySocket, message: bytes, length: int | None = None) -> int:
    """Send a message, or its first octets. The octets sent. Raises IpsecError."""
    try:
        sent = so.end.send(message if length is None else message[:length])
    except OSError as error:
        raise IpsecError(EIPSEC_SYSTEM_ERROR, os.strerror(error.errno or 0)) from error
    succeed()
    return sent


def pfkey_recv(so: PfkeySocket) -> bytes:
    """The next message. Raises IpsecError, also at the engine's end."""
    try:
        octets = so.end.recv(MESSAGE_OCTETS)
    except OSError as error:
        raise IpsecError(EIPSEC_SYSTEM_ERROR, os.strerror(error.errno or 0)) from error
    if not octets:
        raise IpsecError(EIPSEC_SYSTEM_ERROR, "the engine ended")
    if len(octets) < HEADER_OCTETS or 8 * int.from_bytes(octets[4:6], "little") != len(octets):
        raise IpsecError(EIPSEC_INVAL_SADBMSG, f"{len(octets)} octets")
    succeed()
    return octets


# -- messages ------------------------------------------------------------------------------------------------------------
Aligned = dict[int, Extension | Message]  # 0: the base header; others by FreeBSD's extension number


def pfkey_align(message: bytes, dialect: Speaker = FREEBSD) -> Aligned:
    """A message's base header under 0 and its extensions by number. Raises IpsecError."""
    try:
        value = Message.read(message, speaking(dialect))
    except Malformed as error:
        raise IpsecError(EIPSEC_INVAL_EXTTYPE if error.where == "sadb_ext" else EIPSEC_INVAL_SADBMSG, str(error)) from error
    found: Aligned = {0: value}
    found.update((one.ext, one) for one in value.extensions)
    succeed()
    return found


def pfkey_check(aligned: Aligned) -> None:
    """Header, satype, and that both addresses fit together. Raises IpsecError."""
    head = aligned.get(0)
    if not isinstance(head, Message) or head.version != PF_KEY_V2:
        raise IpsecError(EIPSEC_INVAL_VERSION)
    if head.errno:
        raise IpsecError(EIPSEC_SYSTEM_ERROR, os.strerror(head.errno))
    if head.satype not in SaType._value2member_map_ and head.type not in (Type.X_PROMISC, Type.X_SPDDUMP):
        raise IpsecError(EIPSEC_INVAL_SATYPE)
    src, dst = aligned.get(Ext.ADDRESS_SRC), aligned.get(Ext.ADDRESS_DST)
    if isinstance(src, x.Address) and isinstance(dst, x.Address):
        if src.protocol != dst.protocol:
            raise IpsecError(EIPSEC_PROTO_MISMATCH)
        if src.sockaddr.family != dst.sockaddr.family:
            raise IpsecError(EIPSEC_FAMILY_MISMATCH)
        if any(end.prefix_bits > 8 * len(end.sockaddr.address) for end in (src, dst)):
            raise IpsecError(EIPSEC_INVAL_PREFIXLEN)
    succeed()


# -- algorithms ----------------------------------------------------------------------------------------------------------
_known: dict[int, tuple[Supportable, ...]] = {}


def pfkey_set_supported(message: bytes, length: int | None = None, dialect: Speaker = FREEBSD) -> None:
    """Keep what a REGISTER reply lists, for ipsec_check_keylen. Raises IpsecError."""
    aligned = pfkey_align(message if length is None else message[:length], dialect)
    for ext in (Ext.SUPPORTED_AUTH, Ext.SUPPORTED_ENCRYPT):
        one = aligned.get(ext)
        if isinstance(one, Supported):
            _known[int(ext)] = one.algorithms
    succeed()


def pfkey_recv_register(so: PfkeySocket) -> None:
    """Wait for the reply to one's REGISTER, and keep its list. Raises IpsecError."""
    while True:
        octets = pfkey_recv(so)
        if octets[1] == Type.REGISTER and int.from_bytes(octets[12:16], "little") == os.getpid():
            break
    if octets[2]:
        raise IpsecError(EIPSEC_SYSTEM_ERROR, os.strerror(octets[2]))
    pfkey_set_supported(octets, dialect=so.dialect)
    so.supported = dict(_known)


def ipsec_get_keylen(kind: int, algorithm: int) -> tuple[int, int]:
    """The smallest and largest key of an algorithm, in bits, as REGISTER told. kind: SADB_EXT_SUPPORTED_AUTH or _ENCRYPT."""
    if not _known:
        raise IpsecError(EIPSEC_DO_GET_SUPP_LIST)
    for one in _known.get(kind, ()):
        if one.number == algorithm:
            succeed()
            return one.min_bits, one.max_bits
    raise IpsecError(EIPSEC_INVAL_ALGS, f"{algorithm}")


def ipsec_check_keylen(kind: int, algorithm: int, bits: int) -> None:
    """Whether a key of so many bits fits, its salt not counted; exactly one of the sizes there are. Raises IpsecError."""
    low, high = ipsec_get_keylen(kind, algorithm)
    row = algorithms.by_number(Kind.INTEGRITY if kind == Ext.SUPPORTED_AUTH else Kind.CIPHER, algorithm)
    if not low <= bits <= high or (row is not None and bits not in row.key_bits):
        raise IpsecError(EIPSEC_INVAL_KEYLEN, f"{bits} bits; from {low} to {high}")
    succeed()


def ipsec_check_keylen2(satype: int, algorithm: int, bits: int) -> None:
    """The same by SA type: AH's algorithm authenticates, ESP's encrypts. Raises IpsecError."""
    kinds = {int(SaType.AH): Ext.SUPPORTED_AUTH, int(SaType.ESP): Ext.SUPPORTED_ENCRYPT}
    if satype not in kinds:
        raise IpsecError(EIPSEC_INVAL_SATYPE)
    ipsec_check_keylen(kinds[satype], algorithm, bits)


