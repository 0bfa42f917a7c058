"""The recorded conversations of tests/vectors/pfkey, as values."""

import json
from dataclasses import dataclass
from pathlib import Path

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "pfkey"


@dataclass(frozen=True)
class Case:
    """One FreeBSD case: octets sent on s0, octets that s0, s1, s2 received; send_errno 0: send() succeeded."""

    name: str
    request: bytes
    replies: tuple[tuple[bytes, ...], ...]
    send_errno: int


def freebsd_cases() -> list[Case]:
    cases = []
    for line in (VECTORS / "freebsd13-cases.jsonl").read_text().splitlines():
        row = json.loads(line)
        errnos = [m["decoded"]["send_errno"] for m in row["replies"][0] if "send_errno" in m["decoded"]]
        replies = tuple(tuple(bytes.fromhex(m["hex"]) for m in got if "send_errno" not in m["decoded"]) for got in row["replies"])
        cases.append(Case(row["case"], bytes.fromhex(row["request"]), replies, errnos[0] if errnos else 0))
    return cases


@dataclass(frozen=True)
class Step:
    """One line of a client's recording. what: open, close, in (from the client), out (the stand-in's reply, no reference)."""

    what: str
    client: int
    octets: bytes = b""


CLIENTS = sorted(path.name for path in VECTORS.glob("*.jsonl") if not path.name.startswith("freebsd13"))


def conversation(name: str) -> list[Step]:
    steps = []
    for line in (VECTORS / name).read_text().splitlines():
        row = json.loads(line)
        if row.get("dir") in ("open", "close", "in", "out"):
            steps.append(Step(row["dir"], row.get("client", 0), bytes.fromhex(row.get("hex", ""))))
    return steps
