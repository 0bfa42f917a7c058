"""netstat -s for all that has counters: stats.report, NAT traversal, pfkey, and ends by Reason. processing.md §11, pfkey.md §11; M38."""

from collections.abc import Mapping

from koura.crypto import registry
from koura.pfkey.numbers import Type
from koura.reasons import BY_NAME
from koura.stack import Stack

Attachments = Mapping[str, Mapping[str, int]]  # what each moved and lost, by its name
PROTOCOLS = ("ipsec", "ipsec6", "ah", "esp", "ipcomp", "natt", "pfkey")
MESSAGES = {int(kind): kind.name.lower() for kind in Type}

# field of pfkey.statistics -> its text for one and for others; a histogram stands behind the field that is named
_FIELDS = (
    ("out_total", "request sent from userland", "requests sent from userland"),
    ("out_bytes", "byte sent from userland", "bytes sent from userland"),
    ("out_invlen", "message with invalid length field", "messages with invalid length field"),
    ("out_invver", "message with invalid version field", "messages with invalid version field"),
    ("out_invmsgtype", "message with invalid message type field", "messages with invalid message type field"),
    ("out_tooshort", "message too short", "messages too short"),
    ("out_nomem", "message with memory allocation failure", "messages with memory allocation failure"),
    ("out_dupext", "message with duplicate extension", "messages with duplicate extension"),
    ("out_invexttype", "message with invalid extension type", "messages with invalid extension type"),
    ("out_invsatype", "message with invalid sa type", "messages with invalid sa type"),
    ("out_invaddr", "message with invalid address extension", "messages with invalid address extension"),
    ("in_total", "request sent to userland", "requests sent to userland"),
    ("in_bytes", "byte sent to userland", "bytes sent to userland"),
    ("in_one", "message toward single socket", "messages toward single socket"),
    ("in_all", "message toward all sockets", "messages toward all sockets"),
    ("in_registered", "message toward registered sockets", "messages toward registered sockets"),
    ("in_nomem", "message with memory allocation failure", "messages with memory allocation failure"),
)
GRACE = "sa.grace"
# field -> the counter, its text for one and for others; FreeBSD has no such section
_NATT = (
    ("keepalives_in", "natt.keepalive", "keepalive received", "keepalives received"),
    ("keepalives_out", "natt.keepalive.out", "keepalive sent", "keepalives sent"),
    ("moved", "natt.moved", "peer followed to another address or port", "peers followed to another address or port"),
    ("conflict", "natt.conflict", "packet dropped; another host behind the NAT has this flow",
     "packets dropped; another host behind the NAT has this flow"),
    ("ambiguous", "natt.ambiguous", "packet dropped; for which host behind the NAT is not known",
     "packets dropped; for which host behind the NAT is not known"),
    ("checksum", "natt.checksum", "packet dropped; bad checksum inside", "packets dropped; bad checksum inside"),
    ("short", "natt.short", "datagram too short for IKE or ESP", "datagrams too short for IKE or ESP"),
    ("hdrops", "natt.udp", "datagram with impossible UDP header", "datagrams with impossible UDP headers"),
    ("udpsum", "natt.udp.checksum", "datagram with bad UDP checksum", "datagrams with bad UDP checksums"),
)  # fmt: skip
_HISTOGRAM_BEHIND = {"out_bytes": "out_types", "in_bytes": "in_types"}


def read(stack: Stack, protocol: str) -> Mapping[str, int]:
    """Every counter of one protocol, by field."""
    if protocol == "natt":
        return {field: stack.counters[name] for field, name, _, _ in _NATT}
    if protocol != "pfkey":
        return stack.report.read(protocol)
    statistics = stack.server.statistics
    found: dict[str, int] = {}
    for name, _, _ in _FIELDS:
        found[name] = getattr(statistics, name)
        types = _HISTOGRAM_BEHIND.get(name)
        if types is not None:
            found |= {f"{types}.{_message(kind)}": count for kind, count in sorted(getattr(statistics, types).items())}
    return found


def show(stack: Stack, protocol: str, *, hides_zeros: bool = False) -> str:
    """The section that `netstat -s -p PROTOCOL` prints."""
    if protocol == "natt":
        rows_of = [(stack.counters[name], one, many) for _, name, one, many in _NATT]
        said = [f"\t{count} {one if count == 1 else many}" for count, one, many in rows_of if count or not hides_zeros]
        return "\n".join(["natt:", *said])
    if protocol != "pfkey":
        return stack.report.show(protocol, hides_zeros=hides_zeros)
    statistics = stack.server.statistics
    lines = ["pfkey:"]
    for name, one, many in _FIELDS:
        count = getattr(statistics, name)
        if count or not hides_zeros:
            lines.append(f"\t{count} {one if count == 1 else many}")
        types = _HISTOGRAM_BEHIND.get(name)
        rows = sorted(getattr(statistics, types).items()) if types is not None else []
        if rows:
            lines.append("\thistogram by message type:")
            lines += [f"\t\t{_message(kind)}: {number}" for kind, number in rows]
    return "\n".join(lines)


def _message(kind: int) -> str:
    return MESSAGES.get(kind, f"#{kind}")


def reasons(stack: Stack) -> Mapping[str, int]:
    """How often a packet ended in each way that any did; `sa.grace`: packets that SAs took which were deleted in a rekey."""
    counts = dict(stack.counters.endings())
    taken = stack.sadb.grace.opened_packets
    return counts | {GRACE: taken} if taken else counts


def show_reasons(counts: Mapping[str, int]) -> str:
    """A line for each, with its sentence."""
    sentences = {GRACE: "taken by an SA that was deleted in a rekey: it was under way"}
    sentences |= {name: ending.sentence for name, ending in BY_NAME.items()}
    return "\n".join(("reasons:", *(f"\t{count} {name}: {sentences[name]}" for name, count in counts.items())))


def crypto(stack: Stack) -> dict[str, str]:
    """Who encrypts: the fast path's drivers, or why there is none, and the reference's."""
    drivers = ", ".join(" ".join(part for part in provider if part) for provider in registry.default().providers())
    return {"fast path": stack.read("net.koura.fast"), "reference": drivers}


def show_crypto(stack: Stack) -> str:
    return "\n".join(("crypto:", *(f"\t{name}: {said}" for name, said in crypto(stack).items())))


def show_drivers(drivers: Mapping[str, str]) -> str:
    """How each attachment is read and written."""
    return "\n".join(["drivers:", *(f"\t{name}: {driver}" for name, driver in drivers.items())])


def show_attachments(attached: Attachments) -> str:
    """What each attachment moved and lost; what stayed at 0 is left out, and so are those that did nothing."""
    lines = ["attachments:"]
    for name, moved in attached.items():
        said = ", ".join(f"{count} {what}" for what, count in moved.items() if count)
        if said:
            lines.append(f"\t{name}: {said}")
    return "\n".join(lines)
