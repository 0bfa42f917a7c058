"""Statements into PF_KEY messages, in the order that setkey(8) sends their extensions. setkey.md §3, pfkey.md §4.

Host names are looked up by the `Resolver` that the caller hands in; here only numbers are understood. Nothing is sent.
"""

from collections.abc import Callable
from functools import lru_cache

from koura import address
from koura.address import Prefix
from koura.pfkey import extensions as x
from koura.pfkey import show
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.pfkey.numbers import NATT_ESPINUDP, Ext, SaType, Type
from koura.pfkey.ours import about
from koura.pfkey.policy import describe
from koura.pfkey.sockaddr import Sockaddr
from koura.sadb.agreement import NO_LIMITS, Limits
from koura.saindex import Direction
from koura.setkey.faults import BadScript, Fault, Source, fault_at
from koura.setkey.statements import (
    Add,
    Delete,
    DeleteAll,
    Dump,
    Endpoint,
    Flush,
    Get,
    GetSpi,
    Hosts,
    PolicyAdd,
    PolicyDelete,
    PolicyDump,
    Range,
    Sa,
    Statement,
    Terms,
)
from koura.spd.policy import Action, Policy
from koura.spd.selector import Selector

Resolver = Callable[[str, Hosts], tuple[bytes, ...]]
_SATYPES = {
    "": SaType.UNSPEC, "esp": SaType.ESP, "esp-old": SaType.ESP, "esp-udp": SaType.ESP, "ah": SaType.AH, "ah-old": SaType.AH,
    "ipcomp": SaType.IPCOMP, "tcp": SaType.TCPSIGNATURE,
}  # fmt: skip
_EVERY = ("esp", "ah", "ipcomp", "tcp")
_WIDEST_OCTETS = 255


@lru_cache(maxsize=1024)
def numeric(host: str, hosts: Hosts) -> tuple[bytes, ...]:
    """The resolver that knows numbers only. () for names."""
    try:
        packed = address.parse(host)
    except ValueError:
        return ()
    return (packed,) if hosts.family in (0, address.family(packed)) else ()


def compile(statement: Statement, source: Source, resolve: Resolver = numeric) -> tuple[Message, ...]:
    """The messages that do what a statement says, in order. Raises BadScript for a host that cannot be found."""
    return _Compiler(source, resolve).messages(statement)


class _Compiler:
    """One statement on its way."""

    def __init__(self, source: Source, resolve: Resolver) -> None:
        self._source = source
        self._resolve = resolve

    def messages(self, statement: Statement) -> tuple[Message, ...]:
        if isinstance(statement, Add):
            kind, satype = Type.UPDATE if statement.is_update else Type.ADD, _SATYPES[statement.sa.protocol]
            pairs = self._pairs(statement.sa.src, statement.sa.dst, statement.hosts)
            return tuple([Message(kind, satype, extensions=self._add(statement, *pair)) for pair in pairs])
        if isinstance(statement, PolicyAdd | PolicyDelete):
            return (self._policy(statement),)
        if isinstance(statement, GetSpi | Get | Delete):
            return (self._one(statement),)
        if isinstance(statement, DeleteAll):
            pairs = self._pairs(statement.src, statement.dst, statement.hosts)
            protocols = (statement.protocol,) if statement.protocol else _EVERY
            return tuple(
                Message(Type.DELETE, _SATYPES[protocol], extensions=_ends(*pair)) for pair in pairs for protocol in protocols
            )
        if isinstance(statement, Flush | Dump):
            return (Message(Type.FLUSH if isinstance(statement, Flush) else Type.DUMP, _SATYPES[statement.protocol]),)
        return (Message(Type.X_SPDDUMP if isinstance(statement, PolicyDump) else Type.X_SPDFLUSH),)

    # -- SAs -----------------------------------------------------------------------------------------------------------

    def _add(self, statement: Add, src: Sockaddr, dst: Sockaddr) -> tuple[x.Extension, ...]:
        sa, terms = statement.sa, statement.terms
        row = terms.encryption or terms.compression
        integrity = terms.integrity
        window_packets = terms.window_packets or 0
        said: list[x.Extension] = []
        # FreeBSD's kernel wants an extension for the key of -E null, too; it has 0 bits.
        if terms.encryption is not None:
            said.append(x.Key.of(Ext.KEY_ENCRYPT, terms.encryption_key))
        if len(terms.integrity_key):
            said.append(x.Key.of(Ext.KEY_AUTH, terms.integrity_key))
        said += [
            _lifetime(Ext.LIFETIME_HARD, terms.hard), _lifetime(Ext.LIFETIME_SOFT, terms.soft),
            x.Sa(sa.spi, min(window_packets, 8 * _WIDEST_OCTETS), 0, integrity.number if integrity is not None else 0,
                 row.number if row is not None else 0, int(terms.flags)),
            x.Sa2(sa.mode, 0, sa.reqid),
        ]  # fmt: skip
        if window_packets > 8 * _WIDEST_OCTETS or window_packets % 8:
            said.append(x.SaReplay(window_packets))
        said += self._natt(terms, statement.hosts)
        if terms.interface:
            said.append(x.Offload(terms.interface))
        if terms.sequence or terms.tfc_octets or terms.align_octets != 4:
            said.append(x.KouraSa(terms.sequence, terms.tfc_octets, terms.align_octets))
        for ext, identity in zip((Ext.IDENTITY_SRC, Ext.IDENTITY_DST), terms.identities or (), strict=False):
            said.append(x.Ident(ext, identity.kind, identity.id, identity.text))
        said += [x.Unknown(number, octets) for number, octets in terms.extra]
        return (*said, *_ends(src, dst))

    def _natt(self, terms: Terms, hosts: Hosts) -> list[x.Extension]:
        natt = terms.natt
        if natt is None:
            return []
        said: list[x.Extension] = [x.NatType(NATT_ESPINUDP)]
        for original, ext, port_ext, port in (
            (natt.oai, Ext.X_NAT_T_OAI, Ext.X_NAT_T_SPORT, natt.sport),
            (natt.oar, Ext.X_NAT_T_OAR, Ext.X_NAT_T_DPORT, natt.dport),
        ):
            if original is not None:
                said.append(_host(ext, self._single(original, hosts)))
            said.append(x.NatPort(port_ext, port))
        return [*said, x.NatFrag(natt.frag_octets)] if natt.frag_octets else said

    def _one(self, statement: GetSpi | Get | Delete) -> Message:
        sa = statement.sa
        kind = {GetSpi: Type.GETSPI, Get: Type.GET, Delete: Type.DELETE}[type(statement)]
        src, dst = self._pair(sa, statement.hosts)
        said: list[x.Extension] = [x.Sa2(sa.mode, 0, sa.reqid)]
        if isinstance(statement, GetSpi):
            said += [x.SpiRange(sa.spi, sa.spi)] if sa.spi else []
        else:
            said.insert(0, x.Sa(sa.spi))
        return Message(kind, _SATYPES[sa.protocol], extensions=(*said, *_ends(src, dst)))

    # -- policies ------------------------------------------------------------------------------------------------------

    def _policy(self, statement: PolicyAdd | PolicyDelete) -> Message:
        if isinstance(statement, PolicyDelete):
            kind, policy = Type.X_SPDDELETE, Policy(statement.direction, Action.DISCARD)
            keeps_reqids = False
        else:
            keeps_reqids = statement.keeps_reqids
            kind, policy = Type.X_SPDUPDATE if statement.is_update else Type.X_SPDADD, statement.policy
        selector = self._selector(statement.range, policy.direction, statement.hosts)
        said: list[x.Extension] = [describe(policy)]
        if isinstance(statement, PolicyAdd) and statement.interface:
            said.append(x.Offload(statement.interface))
        if policy.lifetime_s or policy.valid_s:
            said.append(x.Lifetime(Ext.LIFETIME_HARD, 0, 0, policy.lifetime_s, policy.valid_s))
        said += about(policy, keeps_reqids)
        return Message(kind, extensions=(*said, *show.selector_extensions(selector, FREEBSD)))

    def _selector(self, wanted: Range, direction: Direction, hosts: Hosts) -> Selector:
        src, dst = self._single(wanted.src, hosts), self._single(wanted.dst, hosts)
        if len(src.address) != len(dst.address):
            raise self._wrong(wanted.dst, "the two ranges are of two families", "both IPv4 or both IPv6")
        ends = [self._prefix(end, found) for end, found in ((wanted.src, src), (wanted.dst, dst))]
        ports = (wanted.src.port, wanted.dst.port)
        return Selector(direction, ends[0], ends[1], wanted.protocol, *ports, wanted.icmp_type, wanted.icmp_code)

    def _prefix(self, end: Endpoint, found: Sockaddr) -> Prefix:
        bits = 8 * len(found.address)
        if end.prefix is not None and end.prefix > bits:
            raise self._wrong(end, f"a prefix of {end.prefix} bits", f"this family's addresses have {bits}")
        return Prefix(found.address, bits if end.prefix is None else end.prefix)

    # -- addresses -----------------------------------------------------------------------------------------------------

    def _pairs(self, src: Endpoint, dst: Endpoint, hosts: Hosts) -> list[tuple[Sockaddr, Sockaddr]]:
        ones, others = self._every(src, hosts), self._every(dst, hosts)
        found = [(one, other) for one in ones for other in others if len(one.address) == len(other.address)]
        if not found:
            raise self._wrong(dst, "source and destination are of two families", "both IPv4 or both IPv6")
        return found

    def _pair(self, sa: Sa, hosts: Hosts) -> tuple[Sockaddr, Sockaddr]:
        src, dst = self._single(sa.src, hosts), self._single(sa.dst, hosts)
        if len(src.address) != len(dst.address):
            raise self._wrong(sa.dst, "source and destination are of two families", "both IPv4 or both IPv6")
        return src, dst

    def _single(self, end: Endpoint, hosts: Hosts) -> Sockaddr:
        found = self._every(end, hosts)
        if len(found) > 1:
            raise self._wrong(end, f"multiple address specified: {end.host} has {len(found)}", "write the one that is meant")
        return found[0]

    def _every(self, end: Endpoint, hosts: Hosts) -> tuple[Sockaddr, ...]:
        host, zone = end.host, ""
        if "%" in host:
            host, _, zone = host.partition("%")
        if zone and not zone.isdigit():
            raise self._wrong(end, f"the zone {zone} is a name", "write the interface's number: fe80::1%2")
        found = self._resolve(host, hosts)
        if not found:
            family = f"IPv{hosts.family} " if hosts.family else ""
            raise self._wrong(end, f"{end.host} is no {family}address that can be found", "a numeric address, or a name that resolves")
        return tuple([Sockaddr(packed, 0, int(zone or 0)) for packed in found])

    def _wrong(self, end: Endpoint, why: str, hint: str) -> BadScript:
        fault: Fault = fault_at(self._source, end.span.start, end.span.end, why, hint)
        return BadScript((fault,))


def _host(ext: int, sockaddr: Sockaddr) -> x.Address:
    return x.Address(ext, sockaddr, FREEBSD.any_protocol, 8 * len(sockaddr.address))


def _ends(src: Sockaddr, dst: Sockaddr) -> tuple[x.Extension, ...]:
    return _host(Ext.ADDRESS_SRC, src), _host(Ext.ADDRESS_DST, dst)


_UNLIMITED = {ext: x.Lifetime(ext) for ext in (Ext.LIFETIME_HARD, Ext.LIFETIME_SOFT)}


def _lifetime(ext: Ext, limits: Limits) -> x.Lifetime:
    if limits is NO_LIMITS:
        return _UNLIMITED[ext]
    return x.Lifetime(ext, limits.packets, limits.octets, limits.add_s, limits.use_s)
