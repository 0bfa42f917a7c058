"""Agreement: what two peers agreed on for one SA. Frozen; what packets change is in `hot`. RFC 4301 §4.4.2.1."""

from dataclasses import dataclass, field
from enum import IntFlag

from koura.crypto.algorithm import Algorithm, Kind
from koura.quick import quick
from koura.saindex import SaIndex
from koura.secret import NO_SECRET, Secret


class SaFlags(IntFlag):
    """sadb_sa_flags, FreeBSD's bits, and the three of Linux moved to where FreeBSD has none."""

    NONE = 0
    OLD = 0x0001  # RFC 1826/1827 formats: no sequence number
    IV4B = 0x0010
    DERIV = 0x0020
    CYCSEQ = 0x0040
    RAWCPI = 0x0080
    PRAND = 0x0100
    PZERO = 0x0200
    ESN = 0x0400
    NOPMTUDISC = 0x2000_0000
    DECAP_DSCP = 0x4000_0000
    NOECN = 0x8000_0000


_ESN, _OLD, _NOECN, _DECAP_DSCP = map(int, (SaFlags.ESN, SaFlags.OLD, SaFlags.NOECN, SaFlags.DECAP_DSCP))
_OTHER_PADDING = int(SaFlags.PRAND | SaFlags.PZERO)


@quick
@dataclass(frozen=True, slots=True)
class Limits:
    """One lifetime, soft or hard; 0 means unlimited. RFC 2367 §2.3.2: allocations are packets here."""

    packets: int = 0
    octets: int = 0
    add_s: int = 0
    use_s: int = 0


NO_LIMITS = Limits()


@quick
@dataclass(frozen=True, slots=True)
class Encapsulation:
    """ESP in UDP, RFC 3948. Ports in host order; `oai`/`oar` packed original addresses or b''; frag_octets 0: unset.

    A peer that was followed: the ports are where it is now, `agreed` those that the SA was made with; peer: its address now, b'':
    that of the SA's index, which stays the name that policies and key managers know the SA by.
    """

    sport: int
    dport: int
    oai: bytes = b""
    oar: bytes = b""
    frag_octets: int = 0
    peer: bytes = b""
    agreed: tuple[int, int] = (0, 0)

    @property
    def home(self) -> tuple[int, int]:
        """The ports that the SA was made with."""
        return self.agreed if any(self.agreed) else (self.sport, self.dport)


@dataclass(frozen=True, slots=True)
class Identity:
    """sadb_ident: kind PREFIX 1, FQDN 2, USERFQDN 3, ADDR 4."""

    kind: int
    id: int
    text: bytes


@quick
@dataclass(frozen=True, slots=True)
class Agreement:
    """One SA as agreed. Keys include the salt at their end, as PF_KEY carries them.

    encryption: an AEAD or CIPHER row for ESP, None for AH; compression for IPComp. window_packets 0: no replay check.
    sequence: the 64-bit sequence state at creation (setkey -seq): outbound the last number sent, inbound the highest
    authenticated. tfc_octets: pad the inner packet up to this many octets (RFC 4303 §2.7), 0 never.
    align_octets: AH's ICV padding on IPv4, 4 (RFC 4302) or 8 (Linux's default).
    """

    index: SaIndex
    spi: int
    encryption: Algorithm | None = None
    encryption_key: Secret = NO_SECRET
    integrity: Algorithm | None = None
    integrity_key: Secret = NO_SECRET
    compression: Algorithm | None = None
    flags: SaFlags = SaFlags.NONE
    window_packets: int = 0
    soft: Limits = NO_LIMITS
    hard: Limits = NO_LIMITS
    encapsulation: Encapsulation | None = None
    identity_src: Identity | None = None
    identity_dst: Identity | None = None
    sequence: int = 0
    tfc_octets: int = 0
    align_octets: int = 4
    offload_interface: str = ""
    seq: int = 0  # sadb_msg_seq of the request that created it
    pid: int = 0  # sadb_msg_pid likewise
    is_negotiated: bool = field(default=False, compare=False)  # by a key manager, with keys made for it
    extra: tuple[tuple[int, bytes], ...] = ()  # PF_KEY extensions that we keep and do not understand
    yields_to_newer: bool = field(default=False, compare=False)  # a newer SA of its relation sends, whatever preferred_oldsa says
    # What every packet asks of the fields above.
    is_tunnel: bool = field(init=False, repr=False, compare=False)
    has_esn: bool = field(init=False, repr=False, compare=False)
    is_old: bool = field(init=False, repr=False, compare=False)
    pads_in_sequence: bool = field(init=False, repr=False, compare=False)  # 1, 2, 3, ...: RFC 4303 §2.4
    ignores_ecn: bool = field(init=False, repr=False, compare=False)
    takes_dscp: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        bits = int(self.flags)  # IntFlag's own operators are slow, and a hundred thousand SAs may be added at once.
        put = object.__setattr__
        put(self, "is_tunnel", self.index.mode == 2)
        put(self, "has_esn", bits & _ESN != 0)
        put(self, "is_old", bits & _OLD != 0)
        put(self, "pads_in_sequence", bits & _OTHER_PADDING == 0)
        put(self, "ignores_ecn", bits & _NOECN != 0)
        put(self, "takes_dscp", bits & _DECAP_DSCP != 0)

    @property
    def comes_from(self) -> bytes:
        """Inbound: the address that the peer sends from now."""
        return (self.encapsulation.peer if self.encapsulation is not None else b"") or self.index.src

    @property
    def goes_to(self) -> bytes:
        """Outbound: the address that the peer is at now."""
        return (self.encapsulation.peer if self.encapsulation is not None else b"") or self.index.dst

    @property
    def checked_packets(self) -> int:
        """The window that is checked: none where nothing authenticates, for anybody's number would move it. RFC 4303 §3.4.3."""
        is_aead = self.encryption is not None and self.encryption.kind is Kind.AEAD
        authenticates = is_aead or (self.integrity is not None and self.integrity.icv_octets > 0)
        return self.window_packets if authenticates else 0
