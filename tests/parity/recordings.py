"""The recorded cases of tests/vectors/freebsd13, as values. PROVENANCE.md there has the format."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "freebsd13"
# Housekeeping of its memory buffers, which netstat does not show either.
_BUFFERS = frozenset(("input_front", "input_middle", "input_end"))


@dataclass(frozen=True)
class Told:
    """Messages for key sockets: (socket, octets)."""

    socket: int
    octets: bytes


@dataclass(frozen=True)
class Asked:
    """A PF_KEY request: errno of its send(), 0 for taken, and what all sockets received."""

    socket: int
    text: str
    octets: bytes
    errno: int
    told: tuple[Told, ...]


@dataclass(frozen=True)
class Sent:
    """Packets from the peer (none: something the host did by itself), and what came of them."""

    what: str
    packets: tuple[bytes, ...]
    received: tuple[bytes, ...]
    told: tuple[Told, ...]
    counters: tuple[tuple[str, int], ...]
    delivered: tuple[bytes, ...]  # to the port-4500 socket
    words: tuple[str, ...]  # what was received, for a reader
    is_by_host: bool = False


@dataclass(frozen=True)
class Ticked:
    """Time that went by."""

    seconds: float
    received: tuple[bytes, ...]
    told: tuple[Told, ...]


Event = Asked | Sent | Ticked


@dataclass(frozen=True)
class Association:
    """One SA of the last dump, without times."""

    spi: int
    replay: int
    state: int
    auth: int
    encrypt: int
    flags: int
    packets: int
    octets: int
    is_used: bool


@dataclass(frozen=True)
class Recording:
    """One case. `id`: unique, GROUP/NUMBER CASE; tunables as they were set before it."""

    group: str
    id: str
    case: str
    tunables: tuple[tuple[str, str], ...]
    events: tuple[Event, ...]
    sad: tuple[Association, ...]


def groups() -> list[str]:
    """The names of the groups there are."""
    return sorted({path.name.removeprefix("processing-").split(".")[0] for path in VECTORS.glob("processing-*.jsonl*")})


@lru_cache(maxsize=2)
def group(name: str) -> tuple[Recording, ...]:
    """All cases of a group, in order."""
    return tuple(_recording(name, number, json.loads(line)) for number, line in enumerate(_lines(name)))


def _lines(name: str) -> Iterator[str]:
    for path in sorted(VECTORS.glob(f"processing-{name}.jsonl*")):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        yield from text.decode().splitlines()


def _recording(name: str, number: int, row: dict[str, Any]) -> Recording:
    return Recording(
        name, f"{name}/{number:03d} {row['case']}", row["case"], tuple((key, str(value)) for key, value in row["sysctls"].items()),
        _apart([_event(event) for event in row["events"]]), tuple(_association(*parts) for parts in row["sad_after"]),
    )  # fmt: skip


def _apart(events: list[Event]) -> tuple[Event, ...]:
    """A message that came while time went by stands in the recording's event before that, too: once is enough."""
    made: list[Event] = []
    for number, event in enumerate(events):
        following = events[number + 1] if number + 1 < len(events) else None
        if isinstance(event, Sent) and isinstance(following, Ticked):
            made.append(replace(event, told=tuple(one for one in event.told if one not in following.told)))
        else:
            made.append(event)
    return tuple(made)


def _told(rows: list[dict[str, Any]]) -> tuple[Told, ...]:
    return tuple(Told(row["sock"], bytes.fromhex(row["hex"])) for row in rows)


def _event(row: dict[str, Any]) -> Event:
    if row["op"] == "pfkey":
        return Asked(row["sock"], row["text"], bytes.fromhex(row["hex"]), row["errno"], _told(row["replies"]))
    received = tuple(bytes.fromhex(text) for text in row["received"])
    if row["op"] == "tick":
        return Ticked(row["seconds"], received, _told(row["pfkey"]))
    others = row.get("other") or []
    counters = {name.replace(": ", "."): count for name, count in row["counters"].items() if name.split(": ")[1] not in _BUFFERS}
    return Sent(
        row["what"], tuple(bytes.fromhex(text) for text in row["sent"]), received, _told(row["pfkey"]), tuple(sorted(counters.items())),
        tuple(bytes.fromhex(text)[1:] for kind, text in others if kind == "u"), tuple(row["received_as"]), not row["sent"],
    )  # fmt: skip


def _association(sa: dict[str, Any], current: dict[str, Any]) -> Association:
    return Association(
        int(sa["spi"], 16), sa["replay"], sa["state"], sa["auth"], sa["encrypt"], sa["flags"],
        current["allocations"], current["bytes"], current["usetime"] > 0,
    )  # fmt: skip
