"""The admin protocol, codec only: one JSON object per datagram of a SOCK_SEQPACKET socket, request and reply.

    {"do": "sysctl", "name": "net.inet.ipsec.dfbit"}            -> {"ok": true, "name": ..., "value": "0"}
    {"do": "sysctl", "name": "net.inet.ipsec.dfbit", "value": "7x"}  -> {"ok": false, "errno": "EINVAL", "why": "..."}

A request names a verb and its arguments; unknown verbs, missing or extra arguments and wrong types are refused by name. Long
answers come as several datagrams: all but the last carry `"more": true`. Who may send what: docs/architecture.md, Rights.
Not here: sockets (host, client), what a verb does (daemon).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from koura.errors import Errno, Malformed, Refused

MESSAGE_OCTETS = 65536
Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that can be asked: its arguments with their types, whether it only reads, whether a descriptor comes along."""

    name: str
    required: Mapping[str, type] = field(default_factory=dict)
    optional: Mapping[str, type] = field(default_factory=dict)
    only_reads: bool = False
    takes_descriptor: bool = False


VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("version", only_reads=True),
        Verb("sysctl", {"name": str}, {"value": str}),
        Verb("sysctl-list", {}, {"prefix": str}, only_reads=True),
        Verb("stat", {}, {"protocol": str, "nonzero": bool, "json": bool}, only_reads=True),
        Verb("load", {}, {"text": str, "file": str, "check": bool}, takes_descriptor=True),
        Verb("clients", only_reads=True),
        Verb("adopt", {"pid": int, "uid": int, "dialect": str}, {"command": str, "is_privileged": bool}, takes_descriptor=True),
        Verb("socket-policy", {"socket": int, "level": int, "policy": str}, {"dialect": str, "pid": int, "is_privileged": bool}),
        Verb("socket-policy-get", {"socket": int, "level": int, "direction": int}, {"dialect": str}, only_reads=True),
        Verb("socket-where", {"socket": int, "protocol": int}, {"local": list, "remote": list, "listener": int}),
        Verb("socket-gone", {"socket": int}),
        Verb("encapsulation", {"socket": int, "kind": int}, {"port": int}),
        Verb("capture", takes_descriptor=True),
        Verb("filter-add", {"pass": bool}, {"number": int, "way": str, "stage": str, "expression": str}),
        Verb("filter-list", only_reads=True),
        Verb("filter-del", {"number": int}),
        Verb("filter-flush"),
        Verb("tunnel-add", {"name": str, "reqid": int, "local": str, "remote": str}, {"addresses": list, "mtu": int}),
        Verb("tunnel-del", {"name": str}),
        Verb("tunnel-list", only_reads=True),
        Verb("reload"),
        Verb("down"),
    )
}


def write(message: Mapping[str, Value]) -> bytes:
    """One datagram. Raises Malformed when it would be larger than MESSAGE_OCTETS."""
    octets = json.dumps(message, separators=(",", ":"), sort_keys=False, allow_nan=False).encode()
    if len(octets) > MESSAGE_OCTETS:
        raise Malformed("control", f"a message of {len(octets)} octets; the most is {MESSAGE_OCTETS}")
    return octets


def read(octets: bytes) -> dict[str, Value]:
    """The object in a datagram. Raises Malformed."""
    try:
        value = json.loads(octets)
    except (ValueError, RecursionError) as error:
        raise Malformed("control", "not JSON") from error
    if not isinstance(value, dict):
        raise Malformed("control", "not a JSON object")
    return value


def request(octets: bytes) -> tuple[Verb, dict[str, Value]]:
    """A request: its verb and arguments, checked against the table. Raises Malformed (no JSON) and Refused (bad request)."""
    message = read(octets)
    name = message.pop("do", None)
    verb = VERBS.get(name) if isinstance(name, str) else None
    if verb is None:
        raise Refused(Errno.EOPNOTSUPP, f"no verb {name!r}; there are: {', '.join(VERBS)}")
    for key, kind in verb.required.items():
        if key not in message:
            raise Refused(Errno.EINVAL, f"{verb.name}: {key} is missing")
        _check(verb, key, message[key], kind)
    for key, value in message.items():
        if key in verb.required:
            continue
        if key not in verb.optional:
            raise Refused(Errno.EINVAL, f"{verb.name}: takes no {key}")
        _check(verb, key, value, verb.optional[key])
    return verb, message


def _check(verb: Verb, key: str, value: Value, kind: type) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Refused(Errno.EINVAL, f"{verb.name}: {key} is not {kind.__name__}")


def accepted(**values: Value) -> dict[str, Value]:
    """The reply of a request that was done."""
    return {"ok": True, **values}


def refused(error: Refused) -> dict[str, Value]:
    """The reply of a request that was not. Of a long reason it has the beginning."""
    return {"ok": False, "errno": error.errno.name, "why": error.why[: MESSAGE_OCTETS // 8]}


def result(message: Mapping[str, Value]) -> Mapping[str, Value]:
    """What a client makes of a reply: itself, or Refused as the daemon said it."""
    if message.get("ok") is True:
        return message
    try:
        errno = Errno[str(message.get("errno"))]
    except KeyError:
        errno = Errno.EIO
    raise Refused(errno, str(message.get("why", "the daemon gave no reason")))


def split(key: str, items: list[Value], **values: Value) -> Iterator[dict[str, Value]]:
    """A long list as several replies under `key`, each well below MESSAGE_OCTETS."""
    part: list[Value] = []
    size = 0
    for item in items:
        octets = len(json.dumps(item)) + 1
        if part and size + octets > MESSAGE_OCTETS // 2:
            yield {"ok": True, key: part, "more": True, **values}
            part, size = [], 0
        part.append(item)
        size += octets
    yield {"ok": True, key: part, **values}
