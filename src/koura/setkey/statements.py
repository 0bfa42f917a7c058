"""What a script says, command by command: values without addresses looked up and without messages made. setkey(8).

Names of hosts stay names here; `compile` resolves them. Everything that can be judged without that has been judged: numbers
are in range, keys have the size their algorithm needs, options fit the protocol.
"""

from dataclasses import dataclass, field

from koura.crypto.algorithm import Algorithm
from koura.quick import quick
from koura.sadb.agreement import NO_LIMITS, Identity, Limits, SaFlags
from koura.saindex import Direction, Mode
from koura.secret import NO_SECRET, Secret
from koura.setkey.faults import NOWHERE, Span
from koura.setkey.lexer import Command
from koura.spd.policy import Policy


@dataclass(frozen=True, slots=True)
class Hosts:
    """How names are looked up for one command: -4, -6 (family 4 or 6, 0 for both) and -n (numeric only)."""

    family: int = 0
    is_numeric: bool = False


ANY_HOSTS = Hosts()


@quick
@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address as written: a name or number, with prefix length (None: the whole address) and port (0: any, or none given).

    command, word: where it stands.
    """

    host: str
    prefix: int | None = None
    port: int = 0
    command: Command | None = field(default=None, compare=False, repr=False)
    word: int = field(default=0, compare=False, repr=False)

    @property
    def span(self) -> Span:
        """Where it stands in the script."""
        if self.command is None:
            return NOWHERE
        start = self.command.start_of(self.word)
        return Span(start, start + len(self.host), self.command.line)


@quick
@dataclass(frozen=True, slots=True)
class Sa:
    """The SA of a command: protocol word, addresses, SPI, mode and reqid. has_ports: esp-udp, or ports behind the addresses."""

    protocol: str  # esp esp-old esp-udp ah ah-old ipcomp tcp
    src: Endpoint
    dst: Endpoint
    spi: int = 0
    mode: Mode = Mode.ANY
    reqid: int = 0


@quick
@dataclass(frozen=True, slots=True)
class Natt:
    """-natt: the original addresses of initiator and responder and the UDP ports in use. For esp-udp the originals are None."""

    sport: int
    dport: int
    oai: Endpoint | None = None
    oar: Endpoint | None = None
    frag_octets: int = 0


@quick
@dataclass(frozen=True, slots=True)
class Terms:
    """What an SA does with packets, as `add` and `update` say it. window_packets None: -r was not given."""

    flags: SaFlags = SaFlags.CYCSEQ
    window_packets: int | None = None
    hard: Limits = NO_LIMITS
    soft: Limits = NO_LIMITS
    natt: Natt | None = None
    encryption: Algorithm | None = None
    encryption_key: Secret = NO_SECRET
    integrity: Algorithm | None = None
    integrity_key: Secret = NO_SECRET
    compression: Algorithm | None = None
    sequence: int = 0
    tfc_octets: int = 0
    align_octets: int = 4
    interface: str = ""
    identities: tuple[Identity, Identity] | None = None
    extra: tuple[tuple[int, bytes], ...] = ()  # extensions given as octets, by number


@quick
@dataclass(frozen=True, slots=True)
class Add:
    """add, or update where `is_update` says so."""

    sa: Sa
    terms: Terms
    hosts: Hosts = ANY_HOSTS
    is_update: bool = False
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class GetSpi:
    """getspi: a larval SA; spi 0 lets the stack choose."""

    sa: Sa
    hosts: Hosts = ANY_HOSTS
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Get:
    """get: one SA, to be shown."""

    sa: Sa
    hosts: Hosts = ANY_HOSTS
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Delete:
    """delete: one SA."""

    sa: Sa
    hosts: Hosts = ANY_HOSTS
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class DeleteAll:
    """deleteall: every SA between two addresses, of one protocol or ('') of all."""

    src: Endpoint
    dst: Endpoint
    protocol: str = ""
    hosts: Hosts = ANY_HOSTS
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Flush:
    """flush: every SA of one protocol or ('') of all."""

    protocol: str = ""
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Dump:
    """dump: every SA of one protocol or ('') of all, to be shown."""

    protocol: str = ""
    span: Span = field(default=NOWHERE, compare=False)


@quick
@dataclass(frozen=True, slots=True)
class Range:
    """The selector of a policy command. protocol 255: any. ICMP type and code None: any."""

    src: Endpoint
    dst: Endpoint
    protocol: int = 255
    icmp_type: int | None = None
    icmp_code: int | None = None


@quick
@dataclass(frozen=True, slots=True)
class PolicyAdd:
    """spdadd, or spdupdate where `is_update` says so. `policy` carries no selector: that is in `range`, still by name.

    keeps_reqids: `unique#N` was written: the request id is N, also beyond the manual range.
    """

    range: Range
    policy: Policy
    interface: str = ""
    hosts: Hosts = ANY_HOSTS
    is_update: bool = False
    span: Span = field(default=NOWHERE, compare=False)
    keeps_reqids: bool = False


@dataclass(frozen=True, slots=True)
class PolicyDelete:
    """spddelete: the policy of this selector and direction."""

    range: Range
    direction: Direction
    hosts: Hosts = ANY_HOSTS
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class PolicyFlush:
    """spdflush."""

    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class PolicyDump:
    """spddump: every policy, to be shown."""

    span: Span = field(default=NOWHERE, compare=False)


Statement = Add | GetSpi | Get | Delete | DeleteAll | Flush | Dump | PolicyAdd | PolicyDelete | PolicyFlush | PolicyDump
