"""What both ends counted: so that a packet that did not arrive is explained, and a loss outside Koura is known as one.

Names begin with whose counter it is: `koura.` the engine's, `host.` and `peer.` those of the kernel beside it and of the peer. Only what
tells of losses is looked at. What is not in OUTSIDE speaks against us, or against the peer's IPsec, and is no excuse.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from koura.client.control import Control

Counts = Mapping[str, int]
Run = Callable[[str], str]  # a shell script -> what it writes
FILES = "cat /proc/net/snmp /proc/net/netstat /proc/net/snmp6 /proc/net/raw /proc/net/raw6"
LINKS = 'cd /sys/class/net; for file in */statistics/*dropped */statistics/*errors; do echo "$file $(cat "$file")"; done'
THEIRS = "cat /proc/net/xfrm_stat; sed 's/^/softnet /' /proc/net/softnet_stat"
_HARMLESS = ("ok.", "held.", "pmtu.local")  # that the sender of a packet learns how large it may be is no loss
_MOVED = ("received", "sent", "taken", "delivered", "marked")
_TELLING = re.compile(
    r"Xfrm\w+|Ip6?(In|Out)(Hdr|Addr|Csum)Errors|Ip6?(In|Out)(Discards|NoRoutes|TruncatedPkts|UnknownProtos|TooBigErrors)"
    r"|Ip6?Reasm(Fails|Timeout)|Ip6?FragFails|IpExt(In)?(NoRoutes|TruncatedPkts|CsumErrors)|TcpExtIPReversePathFilter"
    r"|Icmp6?(In|Out)(Errors|CsumErrors|TimeExcds)|Udp6?(In|InCsum|Rcvbuf|Sndbuf|Mem)Errors"
)
# A queue between the two that was full, or a program's socket; not our TUN, nor the engine's sockets. And what native hands dropped on
# purpose, because a processor that was busy with others let it wait.
OUTSIDE = re.compile(r"koura\.native\.late|peer\.(eth0\.|softnet|Udp6?(In|Rcvbuf)Errors)|host\.(kt0\.|Udp6?(In|Rcvbuf)Errors)")


def take(directory: Path, ours: Run, theirs: Run) -> Counts:
    """All that tells of losses, now. directory: of the engine's sockets."""
    found = {f"koura.{name}": count for name, count in _engine(directory).items()}
    found |= {f"host.{name}": count for name, count in read(ours(f"{FILES}; {LINKS}")).items()}
    return found | {f"peer.{name}": count for name, count in read(theirs(f"{FILES}; {THEIRS}; {LINKS}")).items()}


def since(before: Counts, after: Counts) -> dict[str, int]:
    """What went up."""
    return {name: count - before.get(name, 0) for name, count in sorted(after.items()) if count > before.get(name, 0)}


def is_outside(changes: Counts) -> bool:
    """Whether all that was counted happened outside Koura, and something was."""
    return bool(changes) and all(OUTSIDE.match(name) for name in changes)


def show(changes: Counts) -> str:
    return ", ".join(f"{name} {count}" for name, count in changes.items()) or "no counter of a loss at either end"


def _engine(directory: Path) -> dict[str, int]:
    with Control(directory, timeout_s=30) as control:
        counters = control.ask("stat", json=True)["counters"]
    assert isinstance(counters, dict)
    reasons, attachments = counters["reasons"], counters["attachments"]
    found = {name: count for name, count in reasons.items() if not name.startswith(_HARMLESS)}
    for name, moved in attachments.items():
        found |= {f"{name}.{what}": count for what, count in moved.items() if what not in _MOVED}
    return found


def read(text: str) -> dict[str, int]:
    """Counters out of the kernel's files: two lines of names and numbers, a name and a number, a table of sockets."""
    found: dict[str, int] = {}
    names: list[str] = []
    for line in text.splitlines():
        words = line.split()
        head = words[0] if words else ""
        if head == "softnet":  # in hex: packets, dropped, ...
            found["softnet"] = found.get("softnet", 0) + int(words[2], 16)
        elif head[:-1].isdigit() and head.endswith(":"):
            name = f"socket of protocol {int(words[1].rpartition(':')[2], 16)}"
            found[name] = found.get(name, 0) + int(words[-1])
        elif head.endswith(":") and names[:1] == [head]:
            pairs = zip([head[:-1] + name for name in names[1:]], words[1:], strict=True)
            found |= {name: int(word) for name, word in pairs if _tells(name)}
            names = []
        elif head.endswith(":"):
            names = words
        elif len(words) == 2 and (_tells(head) or "/statistics/" in head):
            found[head.replace("/statistics/", ".")] = int(words[1])
    return found


def _tells(name: str) -> bool:
    return _TELLING.fullmatch(name) is not None
