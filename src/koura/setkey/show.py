"""What every form of output shares: a View (clock, names of interfaces, hidden keys), and small texts. setkey.md §5 to §8.

    show_sa        -D, -D -l, get        SAs as FreeBSD's setkey prints them, column for column: scripts parse it
    show_policy    -DP                   policies, likewise
    show_message   -x, -v, -h            PF_KEY messages, decoded element by element, and as octets
    show_json      --json                the same facts as JSON
    show_script    --script              setkey commands that make the same databases again

All of them take `pfkey.message.Message` values of the FreeBSD dialect and give text; nothing is printed and no clock is read here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from koura import address
from koura.crypto import algorithms
from koura.crypto.algorithm import Kind
from koura.pfkey.numbers import SaState, SaType
from koura.pfkey.sockaddr import Sockaddr
from koura.saindex import Mode
from koura.secret import Secret

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
NO_TIME = " " * 20
SATYPES: dict[int, str] = {
    SaType.UNSPEC: "unspec", SaType.AH: "ah", SaType.ESP: "esp", SaType.RSVP: "rsvp", SaType.OSPFV2: "ospfv2", SaType.RIPV2: "ripv2",
    SaType.MIP: "mip", SaType.IPCOMP: "ipcomp", SaType.TCPSIGNATURE: "tcp",
}  # fmt: skip
MODES: dict[int, str] = {Mode.ANY: "any", Mode.TRANSPORT: "transport", Mode.TUNNEL: "tunnel"}
STATES: dict[int, str] = {state: state.name.lower() for state in SaState}
SCOPES: dict[int, str] = {1: "global", 2: "ifnet", 4: "pcb"}


def utc(seconds: int) -> str:
    """`Mon DD HH:MM:SS YYYY` of a UNIX time, in UTC. The command line hands in local time instead."""
    days, rest = divmod(seconds, 86400)
    era, day_of_era = divmod(days + 719468, 146097)  # Days since 0000-03-01, in eras of 400 years.
    year = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    year += 400 * era + (month >= 10)
    return f"{_MONTHS[(month + 2) % 12]} {day:2d} {rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d} {year:4d}"


def _nameless(index: int) -> str:
    return f"if{index}"


@dataclass(frozen=True, slots=True)
class View:
    """How to show. now_s: the time of showing; clock: a UNIX time as `Mon DD HH:MM:SS YYYY`; interface: the name of an index.

    hides_keys: keys come out as asterisks of the same shape. has_ports: tunnel endpoints of policies with their NAT-T ports (-p).
    """

    now_s: int
    clock: Callable[[int], str] = utc
    interface: Callable[[int], str] = _nameless
    hides_keys: bool = False
    has_ports: bool = False

    def time(self, seconds: int) -> str:
        """20 characters; blanks for 0."""
        return self.clock(seconds) if seconds else NO_TIME

    def key(self, secret: Secret, octets: int) -> str:
        """A key as setkey prints it: a blank before every four octets, a new line after 32."""
        return hexdump(secret.reveal()[:octets], self.hides_keys)


def hexdump(octets: bytes, is_hidden: bool = False) -> str:
    """Lower-case hex, a blank before every 4 octets, a new line after every 32 that are followed by more."""
    text = "*" * (2 * len(octets)) if is_hidden else octets.hex()
    words = [f" {text[at : at + 8]}" for at in range(0, len(text), 8)]
    return "\n".join("".join(words[at : at + 8]) for at in range(0, len(words), 8))


def host(sockaddr: Sockaddr) -> str:
    """A numeric address with its zone, if it has one."""
    if not sockaddr.address:
        return "unknown"
    zone = f"%{sockaddr.zone}" if sockaddr.zone else ""
    return address.show(sockaddr.address) + zone


def named(names: dict[int, str], number: int) -> str:
    """The name of a number, or the number itself."""
    return names.get(number, str(number))


def algorithm(kind: Kind, number: int) -> str:
    """The name behind -E (CIPHER), -A (INTEGRITY) or -C (COMPRESSION); none for 0; the number where there is no name."""
    if number == 0:
        return "none"
    row = algorithms.by_number(kind, number)
    return row.name if row is not None else str(number)


def octets(message: bytes) -> Iterator[str]:
    """The lines of -h: an offset and 16 octets each."""
    for at in range(0, len(message), 16):
        yield f"{at:08x}: " + "".join(f"{octet:02x} " for octet in message[at : at + 16])
