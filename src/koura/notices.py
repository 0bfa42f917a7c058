"""What only the host knows, and tells the stack through `Stack.notice`. Values; what they do is in `stack`.

Rank 3: everything below can be named in them, and only `stack` and what lies above it reads them.
"""

from dataclasses import dataclass

from koura.address import Prefix
from koura.spd.policy import Policy


@dataclass(frozen=True, slots=True)
class Granted:
    """The ledger reserved the next block for an SA: it may send up to and with `sequence_end`, and `iv_count` IVs more, from `iv_from`."""

    slot: int
    epoch: int
    sequence_end: int
    iv_count: int
    iv_from: int | None = None  # None: where its IVs end


@dataclass(frozen=True, slots=True)
class SocketPolicy:
    """setsockopt(IP_IPSEC_POLICY): a socket's own policy for the policy's direction. R20, R27, M31. Refused is raised to the caller."""

    socket: int
    policy: Policy
    is_privileged: bool = False


@dataclass(frozen=True, slots=True)
class SocketBound:
    """Which inbound packets are a socket's: its protocol and local end; `remote` b'' while not connected, `local` b'' for every address."""

    socket: int
    protocol: int
    local: bytes
    port: int
    remote: bytes = b""
    remote_port: int = 0


@dataclass(frozen=True, slots=True)
class SocketAccepted:
    """accept(2): the new socket gets copies of the listener's policies (M32)."""

    listener: int
    socket: int


@dataclass(frozen=True, slots=True)
class SocketGone:
    """A socket was closed: its policies end, and it owns no packets any more."""

    socket: int


@dataclass(frozen=True, slots=True)
class PathMtu:
    """What the host knows of a route: packets to `destination` (b'': all others) may have `mtu_octets` on the first link. 0: forget it.

    lasts_s: the kernel refused a larger one: that counts for so long, beside what is known of the route; 0: until something else is said.
    """

    destination: bytes
    mtu_octets: int
    lasts_s: int = 0


@dataclass(frozen=True, slots=True)
class PeerMoved:
    """A peer behind a NAT has a new mapping (someone authenticated it): SAs to and from it move there. RFC 3947 §5.2, M24."""

    old: bytes
    old_port: int
    new: bytes
    new_port: int


@dataclass(frozen=True, slots=True)
class KeySocketOpened:
    """A program opened a PF_KEY socket, numbered by the host; the dialect by name."""

    socket: int
    dialect: str
    pid: int
    is_privileged: bool


@dataclass(frozen=True, slots=True)
class KeySocketGone:
    """A PF_KEY socket was closed."""

    socket: int


@dataclass(frozen=True, slots=True)
class LocalAddresses:
    """The addresses that are this host's; None: every address is, as in replay."""

    addresses: frozenset[bytes] | None


@dataclass(frozen=True, slots=True)
class Bridged:
    """The stack is a bump in the wire (RFC 4301 §3.3): which addresses of the hosts behind it, and of its own, it protects.

    No socket here gets a packet, so what would be for one (IKE on port 4500) is judged by policy like others; and a sender whose packet
    is too large is told by whoever moves packets (TooBig), since only the wire leads to it.
    """

    addresses: frozenset[bytes]
    prefixes: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True)
class EncapsulationPort:
    """A socket asked for ESP in UDP on its port (UDP_ENCAP 2), or no longer does. RFC 3948, M12."""

    port: int
    is_on: bool = True


@dataclass(frozen=True, slots=True)
class SendDummy:
    """Send a dummy packet of `octets` random octets on an outbound SA, to hide how much traffic there is. RFC 4303 §2.6."""

    dst: bytes
    spi: int
    octets: int


@dataclass(frozen=True, slots=True)
class InterfacePolicies:
    """The policies of a virtual tunnel interface, all of them, in place of those it had; () when it goes (M8, M22). index: its number.

    Scope and interface of the policies are filled in here. Every key socket hears of what comes and goes (M37). Refused is raised with
    nothing changed.
    """

    name: str
    index: int
    policies: tuple[Policy, ...] = ()


Notice = (
    Granted
    | SocketPolicy
    | SocketBound
    | SocketAccepted
    | SocketGone
    | PathMtu
    | PeerMoved
    | KeySocketOpened
    | KeySocketGone
    | LocalAddresses
    | Bridged
    | EncapsulationPort
    | SendDummy
    | InterfacePolicies
)
