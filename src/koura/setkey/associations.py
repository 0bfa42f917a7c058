"""The commands about SAs: add, update, getspi, get, delete, deleteall, flush, dump. setkey(8).

Options may stand in any order, each once (-f as often as there are words for it). A row of _OPTIONS reads one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from koura.crypto.algorithm import Algorithm, Kind
from koura.pfkey.numbers import FREEBSD_FLAGS
from koura.sadb.agreement import NO_LIMITS, Identity, Limits, SaFlags
from koura.saindex import Mode
from koura.secret import NO_SECRET, Secret
from koura.setkey import ciphers
from koura.setkey.cursor import Cursor, Wrong, quoted
from koura.setkey.statements import (
    Add,
    Delete,
    DeleteAll,
    Dump,
    Endpoint,
    Flush,
    Get,
    GetSpi,
    Natt,
    Sa,
    Statement,
    Terms,
)  # fmt: skip

PROTOCOLS = ("esp", "esp-old", "esp-udp", "ah", "ah-old", "ipcomp", "tcp")
_MODES = {"transport": Mode.TRANSPORT, "tunnel": Mode.TUNNEL, "any": Mode.ANY}
_U32 = (1 << 32) - 1
_U64 = (1 << 64) - 1
_MAX_WINDOW = (1 << 32) - 33  # packets
_FORMATS = {
    "seq-pad": SaFlags.NONE, "random-pad": SaFlags.PRAND, "zero-pad": SaFlags.PZERO,
    "nocyclic-seq": SaFlags.NONE, "cyclic-seq": SaFlags.NONE,
}  # fmt: skip
_NATT_PORT = 4500
_IDENTITIES = {"prefix": 1, "fqdn": 2, "userfqdn": 3, "addr": 4}
_EXTENSION_MAX = 0xFFFF
_KEPT_EXTENSIONS = frozenset({12})  # sadb_sens
_HINT_PROTOCOL = "one of " + ", ".join(PROTOCOLS)


class _Has(Enum):
    """Options that were given and leave no trace of their own."""

    YES = 1


@dataclass(slots=True)
class _Given:
    """What the options of one command said, and at which word each stands."""

    at: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    mode: Mode = Mode.ANY
    flags: SaFlags = SaFlags.CYCSEQ
    natt: Natt | None = None
    interface: str = ""
    algorithms: dict[str, Algorithm] = field(default_factory=dict)
    keys: dict[str, Secret] = field(default_factory=dict)
    identities: tuple[Identity, Identity] | None = None
    extra: list[tuple[int, bytes]] = field(default_factory=list)
    warnings: list[Wrong] = field(default_factory=list)

    def limits(self, octets: str, packets: str, seconds: str, use: str) -> Limits:
        number = self.numbers.get
        if not self.numbers:
            return NO_LIMITS
        return Limits(number(packets, 0), number(octets, 0), number(seconds, 0), number(use, 0))

    @property
    def window_packets(self) -> int | None:
        """-r counts octets of bitmap, -rp packets."""
        return 8 * self.numbers["-r"] if "-r" in self.numbers else self.numbers.get("-rp")


# -- the commands -------------------------------------------------------------------------------------------------------
def add(cursor: Cursor, warnings: list[Wrong]) -> Statement:
    """add, update: SRC DST PROTOCOL SPI, options, algorithms."""
    is_update = cursor.words[0] == "update"
    hosts = cursor.take_hosts()
    src, dst, protocol = _ends(cursor)
    spi_at = cursor.at
    spi = cursor.take_spi()
    if protocol in ("esp", "esp-old", "esp-udp", "ah", "ah-old") and spi <= 255:
        raise cursor.wrong(spi_at, "SPIs 0 to 255 are reserved", "RFC 4303 §2.1; use 256 or more")
    given = _options(cursor, _OPTIONS)
    warnings += given.warnings
    natt = _encapsulation(cursor, given, protocol, src, dst)
    _fit(cursor, given, protocol, spi_at, spi)
    terms = Terms(
        given.flags | SaFlags.OLD if protocol.endswith("-old") else given.flags,
        given.window_packets,
        given.limits("-bh", "-ph", "-lh", "-uh"), given.limits("-bs", "-ps", "-ls", "-us"), natt,
        given.algorithms.get("-E"), given.keys.get("-E", NO_SECRET), given.algorithms.get("-A"), given.keys.get("-A", NO_SECRET),
        given.algorithms.get("-C"), given.numbers.get("-seq", 0), given.numbers.get("-tfc", 0), given.numbers.get("-align", 4),
        given.interface, given.identities, tuple(given.extra),
    )  # fmt: skip
    sa = Sa(protocol, src, dst, spi, given.mode, given.numbers.get("-u", 0))
    return Add(sa, terms, hosts, is_update, cursor.span())


def getspi(cursor: Cursor, warnings: list[Wrong]) -> Statement:
    """getspi: SRC DST PROTOCOL SPI [-m MODE] [-u REQID]."""
    hosts = cursor.take_hosts()
    src, dst, protocol = _ends(cursor)
    spi = cursor.take_spi()
    given = _options(cursor, {name: _OPTIONS[name] for name in ("-m", "-u")})
    return GetSpi(Sa(protocol, src, dst, spi, given.mode, given.numbers.get("-u", 0)), hosts, cursor.span())


def get_or_delete(cursor: Cursor, warnings: list[Wrong]) -> Statement:
    """get, delete: SRC DST PROTOCOL SPI. Options are accepted and mean nothing; -m has its old warning."""
    kind: type[Get | Delete] = Get if cursor.words[0] == "get" else Delete
    hosts = cursor.take_hosts()
    src, dst, protocol = _ends(cursor)
    spi = cursor.take_spi()
    given = _options(cursor, _OPTIONS)
    warnings += given.warnings
    if "-m" in given.at:
        warnings.append(cursor.wrong(given.at["-m"], "mode is obsolete"))
    return kind(Sa(protocol, src, dst, spi, given.mode, given.numbers.get("-u", 0)), hosts, cursor.span())


def deleteall(cursor: Cursor, warnings: list[Wrong]) -> Statement:
    """deleteall: SRC DST [PROTOCOL]."""
    hosts = cursor.take_hosts()
    src = cursor.take_address("the source address")
    dst = cursor.take_address("the destination address")
    protocol = _protocol(cursor) if cursor.peek() else ""
    cursor.end()
    return DeleteAll(src, dst, protocol, hosts, cursor.span())


def flush_or_dump(cursor: Cursor, warnings: list[Wrong]) -> Statement:
    """flush, dump: [PROTOCOL]."""
    kind: type[Flush | Dump] = Flush if cursor.words[0] == "flush" else Dump
    protocol = _protocol(cursor) if cursor.peek() else ""
    cursor.end()
    return kind("" if protocol == "any" else protocol, cursor.span())


def _ends(cursor: Cursor) -> tuple[Endpoint, Endpoint, str]:
    src = cursor.take_address("the source address")
    _no_prefix(cursor)
    dst = cursor.take_address("the destination address")
    return src, dst, _protocol(cursor)


def _no_prefix(cursor: Cursor) -> None:
    if cursor.peek() == "/":
        raise cursor.wrong(cursor.at, "an SA has addresses, not prefixes", "prefixes are for policies")


def _protocol(cursor: Cursor) -> str:
    _no_prefix(cursor)
    word = cursor.take("the protocol")
    if word not in PROTOCOLS and not (word == "any" and cursor.words[0] in ("flush", "dump")):
        raise cursor.last(f"{quoted(word)} is no IPsec protocol", _HINT_PROTOCOL)
    return word


_REPEATABLE = ("-f", "-ext")


# -- the options --------------------------------------------------------------------------------------------------------
_Option = Callable[[Cursor, _Given, str], None]


def _options(cursor: Cursor, table: dict[str, _Option]) -> _Given:
    given = _Given()
    while name := cursor.peek():
        read = table.get(name)
        if read is None:
            hint = "" if name[0] == "-" else "is a `;` missing before it?"
            what = "option of this command" if name in _OPTIONS else "option"
            fault = f"is no {what}" if name[0] == "-" else "is not expected here"
            raise cursor.wrong(cursor.at, f"{quoted(name)} {fault}", hint)
        if name in given.at and name not in _REPEATABLE:
            raise cursor.wrong(cursor.at, f"{name} is given twice")
        given.at[name] = cursor.at
        cursor.at += 1
        read(cursor, given, name)
    return given


def _number(what: str, maximum: int, minimum: int = 0) -> _Option:
    def read(cursor: Cursor, given: _Given, name: str) -> None:
        given.numbers[name] = cursor.take_number(what, maximum, minimum)

    return read


def _mode(cursor: Cursor, given: _Given, _name: str) -> None:
    word = cursor.take("the mode")
    if word not in _MODES:
        raise cursor.last(f"{quoted(word)} is no mode", "transport, tunnel or any")
    given.mode = _MODES[word]


def _format(cursor: Cursor, given: _Given, _name: str) -> None:
    word = cursor.take("a word for -f")
    if word not in _FORMATS:
        raise cursor.last(f"{quoted(word)} is nothing -f knows", "seq-pad, zero-pad, random-pad or nocyclic-seq")
    if word == "nocyclic-seq":
        given.flags &= ~SaFlags.CYCSEQ
    padding = given.flags & (SaFlags.PRAND | SaFlags.PZERO)
    if padding and _FORMATS[word] not in (SaFlags.NONE, padding):
        raise cursor.last("zero-pad and random-pad exclude one another")
    given.flags |= _FORMATS[word]


def _window(cursor: Cursor, given: _Given, name: str) -> None:
    octets = cursor.take_number("the replay window", _U64)
    if 8 * octets > _MAX_WINDOW:
        raise cursor.last("replay window is too large", f"-r counts octets of 8 packets each; at most {_MAX_WINDOW // 8}")
    given.numbers[name] = octets


def _align(cursor: Cursor, given: _Given, name: str) -> None:
    octets = cursor.take_number("the alignment of AH", _U32)
    if octets not in (4, 8):
        raise cursor.last("AH's ICV is aligned to 4 or 8 octets", "4 as RFC 4302 has it, 8 as Linux does unless told otherwise")
    given.numbers[name] = octets


def _esn(_cursor: Cursor, given: _Given, _name: str) -> None:
    given.flags |= SaFlags.ESN


def _flags(cursor: Cursor, given: _Given, _name: str) -> None:
    """All of sadb_sa_flags at once, for what no word stands for."""
    word = cursor.take("the flags")
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}", word) or int(word, 16) > FREEBSD_FLAGS:
        raise cursor.last("the flags are 0x and hexadecimal digits", f"at most {FREEBSD_FLAGS:#x}")
    given.flags = SaFlags(int(word, 16))


def _identity(cursor: Cursor, given: _Given, _name: str) -> None:
    """KIND SRC DST, as IKE daemons give them to SAs: RFC 2367 §2.3.6."""
    kind = _IDENTITIES.get(word := cursor.take("the kind of the identities"), 0)
    if not kind and word.isascii() and word.isdigit() and int(word) < 1 << 16:
        kind = int(word)
    if not kind:
        raise cursor.last(f"{quoted(word)} is no kind of identity", ", ".join(_IDENTITIES) + " or a number")
    pair = []
    for what in ("the source's identity", "the destination's identity"):
        number, colon, _ = cursor.peek().partition(":")
        is_numbered = bool(colon) and number.isascii() and number.isdigit() and len(number) < 21 and int(number) <= _U64
        if is_numbered:
            cursor.at += 1
        pair.append(Identity(kind, int(number) if is_numbered else 0, cursor.take_key(what).reveal()))
    given.identities = (pair[0], pair[1])


def _extension(cursor: Cursor, given: _Given, _name: str) -> None:
    """An extension that the stack keeps with the SA and does not look into: its number and octets."""
    number = cursor.take_number("the extension's number", _EXTENSION_MAX, 1)
    if number not in _KEPT_EXTENSIONS:
        raise cursor.last(f"extension {number} is not kept with SAs", f"12 (sensitivity) is; it has options of its own otherwise: {number}")
    octets = cursor.take_key("the extension's octets").reveal()
    if len(octets) % 8 != 4:
        raise cursor.last("an extension's octets after its header are 4 more than whole words")
    given.extra.append((number, octets))


def _raw_cpi(_cursor: Cursor, given: _Given, _name: str) -> None:
    given.flags |= SaFlags.RAWCPI


def _interface(cursor: Cursor, given: _Given, _name: str) -> None:
    given.interface = take_interface(cursor)


def take_interface(cursor: Cursor) -> str:
    """A name of an interface; 31 octets at most (sadb_x_if_hw_offl)."""
    name = cursor.take("the interface")
    if not name.isascii() or len(name) > 31:
        raise cursor.last("an interface's name has at most 31 characters")
    return name


def _natt(cursor: Cursor, given: _Given, _name: str) -> None:
    ends = []
    for what in ("the original address of the initiator", "the original address of the responder"):
        end = cursor.take_address(what)
        if end.port == 0:
            raise cursor.last("a UDP port is missing", "-natt ADDRESS[PORT] ADDRESS[PORT], both ports from 1 to 65535")
        ends.append(end)
    oai, oar = ends
    given.natt = Natt(oai.port, oar.port, replace(oai, port=0), replace(oar, port=0))


def _label(cursor: Cursor, _given: _Given, _name: str) -> None:
    raise cursor.last("security contexts (-ctx) are not supported", "they belong to SELinux's labelled IPsec")


def _algorithm(kind: Kind) -> _Option:
    def read(cursor: Cursor, given: _Given, name: str) -> None:
        word = cursor.take("the algorithm")
        row = ciphers.find(kind, word)
        if row is None:
            raise _unknown(cursor, kind, word)
        given.algorithms[name] = row
        if ciphers.is_obsolete(word):
            given.warnings.append(cursor.last("obsolete algorithm", f"the name is {row.name}"))
        if kind is Kind.COMPRESSION:
            return
        following = cursor.peek()
        if ciphers.may_lack_key(row) and following[:1] != '"' and following[:2] not in ("0x", "0X"):
            return
        given.keys[name] = cursor.take_key(f"the key of {row.name}")
        if misfit := ciphers.misfit(row, given.keys[name]):
            raise cursor.last(misfit)

    return read


def _unknown(cursor: Cursor, kind: Kind, word: str) -> Wrong:
    if ciphers.has_no_transform(kind, word):
        return cursor.last(f"unsupported algorithm {quoted(word)}", "nothing implements it any more")
    for other, option in ((Kind.CIPHER, "-E"), (Kind.INTEGRITY, "-A"), (Kind.COMPRESSION, "-C")):
        if other is not kind and ciphers.find(other, word) is not None:
            return cursor.last(f"{quoted(word)} does not belong here", f"it goes behind {option}")
    return cursor.last(f"unknown algorithm {quoted(word)}", ciphers.nearest(kind, word))


_OPTIONS: dict[str, _Option] = {
    "-m": _mode, "-u": _number("the request id", _U32), "-r": _window,
    "-rp": _number("the replay window in packets", _MAX_WINDOW), "-f": _format, "-flags": _flags,
    "-identity": _identity, "-ext": _extension,
    "-lh": _number("the lifetime in seconds", _U64), "-ls": _number("the lifetime in seconds", _U64),
    "-bh": _number("the lifetime in octets", _U64), "-bs": _number("the lifetime in octets", _U64),
    "-ph": _number("the lifetime in packets", _U32), "-ps": _number("the lifetime in packets", _U32),
    "-uh": _number("the lifetime in seconds since first use", _U64), "-us": _number("the lifetime in seconds since first use", _U64),
    "-natt": _natt, "-natt_mtu": _number("the fragment size", 65535), "-esn": _esn, "-hwif": _interface,
    "-seq": _number("the sequence number", _U64), "-tfc": _number("the padded size", 65535), "-align": _align, "-ctx": _label,
    "-E": _algorithm(Kind.CIPHER), "-A": _algorithm(Kind.INTEGRITY), "-C": _algorithm(Kind.COMPRESSION), "-R": _raw_cpi,
}  # fmt: skip


# -- what fits together -------------------------------------------------------------------------------------------------
def _encapsulation(cursor: Cursor, given: _Given, protocol: str, src: Endpoint, dst: Endpoint) -> Natt | None:
    """ESP in UDP: -natt, esp-udp, or ports behind both addresses."""
    natt = given.natt
    if natt is not None and (src.port or dst.port) and (src.port, dst.port) != (natt.sport, natt.dport):
        raise cursor.wrong(given.at["-natt"], "-natt names other ports than the addresses do", "write the ports once")
    if natt is None and (protocol == "esp-udp" or src.port or dst.port):
        if bool(src.port) != bool(dst.port):
            raise cursor.wrong(1, "only one of the addresses has a port", "ESP in UDP needs both: A[4500] B[4500]")
        natt = Natt(src.port or _NATT_PORT, dst.port or _NATT_PORT)
    if natt is not None and protocol not in ("esp", "esp-udp"):
        raise cursor.wrong(given.at.get("-natt", 1), f"{protocol} does not go into UDP", "RFC 3948 encapsulates ESP only")
    if "-natt_mtu" in given.at:
        if natt is None:
            raise cursor.wrong(given.at["-natt_mtu"], "-natt_mtu without -natt")
        natt = Natt(natt.sport, natt.dport, natt.oai, natt.oar, given.numbers["-natt_mtu"])
    return natt


_NEEDED = {"esp": "-E", "ah": "-A", "ipcomp": "-C", "tcp": "-A"}
_WHY_NEEDED = {
    "esp": ("ESP needs an encryption algorithm", "-E ALGORITHM KEY; -E null to authenticate only"),
    "ah": ("AH needs an authentication algorithm", "-A ALGORITHM KEY"),
    "ipcomp": ("IPComp needs a compression algorithm", "-C deflate"),
    "tcp": ("TCP-MD5 needs its key", '-A tcp-md5 "KEY"'),
}
_ALLOWED = {"esp": {"-E", "-A", "-tfc", "-esn", "-seq"}, "ah": {"-A", "-align", "-esn", "-seq"}, "ipcomp": {"-C", "-R"}, "tcp": {"-A"}}
_BOUND = {"-E", "-A", "-C", "-R", "-tfc", "-align", "-esn", "-seq"}


def _fit(cursor: Cursor, given: _Given, protocol: str, spi_at: int, spi: int) -> None:
    """Refuse what does not fit the protocol or one another, at the option that is to blame."""
    base = protocol.split("-", maxsplit=1)[0]
    if _NEEDED[base] not in given.algorithms:
        why, hint = _WHY_NEEDED[base]
        raise cursor.wrong(len(cursor.words), why, hint)
    allowed = _ALLOWED[base]
    for option in given.at:
        if option in _BOUND and option not in allowed:
            raise cursor.wrong(given.at[option], f"{option} means nothing to {base}")
    if "-r" in given.at and "-rp" in given.at:
        raise cursor.wrong(given.at["-rp"], "-r and -rp say the same thing twice")
    if protocol.endswith("-old") and given.window_packets:
        at = given.at.get("-r", given.at.get("-rp", 1))
        raise cursor.wrong(at, "replay prevention cannot be used with ah/esp-old", "the old formats have no sequence number")
    if protocol.endswith("-old") and "-esn" in given.at:
        raise cursor.wrong(given.at["-esn"], "the old formats have no sequence number")
    if given.numbers.get("-seq", 0) > _U32 and "-esn" not in given.at:
        raise cursor.wrong(given.at["-seq"], "sequence numbers beyond 32 bits need -esn")
    if base == "ipcomp" and spi >= 1 << 16 and "-R" not in given.at:
        raise cursor.wrong(spi_at, "a CPI has 16 bits", "-R lets the SPI be larger; its low 16 bits are the CPI")
    if given.numbers.get("-tfc", 0) and given.mode is Mode.TRANSPORT:
        raise cursor.wrong(given.at["-tfc"], "TFC padding needs tunnel mode", "RFC 4303 §2.7: only an IP packet inside tells where it ends")
    _fit_integrity(cursor, given, base)


def _fit_integrity(cursor: Cursor, given: _Given, base: str) -> None:
    integrity, encryption = given.algorithms.get("-A"), given.algorithms.get("-E")
    if integrity is None:
        return
    if (integrity.name == "tcp-md5") != (base == "tcp"):
        raise cursor.wrong(given.at["-A"] + 1, f"{integrity.name} is not for {base}", "tcp-md5 is for `tcp`, and nothing else is")
    if encryption is not None and encryption.kind is Kind.AEAD and integrity.icv_octets and "-A" in given.keys:
        raise cursor.wrong(given.at["-A"], f"{encryption.name} authenticates by itself", "leave -A out")
